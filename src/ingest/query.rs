//! What stands behind the question mark of a publish address.

use std::collections::BTreeMap;

/// # Errors
/// A sentence; it never repeats a value.
pub(super) fn options(query: &str) -> Result<BTreeMap<String, String>, String> {
    let mut options = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        options.insert(name.to_owned(), decode(value).ok_or_else(|| format!("the value of {name} is not UTF-8"))?);
    }
    Ok(options)
}

/// `%41` is `A`; a `%` that begins no such group stands for itself.
fn decode(text: &str) -> Option<String> {
    let (mut out, bytes) = (Vec::with_capacity(text.len()), text.as_bytes());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let group = text.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let coded = group.filter(|g| g.bytes().all(|b| b.is_ascii_hexdigit()));
        match coded.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}
