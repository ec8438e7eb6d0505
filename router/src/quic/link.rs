//! Dials, accepts, runs the link handshake, and carries messages.
//!
//! Every connection is one task of its own. It tells the engine what happens through one bounded channel, so a
//! flood of links or messages slows the sender down instead of filling memory.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use tokio::sync::{Semaphore, mpsc, watch};
use weave_link::{Credentials, Established, Fault, GuessLimiter, Handshake, LocalHello};
use weave_mesh::{DialFailure, DialId, Retry, Target};
use weave_model::LinkId;

use super::{
    frame,
    skew::{self, Skew},
    socket::unmapped,
    tls,
};
use crate::clock;

/// A connection that has not become a link after this long is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the reason of a refusal may take to reach the other end.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that may be in the handshake at once, either way; the rest wait. Each costs some tens of kilobytes.
const MAX_HALF_OPEN: usize = 128;
/// From this many on, an address must prove that it receives what we send (QUIC Retry) before it costs us anything.
const RETRY_ABOVE: usize = 64;
/// Longest mesh message in bytes, as the mesh core accepts it.
const MAX_MESSAGE: usize = 1 << 20;
/// Messages that may wait for a slow link; more means that it does not keep up and is closed.
pub(crate) const OUTBOX: usize = 1024;
/// Bytes read at once.
const READ_CHUNK: usize = 64 << 10;

/// The application's error code with which a router closes its links that does not come back, and whose kernel forwards
/// nothing any more.
pub(crate) const GONE_FOR_GOOD: u32 = 2;

