//! Encrypts what the kernel carries, and keeps all else from leaving: ESP keys and policies for the VXLAN port.
//!
//! With a password the port is closed for everybody, both ways, before there is any device that could send. A link opens it
//! for its peer: encrypted, with keys of the link ([`Rekey`] says which), or in the clear where both ends trust the subnet.
//! Keys are gone with their link, unless the kernel's tables still send to that peer: then its router died, and its kernel
//! goes on. Nothing of an earlier run is taken up: its links are new, and so are their keys.
//!
//! Every link takes ESP by itself and, where both ends can, in UDP, each with keys of its own; [`Shield::carry`] says in what
//! it sends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use weave_datapath::{KeyUse, Rekey, RekeyConfig};
use weave_hostnet::{
    Family, HostError,
    xfrm::{
        Cipher, Direction, Encapsulation, EspKey, Policies, Rule, SPI_FIRST, SPI_MASK, Session, StateId,
        StateSpec, Use, Whom,
    },
};
use weave_link::DataKeys;
use weave_model::{EspOver, LinkId};

use super::{PORT, guard};
use crate::clock;

const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

/// How the frames of a link are to be carried.
pub(crate) enum Protection {
    /// As they are: there is no password, or both ends trust the subnet.
    Clear,
    /// Encrypted with keys of the link.
    Esp { cipher: Cipher, keys: Box<DataKeys>, may_be_in_udp: bool },
}

/// Whether this kernel can encrypt; if not, why.
pub(crate) fn can_encrypt() -> Result<(), HostError> {
    let session = Session::open(PORT)?;
    CIPHERS.into_iter().try_for_each(|cipher| session.check(Family::V4, cipher))?;
    guard::check()
}

/// Whether an earlier run left policies behind.
pub(super) fn is_left() -> anyhow::Result<bool> {
    match Session::open(PORT).and_then(|session| session.policies()) {
        // Then there are none.
        Err(HostError::Unsupported { .. }) => Ok(false),
        other => Ok(!other?.is_empty()),
    }
}

/// Takes all keys and policies away.
pub(super) fn remove() -> anyhow::Result<()> {
    match Session::open(PORT).and_then(|session| session.clear()) {
        // Then there are none.
        Err(HostError::Unsupported { .. }) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// A key with which a link's frames leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyInUse {
    pub(crate) cipher: Cipher,
    pub(crate) over: EspOver,
    /// How many there were before.
    pub(crate) number: u32,
    pub(crate) since: Instant,
}

/// What may be known of the keys: read by whoever reports, without waiting for the kernel.
#[derive(Debug, Default)]
pub(super) struct Known {
    in_use: Mutex<BTreeMap<LinkId, KeyInUse>>,
    changes: AtomicU64,
}

impl Known {
    pub(super) fn in_use(&self, link: LinkId) -> Option<KeyInUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).get(&link).copied()
    }

    /// How often a link went over to its next key.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

/// See the module's documentation.
pub(super) struct Shield {
    is_active: bool,
    rekey: RekeyConfig,
    state: Mutex<State>,
    known: Arc<Known>,
    /// None: what comes in UDP is not taken.
    _encapsulation: Option<Encapsulation>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<LinkId, Protected>,
    /// To whom the kernel's tables send.
    planned: BTreeSet<IpAddr>,
}

/// What one link needs.
struct Protected {
    remote: IpAddr,
    is_linked: bool,
    /// None: in the clear.
    esp: Option<Esp>,
}

struct Esp {
    local: IpAddr,
    cipher: Cipher,
    keys: Box<DataKeys>,
    rekey: Rekey,
    may_be_in_udp: bool,
    /// In what is sent.
    over: EspOver,
}

/// What a key of a link is for.
#[derive(Debug, Clone, Copy)]
struct Place {
    way: KeyUse,
    over: EspOver,
    epoch: u32,
}

impl Shield {
    /// An active one closes the port at once.
    pub(super) fn new(
        is_active: bool,
        rekey: RekeyConfig,
        encapsulation: Option<Encapsulation>,
    ) -> anyhow::Result<Self> {
        let shield = Self {
            is_active,
            rekey,
            state: Mutex::default(),
            known: Arc::default(),
            _encapsulation: encapsulation,
        };
        shield.close()?;
        Ok(shield)
    }

    /// Whether the port is closed for those without protection.
    pub(super) const fn is_active(&self) -> bool {
        self.is_active
    }

    /// What may be known of the keys.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// How often [`Shield::look`] is to be called.
    pub(super) fn pace(&self) -> Duration {
        self.rekey.look()
    }

