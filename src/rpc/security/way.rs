//! The way to another process: in plain text or by TLS, with a token or without.
//!
//! Owns: the connection, and the token on each call. Does not own: the service that is called, or how it is trusted.

use super::Security;
use super::tokens::read_token;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Channel, Error};
use tower::Service;

/// The port of an address by TLS that names none.
const DEFAULT_PORT: u16 = 443;

/// What a call shows.
#[derive(Clone)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// A token.
    Token(HeaderValue),
    /// What the node shows to other nodes at that moment.
    ToPeers(Arc<Security>),
}

impl Shown {
    /// Of the content of a file with a token.
    ///
    /// # Errors
    /// In words, without the token.
    pub fn token(content: &[u8]) -> Result<Self, String> {
        shown_of(&[content.to_vec()]).map(Self::Token)
    }

    fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Token(token) => Some(token.clone()),
            Self::ToPeers(security) => security.peer_token(),
        }
    }
}

impl From<Option<HeaderValue>> for Shown {
    fn from(token: Option<HeaderValue>) -> Self {
        token.map_or(Self::Nothing, Self::Token)
    }
}

/// The header for the token in a file. It is marked so that nothing shows it.
pub(super) fn shown_of(files: &[Vec<u8>]) -> Result<HeaderValue, String> {
    let token = read_token(files.first().map(Vec::as_slice).unwrap_or_default())?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "is no token".to_owned())?;
    header.set_sensitive(true);
    Ok(header)
}

/// A channel on which every call shows what it has to show.
#[derive(Clone)]
pub struct Way {
    channel: Channel,
    shown: Shown,
}

impl Way {
    /// On this channel.
    #[must_use]
    pub fn new(channel: Channel, shown: Shown) -> Self {
        Self { channel, shown }
    }
}

impl Service<http::Request<Body>> for Way {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> ResponseFuture {
        if let Some(header) = self.shown.header() {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        self.channel.call(request)
    }
}

/// Connects by TLS, as `config` says at that moment.
pub fn by_tls(
    config: impl Fn() -> Option<Arc<ClientConfig>> + Send + 'static,
) -> impl Service<
    Uri,
    Response = TokioIo<TlsStream<TcpStream>>,
    Error = io::Error,
    Future = impl Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send,
> + Send {
    tower::service_fn(move |uri: Uri| {
        let config = config();
        async move { connect(&uri, config).await.map(TokioIo::new) }
    })
}

async fn connect(uri: &Uri, config: Option<Arc<ClientConfig>>) -> io::Result<TlsStream<TcpStream>> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let config = config.ok_or_else(|| wrong("there is no certificate to trust"))?;
    let host = uri.host().ok_or_else(|| wrong("the address names no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(DEFAULT_PORT))).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(|_| wrong("the host is no name that a certificate can have"))?;
    TlsConnector::from(config).connect(name, stream).await
}
