//! The balancer's side of the control socket.

use std::{
    io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    aside,
    wire::{
        Call, FramedSocket, Hello, MAX_PER_FRAME, PROTOCOL, Refusal, Reply, Request, ServerFrame,
        SocketLabel, WireError,
    },
};
use crate::{
    balancer::{ApplyError, Ended, Handle, Inherited},
    bind,
    event::{Hub, Subscription},
    run::End,
};

/// Clients at once: a daemon, its successor, and people who look. One more
/// waits until one leaves.
const MAX_CLIENTS: usize = 32;
/// How long a client may take to say hello, and to take what is sent to it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A balancer is at work there.
    #[error("a balancer answers at {} already, stop it or use another path", .0.display())]
    InUse(PathBuf),
    /// Something is there that is not a socket, and so not ours to remove.
    #[error("{} exists and is not a socket, remove it or use another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The path of the socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The control socket, removed from the file system when dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    place: Arc<Place>,
}

/// Where the control socket is. Removed from there when dropped.
#[derive(Debug)]
struct Place {
    path: Mutex<PathBuf>,
    /// Device and inode: somebody may have put another socket at the path.
    file: (u64, u64),
}

/// What a control connection works on.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) balancer: Handle,
    pub(crate) events: Hub,
    /// How a client asks for the end.
    pub(crate) end: End,
    /// Cancelled at the end itself: clients are hung up on.
    pub(crate) ended: CancellationToken,
}

