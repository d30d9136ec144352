//! What a PTX text declares: its version, its target, and the parameters of each kernel.

/// The declarations of a PTX text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ptx {
    pub(crate) version: (u32, u32),
    /// 75 for sm_75.
    pub(crate) target: u32,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Of each parameter, in order.
    pub(crate) bytes: Vec<usize>,
}

impl Ptx {
    /// # Errors
    /// Why this is no PTX.
    pub(crate) fn read(text: &str) -> Result<Ptx, String> {
        let text = without_comments(text)?;
        let mut words = Words { text: &text };
        let (mut version, mut target, mut entries) = (None, None, Vec::new());
        while let Some(word) = words.next() {
            match word {
                ".version" => version = Some(version_of(words.next().unwrap_or(""))?),
                ".target" => target = Some(target_of(words.next().unwrap_or(""))?),
                ".entry" => entries.push(Entry::read(&mut words)?),
                _ => {}
            }
        }
        let version = version.ok_or("it has no .version")?;
        Ok(Ptx { version, target: target.ok_or("it has no .target")?, entries })
    }
}

impl Entry {
    fn read(words: &mut Words<'_>) -> Result<Entry, String> {
        let name = words.next().filter(|word| is_name(word)).ok_or("a kernel without a name")?.to_owned();
        let mut bytes = Vec::new();
        match words.next() {
            // A kernel without parameters.
            Some("{") => return Ok(Entry { name, bytes }),
            Some("(") => {}
            _ => return Err(format!("{name}: neither parameters nor a body")),
        }
        let mut parameter = Vec::new();
        loop {
            let word = words.next().ok_or_else(|| format!("{name}: its parameters do not end"))?;
            if matches!(word, "," | ")") {
                if !parameter.is_empty() {
                    let read = parameter_bytes(&parameter);
                    bytes.push(read.ok_or_else(|| format!("{name}: parameter {:?}", parameter.join(" ")))?);
                    parameter.clear();
                }
                if word == ")" {
                    return Ok(Entry { name, bytes });
                }
            } else {
                parameter.push(word);
            }
        }
    }
}

/// As in `.param .align 8 .b8 name[464]`: one type, a name, perhaps how many.
fn parameter_bytes(words: &[&str]) -> Option<usize> {
    let (".param", words) = words.split_first().map(|(first, rest)| (*first, rest))? else { return None };
    let unit = words.iter().find_map(|word| type_bytes(word))?;
    match words {
        [.., name, "[", count, "]"] if is_name(name) => unit.checked_mul(count.parse().ok()?),
        [.., name] if is_name(name) => Some(unit),
        _ => None,
    }
}

fn type_bytes(word: &str) -> Option<usize> {
    Some(match word {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" | ".f16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        ".b128" => 16,
        _ => return None,
    })
}

fn is_name(word: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$' | '%');
    word.starts_with(first) && word.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn version_of(word: &str) -> Result<(u32, u32), String> {
    let numbers = word.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.ok_or_else(|| format!(".version {word}"))
}

fn target_of(word: &str) -> Result<u32, String> {
    let digits = word.strip_prefix("sm_").map(|rest| rest.trim_end_matches(['a', 'f']));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!(".target {word}"))
}

/// Names, numbers and directives; every other sign by itself.
struct Words<'a> {
    text: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.text.trim_start();
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '$' | '%');
        let end = text.find(|c| !part(c)).unwrap_or(text.len()).max(text.chars().next()?.len_utf8());
        let (word, rest) = text.split_at(end);
        self.text = rest;
        Some(word)
    }
}

fn without_comments(mut text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    while let Some(at) = text.find("//").into_iter().chain(text.find("/*")).min() {
        plain.push_str(&text[..at]);
        let (end, length) = if text[at..].starts_with("//") { ("\n", 0) } else { ("*/", 2) };
        match text[at + 2..].find(end) {
            Some(found) => text = &text[at + 2 + found + length..],
            None if length == 0 => text = "",
            None => return Err("a comment does not end".to_owned()),
        }
        plain.push(' ');
    }
    plain.push_str(text);
    Ok(plain)
}

/// The newest PTX that a driver of this CUDA version takes: as the PTX ISA's release history lists them.
pub(crate) fn newest(cuda: u64) -> (u32, u32) {
    match cuda {
        ..11_000 => (6, 5),
        11_000..12_000 => (7, (cuda as u32 - 11_000) / 10),
        12_000..12_060 => (8, (cuda as u32 - 12_000) / 10),
        12_060..12_070 => (8, 5),
        12_070..12_080 => (8, 6),
        12_080..12_090 => (8, 7),
        12_090..13_000 => (8, 8),
        13_000.. => (9, (cuda as u32 - 13_000) / 10),
    }
}
