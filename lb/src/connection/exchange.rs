//! What an engine tells the machine, and what the machine asks of it.

use std::time::Duration;

use crate::run::Timeouts;

/// One of the two peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connected to us.
    Client,
    /// To whom we connected.
    Endpoint,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Endpoint,
            Self::Endpoint => Self::Client,
        }
    }
}

/// Why there is no connection to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// The other host answered that nobody listens.
    Refused,
    /// No answer in time, or the network says that there is no way.
    Unanswered,
    /// This machine lacks something. Says nothing about the endpoint.
    Local,
}

/// What a look at a silent connection's sockets showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// All that was sent has been acknowledged, or nobody can tell.
    Quiet,
    /// A peer has bytes still to take and answers: a slow reader.
    Slow,
    /// A peer has bytes still to take and answers nothing any more.
    Dead,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The client's PROXY header is there and was received, and no byte more.
    /// `drained`: and there were no more.
    HeaderReceived { drained: bool },
    /// What the client sends does not begin with one.
    HeaderRefused,
    /// Told before [`Event::Connected`]: so many bytes of the engine's own, a
    /// PROXY header, are to be sent to the endpoint ahead of the client's.
    Greeting { bytes: u16 },
    /// There is no endpoint (left) to connect to.
    NoEndpoint,
    /// The endpoint is connected, and takes bytes.
    Connected,
    /// It is not going to be.
    ConnectFailed(ConnectFailure),
    /// A side may have bytes, or its end, to be received.
    Readable(Side),
    /// A side may take bytes again.
    Writable(Side),
    /// A side's end is behind what there is to be received.
    HungUp(Side),
    /// A side has failed (RST). What it sent before can still be received.
    Failing(Side),
    /// Bytes were received. `drained`: and then there were no more.
    Received {
        from: Side,
        bytes: u32,
        drained: bool,
    },
    /// Nothing was there to be received.
    ReceiveBlocked(Side),
    /// The side's end (FIN) was received.
    Ended(Side),
    /// Bytes were sent.
    Sent { to: Side, bytes: u32 },
    /// The side takes no more for now.
    SendBlocked(Side),
    /// Receiving from a side or sending to it failed.
    Failed(Side),
    /// The time of the last [`Operation::ArmTimer`] has come.
    Timer,
    /// Answers [`Operation::Inspect`].
    Inspected(Finding),
}

/// What is to be done. Those that end in `*` complete by an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Receive the client's PROXY header if all of it is there, nothing if only a
    /// part of it is, and no byte of what follows. *
    ReceiveHeader,
    /// Choose an endpoint and connect to it. *
    Connect,
    /// Drop the endpoint that was being connected to, for this reason.
    Abandon(ConnectFailure),
    /// Receive up to `limit` bytes. What is still to be sent ahead of them, if
    /// anything, goes with them. If there is nothing to receive this completes at
    /// once all the same, by [`Event::ReceiveBlocked`], while something is to be
    /// sent ahead: who waits for the endpoint to speak first must not wait. *
    Receive { from: Side, limit: u32 },
    /// Send what was received from the other side and is not sent yet. *
    Send { to: Side },
    /// The same, and once all of it is sent the next word about this side is its
    /// end: both may leave in one packet. *
    SendLast { to: Side },
    /// Tell a side that no more bytes come (FIN).
    ShutDown(Side),
    /// The connection is no passing one: give the endpoint's socket what only
    /// those need that stay.
    Settle,
    /// Tell [`Event::Timer`] at this time; an earlier one is forgotten.
    ArmTimer { at_ms: u64 },
    /// Look whether the peers still acknowledge. *
    Inspect,
    /// Close both sockets in order: what is still unsent is delivered. Last.
    Close,
    /// Reset both peers. Last.
    Reset,
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The first try to connect; each further one may take twice as long.
    pub(crate) connect_ms: u64,
    /// Silence while one side has ended.
    pub(crate) half_closed_ms: u64,
    /// Silence.
    pub(crate) idle_ms: u64,
    /// A client that must send a PROXY header has so long for all of it.
    pub(crate) header_ms: u64,
}

impl Limits {
    /// Longer than any process lives, and short enough to be doubled and added to a clock.
    const NEVER_MS: u64 = 1 << 48;

    pub(crate) fn of(timeouts: &Timeouts) -> Self {
        let ms = |timeout: Duration| {
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(Self::NEVER_MS);
            ms.min(Self::NEVER_MS)
        };
        Self {
            connect_ms: ms(timeouts.connect),
            half_closed_ms: ms(timeouts.half_closed),
            idle_ms: ms(timeouts.idle),
            header_ms: ms(timeouts.proxy_header),
        }
    }
}

/// Bytes moved since they were last asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) to_endpoint: u64,
    pub(crate) to_client: u64,
}
