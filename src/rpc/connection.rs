//! One connection: counted while it is open, sparing with system calls (of TLS, with its records), and ended when its client
//! keeps others from answers.
//!
//! Answers become ready in groups (a batch of writes shares one sync), but each would be written by itself, because the
//! scheduler runs a connection right after the first answer that is ready for it. So a small write is put off by one turn
//! of the scheduler: whatever else is ready by then leaves in the same system call, and wakes the client once.

use crate::actors::answer_room::ConnectionRoom;
use crate::actors::gateway::Accepted;
use crate::rpc::security::{Incoming, Security};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// A write of at least so many bytes is worth a system call of its own.
const LARGE_WRITE_BYTES: usize = 16 << 10;

/// A connection of the storage protocol.
pub(super) struct Connection {
    stream: Incoming,
    /// The write at hand has been put off once.
    put_off: bool,
    room: Arc<ConnectionRoom>,
    /// How often it is looked at whether it is in the way, and when the next time is.
    look_every: Duration,
    look: Pin<Box<Sleep>>,
}

impl Connection {
    pub(super) fn new(
        accepted: Accepted,
        room: Arc<ConnectionRoom>,
        look_every: Duration,
        security: &Security,
    ) -> io::Result<Self> {
        // Answers are small, and each is waited for.
        accepted.stream.set_nodelay(true)?;
        Ok(Self {
            stream: Incoming::new(accepted.stream, security.server(), &security.counts, accepted.permit),
            put_off: false,
            room,
            look_every,
            look: Box::pin(tokio::time::sleep(look_every)),
        })
    }

    /// Whether a write of `bytes` may go ahead; otherwise the connection is polled again after everything that is ready.
    fn is_due(&mut self, bytes: usize, context: &Context<'_>) -> bool {
        if bytes < LARGE_WRITE_BYTES && !self.put_off {
            self.put_off = true;
            context.waker().wake_by_ref();
            return false;
        }
        true
    }

    fn written(&mut self, result: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.put_off &= result.is_pending();
        match result {
            Poll::Ready(Ok(bytes)) => self.room.taken(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.given_up(context),
        }
        result
    }

    /// Is ready, with an error, once its client is in the way of others.
    fn given_up<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        while self.look.as_mut().poll(context).is_ready() {
            self.look.set(tokio::time::sleep(self.look_every));
            if self.room.is_in_the_way() {
                tracing::warn!(
                    peer = ?self.stream.peer(),
                    within = ?self.look_every,
                    "a connection is closed: its client takes no answers, and others are refused for want of room"
                );
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Poll::Pending
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<ConnectionRoom>;

    fn connect_info(&self) -> Arc<ConnectionRoom> {
        Arc::clone(&self.room)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if result.is_pending() {
            return self.given_up(context);
        }
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_due(data.len(), context) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.stream).poll_write(context, data);
        self.written(result, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_due(slices.iter().map(|slice| slice.len()).sum(), context) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