    /// Brings the kernel in line. Also mends what somebody flushed.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        if !self.is_active {
            return Ok(());
        }
        self.lock().apply()
    }

    /// With whom we speak in the clear, by consent.
    pub(super) fn clear(&self) -> BTreeSet<IpAddr> {
        let state = self.lock();
        let of = |is_clear| state.links.values().filter(move |link| link.esp.is_none() == is_clear);
        let encrypted: BTreeSet<IpAddr> = of(false).map(|link| link.remote).collect();
        of(true).map(|link| link.remote).filter(|remote| !encrypted.contains(remote)).collect()
    }

    /// Lets a link's frames through, protected in this way.
    pub(super) fn link(&self, link: LinkId, remote: IpAddr, protection: Protection) -> anyhow::Result<()> {
        if !self.is_active {
            return Ok(());
        }
        let esp = match protection {
            Protection::Clear => None,
            Protection::Esp { cipher, keys, may_be_in_udp } => Some(Esp {
                local: local_towards(remote)?,
                cipher,
                keys,
                rekey: Rekey::new(self.rekey, clock::now()),
                may_be_in_udp,
                over: EspOver::Ip,
            }),
        };
        let mut state = self.lock();
        // Of a link that ended, which the kernel went on using.
        state.links.retain(|_, other| other.is_linked || other.remote != remote);
        state.links.insert(link, Protected { remote, is_linked: true, esp });
        let result = state.apply();
        if result.is_err() {
            state.links.remove(&link);
            state.apply()?;
        }
        state.tell(&self.known);
        result
    }

    /// A link's packets leave in this from now on, if it is encrypted.
    pub(super) fn carry(&self, link: LinkId, over: EspOver) -> anyhow::Result<()> {
        let mut state = self.lock();
        let Some(esp) = state.links.get_mut(&link).and_then(|link| link.esp.as_mut()) else { return Ok(()) };
        esp.over = over;
        state.tell(&self.known);
        state.apply()
    }

    /// A link is gone; so are its keys, unless its peer's kernel goes on without its router.
    pub(super) fn unlink(&self, link: LinkId) -> anyhow::Result<()> {
        let mut state = self.lock();
        let Some(protected) = state.links.get_mut(&link) else { return Ok(()) };
        protected.is_linked = false;
        state.forget();
        state.tell(&self.known);
        state.apply()
    }

    /// The kernel's tables will send to these, and to nobody else.
    pub(super) fn plan(&self, planned: BTreeSet<IpAddr>) -> anyhow::Result<()> {
        let mut state = self.lock();
        if !self.is_active || state.planned == planned {
            return Ok(());
        }
        state.planned = planned;
        state.forget();
        state.apply()
    }

    /// Looks at the kernel's counters, and changes keys when it is time to.
    pub(super) fn look(&self) -> anyhow::Result<()> {
        let mut state = self.lock();
        if !self.is_active || state.links.is_empty() {
            return Ok(());
        }
        let used = Session::open(PORT)?.states()?;
        let changes = state.observe(&used);
        self.known.changes.fetch_add(changes, Ordering::Relaxed);
        state.tell(&self.known);
        state.apply()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self) {
        let planned = &self.planned;
        self.links.retain(|_, link| link.is_linked || planned.contains(&link.remote));
    }

    fn tell(&self, known: &Known) {
        let in_use = self.links.iter().filter(|(_, link)| link.is_linked).filter_map(|(id, link)| {
            let Esp { cipher, rekey, over, .. } = link.esp.as_ref()?;
            let (number, since) = (rekey.sending(), rekey.since());
            Some((*id, KeyInUse { cipher: *cipher, over: *over, number, since }))
        });
        *known.in_use.lock().unwrap_or_else(PoisonError::into_inner) = in_use.collect();
    }

    /// Tells how many links went over to another key.
    fn observe(&mut self, used: &BTreeMap<StateId, Use>) -> u64 {
        let now = clock::now();
        let mut changes = 0;
        for link in self.links.values_mut() {
            let remote = link.remote;
            let Some(esp) = &mut link.esp else { continue };
            let before = esp.rekey.sending();
            match used.get(&esp.state(remote, esp.sending()).id) {
                Some(used) => esp.rekey.handle_sent(used.bytes),
                None => esp.rekey.handle_lost(),
            }
            let taken: Vec<Place> = esp.taken().collect();
            for place in taken {
                let is_used = used.get(&esp.state(remote, place).id).is_some_and(|used| used.packets > 0);
                if is_used {
                    esp.rekey.handle_taken(place.epoch, now);
                }
            }
            if esp.rekey.handle_timeout(now) {
                tracing::debug!(%remote, epoch = esp.rekey.sending(), "keys of the kernel's path change");
            }
            changes += u64::from(esp.rekey.sending() - before);
        }
        changes
    }

    /// In an order in which nothing passes that must not, and nobody sends with what is not there: first the port is closed,
    /// then come keys, then who uses them, then the former go. What fails keeps nothing else from being done.
    fn apply(&mut self) -> anyhow::Result<()> {
        let doing = || format!("cannot encrypt what leaves by UDP {PORT}");
        let session = Session::open(PORT).with_context(doing)?;
        let policies = self.policies();
        let found = session.policies().with_context(doing)?;
        let missing = policies.iter().filter(|(about, rule)| found.get(*about) != Some(*rule));
        let (closing, opening): (Vec<_>, Vec<_>) = missing.partition(|(_, rule)| **rule == Rule::Block);
        let set = |((direction, whom), rule): (&(Direction, Whom), &Rule)| {
            session.set_policy(*direction, *whom, *rule)
        };
        let closed: Vec<_> = closing.into_iter().map(set).collect();
        let wanted = self.states();
        let present = session.states().with_context(doing)?;
        let missing = wanted.iter().filter(|(id, _)| !present.contains_key(id));
        let installed: Vec<_> =
            missing.map(|(_, (link, place))| self.install(&session, *link, *place)).collect();
        let opened = opening.into_iter().map(set);
        let former = found.keys().filter(|about| !policies.contains_key(*about));
        let removed = former.map(|(direction, whom)| session.remove_policy(*direction, *whom));
        let retired = present.keys().filter(|id| !wanted.contains_key(*id));
        let retired = retired.map(|id| session.remove_state(*id));
        let all = closed.into_iter().chain(installed).chain(opened).chain(removed).chain(retired);
        // Each is done before the first that failed is looked at.
        let all: Vec<Result<(), HostError>> = all.collect();
        all.into_iter().collect::<Result<(), HostError>>().with_context(doing)
    }

    fn install(&mut self, session: &Session, link: LinkId, place: Place) -> Result<(), HostError> {
        let Some(Protected { remote, esp: Some(esp), .. }) = self.links.get_mut(&link) else { return Ok(()) };
        let Place { way, over, epoch } = place;
        // One to send with that somebody took away: its numbers would begin anew, and nonces must not repeat. Packets are
        // dropped until the next takes its place.
        if way == KeyUse::Send && !esp.rekey.give_out(way, over, epoch) {
            return Ok(());
        }
        let key = match way {
            KeyUse::Send => esp.keys.esp_send(over, epoch),
            KeyUse::Take => esp.keys.esp_receive(over, epoch),
        };
        session.add_state(&esp.state(*remote, place), &EspKey::new(*key.expose()))
    }

    /// The keys that the kernel is to have.
    fn states(&self) -> BTreeMap<StateId, (LinkId, Place)> {
        let mut states = BTreeMap::new();
        for (link, protected) in &self.links {
            let Some(esp) = &protected.esp else { continue };
            for place in esp.taken().chain(esp.ready()) {
                states.insert(esp.state(protected.remote, place).id, (*link, place));
            }
        }
        states
    }

    /// The policies that the kernel is to have. Of several links with one address the latest counts, and encryption does
    /// before anything else.
    fn policies(&self) -> Policies {
        let mut policies = Policies::new();
        for direction in [Direction::In, Direction::Out] {
            for family in [Family::V4, Family::V6] {
                policies.insert((direction, Whom::All(family)), Rule::Block);
            }
        }
        let is_encrypted = |link: &&Protected| link.esp.is_some();
        let clear = self.links.values().filter(|link| link.esp.is_none());
        for link in clear.chain(self.links.values().filter(is_encrypted)) {
            let whom = Whom::Peer(link.remote);
            let sending = link.esp.as_ref().map(|esp| esp.state(link.remote, esp.sending()).id.spi);
            let rules = match sending {
                None => [Rule::Allow, Rule::Allow],
                Some(spi) => [Rule::Protect(None), Rule::Protect(Some(spi))],
            };
            policies.insert((Direction::In, whom), rules[0]);
            policies.insert((Direction::Out, whom), rules[1]);
        }
        policies
    }
}

