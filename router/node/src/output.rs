//! What a node wants done.

use std::sync::Arc;

use bytes::Bytes;
use weave_datapath::{Forwarding, Plan};
use weave_ipam::{Refusal, Reply, RequestId, Write};
use weave_mesh::{CloseReason, DialId, Target};
use weave_model::{LinkId, PeerName};
use weave_names::Snapshot;

/// One effect. Carry them out in the order they come.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send these bytes as one message on the link.
    Transmit {
        /// On which link.
        link: LinkId,
        /// The message.
        bytes: Bytes,
    },
    /// Try to reach a target; answer with `handle_link_opened` or `handle_dial_failed`.
    Dial {
        /// Names this attempt.
        dial: DialId,
        /// Whom to reach.
        target: Target,
    },
    /// Stop trying.
    AbandonDial {
        /// Which attempt.
        dial: DialId,
    },
    /// Close the link; the reason is for both ends' eyes.
    CloseLink {
        /// Which link.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// The link may carry data.
    LinkAdopted {
        /// Which link.
        link: LinkId,
        /// Who is at its other end.
        peer: PeerName,
    },
    /// Make these writes durable, together, before going on.
    Persist(Vec<Write>),
    /// Our incarnation rose: keep it, and announce it in later handshakes.
    Incarnation(u64),
    /// The answer to a request.
    Reply {
        /// Which request.
        request: RequestId,
        /// What came of it.
        result: Result<Reply, Refusal>,
    },
    /// Forward frames by this from now on.
    Forwarding(Arc<Forwarding>),
    /// Bring the kernel's tables in line with this.
    Plan(Arc<Plan>),
    /// Give the bridge and the containers this MTU, bytes: the best that every path carries.
    Mtu(u16),
    /// Answer names from this from now on.
    Names(Arc<Snapshot>),
    /// A router is part of the mesh.
    PeerJoined {
        /// Its name.
        peer: PeerName,
        /// What people call it.
        nickname: String,
    },
    /// A router left, or cannot be reached any more.
    PeerLeft {
        /// Its name.
        peer: PeerName,
    },
    /// Something that a peer said was refused; worth a count and a line in the log.
    Refused(Refused),
}

/// Input from a peer that one of the cores did not accept. Nothing was changed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused {what} from {peer}: {why}")]
pub struct Refused {
    /// Who said it, as far as the mesh can tell.
    pub peer: PeerName,
    /// What it was meant to be.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}
