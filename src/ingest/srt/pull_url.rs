//! `srt://host:port?…` of a source that Rung calls, as an operator writes it and as it is shown.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::url::SrtUrl;
use crate::media::key::Passphrase;
use crate::telemetry::Redacted;

/// Stands for a stream id or a passphrase where the address is shown. As long as a passphrase has to be, so that what was
/// shown reads as an address.
const MASK: &str = "**********";
const RENDEZVOUS: &str = "mode=rendezvous";
/// An address is at most this long, bytes.
const LENGTH_MAX: usize = 2_048;

/// Where a channel's source listens. `Display`, `Debug` and `Serialize` show neither stream id nor passphrase.
#[derive(Clone, PartialEq, Eq)]
pub struct PullUrl {
    text: Redacted<String>,
    url: Arc<SrtUrl>,
    rendezvous: bool,
}

impl PullUrl {
    /// # Errors
    /// A sentence that says what is wrong and what would be right; it never repeats a secret.
    pub fn parse(text: &str) -> Result<PullUrl, String> {
        if text.len() > LENGTH_MAX {
            return Err(format!("an SRT address has at most {LENGTH_MAX} bytes"));
        }
        // Of all modes this one is for sources alone.
        let (rendezvous, rest) = match text.split_once('?') {
            Some((head, query)) if query.split('&').any(|pair| pair == RENDEZVOUS) => {
                let others: Vec<&str> = query.split('&').filter(|pair| *pair != RENDEZVOUS).collect();
                (true, format!("{head}?{}", others.join("&")))
            }
            _ => (false, text.to_owned()),
        };
        let url = SrtUrl::parse(&rest)?;
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
        if !url.host.chars().all(fits) {
            return Err("the host is a name or an address, such as srt://encoder.example.com:9000".to_owned());
        }
        if let Some(passphrase) = &url.passphrase {
            Passphrase::new(passphrase.expose())?;
        }
        Ok(PullUrl { text: Redacted::new(text.to_owned()), url: Arc::new(url), rendezvous })
    }

    pub fn url(&self) -> &SrtUrl {
        &self.url
    }

    /// The address with its secrets: for keeping it, never for showing.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The source calls as well, from the port of the address to ours.
    pub fn is_rendezvous(&self) -> bool {
        self.rendezvous
    }

    /// It was shown before: its secrets are not in it.
    pub fn is_masked(&self) -> bool {
        let masked = |secret: &Redacted<String>| secret.expose() == MASK;
        masked(&self.url.stream_id) || self.url.passphrase.as_ref().is_some_and(masked)
    }
}

impl fmt::Display for PullUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((head, query)) = self.text.expose().split_once('?') else { return f.write_str(self.text.expose()) };
        let shown = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name @ ("streamid" | "passphrase"), secret)) if !secret.is_empty() => format!("{name}={MASK}"),
            _ => pair.to_owned(),
        });
        write!(f, "{head}?{}", shown.collect::<Vec<_>>().join("&"))
    }
}

impl fmt::Debug for PullUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As it is shown.
impl Serialize for PullUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// As it was written, or shown.
impl<'de> Deserialize<'de> for PullUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PullUrl, D::Error> {
        let text = Redacted::<String>::deserialize(deserializer)?;
        PullUrl::parse(text.expose()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: &str =
        "srt://[2001:db8::1]:9000?latency=300&streamid=#!::r=cam,k=planted&passphrase=planted%20secret&pbkeylen=32";

    #[test]
    fn what_is_shown_has_no_secret_and_reads_as_an_address_that_knows_it_has_none() {
        let pull = PullUrl::parse(SECRETS).unwrap();
        assert_eq!(pull.url().passphrase.as_ref().unwrap().expose(), "planted secret");
        assert_eq!((pull.expose(), pull.is_masked()), (SECRETS, false));
        let shown = pull.to_string();
        assert_eq!(shown, "srt://[2001:db8::1]:9000?latency=300&streamid=**********&passphrase=**********&pbkeylen=32");
        for text in [format!("{pull:?}"), format!("{pull:#?}"), serde_json::to_string(&pull).unwrap()] {
            assert!(!text.contains("planted"), "{text}");
        }
        let again: PullUrl = serde_json::from_value(shown.as_str().into()).unwrap();
        assert_eq!((again.to_string(), again.is_masked()), (shown, true));
        let meets = PullUrl::parse("srt://h:1?mode=rendezvous&latency=300").unwrap();
        assert!(meets.is_rendezvous() && !pull.is_rendezvous() && meets.to_string().contains("mode=rendezvous"));
        assert_eq!(meets.url().latency.as_millis(), 300);
        let plain = PullUrl::parse("srt://encoder.example.com:9000").unwrap();
        assert_eq!((plain.to_string().as_str(), plain.is_masked()), ("srt://encoder.example.com:9000", false));
    }

    #[test]
    fn what_is_no_address_of_a_source_is_a_sentence_without_secrets() {
        for (url, want) in [
            ("http://h:1?passphrase=planted secret", "begins with srt://"),
            ("srt://h?passphrase=planted secret", "needs a port"),
            ("srt://user:planted@h:1", "a name or an address"),
            ("srt://h:1?mode=listener&passphrase=planted secret", "mode=caller"),
            ("srt://h:1?latenzy=1&passphrase=planted secret", "unknown SRT option"),
            ("srt://h:1?passphrase=planted", "10 to 79"),
            ("srt://h:1?passphrase=planted%00secret", "no NUL"),
        ] {
            let error = PullUrl::parse(url).unwrap_err();
            assert!(error.contains(want) && !error.contains("planted"), "{url}: {error}");
        }
        assert!(PullUrl::parse(&format!("srt://h:1?streamid={}", "x".repeat(4_096))).is_err());
    }
}
