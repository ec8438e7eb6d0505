//! The sending side of a link's lane: counters, epochs, and the seal.

use std::time::{Duration, Instant};

use crate::{
    Discard, HEADER_LEN, Header, LinkParams, Mode, TAG_LEN,
    keys::{Chain, Key},
};

/// Datagrams sealed with one key: the confidentiality limit of RFC 9001 section 6.6 for AES-GCM, which holds for
/// datagrams of any size. At a million a second this is a new key every eight seconds, for some microseconds of work.
const EPOCH_DATAGRAMS: u32 = 1 << 23;

/// How long one key is used on a link that sends little.
const EPOCH_TIME: Duration = Duration::from_secs(600);

/// Seals datagrams of one lane of one link.
pub struct Sealer {
    lane: u8,
    receiver: u32,
    counter: u32,
    rekeys: u64,
    state: State,
}

enum State {
    Clear,
    Sealed(Epoch),
}

struct Epoch {
    number: u64,
    /// Already at the epoch after this one, so that this one's key cannot be derived again.
    next: Chain,
    key: Key,
    /// When the first datagram was sealed.
    since: Option<Instant>,
}

impl Sealer {
    /// The lane of a link.
    ///
    /// # Errors
    /// `SealFailed`: the cipher refused the key, a bug of ours.
    pub fn new(params: &LinkParams, lane: u8) -> Result<Self, Discard> {
        let state = match &params.keys {
            None => State::Clear,
            Some(keys) => {
                let chain = Chain::new(keys.suite, &keys.send_secret, lane);
                State::Sealed(Epoch { number: 0, key: chain.key()?, next: chain.next()?, since: None })
            }
        };
        Ok(Self { lane, receiver: params.remote_index, counter: 0, rekeys: 0, state })
    }

    /// Bytes that a datagram has behind its record.
    #[must_use]
    pub const fn tag_len(&self) -> usize {
        match self.state {
            State::Clear => 0,
            State::Sealed(_) => TAG_LEN,
        }
    }

    /// How many keys were left behind for new ones since this was last asked.
    pub const fn take_rekeys(&mut self) -> u64 {
        std::mem::replace(&mut self.rekeys, 0)
    }

    /// Fills in the header and seals the record, in place: `datagram` is room for the header, the record, and room
    /// for the tag if there is one.
    ///
    /// # Errors
    /// `SealFailed` when the datagram has no room for them: a bug of ours.
    pub fn seal(&mut self, datagram: &mut [u8], now: Instant) -> Result<(), Discard> {
        self.step(now)?;
        let (mode, epoch) = match &self.state {
            State::Clear => (Mode::Clear, 0),
            State::Sealed(epoch) => (Mode::Sealed, epoch.number as u16),
        };
        let header = Header { mode, lane: self.lane, epoch, receiver: self.receiver, counter: self.counter };
        let Some(head) = datagram.first_chunk_mut::<HEADER_LEN>() else {
            return Err(Discard::SealFailed);
        };
        *head = header.encode();
        self.counter = self.counter.wrapping_add(1);
        match &self.state {
            State::Clear => Ok(()),
            State::Sealed(epoch) => epoch.key.seal(header.counter, datagram),
        }
    }

    /// Moves to the next epoch when this one has been used enough.
    fn step(&mut self, now: Instant) -> Result<(), Discard> {
        let State::Sealed(epoch) = &mut self.state else {
            return Ok(());
        };
        let since = *epoch.since.get_or_insert(now);
        if self.counter < EPOCH_DATAGRAMS && now.saturating_duration_since(since) < EPOCH_TIME {
            return Ok(());
        }
        let chain = &epoch.next;
        *epoch = Epoch { number: epoch.number + 1, key: chain.key()?, next: chain.next()?, since: Some(now) };
        self.counter = 0;
        self.rekeys += 1;
        Ok(())
    }
}