/// What happened to a link or an attempt at one.
pub(crate) enum LinkEvent {
    /// The handshake succeeded; the mesh decides whether the link stays.
    Opened(Box<OpenedLink>),
    /// A whole message arrived.
    Message { link: LinkId, bytes: Bytes },
    /// The link takes messages again.
    Drained { link: LinkId },
    /// The link is gone.
    Closed {
        link: LinkId,
        reason: String,
        /// Whether the other router said that it takes everything of its own with it.
        is_for_good: bool,
    },
    /// A dial led to nothing.
    DialFailed { dial: DialId, failure: DialFailure, kind: &'static str },
    /// Somebody who dialled us was refused.
    Refused { remote: SocketAddr, reason: String, kind: &'static str },
}

/// A link whose other end is known.
pub(crate) struct OpenedLink {
    pub(crate) link: LinkId,
    /// `None` when the other end dialled.
    pub(crate) dial: Option<DialId>,
    pub(crate) remote: SocketAddr,
    pub(crate) established: Established,
    /// The index that the other end writes into its sleeve datagrams.
    pub(crate) sleeve_index: u32,
    pub(crate) connection: quinn::Connection,
    /// Dropping it closes the link once everything queued has arrived, for the reason in `farewell`.
    pub(crate) outbox: mpsc::Sender<Bytes>,
    pub(crate) farewell: Farewell,
    /// Set by who fills the outbox when it is nearly full; cleared when it has been emptied.
    pub(crate) is_blocked: Arc<AtomicBool>,
    /// What the other end's clock shows, once it has told.
    pub(crate) skew: Skew,
}

/// The reason for which a link is closed, as both ends will see it.
#[derive(Clone, Default)]
pub(crate) struct Farewell(Arc<Mutex<String>>);

impl Farewell {
    pub(crate) fn set(&self, reason: &str) {
        reason.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the handshake says of us, apart from what differs by link.
#[derive(Clone)]
pub(crate) struct Introduction {
    pub(crate) hello: LocalHello,
    pub(crate) trusted: Vec<IpNet>,
}

/// Makes links.
pub(crate) struct Linker {
    endpoint: quinn::Endpoint,
    credentials: Credentials,
    introduction: Mutex<Introduction>,
    events: mpsc::Sender<LinkEvent>,
    limiter: Mutex<GuessLimiter>,
    half_open: Arc<Semaphore>,
    next_link: AtomicU64,
    /// Whether we have something to say yet; see [`Linker::open`].
    open: watch::Sender<bool>,
}

/// Why an attempt at a link ended.
struct Failure {
    text: String,
    /// Whether it may have been an attempt to guess the password.
    is_guess: bool,
    /// Whether the two ends did not agree, rather than lost each other: something that an operator should hear of.
    is_refusal: bool,
    /// The word for it in metrics.
    kind: &'static str,
}

impl Failure {
    fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_guess: false, is_refusal: false, kind: "network" }
    }
}

impl Linker {
    pub(crate) fn new(
        endpoint: quinn::Endpoint,
        credentials: Credentials,
        introduction: Introduction,
        events: mpsc::Sender<LinkEvent>,
    ) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            credentials,
            introduction: Mutex::new(introduction),
            events,
            limiter: Mutex::new(GuessLimiter::new(clock::now())),
            half_open: Arc::new(Semaphore::new(MAX_HALF_OPEN)),
            next_link: AtomicU64::new(1),
            open: watch::Sender::new(false),
        })
    }

    /// The incarnation that later handshakes announce.
    pub(crate) fn set_incarnation(&self, incarnation: u64) {
        self.introduction.lock().unwrap_or_else(PoisonError::into_inner).hello.incarnation = incarnation;
    }

    /// Lets links begin. Before that, what containers there are has to be known: whoever hears from a restarted router
    /// forgets what its last run said, and would lose the way to every container that is not mentioned at once.
    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    async fn opened(&self) {
        // The sender lives as long as we do.
        let _ = self.open.subscribe().wait_for(|is_open| *is_open).await;
    }

    /// Accepts until the endpoint is closed.
    pub(crate) async fn accept_all(self: Arc<Self>) {
        self.opened().await;
        while let Some(incoming) = self.endpoint.accept().await {
            if self.half_open.available_permits() < MAX_HALF_OPEN - RETRY_ABOVE && incoming.may_retry() {
                // Failing to retry means that the endpoint is closing.
                let _ = incoming.retry();
                continue;
            }
            let remote = unmapped(incoming.remote_address());
            if self.limiter().allow(remote.ip(), clock::now()).is_err() {
                incoming.refuse();
                continue;
            }
            tokio::spawn(Arc::clone(&self).accept(incoming, remote));
        }
    }

    async fn accept(self: Arc<Self>, incoming: quinn::Incoming, remote: SocketAddr) {
        let attempt = async {
            let permit = self.half_open.acquire().await.map_err(|_| Failure::passing("shutting down"))?;
            let connection = incoming.await.map_err(|error| Failure::passing(explain(&error)))?;
            let streams = connection.accept_bi().await.map_err(|error| Failure::passing(explain(&error)))?;
            let shaken = self.shake(connection, streams, weave_link::Side::Listener).await;
            drop(permit);
            shaken
        };
        let outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, attempt).await;
        // Who makes us wait until the time is over may have done so to hide a guess.
        let too_long = || Err(Failure { is_guess: true, ..Failure::passing("the handshake took too long") });
        match outcome.unwrap_or_else(|_| too_long()) {
            Ok(shaken) => {
                self.limiter().record_success(remote.ip(), clock::now());
                self.run(None, shaken).await;
            }
            Err(failure) => {
                if failure.is_guess {
                    self.limiter().record_failure(remote.ip(), clock::now());
                }
                if failure.is_refusal {
                    let _ = self
                        .events
                        .send(LinkEvent::Refused { remote, reason: failure.text, kind: failure.kind })
                        .await;
                } else {
                    tracing::debug!(%remote, reason = failure.text, "a connection did not become a link");
                }
            }
        }
    }

    /// Dials a target and runs the link. Abort the task to abandon it.
    pub(crate) async fn dial(self: Arc<Self>, dial: DialId, target: Target) {
        self.opened().await;
        match self.dial_any(&target).await {
            Ok(shaken) => {
                let remote = unmapped(shaken.connection.remote_address());
                self.limiter().record_success(remote.ip(), clock::now());
                self.run(Some(dial), shaken).await;
            }
            Err(Failure { text, kind, .. }) => {
                // Even a wrong password is tried again: it may be in the middle of being changed.
                let failure = DialFailure { text, retry: Retry::Backoff };
                let _ = self.events.send(LinkEvent::DialFailed { dial, failure, kind }).await;
            }
        }
    }

    /// Tries every address that the target has now.
    async fn dial_any(&self, target: &Target) -> Result<Shaken, Failure> {
        let addresses = resolve(target).await?;
        let mut last = Failure::passing(format!("{target} has no address"));
        for address in addresses {
            let attempt = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.dial_one(address)).await;
            match attempt.unwrap_or_else(|_| Err(Failure::passing(format!("no answer from {address}")))) {
                Ok(shaken) => return Ok(shaken),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn dial_one(&self, address: SocketAddr) -> Result<Shaken, Failure> {
        let permit = self.half_open.acquire().await.map_err(|_| Failure::passing("shutting down"))?;
        let connecting = self
            .endpoint
            .connect(address, tls::SERVER_NAME)
            .map_err(|error| Failure::passing(format!("cannot connect to {address}: {error}")))?;
        let connection = connecting.await.map_err(|error| Failure::passing(explain(&error)))?;
        let streams = connection.open_bi().await.map_err(|error| Failure::passing(explain(&error)))?;
        let shaken = self.shake(connection, streams, weave_link::Side::Dialer).await;
        drop(permit);
        shaken
    }

    /// Runs the handshake on a fresh stream.
    async fn shake(
        &self,
        connection: quinn::Connection,
        mut streams: Streams,
        side: weave_link::Side,
    ) -> Result<Shaken, Failure> {
        let sleeve_index = clock::random_u64() as u32;
        let mut exporter = [0; 32];
        connection
            .export_keying_material(&mut exporter, b"weave link", &[])
            .map_err(|_| Failure::passing("the TLS session gives no key material"))?;
        let hello = self.hello_for(unmapped(connection.remote_address()).ip(), sleeve_index);
        let mut handshake = Handshake::new(side, &self.credentials, hello, exporter, clock::seed());
        let mut received = BytesMut::new();
        match converse(&mut handshake, &mut streams, &mut received).await {
            Ok(established) => Ok(Shaken { connection, established, sleeve_index, streams, received }),
            Err(failure) => {
                refuse(&connection, &mut handshake, &mut streams.0).await;
                Err(Failure { is_guess: handshake.has_unproven_guess(), ..failure })
            }
        }
    }

    fn hello_for(&self, remote: IpAddr, sleeve_index: u32) -> LocalHello {
        let introduction = self.introduction.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let trusts_remote = introduction.trusted.iter().any(|subnet| subnet.contains(&remote));
        LocalHello { trusts_remote, sleeve_index, ..introduction.hello }
    }

    /// Announces the link, then carries messages until it ends.
    async fn run(&self, dial: Option<DialId>, shaken: Shaken) {
        let Shaken { connection, established, sleeve_index, streams: (send, receive), received } = shaken;
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        let farewell = Farewell::default();
        let is_blocked = Arc::new(AtomicBool::new(false));
        let skew = Skew::default();
        let opened = OpenedLink {
            link,
            dial,
            remote: unmapped(connection.remote_address()),
            established,
            sleeve_index,
            connection: connection.clone(),
            outbox,
            farewell: farewell.clone(),
            is_blocked: Arc::clone(&is_blocked),
            skew: skew.clone(),
        };
        if self.events.send(LinkEvent::Opened(Box::new(opened))).await.is_err() {
            return;
        }
        let writer = Writer {
            link,
            events: self.events.clone(),
            connection: connection.clone(),
            farewell,
            is_blocked,
        };
        let writing = tokio::spawn(writer.run(send, waiting));
        let comparing = tokio::spawn(skew::exchange(connection.clone(), skew));
        let reason = self.read_all(link, &connection, receive, received).await;
        writing.abort();
        comparing.abort();
        let is_for_good = is_gone_for_good(&connection);
        let _ = self.events.send(LinkEvent::Closed { link, reason, is_for_good }).await;
    }

    async fn read_all(
        &self,
        link: LinkId,
        connection: &quinn::Connection,
        mut receive: quinn::RecvStream,
        mut received: BytesMut,
    ) -> String {
        loop {
            match frame::take(&mut received, MAX_MESSAGE) {
                // Nothing is said with it: it is there to be acknowledged (`fastdp::suspect`).
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    if self.events.send(LinkEvent::Message { link, bytes }).await.is_err() {
                        return "shutting down".to_owned();
                    }
                }
                Ok(None) => match receive.read_chunk(READ_CHUNK, true).await {
                    Ok(Some(chunk)) => received.extend_from_slice(&chunk.bytes),
                    Ok(None) => return "the other side ended the link".to_owned(),
                    Err(error) => return why_ended(connection, &error),
                },
                Err(frame::TooLong(len)) => {
                    let reason = format!("the other side sent a message of {len} bytes, more than allowed");
                    connection.close(1u32.into(), reason.as_bytes());
                    return reason;
                }
            }
        }
    }

    fn limiter(&self) -> std::sync::MutexGuard<'_, GuessLimiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Streams = (quinn::SendStream, quinn::RecvStream);

/// A finished handshake.
struct Shaken {
    connection: quinn::Connection,
    established: Established,
    sleeve_index: u32,
    streams: Streams,
    /// What came in behind the last handshake message: the other end may begin to talk at once.
    received: BytesMut,
}

/// Looks a host name up anew at each try, so that a peer that moved is found.
async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Failure> {
    match target {
        Target::Address(address) => Ok(vec![*address]),
        Target::Host { name, port } => {
            let found = tokio::net::lookup_host((name.as_str(), *port))
                .await
                .map_err(|error| Failure::passing(format!("cannot look up {name}: {error}")))?;
            Ok(found.collect())
        }
    }
}

/// Runs the handshake to its end.
async fn converse(
    handshake: &mut Handshake,
    streams: &mut Streams,
    received: &mut BytesMut,
) -> Result<Established, Failure> {
    loop {
        flush(handshake, &mut streams.0).await?;
        if let Some(established) = handshake.poll_established() {
            return Ok(established);
        }
        let message = read_message(&mut streams.1, received).await?;
        handshake.handle_message(&message).map_err(|error| Failure {
            is_refusal: true,
            kind: word_for(error.fault()),
            ..Failure::passing(error.to_string())
        })?;
    }
}

const fn word_for(fault: Fault) -> &'static str {
    match fault {
        Fault::CannotParse => "unreadable",
        Fault::Misbehaved => "misbehaved",
        Fault::Incompatible => "version",
        Fault::Password => "password",
        Fault::Ours => "internal",
    }
}

