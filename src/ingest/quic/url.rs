//! `quic://host:port/channel/key?pin=…&latency=…&max_bitrate=…`: where to publish to.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::identity::Pin;
use crate::ingest::query::options;
use crate::telemetry::Redacted;

/// A publish address. Its `Display` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicUrl {
    pub host: String,
    pub port: u16,
    /// `<channel>`, or with a leg `<channel>/a`.
    pub name: String,
    pub key: Redacted<String>,
    /// The receiver's certificate; `None`: an authority vouches for it.
    pub pin: Option<Pin>,
    /// Asked of the receiver, which may grant more.
    pub latency: Duration,
    /// Bits per second; `None`: what the source turns out to need.
    pub max_bitrate: Option<u64>,
}

/// Where receivers listen unless they say otherwise.
const PORT: u16 = 9_443;
const LATENCY: Duration = Duration::from_millis(200);

impl QuicUrl {
    /// `latency` is in milliseconds, `max_bitrate` in bits per second (`8M`, `800k`).
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right; it never repeats a key.
    pub fn parse(text: &str) -> Result<QuicUrl, String> {
        let example = "quic://HOST:9443/CHANNEL/KEY?pin=SHA256";
        let rest =
            text.strip_prefix("quic://").ok_or_else(|| format!("a QUIC address begins with quic://: {example}"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = host_and_port(authority)?;
        let mut parts = path.split('/');
        let (channel, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let leg = parts.next();
        if channel.is_empty() || key.is_empty() || parts.next().is_some() {
            return Err(format!("a QUIC address names channel and key, and a leg if there are two: {example}"));
        }
        let name = match leg {
            None => channel.to_owned(),
            Some(leg @ ("a" | "b")) => format!("{channel}/{leg}"),
            Some(_) => return Err("behind the key there may only be a leg, /a or /b".to_owned()),
        };
        let options = options(query)?;
        let known = ["pin", "latency", "max_bitrate"];
        if let Some(unknown) = options.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("unknown QUIC option {unknown:?}: known are {}", known.join(", ")));
        }
        let option = |name: &str| options.get(name).map(String::as_str);
        Ok(QuicUrl {
            host,
            port,
            name,
            key: Redacted::new(key.to_owned()),
            pin: option("pin").map(str::parse).transpose()?,
            latency: latency(option("latency"))?,
            max_bitrate: option("max_bitrate").map(bitrate).transpose()?,
        })
    }

    /// The same address for stream `number`: `{n}` in channel and key becomes the number.
    #[must_use]
    pub fn numbered(&self, number: u32) -> QuicUrl {
        let number = number.to_string();
        let key = Redacted::new(self.key.expose().replace("{n}", &number));
        QuicUrl { name: self.name.replace("{n}", &number), key, ..self.clone() }
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

impl fmt::Display for QuicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "quic://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "quic://{}:{}", self.host, self.port)
        }
    }
}

fn host_and_port(authority: &str) -> Result<(String, u16), String> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or_default())),
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(['[', ']']) {
        return Err("a QUIC address needs a host: quic://HOST:9443/CHANNEL/KEY".to_owned());
    }
    let port = port.map_or(Ok(PORT), str::parse).ok().filter(|port| *port > 0);
    port.map(|port| (host.to_owned(), port)).ok_or_else(|| "the port of a QUIC address is 1 to 65535".to_owned())
}

fn latency(text: Option<&str>) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(LATENCY) };
    let ms = text.parse().ok().filter(|ms| (1..=10_000).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(|| "latency is in milliseconds, 1 to 10000".to_owned())
}

fn bitrate(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes() {
        [.., b'k' | b'K'] => (&text[..text.len() - 1], 1_000.0),
        [.., b'M'] => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate = digits.parse::<f64>().ok().map(|number| number * unit).filter(|rate| (1e5..=1e9).contains(rate));
    rate.map(|rate| rate as u64)
        .ok_or_else(|| "max_bitrate is in bits per second, 100k to 1000M, for example 8M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_with_all_its_parts_and_with_few() {
        let pin = Pin::of(b"a certificate");
        let all = format!("quic://[::1]:1/news/k3y/b?pin={pin}&latency=500&max_bitrate=7.5M");
        let want = QuicUrl {
            host: "::1".into(),
            port: 1,
            name: "news/b".into(),
            key: Redacted::new("k3y".into()),
            pin: Some(pin),
            latency: Duration::from_millis(500),
            max_bitrate: Some(7_500_000),
        };
        assert_eq!((QuicUrl::parse(&all), want.to_string().as_str()), (Ok(want.clone()), "quic://[::1]:1"));
        let few = QuicUrl::parse("quic://box/ch-{n}/k{n}").unwrap();
        assert_eq!((few.port, few.pin, few.latency, few.max_bitrate), (PORT, None, LATENCY, None));
        let seventh = few.numbered(7);
        assert_eq!((seventh.name.as_str(), seventh.key.expose().as_str()), ("ch-7", "k7"));
        for (text, rate) in [("900k", 900_000), ("250000", 250_000), ("1000M", 1_000_000_000)] {
            assert_eq!(QuicUrl::parse(&format!("quic://h/a/b?max_bitrate={text}")).unwrap().max_bitrate, Some(rate));
        }
    }

    #[test]
    fn what_is_wrong_is_a_sentence_without_secrets() {
        for (url, want) in [
            ("srt://h:1", "begins with quic://"),
            ("quic://h:0/a/secret", "1 to 65535"),
            ("quic://h:99999/a/secret", "1 to 65535"),
            ("quic://:9443/a/secret", "needs a host"),
            ("quic://[]:9443/a/secret", "needs a host"),
            ("quic://a]:9443/a/secret", "needs a host"),
            ("quic://[::1]99/a/secret", "1 to 65535"),
            ("quic://h:1", "names channel and key"),
            ("quic://h:1/a", "names channel and key"),
            ("quic://h:1/a/secret/a/b", "names channel and key"),
            ("quic://h:1/a/secret/c", "a leg, /a or /b"),
            ("quic://h:1/a/secret?latenzy=1", "unknown QUIC option \"latenzy\""),
            ("quic://h:1/a/secret?latency=0", "1 to 10000"),
            ("quic://h:1/a/secret?max_bitrate=1", "100k to 1000M"),
            ("quic://h:1/a/secret?max_bitrate=fast", "100k to 1000M"),
            ("quic://h:1/a/secret?pin=12", "64 hexadecimal digits"),
        ] {
            let error = QuicUrl::parse(url).unwrap_err();
            assert!(error.contains(want) && !error.contains("secret"), "{url}: {error}");
        }
        let url = QuicUrl::parse("quic://h:1/a/verysecret").unwrap();
        assert!(!format!("{url:?} {url}").contains("verysecret"));
    }
}
