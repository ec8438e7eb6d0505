//! The receiving side of a link: keys by lane and epoch, replay windows, and the seal.

use std::time::{Duration, Instant};

use crate::{
    Discard, HEADER_LEN, Header, LinkParams, MAX_LANES, Mode, ReplayWindow,
    keys::{Chain, Key},
};

/// Epochs that a sender may be ahead of us: as many as could pass while every datagram of the ones between was
/// lost, before the link is declared down.
const MAX_EPOCHS_AHEAD: u64 = 64;

/// How long a key opens datagrams after its successor was first used: longer than any reordering.
const PREVIOUS_EPOCH_TIME: Duration = Duration::from_secs(5);

/// Opens the datagrams of one link. Exactly one thread has it, so windows need no lock.
pub struct Opener {
    /// Empty on a clear link.
    lanes: Vec<Slot>,
}

/// A lane, set up when its first datagram comes.
enum Slot {
    Unused(Chain),
    Used(Box<Lane>),
}

/// What an authentic datagram held.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The record, header first.
    pub record: &'a mut [u8],
    /// Newer than everything before it on its lane: worth following to a new address. Never set on a clear link.
    pub is_newest: bool,
}

struct Lane {
    current: Epoch,
    previous: Option<(Epoch, Instant)>,
    /// A later epoch that a datagram claimed; kept so that forged claims do not make us derive it again and again.
    candidate: Option<Epoch>,
}

struct Epoch {
    number: u64,
    next: Chain,
    key: Key,
    window: Box<ReplayWindow>,
}

impl Opener {
    /// The receiving side of a link.
    #[must_use]
    pub fn new(params: &LinkParams) -> Self {
        let Some(keys) = &params.keys else {
            return Self { lanes: Vec::new() };
        };
        let lane = |lane| Slot::Unused(Chain::new(keys.suite, &keys.receive_secret, lane));
        Self { lanes: (0..MAX_LANES as u8).map(lane).collect() }
    }

    /// Checks a datagram and opens it in place. `header` was decoded from it.
    ///
    /// # Errors
    /// `WrongMode`, `UnknownLane`, `WrongEpoch`, `Replayed`, `Truncated`, `Forged`. Nothing of the link's state
    /// changes then.
    pub fn open<'a>(
        &mut self,
        header: Header,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<Opened<'a>, Discard> {
        match (header.mode, self.lanes.is_empty()) {
            (Mode::Sealed, false) => {
                let lane = self.lanes.get_mut(usize::from(header.lane)).ok_or(Discard::UnknownLane)?;
                lane.used()?.open(header, datagram, now)
            }
            (Mode::Clear, true) => {
                let record = datagram.get_mut(HEADER_LEN..).ok_or(Discard::Truncated)?;
                Ok(Opened { record, is_newest: false })
            }
            (Mode::Sealed, true) | (Mode::Clear, false) => Err(Discard::WrongMode),
        }
    }
}

impl Slot {
    fn used(&mut self) -> Result<&mut Lane, Discard> {
        if let Self::Unused(chain) = self {
            *self = Self::Used(Box::new(Lane::new(Epoch::at(0, chain)?)));
        }
        match self {
            Self::Used(lane) => Ok(lane),
            Self::Unused(_) => Err(Discard::SealFailed),
        }
    }
}

impl Lane {
    const fn new(current: Epoch) -> Self {
        Self { current, previous: None, candidate: None }
    }

    fn open<'a>(
        &mut self,
        header: Header,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<Opened<'a>, Discard> {
        // How far ahead the epoch is, as a signed difference of the low 16 bits.
        match header.epoch.wrapping_sub(self.current.number as u16).cast_signed() {
            0 => self.current.open(header.counter, datagram),
            -1 => {
                self.previous
                    .take_if(|(_, retired)| now.saturating_duration_since(*retired) > PREVIOUS_EPOCH_TIME);
                let (previous, _) = self.previous.as_mut().ok_or(Discard::WrongEpoch)?;
                let opened = previous.open(header.counter, datagram)?;
                Ok(Opened { is_newest: false, ..opened })
            }
            ahead if ahead > 0 => self.open_ahead(ahead.unsigned_abs(), header.counter, datagram, now),
            _ => Err(Discard::WrongEpoch),
        }
    }

    /// Opens with the key of a later epoch, and makes it the current one if that succeeds.
    fn open_ahead<'a>(
        &mut self,
        ahead: u16,
        counter: u32,
        datagram: &'a mut [u8],
        now: Instant,
    ) -> Result<Opened<'a>, Discard> {
        if u64::from(ahead) > MAX_EPOCHS_AHEAD {
            return Err(Discard::WrongEpoch);
        }
        let number = self.current.number + u64::from(ahead);
        let mut candidate = match self.candidate.take() {
            Some(candidate) if candidate.number == number => candidate,
            _ => self.current.derive(ahead)?,
        };
        match candidate.open(counter, datagram) {
            Ok(opened) => {
                let retired = std::mem::replace(&mut self.current, candidate);
                // A skipped epoch's key is gone with the chain; only a direct predecessor is of use.
                self.previous = (ahead == 1).then_some((retired, now));
                Ok(opened)
            }
            Err(reason) => {
                self.candidate = Some(candidate);
                Err(reason)
            }
        }
    }
}

impl Epoch {
    fn at(number: u64, chain: &Chain) -> Result<Self, Discard> {
        Ok(Self { number, key: chain.key()?, next: chain.next()?, window: Box::default() })
    }

    /// The epoch that is `ahead` (at least 1) after this one.
    fn derive(&self, ahead: u16) -> Result<Self, Discard> {
        let mut chain = self.next.clone();
        for _ in 1..ahead {
            chain = chain.next()?;
        }
        Self::at(self.number + u64::from(ahead), &chain)
    }

    fn open<'a>(&mut self, counter: u32, datagram: &'a mut [u8]) -> Result<Opened<'a>, Discard> {
        if !self.window.is_fresh(counter) {
            return Err(Discard::Replayed);
        }
        let record = self.key.open(counter, datagram)?;
        let is_newest = self.window.accept(counter);
        Ok(Opened { record, is_newest })
    }
}
