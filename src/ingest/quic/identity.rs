//! Who the receiver is: a certificate that an authority vouches for, or one of its own that publishers pin.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::media::key::hex;

/// Its own certificate and key, in the state folder.
const OWN: &str = "quic.pem";
/// The last year of its own certificate: publishers know it by its digest, not by its dates.
const OWN_UNTIL: i32 = 2080;

/// SHA-256 of a certificate as it goes over the wire (DER).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    pub fn of(certificate: &[u8]) -> Pin {
        Pin(Sha256::digest(certificate).into())
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = &'static str;

    /// Takes the colons of `openssl x509 -fingerprint -sha256` too.
    fn from_str(text: &str) -> Result<Pin, &'static str> {
        let wrong = "a pin is the SHA-256 of the receiver's certificate, 64 hexadecimal digits";
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut pin = [0; 32];
        if digits.len() != 64 {
            return Err(wrong);
        }
        for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(wrong)?;
        }
        Ok(Pin(pin))
    }
}

/// A certificate chain and the key of its first certificate.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Publishers need the pin: no authority is asked for it.
    own: bool,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("pin", &self.pin()).field("own", &self.own).finish_non_exhaustive()
    }
}

impl Identity {
    /// From PEM files.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Identity, IdentityError> {
        let bytes = |file: &Path| fs::read(file).map_err(|e| wrong(file, format!("cannot be read: {e}")));
        Identity::of(certificate, &bytes(certificate)?, key, &bytes(key)?, false)
    }

    /// Its own, from `folder`; made there if there is none yet.
    ///
    /// # Errors
    /// The file cannot be used, or not be written.
    pub fn own(folder: &Path) -> Result<Identity, IdentityError> {
        let file = folder.join(OWN);
        let bytes = match fs::read(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make(&file)?;
                fs::read(&file)
            }
            read => read,
        };
        let bytes = bytes.map_err(|e| wrong(&file, format!("cannot be read: {e}")))?;
        Identity::of(&file, &bytes, &file, &bytes, true)
    }

    fn of(file: &Path, chain: &[u8], key_file: &Path, key: &[u8], own: bool) -> Result<Identity, IdentityError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|e| wrong(file, format!("is damaged PEM ({e})")))?;
        if chain.is_empty() {
            return Err(wrong(file, "holds no certificate: give PEM (-----BEGIN CERTIFICATE-----)".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| wrong(key_file, "holds no private key: give PEM (-----BEGIN PRIVATE KEY-----)".into()))?;
        Ok(Identity { chain, key, own })
    }

    /// Of the certificate that publishers see first.
    pub fn pin(&self) -> Pin {
        Pin::of(self.chain.first().expect("an identity has a certificate"))
    }

    /// No authority vouches for it.
    pub fn is_own(&self) -> bool {
        self.own
    }
}

/// Both parts in one file, so that there is never one without the other.
fn make(file: &Path) -> Result<(), IdentityError> {
    let made = |e: rcgen::Error| wrong(file, format!("no certificate could be made: {e}"));
    let key = KeyPair::generate().map_err(made)?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(made)?;
    params.distinguished_name.push(DnType::CommonName, "Rung");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(OWN_UNTIL, 1, 1);
    let certificate = params.self_signed(&key).map_err(made)?;
    let text = format!("{}{}", certificate.pem(), key.serialize_pem());
    let new = file.with_extension("new");
    let write = || -> io::Result<()> {
        let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        fs::rename(&new, file)
    };
    write().map_err(|e| wrong(file, format!("cannot be written: {e}")))
}

/// What is wrong with a file of the certificate.
#[derive(Debug)]
pub struct IdentityError {
    pub file: PathBuf,
    pub what: String,
}

fn wrong(file: &Path, what: String) -> IdentityError {
    IdentityError { file: file.to_owned(), what }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl std::error::Error for IdentityError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn its_own_certificate_is_made_once_and_only_its_user_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let (first, again) = (Identity::own(folder.path()).unwrap(), Identity::own(folder.path()).unwrap());
        assert!(first.is_own() && first.pin() == again.pin());
        let mode = fs::metadata(folder.path().join(OWN)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(Identity::own(tempfile::tempdir().unwrap().path()).unwrap().pin(), first.pin());
        let files = Identity::read(&folder.path().join(OWN), &folder.path().join(OWN)).unwrap();
        assert!(!files.is_own() && files.pin() == first.pin());
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(OWN);
        fs::write(&file, "nothing").unwrap();
        assert!(
            Identity::own(folder.path())
                .unwrap_err()
                .to_string()
                .ends_with("quic.pem: holds no certificate: give PEM (-----BEGIN CERTIFICATE-----)")
        );
        let error = Identity::read(Path::new("/nowhere/a.pem"), &file).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/a.pem: cannot be read"), "{error}");
        let error = Identity::own(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/quic.pem: cannot be written"), "{error}");
    }

    #[test]
    fn a_pin_reads_with_and_without_colons_and_nothing_else() {
        let pin = Pin::of(b"certificate");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        let text = pin.to_string().to_uppercase();
        let colons = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap()).collect::<Vec<_>>();
        assert_eq!(colons.join(":").parse(), Ok(pin));
        for text in ["", "12", &"zz".repeat(32), &"+1".repeat(32), &"12".repeat(33)] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
    }
}
