//! Certificates and their keys: from PEM files to something that a handshake can use, with words for what is wrong.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::time::{SystemClock, Wall};

/// Larger files are no certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Mode bits that let everybody read.
const READ_BY_OTHERS: u32 = 0o004;

/// A certificate chain and its key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM: the server's certificate first, then those that lead to a root.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// What is wrong with a file, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub file: PathBuf,
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl std::error::Error for Trouble {}

/// A pair's bytes as they were read, whatever they are.
#[derive(Debug)]
pub(super) struct Material {
    pair: Pair,
    chain: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
    open_to_all: bool,
}

/// A certificate that can be served.
#[derive(Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    file: PathBuf,
    key_file: PathBuf,
    /// DNS names in lower case; `*.` stands for one label.
    names: Vec<String>,
    /// Seconds since 1970.
    valid_from: i64,
    valid_until: i64,
    /// Can sign other certificates.
    authority: bool,
    open_to_all: bool,
}

/// Reads every file; what cannot be read is judged with the rest.
pub(super) fn read(pairs: &[Pair]) -> Vec<Material> {
    pairs
        .iter()
        .map(|pair| Material {
            chain: read_file(&pair.certificate),
            key: read_file(&pair.key),
            open_to_all: std::fs::metadata(&pair.key).is_ok_and(|meta| meta.mode() & READ_BY_OTHERS != 0),
            pair: pair.clone(),
        })
        .collect()
}

/// Reads and checks `pairs`.
///
/// # Errors
/// The first thing that is wrong with a file.
pub fn load(pairs: &[Pair]) -> Result<Vec<Certificate>, Trouble> {
    judge(&read(pairs))
}

pub(super) fn judge(materials: &[Material]) -> Result<Vec<Certificate>, Trouble> {
    materials.iter().map(Certificate::of).collect()
}

/// Equal where all files are.
pub(super) fn digest(materials: &[Material]) -> [u8; 32] {
    let mut sum = Sha256::new();
    for bytes in materials.iter().flat_map(|material| [&material.chain, &material.key]) {
        let bytes = bytes.as_ref().map_or(&b"none"[..], Vec::as_slice);
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    }
    sum.finalize().into()
}

fn read_file(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Certificate {
    fn of(material: &Material) -> Result<Certificate, Trouble> {
        let Pair { certificate: file, key: key_file } = &material.pair;
        let chain = chain_of(file, &material.chain)?;
        let trouble = |what: String| Trouble { file: file.clone(), what };
        let first = parse(&chain[0]).ok_or_else(|| trouble("its first certificate is not X.509".into()))?;
        let names = names_of(&first);
        let (valid_from, valid_until) =
            (first.validity().not_before.timestamp(), first.validity().not_after.timestamp());
        let authority = first.is_ca();
        let key = certified(&material.pair, chain.clone(), &material.key)?;
        Ok(Certificate {
            key: Arc::new(key),
            file: file.clone(),
            key_file: key_file.clone(),
            names,
            valid_from,
            valid_until,
            authority,
            open_to_all: material.open_to_all,
        })
    }

    /// Whether it is for this host name (lower case).
    pub(super) fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
            None => name == host,
        })
    }

    /// When it ends, seconds since 1970.
    pub fn valid_until(&self) -> i64 {
        self.valid_until
    }

    /// What an operator should know, though it can be served.
    pub fn warnings(&self, now: Wall) -> Vec<Trouble> {
        let mut warnings = Vec::new();
        let mut warn = |file: &PathBuf, what: String| warnings.push(Trouble { file: file.clone(), what });
        let seconds = now.0.div_euclid(1_000_000_000);
        if self.valid_until < seconds {
            let what =
                format!("expired on {}: clients refuse it; put a renewed one in its place", day(self.valid_until));
            warn(&self.file, what);
        }
        if self.valid_from > seconds {
            let from = day(self.valid_from);
            let today = day(seconds);
            warn(
                &self.file,
                format!("is not valid before {from}, and this machine's clock says {today}: clients refuse it"),
            );
        }
        if self.names.is_empty() {
            warn(&self.file, "names no host (subjectAltName): clients refuse it".into());
        }
        if self.authority {
            let what = "is an authority's own (CA:TRUE): some clients refuse it as a server's; make one with CA:FALSE";
            warn(&self.file, what.into());
        }
        if self.open_to_all {
            let what = format!("may be read by everybody on this machine: chmod 640 {}", self.key_file.display());
            warn(&self.key_file, what);
        }
        warnings
    }

    /// Its names and its last day, for people.
    pub fn describe(&self) -> String {
        let names = if self.names.is_empty() { "no name".to_owned() } else { self.names.join(" ") };
        format!("{names}, valid until {}", day(self.valid_until))
    }
}

