//! The beginning of a connection: the client's header, an endpoint, and what it
//! is told.

use std::{sync::Arc, time::Duration};

use rustix::{
    event::epoll::EventFlags,
    io::{Errno, retry_on_intr},
    net::RecvFlags,
};

use super::{Slot, Tools};
use crate::{
    connection::{ConnectFailure, Event, Side},
    engine::{epoll::buffers::Buffers, slab::Key},
    health::Outcome,
    port::Lease,
    probe,
    proxy::{self, Addresses, Parsed},
    socket::{ConnectError, Socket},
    sources::TooMany,
    syscall::recv,
};

impl Slot {
    /// Looks at what the client has sent so far, and takes the header away only
    /// once all of it is there: what is behind it is the endpoint's.
    pub(super) fn receive_header(&mut self, tools: &mut Tools) {
        let scratch = &mut tools.buffers.scratch;
        let client = self.client();
        let peeked =
            retry_on_intr(|| recv(client, &mut scratch[..proxy::MAX_LEN], RecvFlags::PEEK));
        let event = match peeked {
            Ok((0, _)) => Event::Ended(Side::Client),
            Err(Errno::AGAIN) => Event::ReceiveBlocked(Side::Client),
            Err(error) => return self.fail(Side::Client, error, tools),
            Ok((peeked, _)) => match proxy::parse(&scratch[..peeked]) {
                Parsed::Incomplete => Event::ReceiveBlocked(Side::Client),
                Parsed::Malformed(reason) => {
                    let client = client.peer();
                    tracing::debug!(?client, %reason, "no PROXY header from a client that must send one");
                    Event::HeaderRefused
                }
                Parsed::Header { len, addresses } => {
                    let taken =
                        retry_on_intr(|| recv(client, &mut scratch[..len], RecvFlags::empty()));
                    match taken {
                        Ok((taken, _)) if taken == len => {}
                        // Bytes that were there a moment ago cannot be gone
                        // while the connection is as it should be.
                        Ok(_) => return self.fail(Side::Client, Errno::BADMSG, tools),
                        Err(error) => return self.fail(Side::Client, error, tools),
                    }
                    if self.note_told(addresses, tools).is_err() {
                        return self.tell(Event::HeaderRefused, tools);
                    }
                    let drained = peeked == len;
                    Event::HeaderReceived { drained }
                }
            },
        };
        self.tell(event, tools);
    }

    /// What a header says: whose connection it is, if it is not its own.
    fn note_told(&mut self, told: Option<Addresses>, tools: &Tools) -> Result<(), TooMany> {
        if let (Some(told), Some(entry)) = (&told, &mut self.entry) {
            entry.note_told(told.source);
        }
        self.told = told.map(Box::new);
        if let Some(told) = &self.told {
            self.ticket = tools.shared().sources.admit(told.source.ip())?;
        }
        Ok(())
    }

    // === connecting ===

    pub(super) fn connect(&mut self, key: Key, tools: &Tools) {
        let Some(lease) = self.choose() else {
            self.tell(Event::NoEndpoint, tools);
            return;
        };
        let address = lease.endpoint().address;
        self.lease = Some(lease);
        let begun = Socket::connect(address).and_then(|socket| {
            tools
                .register(&socket, key, Side::Endpoint)
                .map_err(ConnectError::Local)?;
            Ok(socket)
        });
        match begun {
            Ok(socket) => self.endpoint = Some(socket),
            Err(error) => self.note_connect_error(error, tools),
        }
    }

    /// Another endpoint if there is one; else one that stayed silent, for a SYN
    /// may have been lost. One that refused will refuse again.
    fn choose(&self) -> Option<Lease> {
        let source = || Some(self.addresses()?.source.ip());
        match &self.tried {
            None => self.port.choose(&[], source),
            Some(tried) => self
                .port
                .choose(&tried.failed, source)
                .or_else(|| self.port.choose(&tried.refused, source)),
        }
    }

    /// What the event of a connecting socket means; `None`: nothing yet.
    pub(super) fn connected(
        &self,
        flags: EventFlags,
        tools: &Tools,
    ) -> Option<Result<(), ConnectError>> {
        let (socket, lease) = (self.endpoint.as_ref()?, self.lease.as_ref()?);
        // Without an error a hang-up is one that comes after the connecting: an
        // end from the other side alone does not show as one.
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            return Some(Err(socket.connect_error()));
        }
        if !flags.contains(EventFlags::OUT) {
            return None;
        }
        let address = lease.endpoint().address;
        if tools.shared().ephemeral_ports.contains(&address.port())
            && socket.is_connected_to_itself(address)
        {
            return Some(Err(ConnectError::Refused));
        }
        Some(Ok(()))
    }

    pub(super) fn note_connected(&mut self, tools: &Tools) {
        if let Some(lease) = &self.lease {
            if let Some(entry) = &mut self.entry {
                let endpoint = lease.endpoint();
                entry.note_connected(&endpoint.id, endpoint.address);
            }
            lease.count_connected();
            // A success never asks for a prober.
            let _ = self
                .port
                .observe(lease.endpoint().key, Outcome::Connected, "");
        }
        self.tried = None;
        self.greet(tools);
        self.tell(Event::Connected, tools);
    }

    /// Tells the endpoint whose connection it is, where it is to be told.
    fn greet(&mut self, tools: &Tools) {
        let version = self.lease.as_ref().and_then(Lease::proxy_protocol);
        let Some(version) = version else {
            return;
        };
        let Some(addresses) = self.addresses() else {
            // The client has gone meanwhile.
            self.tell(Event::Failed(Side::Client), tools);
            return;
        };
        let header = proxy::header(version, &addresses);
        let bytes = u16::try_from(header.len()).expect("a header is far below 64 KiB");
        self.to_endpoint = Some(Buffers::own(header));
        self.tell(Event::Greeting { bytes }, tools);
    }

    /// From where to where the connection is: as a trusted client has said, or
    /// as it is.
    fn addresses(&self) -> Option<Addresses> {
        if let Some(told) = &self.told {
            return Some(**told);
        }
        let client = self.client.as_ref()?;
        Some(Addresses {
            source: client.peer()?,
            destination: client.local()?,
        })
    }

    pub(super) fn note_connect_error(&mut self, error: ConnectError, tools: &Tools) {
        let failure = error.failure();
        self.tried.get_or_insert_default().error = Some(error);
        self.tell(Event::ConnectFailed(failure), tools);
    }

    pub(super) fn abandon(&mut self, failure: ConnectFailure, tools: &Tools) {
        self.endpoint = None;
        let Some(lease) = self.lease.take() else {
            return;
        };
        let tried = self.tried.get_or_insert_default();
        let error = tried.error.take().unwrap_or_else(|| {
            let doublings = u32::try_from(tried.failed.len()).unwrap_or(0);
            let ms = tools.limits.connect_ms << doublings;
            ConnectError::TimedOut(Duration::from_millis(ms))
        });
        let endpoint = lease.endpoint();
        tried.failed.push(endpoint.key);
        if failure == ConnectFailure::Refused {
            tried.refused.push(endpoint.key);
        }
        tracing::debug!(
            port = endpoint.port,
            endpoint = endpoint.id,
            address = %endpoint.address,
            %error,
            "connect failed"
        );
        lease.count_failure();
        if let Some(outcome) = error.outcome()
            && let Some(target) = self.port.observe(endpoint.key, outcome, &error.to_string())
        {
            probe::spawn(Arc::clone(&self.port), Arc::clone(tools.shared()), target);
        }
    }
}
