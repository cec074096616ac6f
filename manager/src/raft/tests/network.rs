//! A network within the process: streams in memory, links that can be cut and nodes that die.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

/// Bytes that a link holds; more than a message, so that a cut is felt by silence.
const BUFFER: usize = 64 << 10;

#[derive(Clone, Default)]
pub(in crate::raft) struct Network {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    listeners: Mutex<BTreeMap<SocketAddr, Listener>>,
    cut: watch::Sender<BTreeSet<(SocketAddr, SocketAddr)>>,
}

#[derive(Clone)]
struct Listener {
    accept: mpsc::UnboundedSender<DuplexStream>,
    dead: CancellationToken,
}

impl Network {
    /// Starts to take connections at an address until `dead`.
    pub(in crate::raft) fn listen(
        &self,
        at: SocketAddr,
        dead: CancellationToken,
    ) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (accept, accepted) = mpsc::unbounded_channel();
        let listener = Listener { accept, dead };
        self.inner.listeners.lock().unwrap().insert(at, listener);
        accepted
    }

    /// What the manager at `from` dials with.
    pub(in crate::raft) fn dialer(
        &self,
        from: SocketAddr,
    ) -> impl Fn(SocketAddr) -> Channel + Send + Sync + use<> {
        let network = self.clone();
        move |to| {
            let network = network.clone();
            let connect = tower::service_fn(move |_: Uri| {
                let network = network.clone();
                async move { network.connect(from, to).await.map(TokioIo::new) }
            });
            Endpoint::from_static("http://manager")
                .connect_timeout(Duration::from_secs(2))
                .connect_with_connector_lazy(connect)
        }
    }

    /// Cuts every link between the two groups; what is under way stays there.
    pub(in crate::raft) fn cut(&self, one: &[SocketAddr], other: &[SocketAddr]) {
        self.inner.cut.send_modify(|cut| {
            for a in one {
                for b in other {
                    cut.extend([(*a, *b), (*b, *a)]);
                }
            }
        });
    }

    /// Cuts the way from one to the other; the way back stays open.
    pub(in crate::raft) fn cut_one_way(&self, from: SocketAddr, to: SocketAddr) {
        self.inner.cut.send_modify(|cut| {
            cut.insert((from, to));
        });
    }

    pub(in crate::raft) fn heal(&self) {
        self.inner.cut.send_modify(BTreeSet::clear);
    }

    async fn connect(&self, from: SocketAddr, to: SocketAddr) -> io::Result<DuplexStream> {
        self.wait_for_link(from, to).await;
        let listener = self.inner.listeners.lock().unwrap().get(&to).cloned();
        let listener = listener
            .filter(|listener| !listener.dead.is_cancelled())
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, left) = tokio::io::duplex(BUFFER);
        let (right, far) = tokio::io::duplex(BUFFER);
        listener
            .accept
            .send(far)
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let network = self.clone();
        tokio::spawn(async move {
            let (left_in, left_out) = tokio::io::split(left);
            let (right_in, right_out) = tokio::io::split(right);
            tokio::select! {
                () = listener.dead.cancelled() => {}
                () = network.carry(from, to, left_in, right_out) => {}
                () = network.carry(to, from, right_in, left_out) => {}
            }
        });
        Ok(near)
    }

    /// Carries bytes one way for as long as the connection lives.
    async fn carry(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        mut input: ReadHalf<DuplexStream>,
        mut output: WriteHalf<DuplexStream>,
    ) {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = input.read(&mut buffer).await {
            self.wait_for_link(from, to).await;
            if output.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    async fn wait_for_link(&self, from: SocketAddr, to: SocketAddr) {
        let mut cut = self.inner.cut.subscribe();
        cut.wait_for(|cut| !cut.contains(&(from, to)))
            .await
            .unwrap();
    }
}
