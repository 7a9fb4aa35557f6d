//! How TLS is spoken, of PEM files: versions 1.2 and 1.3, HTTP/2 alone.
//!
//! Owns: what a certificate, a key and a list of trusted certificates become. Does not own: the files, or connections.

use std::fmt::Display;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The protocol within TLS.
const HTTP2: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("the certificate is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate (PEM, \"BEGIN CERTIFICATE\")".to_owned());
    }
    Ok(chain)
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| format!("there is no private key (PEM, \"BEGIN PRIVATE KEY\"): {error}"))
}

fn trusted(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("a certificate that is to be trusted cannot be: {error}"))?;
    }
    Ok(roots)
}

fn mismatch(error: impl Display) -> String {
    format!("certificate and key do not fit together, or are of a kind that is not known: {error}")
}

/// When the first of them is no longer good, in seconds since the Unix epoch.
///
/// # Errors
/// When that was before `now`, or is not to be found.
fn expiry(chain: &[CertificateDer<'_>], now: u64) -> Result<u64, String> {
    let own = chain.first().ok_or("there is no certificate")?;
    let (_, own) =
        x509_parser::parse_x509_certificate(own).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let until = own.validity().not_after;
    let expires = u64::try_from(until.timestamp()).unwrap_or(0);
    if expires < now {
        return Err(format!(
            "the certificate expired on {until}; have its authority sign a new one"
        ));
    }
    Ok(expires)
}

/// How a server speaks, and until when what it shows is good, in seconds since the Unix epoch. `now`: as much.
pub(super) fn server_until(files: &[Vec<u8>], now: u64) -> Result<(ServerConfig, u64), String> {
    let until = expiry(&chain(files.first().map(Vec::as_slice).unwrap_or_default())?, now)?;
    Ok((server_of(files)?, until))
}

/// A server of a certificate, its key and, where clients must show one, the certificates that theirs are to be signed by.
fn server_of(files: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let (own, trust) = match files {
        [cert, key] => ((cert, key), None),
        [cert, key, trust] => ((cert, key), Some(trust)),
        _ => return Err("there must be a certificate and a key".to_owned()),
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match trust {
        None => builder.with_no_client_auth(),
        Some(trust) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted(trust)?), provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let mut config = builder.with_single_cert(chain(own.0)?, key(own.1)?).map_err(mismatch)?;
    config.alpn_protocols.push(HTTP2.to_vec());
    Ok(config)
}

/// A client that trusts who shows a certificate signed by `ca`, and shows its own, with the key, if it has one. All PEM.
///
/// # Errors
/// In words, when one of them cannot be used.
pub fn client(ca: &[u8], own: Option<(&[u8], &[u8])>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(trusted(ca)?);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((cert, private)) => builder
            .with_client_auth_cert(chain(cert)?, key(private)?)
            .map_err(mismatch)?,
    };
    config.alpn_protocols.push(HTTP2.to_vec());
    Ok(config)
}

/// As [`client`], of files in this order.
pub(super) fn client_of(files: &[Vec<u8>]) -> Result<ClientConfig, String> {
    match files {
        [ca] => client(ca, None),
        [ca, cert, key] => client(ca, Some((cert, key))),
        _ => Err("there must be certificates to trust".to_owned()),
    }
}
