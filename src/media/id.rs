//! Names of things: a prefix of two letters and a ULID, as in `se_01K5…`.

use ulid::Ulid;

/// The ULID behind `prefix` in `text`.
///
/// # Errors
/// A sentence with the grammar.
pub fn parse(prefix: &str, text: &str) -> Result<Ulid, String> {
    // 26 characters hold 130 bits, an id 128: above 7 the first one would name another id.
    let canonical = |rest: &&str| rest.bytes().next().is_some_and(|first| (b'0'..=b'7').contains(&first));
    let ulid = text.strip_prefix(prefix).filter(canonical).and_then(|rest| Ulid::from_string(rest).ok());
    ulid.ok_or_else(|| format!("{text:?} is no id of this kind: write \"{prefix}\" and 26 characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_prefix_and_a_ulid() {
        let ulid = Ulid::from_parts(1_700_000_000_000, 7);
        assert_eq!(parse("ch_", &format!("ch_{ulid}")), Ok(ulid));
        // The last one has more bits than an id, and would name another one.
        let wide = format!("ch_8{}", &ulid.to_string()[1..]);
        for bad in [format!("se_{ulid}"), ulid.to_string(), "ch_".into(), format!("ch_{ulid}0"), String::new(), wide] {
            assert!(parse("ch_", &bad).is_err(), "{bad}");
        }
    }
}
