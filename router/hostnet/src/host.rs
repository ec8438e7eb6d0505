//! A handle on one network namespace, and the few requests that everything else is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::StreamExt;
use rtnetlink::{
    Handle, from_socket,
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{RouteNetlinkMessage, neighbour::NeighbourMessage},
    sys::{Socket, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::task::JoinHandle;

use crate::{
    HostError, LinkIndex, Netns, Warning,
    batch::BatchSocket,
    error::{answer_to_io, kernel},
    netns,
};

/// How often, and after which pause each, a table is asked for again that the kernel is still reading out for a caller
/// who gave up.
const MAX_BUSY_TRIES: u32 = 200;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Most different warnings that are kept for [`Host::take_warnings`].
const MAX_WARNINGS: usize = 64;

/// The links, addresses, routes and FDB of one network namespace.
///
/// Cheap to clone; all clones share one netlink socket. Needs a tokio runtime with its I/O driver. The futures are
/// not safe to drop half-way: what was done until then stays. Run them to their end, on a task of their own if the
/// caller has a deadline.
#[derive(Clone)]
pub struct Host {
    handle: Handle,
    /// Where the socket lives, if not in the namespace of this process.
    inside: Option<Arc<Netns>>,
    warnings: Arc<Mutex<BTreeSet<Warning>>>,
    /// Held while a table is read: the kernel reads out one table at a time to a socket and answers `EBUSY` to a
    /// second request (`netlink_dump_start` in net/netlink/af_netlink.c).
    reading: Arc<tokio::sync::Mutex<()>>,
    /// A second socket, opened when there are many changes to make at once.
    pub(crate) batches: Arc<tokio::sync::Mutex<Option<BatchSocket>>>,
    /// What this handle put into the flood lists of tunnel devices.
    pub(crate) flooded: Arc<Mutex<BTreeMap<LinkIndex, BTreeSet<IpAddr>>>>,
    connection: Arc<Connection>,
}

/// Ends the socket's task with the last handle.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Host {
    /// The network namespace that this process is in.
    ///
    /// # Errors
    /// [`HostError::NoPermission`] when we may not change links here.
    pub async fn open() -> anyhow::Result<Self> {
        let host = Self::with_socket(Socket::new(NETLINK_ROUTE), None)?;
        host.check_permission().await?;
        Ok(host)
    }

    /// Another network namespace. Only the socket is opened over there; the caller stays where it is.
    ///
    /// # Errors
    /// [`HostError::NotANamespace`], or [`HostError::NoPermission`] when we may not enter it or change its links.
    pub async fn open_in(netns: Netns) -> anyhow::Result<Self> {
        let socket = netns::in_netns(&netns, || Socket::new(NETLINK_ROUTE))?;
        let host = Self::with_socket(socket, Some(Arc::new(netns)))?;
        host.check_permission().await?;
        Ok(host)
    }

    fn with_socket(socket: std::io::Result<Socket>, inside: Option<Arc<Netns>>) -> Result<Self, HostError> {
        let opening = |e| HostError::from_io("opening a netlink socket", e);
        let socket = netns::tokio_socket(socket.map_err(opening)?).map_err(opening)?;
        let (connection, handle, _) = from_socket::<TokioSocket>(socket);
        Ok(Self {
            handle,
            inside,
            warnings: Arc::default(),
            reading: Arc::default(),
            batches: Arc::default(),
            flooded: Arc::default(),
            connection: Arc::new(Connection(tokio::spawn(connection))),
        })
    }

    /// Gives the socket back to the kernel at once, instead of when the runtime gets to it: a socket keeps the
    /// namespace that it was opened in alive.
    pub(crate) async fn close(self) {
        if let Ok(mut connection) = Arc::try_unwrap(self.connection) {
            connection.0.abort();
            // An error here says that the task was aborted.
            let _aborted = (&mut connection.0).await;
        }
    }

    /// Sends a request that is refused in any case: for want of rights, or because it names nothing.
    async fn check_permission(&self) -> Result<(), HostError> {
        let nothing = RouteNetlinkMessage::DelNeighbour(NeighbourMessage::default());
        match self.request(nothing, 0, "changing network interfaces").await {
            Err(error @ HostError::NoPermission { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// The warnings of all calls since the last time, each once; at most 64 are kept.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<Warning> {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *warnings).into_iter().collect()
    }

    pub(crate) fn warn(&self, warning: Warning) {
        tracing::debug!(%warning, "the host could not be set up in full");
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < MAX_WARNINGS {
            warnings.insert(warning);
        }
    }

    /// Passes the warnings of `other` on to our caller.
    pub(crate) fn adopt_warnings(&self, other: &Self) {
        for warning in other.take_warnings() {
            self.warn(warning);
        }
    }

    /// The namespace that this is a handle on.
    pub(crate) fn is_in(&self, netns: &Netns) -> Result<bool, HostError> {
        match &self.inside {
            Some(own) => Ok(own.is_same(netns)),
            None => Ok(Netns::current()?.is_same(netns)),
        }
    }

    /// Runs `work` in the namespace of this handle; for what netlink does not reach (sysctl, packet sockets).
    pub(crate) fn run_inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, HostError> {
        match &self.inside {
            Some(netns) => netns::in_netns(netns, work),
            None => Ok(work()),
        }
    }

    /// The netlink library's own handle, for its builders.
    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends one request that changes something and waits for the kernel's acknowledgement.
    pub(crate) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl Into<String>,
    ) -> Result<(), HostError> {
        let doing = doing.into();
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let sent = self.handle.clone().request(message);
        let mut answers = match sent {
            Ok(answers) => answers,
            Err(error) => return Err(kernel(doing)(error)),
        };
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(HostError::from_answer(doing, answer_to_io(&error)));
            }
        }
        Ok(())
    }

    /// Sends a request for a table and hands every part of the answer to `pick`.
    pub(crate) async fn dump<T>(
        &self,
        message: RouteNetlinkMessage,
        doing: &str,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, HostError> {
        let _reading = self.reading.lock().await;
        let mut tries = 0;
        loop {
            match self.dump_once(message.clone(), doing, &mut pick).await {
                // A caller that gave up left its table unread; the socket's task reads it to the end by itself.
                Err(HostError::Kernel { ref source, .. })
                    if source.raw_os_error() == Some(libc::EBUSY) && tries < MAX_BUSY_TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Asks for one thing and waits for the answer.
    pub(crate) async fn query(
        &self,
        message: RouteNetlinkMessage,
        doing: &str,
    ) -> Result<Option<RouteNetlinkMessage>, HostError> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST;
        let mut answers = self.handle.clone().request(message).map_err(kernel(doing))?;
        match answers.next().await.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(answer)) => Ok(Some(answer)),
            Some(NetlinkPayload::Error(error)) => Err(HostError::from_answer(doing, answer_to_io(&error))),
            _ => Ok(None),
        }
    }

    async fn dump_once<T>(
        &self,
        message: RouteNetlinkMessage,
        doing: &str,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, HostError> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(message).map_err(kernel(doing))?;
        let mut picked = Vec::new();
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::InnerMessage(part) = answer.payload {
                picked.extend(pick(part));
            } else if let NetlinkPayload::Error(error) = answer.payload {
                return Err(HostError::from_answer(doing, answer_to_io(&error)));
            }
        }
        Ok(picked)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("inside", &self.inside).finish_non_exhaustive()
    }
}