/// Warnings of all, as of now.
pub fn warnings(certificates: &[Certificate]) -> Vec<Trouble> {
    let now = SystemClock::wall();
    certificates.iter().flat_map(|certificate| certificate.warnings(now)).collect()
}

fn chain_of(file: &Path, bytes: &io::Result<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let trouble = |what: String| Trouble { file: file.to_path_buf(), what };
    let bytes = bytes.as_ref().map_err(|e| trouble(format!("cannot be read: {e}")))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let chain = chain.map_err(|e| trouble(format!("is damaged PEM ({e})")))?;
    if chain.is_empty() {
        let what = "holds no certificate: give PEM (-----BEGIN CERTIFICATE-----), the server's own first; DER becomes PEM \
                    by `openssl x509 -inform der`";
        return Err(trouble(what.into()));
    }
    Ok(chain)
}

fn certified(
    pair: &Pair,
    chain: Vec<CertificateDer<'static>>,
    bytes: &io::Result<Vec<u8>>,
) -> Result<CertifiedKey, Trouble> {
    let file = &pair.key;
    let trouble = |what: String| Trouble { file: file.clone(), what };
    let bytes = bytes.as_ref().map_err(|e| trouble(format!("cannot be read: {e}")))?;
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|_| {
        let encrypted = memchr::memmem::find(bytes, b"ENCRYPTED").is_some();
        trouble(if encrypted {
            format!("is encrypted with a passphrase: decrypt it (openssl pkey -in {} -out KEY)", file.display())
        } else {
            "holds no private key: give PEM with PKCS#8, PKCS#1 or SEC1 (-----BEGIN … PRIVATE KEY-----)".into()
        })
    })?;
    let signer = ring::sign::any_supported_type(&key).map_err(|_| {
        trouble("is no key that is taken here: RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, Ed25519".into())
    })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(TlsError::InconsistentKeys(_)) => {
            let later = later_match(&certified);
            Err(trouble(match later {
                Some(number) => format!(
                    "is the key of certificate {number} in {}: the server's own certificate comes first there",
                    pair.certificate.display()
                ),
                None => format!(
                    "does not match {}: give the key that the certificate was made with",
                    pair.certificate.display()
                ),
            }))
        }
        Err(e) => Err(Trouble { file: pair.certificate.clone(), what: format!("cannot be used: {e}") }),
    }
}

/// The number (from 1) of the certificate behind the first one that the key belongs to.
fn later_match(certified: &CertifiedKey) -> Option<usize> {
    let matches = |one: &CertificateDer<'static>| {
        CertifiedKey::new(vec![one.clone()], Arc::clone(&certified.key)).keys_match().is_ok()
    };
    certified.cert.iter().skip(1).position(matches).map(|at| at + 2)
}

fn parse<'a>(der: &'a CertificateDer<'static>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |general: &GeneralName<'_>| match general {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(std::net::Ipv4Addr::from(v4).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string()),
        },
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

