//! What a mesh is started with.

use std::{net::SocketAddr, time::Duration};

use weave_model::{DEFAULT_PORT, PeerName, Uid};

use crate::Target;

/// Who we are and how we behave. `..Config::default()` gives the intervals of a production mesh.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our name.
    pub name: PeerName,
    /// Random at each start.
    pub uid: Uid,
    /// Our long-term X25519 public key; pinned to the name by everybody who hears of us.
    pub public_key: [u8; 32],
    /// What people call us; shown, never compared. At most 255 bytes are published.
    pub nickname: String,
    /// Higher at each start than at any start before, as far as the store remembers. See [`crate::Event::IncarnationBumped`].
    pub incarnation: u64,
    /// Version of the software, shown to others. At most 255 bytes are published.
    pub version: String,
    /// UDP port on which we accept links.
    pub listen_port: u16,
    /// Whether to dial peers that others told of (`--no-discovery` turns it off).
    pub discovery: bool,
    /// Links beyond which we neither dial nor accept; 0 is no limit. Soft: a peer that no other path reaches is
    /// let in up to twice this number, and surplus links are given up later. Among more peers than that we dial up to
    /// three quarters of it, and leave the rest to those who dial us.
    pub conn_limit: usize,
    /// Whom to dial, given by the operator.
    pub targets: Vec<Target>,
    /// Addresses on which others can reach us, best first. At most eight are published.
    pub addresses: Vec<SocketAddr>,
    /// Dials under way at once. More joins a big mesh faster and costs more handshakes at the same time.
    pub max_dials: usize,
    /// First wait after a failed dial; grows by half each time.
    pub backoff: Duration,
    /// Longest wait between dials (before jitter).
    pub backoff_limit: Duration,
    /// A link that lived this long proves its target: the back-off starts afresh.
    pub backoff_reset: Duration,
    /// How much longer than the lower-named end the higher-named one waits before it dials, so that the two do
    /// not meet halfway. Longer finds one-way reachable peers later.
    pub yield_dial: Duration,
    /// How long the addresses of a peer that left are still tried.
    pub remember: Duration,
    /// Shortest time between two rounds of pushing what changed. Longer merges more and spreads slower.
    pub coalesce: Duration,
    /// Longest time between two comparisons with some neighbour, when nothing moves.
    pub exchange: Duration,
    /// How long a peer may be out of reach before its facts go.
    pub grace: Duration,
    /// Removals are remembered for one to two of these; who is further behind is sent the whole state of a peer.
    pub collect: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: PeerName([0; 6]),
            uid: Uid(0),
            public_key: [0; 32],
            nickname: String::new(),
            incarnation: 1,
            version: String::new(),
            listen_port: DEFAULT_PORT,
            discovery: true,
            conn_limit: 0,
            targets: Vec::new(),
            addresses: Vec::new(),
            max_dials: 16,
            backoff: Duration::from_secs(2),
            backoff_limit: Duration::from_secs(360),
            backoff_reset: Duration::from_secs(60),
            yield_dial: Duration::from_secs(2),
            remember: Duration::from_secs(300),
            coalesce: Duration::from_millis(60),
            exchange: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            collect: Duration::from_secs(60),
        }
    }
}