async fn flush(handshake: &mut Handshake, send: &mut quinn::SendStream) -> Result<(), Failure> {
    let mut buffer = BytesMut::new();
    while let Some(message) = handshake.poll_transmit() {
        frame::put(&mut buffer, &message);
    }
    send.write_all(&buffer).await.map_err(|error| Failure::passing(format!("the link broke: {error}")))
}

/// Tells the other end why, and gives the words time to arrive.
async fn refuse(connection: &quinn::Connection, handshake: &mut Handshake, send: &mut quinn::SendStream) {
    if flush(handshake, send).await.is_ok() && send.finish().is_ok() {
        let _ = tokio::time::timeout(LINGER, send.stopped()).await;
    }
    connection.close(1u32.into(), b"refused");
}

async fn read_message(receive: &mut quinn::RecvStream, received: &mut BytesMut) -> Result<Bytes, Failure> {
    loop {
        match frame::take(received, weave_link::MAX_MESSAGE) {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => {}
            Err(frame::TooLong(len)) => {
                return Err(Failure::passing(format!(
                    "the other side sent {len} bytes in one handshake message"
                )));
            }
        }
        let chunk = receive
            .read_chunk(READ_CHUNK, true)
            .await
            .map_err(|error| Failure::passing(format!("the link broke during the handshake: {error}")))?;
        match chunk {
            Some(chunk) => received.extend_from_slice(&chunk.bytes),
            None => return Err(Failure::passing("the other side ended the handshake")),
        }
    }
}

