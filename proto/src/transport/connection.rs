//! An accepted connection: who called, and when it must end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::identity::PeerIdentity;

/// Who made a request over the network. A request extension, on servers made by
/// [`serve`](super::serve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The node behind it; `None` for a caller without a certificate.
    pub identity: Option<PeerIdentity>,
}

/// A stream that fails once `end` is ready, whatever state it is in: that is how a connection
/// is cut from outside of the HTTP server that owns it.
///
/// `C` becomes an extension of each request.
pub(super) struct Connection<S, C> {
    stream: S,
    caller: C,
    /// `None` once it was ready.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S, C> Connection<S, C> {
    pub(super) fn new(
        stream: S,
        caller: C,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self {
            stream,
            caller,
            end: Some(Box::pin(end)),
        }
    }

    /// Fails where the connection must end; otherwise the task wakes when it must.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(end) = &mut self.end {
            if end.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            self.end = None;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl<S, C: Clone + Send + Sync + 'static> Connected for Connection<S, C> {
    type ConnectInfo = C;

    fn connect_info(&self) -> C {
        self.caller.clone()
    }
}

impl<S: AsyncRead + Unpin, C: Unpin> AsyncRead for Connection<S, C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, C: Unpin> AsyncWrite for Connection<S, C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
