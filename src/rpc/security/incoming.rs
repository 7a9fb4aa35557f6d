//! A connection that was accepted, in plain text or with TLS.
//!
//! The handshake is done when the connection is first used, in its own task: one that takes its time holds up nobody. Owns: the
//! handshake, and the limits of time within which a client must have said who it is and begun to speak HTTP/2. Does not own: when
//! a connection is accepted, or what is said on it.

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
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tonic::transport::server::Connected;

/// Time within which the handshake must be done.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);
/// Time beyond that within which a client must have sent [`PREFACE_BYTES`].
const PREFACE_WITHIN: Duration = Duration::from_secs(3);
/// What every client of HTTP/2 begins with.
const PREFACE_BYTES: usize = 24;

/// The connection.
pub(in crate::rpc) struct Incoming {
    stream: Stream,
    /// Until the client has begun to speak: when it must have, and the bytes that are left of that.
    preface: Option<(Pin<Box<Sleep>>, usize)>,
    /// Its place among the connections.
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Greeting(Box<Greeting>),
    Secret(Box<TlsStream<TcpStream>>),
    Failed,
}

/// A handshake under way.
struct Greeting {
    accept: Accept<TcpStream>,
    until: Pin<Box<Sleep>>,
    counts: Arc<AccessCounts>,
}

impl Incoming {
    /// With TLS, if there is a way to speak it.
    pub(in crate::rpc) fn new(
        stream: TcpStream,
        tls: Option<Arc<ServerConfig>>,
        counts: &Arc<AccessCounts>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (stream, within) = match tls {
            None => (Stream::Plain(stream), PREFACE_WITHIN),
            Some(tls) => {
                let greeting = Greeting {
                    accept: TlsAcceptor::from(tls).accept(stream),
                    until: Box::pin(tokio::time::sleep(HANDSHAKE_WITHIN)),
                    counts: Arc::clone(counts),
                };
                (Stream::Greeting(Box::new(greeting)), HANDSHAKE_WITHIN + PREFACE_WITHIN)
            }
        };
        Self {
            stream,
            preface: Some((Box::pin(tokio::time::sleep(within)), PREFACE_BYTES)),
            _permit: permit,
        }
    }

    /// Whose it is, while it is open.
    pub(in crate::rpc) fn peer(&self) -> Option<SocketAddr> {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Greeting(greeting) => greeting.accept.get_ref()?,
            Stream::Secret(stream) => stream.get_ref().0,
            Stream::Failed => return None,
        };
        stream.peer_addr().ok()
    }

    /// Is ready, with an error, when the client has not begun to speak in time. Who connects and says nothing, or too little, so
    /// has no place for good, and keeps no stopping node waiting.
    fn poll_late<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match &mut self.preface {
            Some((until, _left)) => until
                .as_mut()
                .poll(context)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            None => Poll::Pending,
        }
    }

    /// So many bytes more were received.
    fn received(&mut self, bytes: usize) {
        if let Some((_until, left)) = &mut self.preface {
            *left = left.saturating_sub(bytes);
            // At its end the connection ends by itself.
            if *left == 0 || bytes == 0 {
                self.preface = None;
            }
        }
    }
}

impl Stream {
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

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_open(context))? {
            Open::Plain(stream) => stream.poll_read(context, buffer),
            Open::Secret(stream) => stream.poll_read(context, buffer),
        }
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
        let before = buffer.filled().len();
        let read = self.stream.poll_read(context, buffer);
        if read.is_pending() {
            return self.poll_late(context);
        }
        self.received(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.stream.poll_open(context))? {
            Open::Plain(stream) => stream.poll_write(context, data),
            Open::Secret(stream) => stream.poll_write(context, data),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.stream.poll_open(context))? {
            Open::Plain(stream) => stream.poll_flush(context),
            Open::Secret(stream) => stream.poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nobody waits for a handshake to end a connection.
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Secret(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Greeting(_) | Stream::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.stream.poll_open(context))? {
            Open::Plain(stream) => stream.poll_write_vectored(context, slices),
            Open::Secret(stream) => stream.poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // TLS takes several slices as well, before its handshake as after it.
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Greeting(_) | Stream::Secret(_) => true,
            Stream::Failed => false,
        }
    }
}