/// Writes what the engine queued, as much as there is at a time, and closes the link when the engine lets go of it.
struct Writer {
    link: LinkId,
    events: mpsc::Sender<LinkEvent>,
    connection: quinn::Connection,
    farewell: Farewell,
    is_blocked: Arc<AtomicBool>,
}

impl Writer {
    async fn run(self, mut send: quinn::SendStream, mut waiting: mpsc::Receiver<Bytes>) {
        let mut buffer = BytesMut::new();
        while let Some(message) = waiting.recv().await {
            frame::put(&mut buffer, &message);
            while buffer.len() < READ_CHUNK
                && let Ok(message) = waiting.try_recv()
            {
                frame::put(&mut buffer, &message);
            }
            if send.write_all(&buffer).await.is_err() {
                // The reader learns the reason from the connection and reports it.
                return;
            }
            buffer.clear();
            if waiting.is_empty() && self.is_blocked.swap(false, Ordering::AcqRel) {
                let _ = self.events.send(LinkEvent::Drained { link: self.link }).await;
            }
        }
        if send.finish().is_ok() {
            let _ = tokio::time::timeout(LINGER, send.stopped()).await;
        }
        self.connection.close(0u32.into(), self.farewell.take().as_bytes());
    }
}

fn why_ended(connection: &quinn::Connection, error: &quinn::ReadError) -> String {
    connection.close_reason().map_or_else(|| error.to_string(), |reason| explain(&reason))
}

fn is_gone_for_good(connection: &quinn::Connection) -> bool {
    let code = match connection.close_reason() {
        Some(quinn::ConnectionError::ApplicationClosed(close)) => close.error_code,
        _ => return false,
    };
    code == GONE_FOR_GOOD.into()
}

/// A connection error in an operator's words.
fn explain(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            format!("closed by the other side: {}", String::from_utf8_lossy(&close.reason))
        }
        quinn::ConnectionError::TimedOut => "no answer".to_owned(),
        quinn::ConnectionError::ConnectionClosed(close) => format!("refused by the other side: {close}"),
        quinn::ConnectionError::LocallyClosed => "closed".to_owned(),
        quinn::ConnectionError::Reset => "the other side has restarted".to_owned(),
        quinn::ConnectionError::ApplicationClosed(_)
        | quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::TransportError(_)
        | quinn::ConnectionError::CidsExhausted => error.to_string(),
    }
}
