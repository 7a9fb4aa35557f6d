//! A connection to a node, and its errors in words that say what to do.

use super::{Access, Failure};
use crate::rpc::MAX_MESSAGE_BYTES;
use crate::rpc::admin::SOCKET;
use crate::rpc::admin_pb::admin_service_client::AdminServiceClient;
use crate::rpc::admin_pb::fault_service_client::FaultServiceClient;
use crate::rpc::pb::storage_node_service_client::StorageNodeServiceClient;
use crate::rpc::security::{Shown, Way, by_tls, tls_client};
use http::Uri;
use hyper_util::rt::TokioIo;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

pub(super) type Client = StorageNodeServiceClient<Way>;
pub(super) type AdminClient = AdminServiceClient<Way>;
pub(super) type FaultClient = FaultServiceClient<Way>;

/// Longest time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An address, and how to get in there.
#[derive(Clone)]
struct Door {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
    token: Shown,
}

impl Door {
    fn new(addr: &str, access: &Access) -> Result<Self, Failure> {
        let tls = tls(access)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = if addr.contains("://") {
            addr.to_owned()
        } else {
            format!("{scheme}://{addr}")
        };
        let endpoint = Endpoint::from_shared(url)
            .map_err(|error| format!("--addr {addr}: {error}; it must be like http://127.0.0.1:50052"))?;
        match (endpoint.uri().scheme_str(), tls.is_some()) {
            (Some("https"), false) => {
                return Err(format!("--addr {addr}: needs --ca, the certificates to trust").into());
            }
            (Some("http"), true) => return Err(format!("--addr {addr}: must be https:// where --ca is given").into()),
            _ => {}
        }
        if tls.is_none() && access.token_file.is_some() && is_elsewhere(endpoint.uri()) {
            eprintln!(
                "warning: the token goes to {addr} in plain text, where it can be read on the way; --ca has it go by TLS"
            );
        }
        Ok(Self {
            endpoint: endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true),
            tls,
            token: token(access.token_file.as_deref())?,
        })
    }

    /// Connects now.
    async fn open(self) -> Result<Way, tonic::transport::Error> {
        let channel = match self.tls {
            Some(tls) => {
                let connector = by_tls(move || Some(Arc::clone(&tls)));
                self.endpoint.connect_with_connector(connector).await?
            }
            None => self.endpoint.connect().await?,
        };
        Ok(Way::new(channel, self.token))
    }

    /// Connects when it is first used, and again when it must.
    fn open_lazily(self) -> Way {
        let channel = match self.tls {
            Some(tls) => {
                let connector = by_tls(move || Some(Arc::clone(&tls)));
                self.endpoint.connect_with_connector_lazy(connector)
            }
            None => self.endpoint.connect_lazy(),
        };
        Way::new(channel, self.token)
    }
}

/// Whether the way there leaves this machine.
fn is_elsewhere(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = |address: IpAddr| address.to_canonical().is_loopback();
    host != "localhost" && !bare.parse().is_ok_and(is_own)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let shown = file.display();
    Ok(std::fs::read(file).map_err(|error| format!("{shown} cannot be read: {error}"))?)
}

fn tls(access: &Access) -> Result<Option<Arc<ClientConfig>>, Failure> {
    let Some(ca) = &access.ca else {
        return Ok(None);
    };
    let ca = read(ca)?;
    let own = match access.cert.as_deref().zip(access.cert_key.as_deref()) {
        Some((cert, key)) => Some((read(cert)?, read(key)?)),
        None => None,
    };
    let own = own.as_ref().map(|(cert, key)| (cert.as_slice(), key.as_slice()));
    let client = tls_client(&ca, own).map_err(|why| format!("--ca, --cert, --key: {why}"))?;
    Ok(Some(Arc::new(client)))
}

fn token(file: Option<&Path>) -> Result<Shown, Failure> {
    let Some(file) = file else {
        return Ok(Shown::Nothing);
    };
    Ok(Shown::token(&read(file)?).map_err(|why| format!("{} {why}", file.display()))?)
}

fn client(way: Way) -> Client {
    Client::new(way)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Connects, and fails when nobody listens.
pub(super) async fn connect(addr: &str, access: &Access) -> Result<Client, Failure> {
    let way = Door::new(addr, access)?.open().await.map_err(|error| {
        let cause = deepest(&error);
        format!("cannot reach a node at {addr}: {cause}; is it running (pairdb-node serve), and is --addr right?")
    })?;
    Ok(client(way))
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

/// A client that connects when it is first used, and again whenever the node comes back.
pub(super) fn connect_lazily(addr: &str, access: &Access) -> Result<Client, Failure> {
    Ok(Newcomers::new(addr, access)?.next())
}

/// Clients of which each has a connection of its own, which it makes when it is first used.
#[derive(Clone)]
pub(super) struct Newcomers(Door);

impl Newcomers {
    pub(super) fn new(addr: &str, access: &Access) -> Result<Self, Failure> {
        Ok(Self(Door::new(addr, access)?))
    }

    /// One more of them.
    pub(super) fn next(&self) -> Client {
        client(self.0.clone().open_lazily())
    }
}

/// The socket of the node that runs on a data directory, and the token to show there.
#[derive(Clone)]
pub(super) struct Socket {
    path: PathBuf,
    token: Shown,
}

impl Socket {
    pub(super) fn new(data_dir: &Path, token_file: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self {
            path: data_dir.join(SOCKET),
            token: token(token_file)?,
        })
    }

    /// Reaches the node; fails when none runs there, and names the socket.
    pub(super) async fn connect(&self) -> Result<AdminClient, Failure> {
        // The address is not used: there is but one way.
        let endpoint = Endpoint::from_static("http://admin.socket");
        let path = self.path.clone();
        let connect = move |_uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        };
        let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await;
        let channel = channel.map_err(|error| {
            let (shown, cause) = (self.path.display(), deepest(&error));
            format!(
                "no node answers at {shown}: {cause}; is it running there (--data-dir or --config name its data directory)?"
            )
        })?;
        let way = Way::new(channel, self.token.clone());
        Ok(AdminServiceClient::new(way).max_decoding_message_size(usize::MAX))
    }
}

/// Connects to where a node lets faults be injected.
pub(super) async fn fault_service(addr: &str, access: &Access) -> Result<FaultClient, Failure> {
    let way = Door::new(addr, access)?.open().await.map_err(|error| {
        let cause = deepest(&error);
        format!("no fault service answers at {addr}: {cause}; is admin.fault_injection set where the node runs?")
    })?;
    Ok(FaultServiceClient::new(way))
}

/// A status in words.
pub(super) fn explain(status: &Status) -> Failure {
    let advice = match status.code() {
        Code::Unavailable => "; the node is not there, or asks to try again",
        Code::ResourceExhausted => "; try again later",
        Code::DataLoss => "; read another replica, and restore this one",
        Code::Internal => "; look at the node's log",
        Code::Unauthenticated => "; name a file with one by --token-file, or --admin-token-file",
        _ => "",
    };
    Failure(format!("{} ({:?}){advice}", status.message(), status.code()))
}

/// Whether the same call may succeed a little later.
pub(super) fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::Unknown | Code::Cancelled
    )
}
