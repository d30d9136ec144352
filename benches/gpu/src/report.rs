//! What was found: lines on the terminal while it goes on, and Markdown for docs/hardware.md.

use rung_worker::gpu::error::Error;
use rung_worker::gpu::ladder::LadderError;
use rung_worker::gpu::load::Absent;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Why something gave no result.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// This machine can not do it, and need not.
    Skip {
        capability: &'static str,
        why: String,
    },
    Fail(String),
}

pub(crate) type Found<T> = Result<T, Trouble>;

impl Trouble {
    pub(crate) fn skip(capability: &'static str, why: impl Into<String>) -> Trouble {
        Trouble::Skip { capability, why: why.into() }
    }
}

/// A failure, in a sentence.
pub(crate) fn fail<T>(why: impl Into<String>) -> Found<T> {
    Err(Trouble::Fail(why.into()))
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Fail(error.to_string())
    }
}

impl From<Absent> for Trouble {
    fn from(absent: Absent) -> Trouble {
        Trouble::Fail(absent.to_string())
    }
}

impl From<LadderError> for Trouble {
    fn from(error: LadderError) -> Trouble {
        Trouble::Fail(error.to_string())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Fail(error.to_string())
    }
}

/// What `body` finds; one that stops is a failure like others, and what follows is still tried.
pub(crate) fn guarded(body: impl FnOnce() -> Found<String>) -> Found<String> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        fail(format!("it stopped: {}", said.unwrap_or("without a word")))
    })
}

/// Everything that was found so far.
pub(crate) struct Report {
    heading: String,
    facts: Vec<(String, String)>,
    /// Where the Markdown is kept up to date: a driver that hangs takes nothing with it.
    out: Option<PathBuf>,
    markdown: String,
    answers: Vec<(&'static str, String)>,
    failed: Vec<String>,
    /// Capabilities that `RUNG_REQUIRE` names: without one of them the run fails.
    required: BTreeSet<String>,
}

impl Report {
    /// `required`: capabilities, with commas between them.
    pub(crate) fn new(required: &str, out: Option<PathBuf>) -> Report {
        let required = required.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Report {
            heading: "No card".to_owned(),
            facts: Vec::new(),
            out,
            markdown: String::new(),
            answers: Vec::new(),
            failed: Vec::new(),
            required,
        }
    }

    /// Which card all of it is about.
    pub(crate) fn is_about(&mut self, heading: String, facts: Vec<(String, String)>) {
        (self.heading, self.facts) = (heading, facts);
    }

    /// A chapter of the report.
    pub(crate) fn chapter(&mut self, title: &str) {
        println!("\n== {title}");
        self.add(&format!("\n## {title}\n"));
    }

    /// A sentence of the report.
    pub(crate) fn say(&mut self, sentence: &str) {
        println!("{sentence}");
        self.add(&format!("\n{sentence}\n"));
    }

    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let mut table = format!("\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
        for row in rows {
            writeln!(table, "| {} |", row.join(" | ")).expect("a String takes all");
        }
        println!("{}", table.trim_end());
        self.add(&table);
    }

    /// The answer to one of the questions of docs/hardware.md.
    pub(crate) fn answer(&mut self, question: &'static str, answer: impl Into<String>) {
        self.answers.push((question, answer.into()));
    }

    /// What a check or a bench came to; `detail` of those that passed is printed.
    pub(crate) fn outcome(&mut self, name: &str, found: Found<String>) {
        let line = match found {
            Ok(detail) if detail.is_empty() => format!("ok {name}"),
            Ok(detail) => format!("ok {name}: {detail}"),
            Err(Trouble::Skip { capability, why }) if self.required.contains(capability) => {
                self.failed.push(name.to_owned());
                format!("FAIL {name}: {capability} is required: {why}")
            }
            Err(Trouble::Skip { capability, why }) => format!("SKIP {capability}: {why} ({name})"),
            Err(Trouble::Fail(why)) => {
                self.failed.push(name.to_owned());
                format!("FAIL {name}: {why}")
            }
        };
        println!("{line}");
        self.add(&format!("- {line}\n"));
        if let Err(why) = self.save() {
            println!("{why}");
        }
    }

    /// Writes the Markdown, if it is to be kept.
    ///
    /// # Errors
    /// A sentence: it can not be written.
    pub(crate) fn save(&self) -> Result<(), String> {
        let Some(out) = &self.out else { return Ok(()) };
        let path = out.join("gpu.md");
        let written = std::fs::create_dir_all(out).and_then(|()| std::fs::write(&path, self.text()));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(crate) fn failed(&self) -> &[String] {
        &self.failed
    }

    /// The whole of it.
    fn text(&self) -> String {
        let mut text = format!("# {}\n\n", self.heading);
        for (what, value) in &self.facts {
            writeln!(text, "- {what}: {value}").expect("a String takes all");
        }
        text += &self.markdown;
        if !self.answers.is_empty() {
            text += "\n## Answers, as rows for docs/hardware.md\n\n| question | card, driver, date | answer |\n|---|---|---|\n";
            for (question, answer) in &self.answers {
                writeln!(text, "| {question} | {} | {answer} |", self.heading).expect("a String takes all");
            }
        }
        text
    }

    fn add(&mut self, text: &str) {
        self.markdown.push_str(text);
    }
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value that `share` of them do not exceed.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.max(1) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_of_what_is_required_is_a_failure() {
        let mut report = Report::new("cuda, nvenc", None);
        report.outcome("a", Err(Trouble::skip("nvdec", "none")));
        assert_eq!(report.failed(), &[] as &[String]);
        report.outcome("b", Err(Trouble::skip("nvenc", "none")));
        report.outcome("c", fail("wrong"));
        report.outcome("d", Ok(String::new()));
        assert_eq!(report.failed(), ["b", "c"]);
        report.outcome("e", guarded(|| panic!("of {}", 1)));
        assert_eq!(report.failed(), ["b", "c", "e"]);
        report.is_about("A card".to_owned(), vec![("driver".to_owned(), "1".to_owned())]);
        let text = report.text();
        assert!(text.starts_with("# A card\n\n- driver: 1\n") && text.contains("FAIL e: it stopped: of 1"));
        assert!(text.contains("- SKIP nvdec: none (a)\n- FAIL b: nvenc is required: none\n- FAIL c: wrong\n- ok d\n"));
    }

    #[test]
    fn middles_and_quantiles_are_values_that_were_measured() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile((1..=100).map(f64::from).collect(), 0.99), 99.0);
        assert_eq!(quantile(vec![5.0], 0.5), 5.0);
    }
}
