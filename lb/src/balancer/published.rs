//! One published port's listening sockets, one for each ingress address.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    balancer::Inherited,
    bind::listen,
    engine::Listening,
    port::Port,
    shared::Shared,
    status::{ListenerStatus, PortError},
    table::Listener,
};

/// What became of one ingress address.
#[derive(Debug)]
enum Binding {
    Bound(SocketAddr, Arc<Listening>),
    /// The machine has no such family.
    NotNeeded,
    Failed(String),
}

/// A published port and its listening sockets.
#[derive(Debug)]
pub(super) struct Published {
    number: u16,
    /// What the table in force says of it.
    listener: Option<Listener>,
    port: Arc<Port>,
    shared: Arc<Shared>,
    bindings: BTreeMap<IpAddr, Binding>,
}

impl Published {
    pub(super) fn new(number: u16, shared: Arc<Shared>) -> Self {
        Self {
            number,
            listener: None,
            port: Arc::new(Port::new(number, shared.events.clone())),
            shared,
            bindings: BTreeMap::new(),
        }
    }

    /// Remembers what the table says, and tells whether that is news: of a
    /// thousand ports a new table changes one, mostly.
    pub(super) fn is_news(&mut self, listener: &Listener) -> bool {
        if self.listener.as_ref() == Some(listener) {
            return false;
        }
        self.listener = Some(listener.clone());
        true
    }

    pub(super) fn port(&self) -> &Port {
        &self.port
    }

    /// Binds those addresses that were not tried yet.
    pub(super) fn bind_new(&mut self, ingress: &[IpAddr], inherited: &mut Inherited) {
        for ip in ingress {
            if !self.bindings.contains_key(ip) {
                self.bind_one(*ip, inherited);
            }
        }
    }

    /// Tries those addresses again that could not be bound.
    pub(super) fn retry_failed(&mut self) {
        let failed: Vec<IpAddr> = self
            .bindings
            .iter()
            .filter(|(_, binding)| matches!(binding, Binding::Failed(_)))
            .map(|(ip, _)| *ip)
            .collect();
        for ip in failed {
            self.bind_one(ip, &mut Inherited::new());
        }
    }

    /// Why the port is not bound on each address; `None` if it is.
    pub(super) fn error(&self) -> Option<PortError> {
        let reasons: Vec<&str> = self
            .bindings
            .values()
            .filter_map(|binding| match binding {
                Binding::Failed(reason) => Some(reason.as_str()),
                Binding::Bound(..) | Binding::NotNeeded => None,
            })
            .collect();
        (!reasons.is_empty()).then(|| PortError {
            port: self.number,
            reason: reasons.join("; "),
        })
    }

    pub(super) fn status(&self) -> ListenerStatus {
        let bound = self.bindings.values().filter_map(|binding| match binding {
            Binding::Bound(address, _) => Some(*address),
            Binding::NotNeeded | Binding::Failed(_) => None,
        });
        ListenerStatus {
            port: self.number,
            service: self
                .listener
                .as_ref()
                .map(|listener| listener.service.clone())
                .unwrap_or_default(),
            bound: bound.collect(),
            error: self.error().map(|error| error.reason),
            accepted: self.port.accepted(),
            unserved: self.port.unserved(),
            refused: self.port.refused(),
            shed: self.port.shed(),
            panicking: self.port.is_panicking(),
            traffic: self.port.traffic(),
            connect_times: self.port.connect_times(),
            endpoints: self.port.endpoints(),
        }
    }

    /// The listening sockets, for the engines to accept from.
    pub(super) fn listening(&self) -> impl Iterator<Item = Arc<Listening>> {
        self.bindings.values().filter_map(|binding| match binding {
            Binding::Bound(_, listening) => Some(Arc::clone(listening)),
            Binding::NotNeeded | Binding::Failed(_) => None,
        })
    }

    /// The listening sockets with their addresses.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (SocketAddr, &Listening)> {
        self.bindings.values().filter_map(|binding| match binding {
            Binding::Bound(address, listening) => Some((*address, &**listening)),
            Binding::NotNeeded | Binding::Failed(_) => None,
        })
    }

    /// Lets go of the listening sockets.
    pub(super) fn stop_listening(&mut self) {
        self.bindings.clear();
    }

    fn bind_one(&mut self, ip: IpAddr, inherited: &mut Inherited) {
        let address = SocketAddr::new(ip, self.number);
        let bound = match inherited.remove(&address) {
            Some(socket) => Ok(Some(socket)),
            None => listen(address),
        };
        let binding = match bound {
            Ok(Some(socket)) => {
                let listening = Listening {
                    id: self.shared.next_listening_id(),
                    socket: Arc::new(socket),
                    port: Arc::clone(&self.port),
                };
                Binding::Bound(address, Arc::new(listening))
            }
            Ok(None) => Binding::NotNeeded,
            Err(error) => Binding::Failed(explain(address, &error)),
        };
        self.bindings.insert(ip, binding);
    }
}

/// What the user is told: which address, what is wrong, what to do.
fn explain(address: SocketAddr, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there, stop it or publish another port"
        }
        io::ErrorKind::PermissionDenied => "ports this low need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "the address is not one of this machine",
        _ => return format!("cannot listen on {address}: {error}"),
    };
    format!("cannot listen on {address}: {reason}")
}
