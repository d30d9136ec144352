//! Rung's checks and benches on a real GPU. One program that needs the driver and nothing else: no Rust, no libav, no
//! network. `tools/gpu-archive.sh` packs it with its streams; docs/hardware.md says how to read what it finds.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is there to print")]

mod bench;
mod card;
mod checks;
mod clips;
mod raw;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use card::Card;
use report::{Found, Report, Trouble};

const HELP: &str = "\
rung-gpu: Rung's checks and benches on a real GPU.

  rung-gpu [all|check|bench] [options]

  --short                  a quick look: few rounds, small pictures (what a driver's double can carry)
  --driver-folder PATH     where the driver's libraries lie, if not where the loader looks
  --clips PATH             streams of tools/gpu-clips.sh (clips beside the program)
  --encode-double PATH     stands in for NVENC on a card without one (lib/librung_double_encode.so beside the program)
  --out PATH               writes gpu.md there

What the machine can not do is said as `SKIP <capability>: why`; capabilities are cuda, nvdec, nvenc, encoder, clips,
worker. RUNG_REQUIRE=cuda,nvdec makes a failure of what is skipped for want of those. Ends with 1 if anything failed.
";

/// What is to be done, and with what.
pub(crate) struct Plan {
    task: Task,
    extent: Extent,
    folder: Option<PathBuf>,
    clips: PathBuf,
    encode_double: Option<PathBuf>,
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    All,
    Check,
    Bench,
    /// A process of `check`'s: the worker's pipeline.
    Pipeline,
    /// A process of `bench`'s: how long it takes to start.
    Start,
    Help,
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Short,
}

fn main() -> ExitCode {
    let plan = match Plan::read(std::env::args_os().skip(1)) {
        Ok(plan) => plan,
        Err(what) => {
            eprintln!("rung-gpu: {what}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match plan.task {
        Task::Help => print!("{HELP}"),
        Task::Pipeline => {
            return part(Card::open(plan.folder.as_deref()).and_then(|c| checks::pipeline::within(&c, &plan)));
        }
        Task::Start => return part(bench::start::within(&plan)),
        Task::All | Task::Check | Task::Bench => return whole(&plan),
    }
    ExitCode::SUCCESS
}

/// A process's part of a check or bench.
fn part(found: Found<String>) -> ExitCode {
    match found {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(Trouble::Skip { why, .. } | Trouble::Fail(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn whole(plan: &Plan) -> ExitCode {
    let mut report = Report::new(&std::env::var("RUNG_REQUIRE").unwrap_or_default(), plan.out.clone());
    match Card::open(plan.folder.as_deref()) {
        Ok(card) => {
            println!("{}", card.facts.heading());
            report.is_about(card.facts.heading(), card.facts.lines());
            if card.facts.double {
                report.say("This is the driver's double, not a card: no time or rate below says anything about a GPU.");
            }
            if plan.task != Task::Bench {
                checks::run(&card, plan, &mut report);
            }
            if plan.task != Task::Check {
                bench::run(&card, plan, &mut report);
            }
        }
        Err(trouble) => report.outcome("a card", Err(trouble)),
    }
    if let Err(why) = report.save() {
        eprintln!("rung-gpu: {why}");
        return ExitCode::FAILURE;
    }
    if report.failed().is_empty() {
        println!("\nnothing failed");
        return ExitCode::SUCCESS;
    }
    println!("\nfailed: {}", report.failed().join("; "));
    ExitCode::FAILURE
}

impl Plan {
    fn read(mut arguments: impl Iterator<Item = OsString>) -> Result<Plan, String> {
        let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned)).unwrap_or_default();
        let mut plan = Plan {
            task: Task::All,
            extent: Extent::Whole,
            folder: None,
            clips: beside.join("clips"),
            encode_double: Some(beside.join("lib/librung_double_encode.so")),
            out: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().map(PathBuf::from).ok_or_else(|| format!("{} needs a value", argument.display()));
            match argument.to_str() {
                Some("all") => plan.task = Task::All,
                Some("check") => plan.task = Task::Check,
                Some("bench") => plan.task = Task::Bench,
                Some("pipeline") => plan.task = Task::Pipeline,
                Some("start") => plan.task = Task::Start,
                Some("--help" | "-h") => plan.task = Task::Help,
                Some("--short") => plan.extent = Extent::Short,
                // As `cargo bench` calls every bench.
                Some("--bench") => {}
                Some("--driver-folder") => plan.folder = Some(value()?),
                Some("--clips") => plan.clips = value()?,
                Some("--encode-double") => plan.encode_double = Some(value()?),
                Some("--out") => plan.out = Some(value()?),
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        Ok(plan)
    }
}
