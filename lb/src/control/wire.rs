//! What goes over the control socket, and how it is framed.

use std::{io, net::SocketAddr, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::descriptors::DescriptorStream;
pub(super) use super::descriptors::MAX_PER_FRAME;
use crate::{
    event::Event,
    settings::Settings,
    status::{Ack, Status, Summary},
    table::Table,
};

/// Version of everything in this module. It is raised when a message changes
/// in a way that the other side cannot ignore; new optional fields do not count.
pub(super) const PROTOCOL: u32 = 1;

/// Largest frame: room for a table of about 100,000 endpoints, and little
/// enough that a peer gone mad cannot fill the memory.
pub(super) const MAX_FRAME_LEN: usize = 16 * 1024 * 1024;

/// First frame of a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(super) protocol: u32,
}

/// Every later frame of a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Comes back in the reply.
    pub(super) id: u64,
    pub(crate) request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    SetTable(Table),
    Status,
    Summary,
    Subscribe,
    /// Duplicates of the listening sockets that were opened after this one;
    /// 0 for all.
    Sockets {
        after: u32,
    },
    /// Listening sockets of an earlier balancer; as many descriptors come with
    /// the frame.
    Inherit {
        addresses: Vec<SocketAddr>,
    },
    /// Limits and the access log, from now on.
    Configure(Settings),
    /// Free the path of the control socket for a successor.
    StepAside,
    Shutdown,
    /// The same as `Shutdown`, with a time of its own for the connections.
    Retire {
        patience_ms: u64,
    },
}

/// A listening socket whose descriptor comes with the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketLabel {
    /// Grows with each socket that a balancer opens.
    pub(super) id: u32,
    pub(super) address: SocketAddr,
}

/// A frame of the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServerFrame {
    /// Answers the client's hello.
    Hello {
        protocol: u32,
    },
    Reply {
        id: u64,
        reply: Reply,
    },
    Event(Event),
    /// The last frame before the server hangs up on a client it cannot follow.
    Fault {
        message: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Applied(Ack),
    Status(Box<Status>),
    Summary(Summary),
    Subscribed,
    /// The oldest of those asked for, at most [`MAX_PER_FRAME`] of them.
    Sockets(Vec<SocketLabel>),
    Inherited,
    Configured,
    SteppedAside {
        control: PathBuf,
    },
    ShuttingDown,
    Refused(Refusal),
}

/// Why the balancer did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// A newer table is in force.
    #[error("table {offered} is older than table {current}, which is in force")]
    OldTable {
        /// Version that was sent.
        offered: u64,
        /// Version in force.
        current: u64,
    },
    /// The table contradicts itself; the one in force stays.
    #[error("{reason}")]
    InvalidTable {
        /// The first flaw.
        reason: String,
    },
    /// What was handed over is no socket that listens on the address named.
    #[error("the socket handed over for {address} does not listen there")]
    NotListening {
        /// The address it should listen on.
        address: SocketAddr,
    },
    /// The control socket's path cannot be freed.
    #[error("the balancer cannot free the path of its control socket: {reason}")]
    Stuck {
        /// What the system said.
        reason: String,
    },
}

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("a frame is longer than {MAX_FRAME_LEN} bytes")]
    TooLong,
    #[error("a frame is not valid JSON of this protocol: {0}")]
    Json(serde_json::Error),
    #[error("a frame came without its descriptors")]
    NoDescriptors,
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        let is_too_long = error
            .get_ref()
            .is_some_and(|inner| inner.is::<tokio_util::codec::LengthDelimitedCodecError>());
        if is_too_long {
            Self::TooLong
        } else {
            Self::Io(error)
        }
    }
}

/// Puts messages into frames, and takes them out.
pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME_LEN)
        .new_codec()
}

/// A control connection that speaks in frames.
#[derive(Debug)]
pub(super) struct FramedSocket(Framed<DescriptorStream, LengthDelimitedCodec>);

impl FramedSocket {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Framed::new(DescriptorStream::new(stream), codec()))
    }

    /// Sends one frame. After an error or a cancelled call, part of a frame may
    /// have been sent: the next call goes on with it.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        let json = serde_json::to_vec(message).map_err(WireError::Json)?;
        Ok(self.0.send(Bytes::from(json)).await?)
    }

    /// The next frame; `None` when the peer has closed in order. May be
    /// cancelled without loss.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        match self.0.next().await {
            None => Ok(None),
            Some(frame) => serde_json::from_slice(&frame?)
                .map(Some)
                .map_err(WireError::Json),
        }
    }

    /// Sends one frame and its descriptors, of which there is none that it does
    /// not name.
    pub(super) async fn send_with(
        &mut self,
        message: &impl Serialize,
        descriptors: Vec<Arc<OwnedFd>>,
    ) -> Result<(), WireError> {
        self.0.get_mut().enclose(descriptors);
        self.send(message).await
    }

    /// The descriptors of the frame that was received last.
    pub(super) fn descriptors(&mut self, count: usize) -> Result<Vec<OwnedFd>, WireError> {
        self.0
            .get_mut()
            .claim(count)
            .ok_or(WireError::NoDescriptors)
    }
}
