//! `srt://host:port?streamid=…&passphrase=…&latency=…`: where to publish to.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::filter::Filter;
use super::greeting::Rejection;
use crate::ingest::query::options;
use crate::telemetry::Redacted;

/// A publish address. Its `Display` shows neither stream id nor passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrtUrl {
    pub host: String,
    pub port: u16,
    /// Holds the publish key.
    pub stream_id: Redacted<String>,
    pub passphrase: Option<Redacted<String>>,
    /// AES key length in bytes, 16, 24 or 32; only with a passphrase.
    pub key_length: u8,
    /// Packets under one key; 0: as many as is usual, 2^24.
    pub key_refresh: u64,
    /// Asked of the listener, which may use more.
    pub latency: Duration,
    /// The packet filter (FEC) that is asked of the listener: `fec,cols:10,rows:5`. Empty: none.
    pub filter: String,
}

const OPTIONS: [&str; 9] =
    ["streamid", "passphrase", "latency", "pbkeylen", "mode", "transtype", "pkt_size", "kmrefreshrate", "packetfilter"];

impl SrtUrl {
    /// Takes `%XX` and, as other tools do, a `#` inside the query. `latency` is in milliseconds.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right; it never repeats a key.
    pub fn parse(text: &str) -> Result<SrtUrl, String> {
        let rest =
            text.strip_prefix("srt://").ok_or("an SRT address begins with srt://, for example srt://host:9000")?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, port) = authority.trim_end_matches('/').rsplit_once(':').unwrap_or((authority, ""));
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().ok().filter(|p| *p > 0).ok_or("an SRT address needs a port: srt://host:9000")?;
        if host.is_empty() {
            return Err("an SRT address needs a host: srt://host:9000".to_owned());
        }
        let options = options(query)?;
        if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
            return Err(format!("unknown SRT option {unknown:?}: known are {}", OPTIONS.join(", ")));
        }
        let option = |name: &str| options.get(name).map(String::as_str);
        if option("mode").is_some_and(|mode| mode != "caller") || option("transtype").is_some_and(|t| t != "live") {
            return Err("only mode=caller and transtype=live are supported".to_owned());
        }
        let url = SrtUrl {
            host: host.to_owned(),
            port,
            stream_id: Redacted::new(option("streamid").unwrap_or_default().to_owned()),
            passphrase: option("passphrase").filter(|p| !p.is_empty()).map(|p| Redacted::new(p.to_owned())),
            key_length: key_length(option("pbkeylen"))?,
            key_refresh: key_refresh(option("kmrefreshrate"))?,
            latency: latency(option("latency"))?,
            filter: filter(option("packetfilter"))?,
        };
        if url.passphrase.as_ref().is_some_and(|p| !(10..=79).contains(&p.expose().len())) {
            return Err("an SRT passphrase has 10 to 79 bytes".to_owned());
        }
        if url.stream_id.expose().len() > 512 {
            return Err("an SRT stream id has at most 512 bytes".to_owned());
        }
        Ok(url)
    }

    /// The same address for stream `number`: `{n}` in the stream id becomes the number.
    #[must_use]
    pub fn numbered(&self, number: u32) -> SrtUrl {
        let stream_id = Redacted::new(self.stream_id.expose().replace("{n}", &number.to_string()));
        SrtUrl { stream_id, ..self.clone() }
    }

    /// Looks the host up; may wait for a name server.
    ///
    /// # Errors
    /// A sentence.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let mut addresses = found.map_err(|e| format!("cannot find the host {:?}: {e}", self.host))?;
        addresses.next().ok_or_else(|| format!("the host {:?} has no address", self.host))
    }
}

impl fmt::Display for SrtUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "srt://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "srt://{}:{}", self.host, self.port)
        }
    }
}

fn key_length(text: Option<&str>) -> Result<u8, String> {
    match text {
        None | Some("0" | "16") => Ok(16),
        Some("32") => Ok(32),
        Some("24") => Ok(24),
        Some(_) => Err("pbkeylen is 16 (AES-128), 24 (AES-192) or 32 (AES-256)".to_owned()),
    }
}

fn key_refresh(text: Option<&str>) -> Result<u64, String> {
    let packets = text.map_or(Ok(0), str::parse::<u64>).ok().filter(|packets| *packets == 0 || *packets >= 16);
    packets.ok_or_else(|| "kmrefreshrate is a number of packets, 16 or more".to_owned())
}

fn latency(text: Option<&str>) -> Result<Duration, String> {
    let ms = text.map_or(Ok(120), str::parse::<u64>).ok().filter(|ms| (1..=65_535).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(|| "latency is in milliseconds, 1 to 65535".to_owned())
}

fn filter(text: Option<&str>) -> Result<String, String> {
    let text = text.unwrap_or_default();
    // The listener may know the rest.
    let fits = text.is_empty() || text == "fec" || Filter::parse(text).is_some();
    fits.then(|| text.to_owned()).ok_or_else(|| format!("packetfilter: {}", Rejection::Filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_reads_plain_and_coded_stream_ids() {
        let plain =
            SrtUrl::parse("srt://[::1]:9000?streamid=#!::r=news,k=key,m=publish&latency=200&pbkeylen=32").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.key_length), ("::1", 9000, 32));
        assert_eq!(plain.latency, Duration::from_millis(200));
        assert_eq!(plain.stream_id.expose(), "#!::r=news,k=key,m=publish");
        let coded =
            SrtUrl::parse("srt://box:1?streamid=%23!::r%3Dnews%2Ck=k%C3%A9y&passphrase=100%25+long%zz").unwrap();
        assert_eq!(coded.stream_id.expose(), "#!::r=news,k=kéy");
        assert_eq!(coded.passphrase.unwrap().expose(), "100%+long%zz");
        assert_eq!(SrtUrl::parse("srt://h:1?streamid=ch-{n}/k").unwrap().numbered(7).stream_id.expose(), "ch-7/k");
    }

    #[test]
    fn what_is_wrong_is_a_sentence_without_secrets() {
        for (url, want) in [
            ("http://h:1", "begins with srt://"),
            ("srt://h", "needs a port"),
            ("srt://h:0", "needs a port"),
            ("srt://:9000", "needs a host"),
            ("srt://h:1?mode=listener", "mode=caller"),
            ("srt://h:1?latenzy=1", "unknown SRT option \"latenzy\""),
            ("srt://h:1?pbkeylen=20", "AES-192"),
            ("srt://h:1?kmrefreshrate=3", "16 or more"),
            ("srt://h:1?passphrase=short", "10 to 79"),
            ("srt://h:1?latency=0", "milliseconds"),
            ("srt://h:1?packetfilter=fec,cols:1", "cols from 2 on"),
        ] {
            let error = SrtUrl::parse(url).unwrap_err();
            assert!(error.contains(want) && !error.contains("short"), "{url}: {error}");
        }
        let url = SrtUrl::parse("srt://h:1?streamid=a/secretkey&passphrase=verysecret").unwrap();
        assert!(!format!("{url:?} {url}").contains("secretkey") && !format!("{url:?} {url}").contains("verysecret"));
    }
}
