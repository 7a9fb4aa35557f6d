//! What the tests of TLS and tokens share: authorities and what they sign, files of tokens, and clients that show something.
#![allow(dead_code, reason = "each test binary uses a part")]

use crate::common::config;
use pairdb_node::config::Config;
use pairdb_node::rpc::pb::storage_node_service_client::StorageNodeServiceClient;
use pairdb_node::rpc::security::{Digest, Shown, Way, by_tls, tls_client};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Endpoint;

pub type SecureClient = StorageNodeServiceClient<Way>;

/// A certificate and its key, in PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
    pub der: Vec<u8>,
}

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().to_vec(),
        }
    }

    /// For this machine.
    pub fn issue(&self, name: &str) -> Issued {
        self.sign(&params(name, &["localhost", "127.0.0.1"]))
    }

    /// For another one.
    pub fn issue_for(&self, host: &str) -> Issued {
        self.sign(&params(host, &[host]))
    }

    /// For this machine, good until the begin of a year.
    pub fn issue_until(&self, name: &str, year: i32) -> Issued {
        let mut params = params(name, &["localhost", "127.0.0.1"]);
        params.not_after = date_time_ymd(year, 1, 1);
        self.sign(&params)
    }

    /// One that was good long ago.
    pub fn expired(&self, name: &str) -> Issued {
        let mut params = params(name, &["localhost", "127.0.0.1"]);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(&params)
    }
}

/// Puts a file in place of another in one step.
pub fn put(file: &Path, content: &str) -> PathBuf {
    let aside = file.with_extension("aside");
    std::fs::write(&aside, content).unwrap();
    std::fs::rename(&aside, file).unwrap();
    file.to_owned()
}

/// Has a node show this from now on.
pub fn put_identity(dir: &Path, issued: &Issued) {
    put(&dir.join("node.key"), &issued.key);
    put(&dir.join("node.crt"), &issued.cert);
}

/// A node with TLS in `dir`, which looks at its files often.
pub fn secure(dir: &Path, issued: &Issued) -> Config {
    let mut config = config(dir);
    put_identity(dir, issued);
    config.security.tls_cert = Some(dir.join("node.crt"));
    config.security.tls_key = Some(dir.join("node.key"));
    config.security.check_interval = Duration::from_millis(20);
    config
}

/// A line of a file of tokens.
pub fn line(tenant: &str, token: &str) -> String {
    format!("{tenant} {}\n", Digest::of(token.as_bytes()))
}

pub fn shown(token: Option<&str>) -> Shown {
    token.map_or(Shown::Nothing, |token| Shown::token(token.as_bytes()).unwrap())
}

/// A client in plain text that shows a token, if it has one.
pub fn plain_client(address: SocketAddr, token: Option<&str>) -> SecureClient {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    SecureClient::new(Way::new(endpoint.connect_lazy(), shown(token)))
}

/// The way by TLS of a client that trusts `ca`, and shows a certificate and a token, if it has them.
pub fn way(address: SocketAddr, ca: &str, own: Option<&Issued>, token: Option<&str>) -> Way {
    let own = own.map(|own| (own.cert.as_bytes(), own.key.as_bytes()));
    let config = Arc::new(tls_client(ca.as_bytes(), own).unwrap());
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let channel = endpoint.connect_with_connector_lazy(by_tls(move || Some(Arc::clone(&config))));
    Way::new(channel, shown(token))
}

pub fn tls(address: SocketAddr, ca: &str, own: Option<&Issued>, token: Option<&str>) -> SecureClient {
    SecureClient::new(way(address, ca, own, token))
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}
