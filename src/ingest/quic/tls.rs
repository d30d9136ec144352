//! TLS 1.3 for both ends: the receiver's certificate, and whom the publisher believes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::identity::{Identity, Pin};
use super::message::ALPN;

/// Key length of every connection: suites with shorter keys are not offered.
pub(super) const KEY_BITS: u16 = 256;

/// Whom a publisher believes to be the receiver.
#[derive(Clone)]
pub enum Trust {
    /// Whoever has the key of this certificate.
    Pin(Pin),
    /// Whom one of these authorities vouches for.
    Authorities(RootCertStore),
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trust::Pin(pin) => write!(f, "{pin:?}"),
            Trust::Authorities(roots) => write!(f, "{} authorities", roots.len()),
        }
    }
}

impl Trust {
    /// The authorities of a PEM file.
    ///
    /// # Errors
    /// A sentence about the file.
    pub fn file(file: &Path) -> Result<Trust, String> {
        let wrong = |what: String| format!("{}: {what}", file.display());
        let bytes = std::fs::read(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|e| wrong(format!("is damaged PEM ({e})")))?;
            roots.add(certificate).map_err(|e| wrong(format!("holds what is no authority: {e}")))?;
        }
        if roots.is_empty() {
            return Err(wrong("holds no certificate: give PEM (-----BEGIN CERTIFICATE-----)".into()));
        }
        Ok(Trust::Authorities(roots))
    }

    /// The authorities that this machine knows.
    ///
    /// # Errors
    /// There are none.
    pub fn system() -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err("this machine knows no certificate authorities: give pin=… in the address, or --ca FILE".into());
        }
        Ok(Trust::Authorities(roots))
    }
}

/// # Errors
/// The key does not fit the certificate, or is of no kind that is taken.
pub(super) fn receiver(identity: &Identity) -> Result<QuicServerConfig, String> {
    let unusable = |e: rustls::Error| format!("the certificate cannot be served: {e}");
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // A hello begins a publish: nothing of it may be replayed.
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    QuicServerConfig::with_initial(Arc::new(tls), initial()).map_err(|e| format!("no QUIC: {e}"))
}

/// # Errors
/// As good as never: the suites are fixed.
pub(super) fn publisher(trust: &Trust) -> Result<QuicClientConfig, String> {
    let unusable = |e: rustls::Error| format!("no TLS: {e}");
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(unusable)?;
    let mut tls = match trust {
        Trust::Authorities(roots) => builder.with_root_certificates(roots.clone()).with_no_client_auth(),
        Trust::Pin(pin) => {
            let verifier = Pinned { pin: *pin, provider: provider() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    QuicClientConfig::with_initial(Arc::new(tls), initial()).map_err(|e| format!("no QUIC: {e}"))
}

fn provider() -> Arc<CryptoProvider> {
    let suites = vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384, ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites: suites, ..ring::default_provider() })
}

/// What every QUIC handshake begins with [QUIC 17.2.2].
fn initial() -> rustls::quic::Suite {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
    suite.and_then(|suite| suite.quic_suite()).expect("the provider has QUIC's first suite")
}

/// Believes one certificate, whatever its names and dates.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Pin::of(certificate) == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".into()))
    }

    /// That it also has the key.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