impl Esp {
    /// With what is sent.
    const fn sending(&self) -> Place {
        Place { way: KeyUse::Send, over: self.over, epoch: self.rekey.sending() }
    }

    /// What there is to send with: what is in use, and what was with the same number. That one cannot be made again, and
    /// may be wanted again.
    fn ready(&self) -> impl Iterator<Item = Place> {
        let sending = self.sending();
        let other = Place { over: self.over.other(), ..sending };
        let was_used = self.rekey.is_given_out(KeyUse::Send, other.over, other.epoch);
        [sending].into_iter().chain(was_used.then_some(other))
    }

    /// What is taken.
    fn taken(&self) -> impl Iterator<Item = Place> {
        let ways = EspOver::ALL.into_iter().filter(|over| *over == EspOver::Ip || self.may_be_in_udp);
        let epochs = self.rekey.taken();
        ways.flat_map(move |over| epochs.clone().map(move |epoch| Place { way: KeyUse::Take, over, epoch }))
    }

    fn state(&self, remote: IpAddr, Place { way, over, epoch }: Place) -> StateSpec {
        let (from, to, number) = match way {
            KeyUse::Send => (self.local, remote, self.keys.esp_number_send(over, epoch)),
            KeyUse::Take => (remote, self.local, self.keys.esp_number_receive(over, epoch)),
        };
        StateSpec { id: StateId { to, spi: SPI_FIRST | number & !SPI_MASK }, from, cipher: self.cipher, over }
    }
}

/// The address from which the kernel sends to `remote`. Sends nothing.
fn local_towards(remote: IpAddr) -> anyhow::Result<IpAddr> {
    const DISCARD: u16 = 9;
    let any = if remote.is_ipv4() { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u8; 16]) };
    let socket = UdpSocket::bind((any, 0)).context("cannot open a socket")?;
    socket.connect((remote, DISCARD)).with_context(|| format!("there is no way to {remote}"))?;
    Ok(socket.local_addr()?.ip())
}
