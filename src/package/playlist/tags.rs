//! The spelling of values [HLS 4.2].

use std::fmt;

/// EXT-X-VERSION of a playlist with EXT-X-MAP, and of the multivariant one above it [HLS 8].
pub const VERSION_MAP: u32 = 6;
/// Of a multivariant playlist that names a service of CEA-708 [HLS 8].
pub const VERSION_SERVICE: u32 = 7;
/// Of a delta update [HLS 8].
pub const VERSION_SKIP: u32 = 9;
/// Of a delta update without old date ranges [HLS 8].
pub const VERSION_SKIP_DATES: u32 = 10;

/// Seconds with five decimals, rounded, from a count of `timescale` units: integer arithmetic only.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    pub ticks: u64,
    pub timescale: u32,
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = u128::from(self.timescale.max(1));
        let units = (u128::from(self.ticks) * 100_000 + scale / 2) / scale;
        write!(f, "{}.{:05}", units / 100_000, units % 100_000)
    }
}

/// Milliseconds as seconds with three decimals.
#[derive(Clone, Copy, Debug)]
pub struct Millis(pub u32);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// A quoted-string: what the grammar forbids in one is left out [HLS 4.2].
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars().filter(|c| !matches!(c, '"' | '\r' | '\n')) {
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

/// BCP 47 tag and English name of an ISO 639-2 code; the code itself where the table has none.
pub fn language(code: &str) -> (&str, &str) {
    const KNOWN: [(&str, &str, &str); 34] = [
        ("ara", "ar", "Arabic"),
        ("bul", "bg", "Bulgarian"),
        ("ces", "cs", "Czech"),
        ("cze", "cs", "Czech"),
        ("dan", "da", "Danish"),
        ("deu", "de", "German"),
        ("dut", "nl", "Dutch"),
        ("ell", "el", "Greek"),
        ("eng", "en", "English"),
        ("fin", "fi", "Finnish"),
        ("fra", "fr", "French"),
        ("fre", "fr", "French"),
        ("ger", "de", "German"),
        ("gre", "el", "Greek"),
        ("heb", "he", "Hebrew"),
        ("hin", "hi", "Hindi"),
        ("hrv", "hr", "Croatian"),
        ("hun", "hu", "Hungarian"),
        ("ita", "it", "Italian"),
        ("jpn", "ja", "Japanese"),
        ("kor", "ko", "Korean"),
        ("nld", "nl", "Dutch"),
        ("nor", "no", "Norwegian"),
        ("pol", "pl", "Polish"),
        ("por", "pt", "Portuguese"),
        ("ron", "ro", "Romanian"),
        ("rus", "ru", "Russian"),
        ("spa", "es", "Spanish"),
        ("srp", "sr", "Serbian"),
        ("swe", "sv", "Swedish"),
        ("tur", "tr", "Turkish"),
        ("ukr", "uk", "Ukrainian"),
        ("vie", "vi", "Vietnamese"),
        ("zho", "zh", "Chinese"),
    ];
    KNOWN.iter().find(|(known, ..)| *known == code).map_or((code, code), |(_, tag, name)| (tag, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_to_five_decimals_without_floats() {
        assert_eq!(Seconds { ticks: 10_010, timescale: 30_000 }.to_string(), "0.33367");
        assert_eq!(Seconds { ticks: 60_060, timescale: 30_000 }.to_string(), "2.00200");
        assert_eq!(Seconds { ticks: 94 * 1024, timescale: 48_000 }.to_string(), "2.00533");
    }

    #[test]
    fn quoted_strings_cannot_be_broken_out_of() {
        assert_eq!(Quoted("a\"\r\n#EXT").to_string(), "\"a#EXT\"");
    }
}
