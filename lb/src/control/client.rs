//! The daemon's side of the control socket.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UnixStream, time::timeout};

use super::wire::{
    Call, FramedSocket, Hello, MAX_FRAME_LEN, PROTOCOL, Refusal, Reply, Request, ServerFrame,
    SocketLabel, WireError,
};
use crate::{
    event::Event,
    settings::Settings,
    status::{Ack, Status, Summary},
    table::Table,
};

/// How long an answer may take. The balancer answers within milliseconds; one
/// that does not in this time hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a balancer. One request at a time; for several at once open
/// several.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    socket: FramedSocket,
    last_id: u64,
}

/// A stream of events, on a connection of its own so that a slow listener
/// delays no request.
#[derive(Debug)]
pub struct Events {
    socket: FramedSocket,
}

/// Why a request to the balancer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("cannot connect to the balancer at {}", path.display())]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke. Whether the request was carried out is unknown.
    #[error("the connection to the balancer broke")]
    Io(#[source] io::Error),
    /// More than fits into one message: some 100,000 endpoints.
    #[error("a message to or from the balancer is longer than {MAX_FRAME_LEN} bytes")]
    TooLong,
    /// The balancer hung up. Whether the request was carried out is unknown.
    #[error("the balancer closed the connection")]
    Closed,
    /// No answer in ten seconds. Whether the request was carried out is unknown.
    #[error("the balancer did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// The balancer speaks another version of the protocol.
    #[error("the balancer speaks protocol {theirs}, this side speaks {ours}")]
    Protocol {
        /// The balancer's version.
        theirs: u32,
        /// This side's version.
        ours: u32,
    },
    /// The balancer could not follow, and said so.
    #[error("the balancer broke off: {message}")]
    Fault {
        /// What it said.
        message: String,
    },
    /// The answer makes no sense.
    #[error("unexpected answer from the balancer: {0}")]
    Unexpected(String),
    /// The balancer understood and refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Client {
    /// Connects to the balancer whose control socket is at `path`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] when there is none, and others when what
    /// answers is not a balancer of this protocol.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref().to_owned();
        let stream = UnixStream::connect(&path)
            .await
            .map_err(|source| ClientError::Connect {
                path: path.clone(),
                source,
            })?;
        let mut socket = FramedSocket::new(stream);
        socket.send(&Hello { protocol: PROTOCOL }).await?;
        match receive_in_time(&mut socket).await? {
            ServerFrame::Hello { protocol: PROTOCOL } => Ok(Self {
                path,
                socket,
                last_id: 0,
            }),
            ServerFrame::Hello { protocol } => Err(ClientError::Protocol {
                theirs: protocol,
                ours: PROTOCOL,
            }),
            ServerFrame::Fault { message } => Err(ClientError::Fault { message }),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts a table in force. Once this returns, each connection that is not
    /// begun yet is chosen by it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if the table is older than the one in force or
    /// contradicts itself; others if the connection fails.
    pub async fn set_table(&mut self, table: &Table) -> Result<Ack, ClientError> {
        match self.call(Request::SetTable(table.clone())).await? {
            Reply::Applied(ack) => Ok(ack),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts settings in force for what happens from now on, without touching a connection.
    /// An access log that cannot be written is no error: the status names it, and it is
    /// tried again.
    ///
    /// # Errors
    ///
    /// Only if the connection fails.
    pub async fn configure(&mut self, settings: &Settings) -> Result<(), ClientError> {
        match self.call(Request::Configure(settings.clone())).await? {
            Reply::Configured => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The state of everything.
    ///
    /// # Errors
    ///
    /// Only if the connection fails.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        match self.call(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// What has to be known after each change; much less than the status where
    /// many ports are published.
    ///
    /// # Errors
    ///
    /// Only if the connection fails.
    pub async fn summary(&mut self) -> Result<Summary, ClientError> {
        match self.call(Request::Summary).await? {
            Reply::Summary(summary) => Ok(summary),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the balancer to stop listening, and to end once its connections
    /// have or its drain timeout is over. Returns at once.
    ///
    /// # Errors
    ///
    /// Only if the connection fails.
    pub async fn shutdown(&mut self) -> Result<(), ClientError> {
        match self.call(Request::Shutdown).await? {
            Reply::ShuttingDown => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the balancer to stop listening, and to end once its connections have
    /// or `patience` is over: a successor listens on its sockets already.
    /// Returns at once.
    ///
    /// # Errors
    ///
    /// Only if the connection fails.
    pub async fn retire(&mut self, patience: Duration) -> Result<(), ClientError> {
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        match self.call(Request::Retire { patience_ms }).await? {
            Reply::ShuttingDown => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Has the balancer move its control socket to a path that nobody else
    /// uses, which is the old one with something added, and frees the old path
    /// for a successor. Returns the new one. This connection stands.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if the file system does not let it.
    pub async fn step_aside(&mut self) -> Result<PathBuf, ClientError> {
        match self.call(Request::StepAside).await? {
            Reply::SteppedAside { control } => {
                self.path.clone_from(&control);
                Ok(control)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Duplicates of the oldest listening sockets that were opened after the
    /// one with this number.
    pub(super) async fn sockets(
        &mut self,
        after: u32,
    ) -> Result<Vec<(SocketLabel, OwnedFd)>, ClientError> {
        match self.call(Request::Sockets { after }).await? {
            Reply::Sockets(labels) => {
                let descriptors = self.socket.descriptors(labels.len())?;
                Ok(labels.into_iter().zip(descriptors).collect())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Offers listening sockets for the next table.
    pub(super) async fn inherit(
        &mut self,
        addresses: Vec<SocketAddr>,
        sockets: Vec<Arc<OwnedFd>>,
    ) -> Result<(), ClientError> {
        let request = Request::Inherit { addresses };
        match self.call_with(request, sockets).await? {
            Reply::Inherited => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a stream of what happens from now on. Whoever needs the whole
    /// picture asks for the status after this has returned.
    ///
    /// # Errors
    ///
    /// If the second connection cannot be made.
    pub async fn events(&self) -> Result<Events, ClientError> {
        let mut client = Self::connect(&self.path).await?;
        match client.call(Request::Subscribe).await? {
            Reply::Subscribed => Ok(Events {
                socket: client.socket,
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn call(&mut self, request: Request) -> Result<Reply, ClientError> {
        self.call_with(request, Vec::new()).await
    }

    async fn call_with(
        &mut self,
        request: Request,
        descriptors: Vec<Arc<OwnedFd>>,
    ) -> Result<Reply, ClientError> {
        self.last_id += 1;
        let id = self.last_id;
        let call = Call { id, request };
        let sent = timeout(PATIENCE, self.socket.send_with(&call, descriptors)).await;
        sent.map_err(|_| ClientError::TimedOut)??;
        loop {
            match receive_in_time(&mut self.socket).await? {
                ServerFrame::Reply { id: found, reply } if found == id => {
                    return match reply {
                        Reply::Refused(refusal) => Err(refusal.into()),
                        reply => Ok(reply),
                    };
                }
                // The answer to a call that was given up.
                ServerFrame::Reply { id: found, reply } if found < id => {
                    if let Reply::Sockets(labels) = reply {
                        self.socket.descriptors(labels.len())?;
                    }
                }
                ServerFrame::Fault { message } => return Err(ClientError::Fault { message }),
                other => return Err(unexpected(&other)),
            }
        }
    }
}

impl Events {
    /// The next event, however long it takes. May be cancelled without loss.
    ///
    /// # Errors
    ///
    /// When the connection ends, for whatever reason: connect again, open a new
    /// stream and ask for the status.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        match self.socket.receive().await?.ok_or(ClientError::Closed)? {
            ServerFrame::Event(event) => Ok(event),
            ServerFrame::Fault { message } => Err(ClientError::Fault { message }),
            other => Err(unexpected(&other)),
        }
    }
}

async fn receive_in_time(socket: &mut FramedSocket) -> Result<ServerFrame, ClientError> {
    let received = timeout(PATIENCE, socket.receive()).await;
    received
        .map_err(|_| ClientError::TimedOut)??
        .ok_or(ClientError::Closed)
}

fn unexpected(found: &impl std::fmt::Debug) -> ClientError {
    ClientError::Unexpected(format!("{found:?}"))
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Io(error) => Self::Io(error),
            WireError::TooLong => Self::TooLong,
            WireError::Json(_) | WireError::NoDescriptors => Self::Unexpected(error.to_string()),
        }
    }
}