/// The date of an instant in seconds since 1970.
fn day(seconds: i64) -> String {
    let mut text = Wall(seconds.saturating_mul(1_000_000_000)).to_string();
    text.truncate(text.find('T').unwrap_or(text.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn keep(folder: &Path, name: &str, text: &str) -> PathBuf {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let file = folder.join(name);
        let mut open =
            std::fs::OpenOptions::new().mode(0o600).create(true).truncate(true).write(true).open(&file).unwrap();
        open.write_all(text.as_bytes()).unwrap();
        file
    }

    fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn check(chain: &str, key: &str) -> Result<Certificate, String> {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (keep(folder.path(), "chain.pem", chain), keep(folder.path(), "key.pem", key));
        let mut loaded = load(&[Pair { certificate, key }])
            .map_err(|trouble| format!("{}: {}", trouble.file.file_name().unwrap().display(), trouble.what))?;
        Ok(loaded.remove(0))
    }

    fn told(certificate: &Certificate) -> String {
        certificate.warnings(SystemClock::wall()).iter().map(|t| t.what.clone()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn names_are_matched_whole_and_a_star_is_one_label() {
        let (chain, key) = made(&["Live.example.com", "*.cdn.example.com", "10.0.0.1"], |_| {});
        let certificate = check(&chain, &key).unwrap();
        for yes in ["live.example.com", "a.cdn.example.com"] {
            assert!(certificate.covers(yes), "{yes}");
        }
        for no in ["example.com", "a.b.cdn.example.com", "cdn.example.com", ".cdn.example.com", "xlive.example.com", ""]
        {
            assert!(!certificate.covers(no), "{no}");
        }
        assert!(certificate.describe().starts_with("live.example.com *.cdn.example.com 10.0.0.1, valid until "));
        assert_eq!(told(&certificate), "");
    }

    #[test]
    fn every_form_of_key_is_taken() {
        let rsa = include_str!("../../tests/tls/rsa.key");
        assert!(rsa.starts_with("-----BEGIN RSA PRIVATE KEY-----"), "PKCS#1");
        check(include_str!("../../tests/tls/rsa.pem"), rsa).unwrap();
        let sec1 = include_str!("../../tests/tls/ec.key");
        assert!(sec1.starts_with("-----BEGIN EC PRIVATE KEY-----"), "SEC1");
        check(include_str!("../../tests/tls/ec.pem"), sec1).unwrap();
        let (chain, key) = made(&["a.example"], |_| {});
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");
        check(&chain, &key).unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file_and_the_fix() {
        let (chain, key) = made(&["a.example"], |_| {});
        let (other, other_key) = made(&["b.example"], |_| {});
        for (chain, key, want) in [
            (chain.as_str(), other_key.as_str(), "key.pem: does not match "),
            (&format!("{other}{chain}"), key.as_str(), "key.pem: is the key of certificate 2 in "),
            ("", key.as_str(), "chain.pem: holds no certificate: give PEM"),
            (&key, &key, "chain.pem: holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", key.as_str(), "chain.pem: is damaged PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &key,
                "chain.pem: its first certificate",
            ),
            (&chain, &chain, "key.pem: holds no private key: give PEM with PKCS#8"),
            (&chain, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n", "key.pem: is encrypted with a passphrase"),
            (
                &chain,
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "key.pem: is no key that is taken",
            ),
        ] {
            let what = check(chain, key).unwrap_err();
            assert!(what.starts_with(want), "{what}");
        }
        let nowhere = Pair { certificate: "/nowhere/a.pem".into(), key: "/nowhere/a.key".into() };
        let what = load(&[nowhere]).unwrap_err().to_string();
        assert!(what.starts_with("/nowhere/a.pem: cannot be read: No such file"), "{what}");
    }

    #[test]
    fn what_clients_would_refuse_is_warned_of_with_its_date() {
        let warned = |names: &[&str], change: fn(&mut CertificateParams)| {
            let (chain, key) = made(names, change);
            told(&check(&chain, &key).unwrap())
        };
        let expired = warned(&["a.example"], |p| p.not_after = rcgen::date_time_ymd(2021, 3, 4));
        assert!(expired.starts_with("expired on 2021-03-04: "), "{expired}");
        let early = warned(&["a.example"], |p| p.not_before = rcgen::date_time_ymd(2090, 1, 2));
        assert!(early.starts_with("is not valid before 2090-01-02, and this machine's clock says 20"), "{early}");
        assert!(warned(&[], |_| {}).starts_with("names no host"));
        let authority = warned(&["a.example"], |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert!(authority.starts_with("is an authority's own"), "{authority}");
    }

    #[test]
    fn a_key_that_everybody_may_read_is_warned_of() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = made(&["a.example"], |_| {});
        let (certificate, key) = (keep(folder.path(), "chain.pem", &chain), keep(folder.path(), "key.pem", &key));
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            let loaded = load(&[Pair { certificate: certificate.clone(), key: key.clone() }]).unwrap();
            let told = warnings(&loaded).iter().map(ToString::to_string).collect::<String>();
            assert_eq!(told.contains("key.pem: may be read by everybody on this machine: chmod 640"), warned, "{told}");
        }
    }
}
