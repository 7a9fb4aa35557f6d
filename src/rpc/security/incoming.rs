//! A connection that was accepted, in plain text or with TLS.
//!
//! The handshake is done when the connection is first used, in its own task: one that takes its time holds up nobody. Owns: the
//! handshake and its limit of time. Does not own: when a connection is accepted, or what is said on it.

use crate::actors::access::AccessCounts;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tonic::transport::server::Connected;

/// Time within which the handshake must be done.
pub(in crate::rpc) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The connection.
pub(in crate::rpc) enum Incoming {
    Plain(TcpStream),
    Greeting(Box<Greeting>),
    Secret(Box<TlsStream<TcpStream>>),
    Failed,
}

/// A handshake under way.
pub(in crate::rpc) struct Greeting {
    accept: Accept<TcpStream>,
    until: Pin<Box<Sleep>>,
    counts: Arc<AccessCounts>,
}

impl Incoming {
    /// With TLS, if there is a way to speak it.
    pub(in crate::rpc) fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>, counts: &Arc<AccessCounts>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(tls) => Self::Greeting(Box::new(Greeting {
                accept: TlsAcceptor::from(tls).accept(stream),
                until: Box::pin(tokio::time::sleep(HANDSHAKE_WITHIN)),
                counts: Arc::clone(counts),
            })),
        }
    }

    /// Whose it is, while it is open.
    pub(in crate::rpc) fn peer(&self) -> Option<SocketAddr> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Greeting(greeting) => greeting.accept.get_ref()?,
            Self::Secret(stream) => stream.get_ref().0,
            Self::Failed => return None,
        };
        stream.peer_addr().ok()
    }

    /// What is under it once the handshake, if there is one, is done.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Open<'_>>> {
        if let Self::Greeting(greeting) = self {
            let done = ready!(greeting.poll(context));
            match done {
                Ok(stream) => *self = Self::Secret(Box::new(stream)),
                Err(error) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match self {
            Self::Plain(stream) => Ok(Open::Plain(Pin::new(stream))),
            Self::Secret(stream) => Ok(Open::Secret(Pin::new(stream))),
            Self::Greeting(_) | Self::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl Greeting {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<TlsStream<TcpStream>>> {
        let result = match Pin::new(&mut self.accept).poll(context) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                ready!(self.until.as_mut().poll(context));
                Err(io::ErrorKind::TimedOut.into())
            }
        };
        Poll::Ready(result.inspect_err(|error| self.failed(error)))
    }

    fn failed(&self, error: &io::Error) {
        // Whoever only looks whether the port is open was not refused.
        let is_gone = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        if !is_gone {
            self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
        }
        let peer = self.accept.get_ref().and_then(|stream| stream.peer_addr().ok());
        tracing::debug!(%error, ?peer, "a TLS handshake failed");
    }
}

/// A connection on which data may go.
enum Open<'a> {
    Plain(Pin<&'a mut TcpStream>),
    Secret(Pin<&'a mut TlsStream<TcpStream>>),
}

impl Connected for Incoming {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.poll_open(context))? {
            Open::Plain(stream) => stream.poll_read(context, buffer),
            Open::Secret(stream) => stream.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_open(context))? {
            Open::Plain(stream) => stream.poll_write(context, data),
            Open::Secret(stream) => stream.poll_write(context, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_open(context))? {
            Open::Plain(stream) => stream.poll_flush(context),
            Open::Secret(stream) => stream.poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nobody waits for a handshake to end a connection.
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Secret(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Greeting(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_open(context))? {
            Open::Plain(stream) => stream.poll_write_vectored(context, slices),
            Open::Secret(stream) => stream.poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // TLS takes several slices as well, before its handshake as after it.
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Greeting(_) | Self::Secret(_) => true,
            Self::Failed => false,
        }
    }
}
