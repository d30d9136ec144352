//! LL-HLS delivery directives from a query string [HLS 6.2.5].

use super::respond::Problem;
use crate::package::window::{Directives, Skip};

/// Reads the `_HLS_` directives of a query. Others, known or not, are none of our business and ignored.
///
/// # Errors
/// A 400 that names the parameter and says what to write.
pub fn parse(query: Option<&str>) -> Result<Directives, Problem> {
    let mut directives = Directives::default();
    let mut skip = None;
    for pair in query.unwrap_or("").split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "_HLS_msn" => once(name, &mut directives.msn, number(name, value)?)?,
            "_HLS_part" => once(name, &mut directives.part, number(name, value)?)?,
            "_HLS_skip" => once(name, &mut skip, skipping(value)?)?,
            _ => {}
        }
    }
    directives.skip = skip.unwrap_or_default();
    if directives.part.is_some() && directives.msn.is_none() {
        return Err(wrong("_HLS_part means nothing without _HLS_msn: send both, or neither."));
    }
    Ok(directives)
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Problem> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| wrong(&format!("{name} must be a decimal integer such as {name}=42; it was {}.", quoted(value))))
}

fn skipping(value: &str) -> Result<Skip, Problem> {
    match value {
        "YES" => Ok(Skip::Yes),
        "v2" => Ok(Skip::V2),
        _ => Err(wrong(&format!("_HLS_skip must be YES or v2; it was {}.", quoted(value)))),
    }
}

fn once<T>(name: &str, slot: &mut Option<T>, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong(&format!("{name} is there twice: send it once."))),
    }
}

fn wrong(detail: &str) -> Problem {
    Problem::bad_request("directive_malformed", detail)
}

/// What the client sent, short enough to print.
fn quoted(value: &str) -> String {
    format!("{:?}", value.chars().take(32).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_and_the_rest_of_the_query_is_ignored() {
        let read = |query| parse(Some(query)).unwrap();
        assert_eq!(parse(None).unwrap(), Directives::default());
        assert_eq!(read(""), Directives::default());
        assert_eq!(read("_HLS_msn=7"), Directives { msn: Some(7), ..Directives::default() });
        assert_eq!(
            read("sid=1&_HLS_msn=7&_HLS_part=0&_HLS_skip=YES&_HLS_push=1&x"),
            Directives { msn: Some(7), part: Some(0), skip: Skip::Yes }
        );
        assert_eq!(read("_HLS_skip=v2").skip, Skip::V2);
    }

    #[test]
    fn a_malformed_directive_is_named_with_its_fix() {
        for (query, name, fix) in [
            ("_HLS_msn=", "_HLS_msn", "decimal integer"),
            ("_HLS_msn=-1", "_HLS_msn", "decimal integer"),
            ("_HLS_msn=+1", "_HLS_msn", "decimal integer"),
            ("_HLS_msn=1e3", "_HLS_msn", "decimal integer"),
            ("_HLS_msn=99999999999999999999", "_HLS_msn", "decimal integer"),
            ("_HLS_msn=1&_HLS_part=4294967296", "_HLS_part", "decimal integer"),
            ("_HLS_part=1", "_HLS_part", "without _HLS_msn"),
            ("_HLS_skip=yes", "_HLS_skip", "YES or v2"),
            ("_HLS_msn=1&_HLS_msn=1", "_HLS_msn", "twice"),
        ] {
            let problem = parse(Some(query)).expect_err(query);
            assert_eq!(problem.status, http::StatusCode::BAD_REQUEST, "{query}");
            assert!(problem.detail.contains(name) && problem.detail.contains(fix), "{query}: {}", problem.detail);
        }
    }

    #[test]
    fn any_text_is_either_read_or_refused() {
        proptest::proptest!(|(query in ".{0,200}")| {
            if let Err(problem) = parse(Some(&query)) {
                proptest::prop_assert!(problem.detail.len() < 400);
            }
        });
    }
}
