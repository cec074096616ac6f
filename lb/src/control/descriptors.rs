//! A Unix stream that carries descriptors beside its bytes (`SCM_RIGHTS`).
//!
//! Descriptors travel with bytes: those that belong to a frame go out with its
//! first bytes, one byte and one load of descriptors at a time, so that all of
//! them have arrived once the frame has. How many a frame has is said in the
//! frame; whoever reads it takes them from the queue here.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::UnixStream,
};

/// Most descriptors that a frame may have.
pub(super) const MAX_PER_FRAME: usize = 512;
/// Descriptors that go out at a time. The kernel takes 253.
const LOAD: usize = 128;
/// The most that the kernel delivers at a time (`SCM_MAX_FD`).
const MAX_DELIVERY: usize = 253;
/// Descriptors that may wait here: those of one frame, and of the next one that
/// came with its end.
const MAX_WAITING: usize = 2 * MAX_PER_FRAME;

/// See the module.
#[derive(Debug)]
pub(super) struct DescriptorStream {
    stream: UnixStream,
    outgoing: VecDeque<Arc<OwnedFd>>,
    incoming: VecDeque<OwnedFd>,
}

impl DescriptorStream {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            outgoing: VecDeque::new(),
            incoming: VecDeque::new(),
        }
    }

    /// Sends these with the first bytes of the next frame, which must be at
    /// least as many bytes long.
    pub(super) fn enclose(&mut self, descriptors: Vec<Arc<OwnedFd>>) {
        self.outgoing.extend(descriptors);
    }

    /// The descriptors of the frame that was read last; `None` if not as many
    /// have come.
    pub(super) fn claim(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (count <= self.incoming.len()).then(|| self.incoming.drain(..count).collect())
    }
}

impl AsyncRead for DescriptorStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            stream, incoming, ..
        } = self.get_mut();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let bytes = buffer.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || receive(stream, bytes, incoming)) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for DescriptorStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            stream, outgoing, ..
        } = self.get_mut();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_io(Interest::WRITABLE, || transmit(stream, bytes, outgoing)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    incoming: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DELIVERY))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            incoming.extend(descriptors);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other(
            "no room for the descriptors that came, raise the limit of open files",
        ));
    }
    if incoming.len() > MAX_WAITING {
        return Err(io::Error::other("more descriptors came than belong to it"));
    }
    Ok(received.bytes)
}

fn transmit(
    stream: &UnixStream,
    bytes: &[u8],
    outgoing: &mut VecDeque<Arc<OwnedFd>>,
) -> io::Result<usize> {
    if outgoing.is_empty() {
        let mut none = SendAncillaryBuffer::default();
        let sent = sendmsg(
            stream,
            &[IoSlice::new(bytes)],
            &mut none,
            SendFlags::NOSIGNAL,
        );
        return Ok(sent?);
    }
    let load: Vec<BorrowedFd<'_>> = outgoing.iter().take(LOAD).map(|fd| fd.as_fd()).collect();
    let count = load.len();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(LOAD))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&load)) {
        return Err(io::Error::other("the space for descriptors is too small"));
    }
    // One byte: the rest of the frame is there for the rest of the loads.
    let first = &bytes[..bytes.len().min(1)];
    let sent = sendmsg(
        stream,
        &[IoSlice::new(first)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    drop(load);
    outgoing.drain(..count);
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::{EventfdFlags, eventfd};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn descriptors(count: u32) -> Vec<Arc<OwnedFd>> {
        (0..count)
            .map(|number| Arc::new(eventfd(number, EventfdFlags::CLOEXEC).unwrap()))
            .collect()
    }

    fn number(descriptor: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(descriptor, &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[tokio::test]
    async fn they_arrive_in_order_with_the_bytes() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (DescriptorStream::new(near), DescriptorStream::new(far));
        let count = 300;
        // A counter of 0 would block whoever reads it.
        let sent = descriptors(count + 1).split_off(1);
        near.enclose(sent.clone());
        near.write_all(&[7; 1000]).await.unwrap();
        let mut bytes = [0; 1000];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [7; 1000]);
        assert!(far.claim(count as usize + 1).is_none());
        let received = far.claim(count as usize).unwrap();
        for (index, descriptor) in (1..).zip(&received) {
            assert_eq!(number(descriptor), index);
            assert!(sent.iter().all(|s| s.as_raw_fd() != descriptor.as_raw_fd()));
            let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        assert_eq!(far.claim(0).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_sends_no_end_of_them_is_an_error() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (DescriptorStream::new(near), DescriptorStream::new(far));
        let flood = vec![descriptors(1).remove(0); 2000];
        near.enclose(flood);
        let writing = tokio::spawn(async move { near.write_all(&[7; 1000]).await });
        let error = far.read_exact(&mut [0; 1000]).await.unwrap_err();
        assert!(error.to_string().contains("more descriptors"), "{error}");
        drop(far);
        // It may have been through before it was hung up on.
        let _ = writing.await.unwrap();
    }
}