impl ControlSocket {
    /// Listens at `path`, replacing what a dead balancer left there.
    pub(crate) async fn bind(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let io_error = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        refuse_if_in_use(path).await?;
        // Made under another name and moved into place: at its own name the
        // socket never has other permissions than those asked for.
        let mut staging = path.as_os_str().to_owned();
        staging.push(".new");
        let staging = PathBuf::from(staging);
        match std::fs::remove_file(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&staging).map_err(io_error)?;
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&staging, permissions).map_err(io_error)?;
        std::fs::rename(&staging, path).map_err(io_error)?;
        let file = std::fs::symlink_metadata(path).map_err(io_error)?;
        Ok(Self {
            listener,
            place: Arc::new(Place {
                path: Mutex::new(path.to_owned()),
                file: (file.dev(), file.ino()),
            }),
        })
    }

    /// Serves clients until the task is dropped.
    pub(crate) async fn serve(self, service: Service) {
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let service = service.clone();
                    let place = Arc::clone(&self.place);
                    let ended = service.ended.clone();
                    tokio::spawn(ended.run_until_cancelled_owned(async move {
                        serve_client(stream, service, &place).await;
                        drop(permit);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket, pausing");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Place {
    /// Moves the socket to a path that no other balancer uses.
    fn step_aside(&self) -> io::Result<PathBuf> {
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        if aside::is(&path, self.file.1) {
            return Ok(path.clone());
        }
        let aside = aside::path(&path, self.file.1);
        std::fs::rename(&*path, &aside)?;
        path.clone_from(&aside);
        Ok(aside)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let path = self.path.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_ours = std::fs::symlink_metadata(&path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if is_ours && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove the control socket");
        }
    }
}

async fn refuse_if_in_use(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Io {
                path: path.to_owned(),
                source,
            });
        }
        Ok(file) if !file.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) | Err(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

/// Why a client's connection ends before the client wants it to.
#[derive(Debug, thiserror::Error)]
enum ClientFault {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("no hello within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("protocol {0} is not spoken here, only {PROTOCOL}")]
    Protocol(u32),
    #[error("the client does not take its answers within {} s", PATIENCE.as_secs())]
    Slow,
    #[error(transparent)]
    Ended(#[from] Ended),
}

async fn serve_client(stream: UnixStream, service: Service, place: &Place) {
    let mut socket = FramedSocket::new(stream);
    let Err(fault) = converse(&mut socket, &service, place).await else {
        return;
    };
    tracing::warn!(error = %fault, "control client disconnected");
    let farewell = ServerFrame::Fault {
        message: fault.to_string(),
    };
    // Told as far as it can be: a client that is gone, or takes nothing,
    // misses it.
    let _ = send(&mut socket, &farewell, vec![]).await;
}

async fn converse(
    socket: &mut FramedSocket,
    service: &Service,
    place: &Place,
) -> Result<(), ClientFault> {
    let hello = timeout(PATIENCE, socket.receive::<Hello>()).await;
    let Some(hello) = hello.map_err(|_| ClientFault::Silent)?? else {
        return Ok(());
    };
    if hello.protocol != PROTOCOL {
        return Err(ClientFault::Protocol(hello.protocol));
    }
    send(socket, &ServerFrame::Hello { protocol: PROTOCOL }, vec![]).await?;
    let mut conversation = Conversation {
        socket,
        service,
        place,
        subscription: None,
    };
    conversation.go_on().await
}

/// With a client that has said hello.
struct Conversation<'a> {
    socket: &'a mut FramedSocket,
    service: &'a Service,
    place: &'a Place,
    subscription: Option<Subscription>,
}

/// A reply, and the descriptors that go with it.
type Answer = (Reply, Vec<Arc<OwnedFd>>);

impl Conversation<'_> {
    async fn go_on(&mut self) -> Result<(), ClientFault> {
        loop {
            let call = tokio::select! {
                call = self.socket.receive::<Call>() => call?,
                event = next_event(&mut self.subscription) => {
                    send(self.socket, &ServerFrame::Event(event), vec![]).await?;
                    continue;
                }
            };
            let Some(Call { id, request }) = call else {
                return Ok(());
            };
            let patience = match &request {
                Request::Shutdown => Some(self.service.end.patience()),
                Request::Retire { patience_ms } => Some(Duration::from_millis(*patience_ms)),
                _ => None,
            };
            let (reply, descriptors) = self.answer(request).await?;
            let sent = send(self.socket, &ServerFrame::Reply { id, reply }, descriptors).await;
            if let Some(patience) = patience {
                // After the reply, lest the process ends before it is out.
                self.service.end.ask(patience);
            }
            sent?;
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Answer, ClientFault> {
        let service = self.service;
        let reply = match request {
            Request::SetTable(table) => match service.balancer.set_table(table).await? {
                Ok(ack) => Reply::Applied(ack),
                Err(error) => Reply::Refused(error.into()),
            },
            Request::Status => Reply::Status(Box::new(service.balancer.status().await?)),
            Request::Summary => Reply::Summary(service.balancer.summary().await?),
            Request::Subscribe => {
                self.subscription = Some(service.events.subscribe());
                Reply::Subscribed
            }
            Request::Sockets { after } => return sockets(after, service).await,
            Request::Inherit { addresses } => {
                let sockets = self.socket.descriptors(addresses.len())?;
                inherit(&addresses, sockets, service).await?
            }
            Request::Configure(settings) => {
                service.balancer.configure(settings).await?;
                Reply::Configured
            }
            Request::StepAside => match self.place.step_aside() {
                Ok(control) => Reply::SteppedAside { control },
                Err(error) => Reply::Refused(Refusal::Stuck {
                    reason: error.to_string(),
                }),
            },
            Request::Shutdown | Request::Retire { .. } => Reply::ShuttingDown,
        };
        Ok((reply, vec![]))
    }
}

async fn sockets(after: u32, service: &Service) -> Result<Answer, ClientFault> {
    let mut open = service.balancer.sockets(after).await?;
    open.truncate(MAX_PER_FRAME);
    let labels = open.iter().map(|one| SocketLabel {
        id: one.id,
        address: one.address,
    });
    let reply = Reply::Sockets(labels.collect());
    Ok((reply, open.into_iter().map(|one| one.socket).collect()))
}

/// All of them or none.
async fn inherit(
    addresses: &[SocketAddr],
    sockets: Vec<OwnedFd>,
    service: &Service,
) -> Result<Reply, ClientFault> {
    let mut inherited = Inherited::new();
    for (address, socket) in addresses.iter().zip(sockets) {
        match bind::take_over(*address, socket) {
            Ok(socket) => inherited.insert(*address, socket),
            Err(error) => {
                tracing::warn!(%address, %error, "a socket handed over is not what it should be");
                return Ok(Reply::Refused(Refusal::NotListening { address: *address }));
            }
        };
    }
    service.balancer.inherit(inherited).await?;
    Ok(Reply::Inherited)
}

async fn next_event(subscription: &mut Option<Subscription>) -> crate::event::Event {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

async fn send(
    socket: &mut FramedSocket,
    frame: &ServerFrame,
    descriptors: Vec<Arc<OwnedFd>>,
) -> Result<(), ClientFault> {
    let sent = timeout(PATIENCE, socket.send_with(frame, descriptors)).await;
    Ok(sent.map_err(|_| ClientFault::Slow)??)
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Old { offered, current } => Self::OldTable { offered, current },
            ApplyError::Invalid { .. } => Self::InvalidTable {
                reason: error.to_string(),
            },
        }
    }
}
