//! Requests to a daemon or an origin, over HTTP or HTTPS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use hyper::body::Body;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::Failure;

pub(super) type Web<B> = Client<HttpsConnector<HttpConnector>, B>;

/// Whom an HTTPS server must be vouched for by.
#[derive(clap::Args, Clone)]
pub(crate) struct Trust {
    /// PEM file with the authorities that may vouch for an https:// server, or its own certificate; without it the system's
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Trust {
    /// A client for `server`.
    pub(super) fn client<B>(&self, server: &str) -> Result<Web<B>, Failure>
    where
        B: Body<Data: Send> + Send + 'static,
    {
        let secure = server.starts_with("https://");
        if !secure && self.ca.is_some() {
            return Err(Failure::usage(format!("--ca is for https:// servers, and this one is {server}")));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| Failure::failed(format!("no TLS: {e}")))?;
        let config = match &self.ca {
            Some(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
            // Who speaks in the clear needs no roots, and a machine may have none.
            None if !secure => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
            None => {
                let builder = builder.with_native_roots();
                let what = "this machine's certificate authorities cannot be read";
                builder.map_err(|e| Failure::failed(format!("{what} ({e}): give --ca FILE")))?.with_no_client_auth()
            }
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    }
}

fn roots(file: &Path) -> Result<RootCertStore, Failure> {
    let wrong = |what: String| Failure::usage(format!("--ca {}: {what}", file.display()));
    let bytes = std::fs::read(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|e| wrong(format!("is damaged PEM ({e})")))?;
        roots.add(certificate).map_err(|e| wrong(format!("holds what is no authority: {e}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate: give PEM (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(roots)
}

/// Whether what is sent there can be read on the way.
pub(super) fn is_exposed(server: &str) -> bool {
    let Ok(uri) = server.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let near = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    uri.scheme_str() == Some("http") && !near && host != "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_machine_in_the_clear_is_exposed() {
        for near in ["http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:8080", "https://192.0.2.1:8443"] {
            assert!(!is_exposed(near), "{near}");
        }
        for far in ["http://192.0.2.1:8080", "http://live.example.com", "http://[2001:db8::1]:80/", "http://10.0.0.1"] {
            assert!(is_exposed(far), "{far}");
        }
    }
}
