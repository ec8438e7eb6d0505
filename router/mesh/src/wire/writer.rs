//! Writing messages.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use weave_model::PeerName;

use super::Scope;
use crate::{
    CloseReason,
    record::{Delta, Stamp},
};

/// A message, or the entries of one, under construction.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

pub(crate) fn hash(sum: u64) -> Bytes {
    let mut writer = Writer(vec![1]);
    writer.0.extend(sum.to_le_bytes());
    writer.finish()
}

pub(crate) fn digest(scope: Scope, stamps: impl ExactSizeIterator<Item = (PeerName, Stamp)>) -> Bytes {
    let scope = match scope {
        Scope::Opening => 0,
        Scope::Full => 1,
        Scope::Partial => 2,
    };
    Writer(vec![2, scope]).stamps(stamps)
}

pub(crate) fn want(stamps: impl ExactSizeIterator<Item = (PeerName, Stamp)>) -> Bytes {
    Writer(vec![3]).stamps(stamps)
}

pub(crate) fn send(hops: u8, from: PeerName, to: PeerName, channel: u8, payload: &[u8]) -> Bytes {
    let mut writer = Writer(Vec::with_capacity(15 + payload.len()));
    writer.0.extend([5, hops]);
    writer.0.extend(from.0);
    writer.0.extend(to.0);
    writer.0.push(channel);
    writer.0.extend(payload);
    writer.finish()
}

pub(crate) fn broadcast(
    hops: u8,
    origin: PeerName,
    tag: u32,
    sequence: u64,
    channel: u8,
    payload: &[u8],
) -> Bytes {
    let mut writer = Writer(Vec::with_capacity(23 + payload.len()));
    writer.0.extend([6, hops]);
    writer.0.extend(origin.0);
    writer.0.extend(tag.to_le_bytes());
    writer.varint(sequence);
    writer.0.push(channel);
    writer.0.extend(payload);
    writer.finish()
}

pub(crate) fn observed(address: SocketAddr) -> Bytes {
    let mut writer = Writer(vec![7]);
    writer.address(address);
    writer.finish()
}

pub(crate) fn refuse(reason: CloseReason) -> Bytes {
    Writer(vec![8, reason.code()]).finish()
}

pub(crate) fn claim(stands: bool, name: PeerName, public_key: &[u8; 32]) -> Bytes {
    let mut writer = Writer(vec![9, u8::from(stands)]);
    writer.0.extend(name.0);
    writer.0.extend(public_key);
    writer.finish()
}

impl Writer {
    /// The entries of a Facts message, to be ended with [`Writer::finish_counted`].
    pub(crate) fn facts() -> Self {
        Self::default()
    }

    /// Length so far, in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes back what was written last.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// Puts kind and count before the deltas.
    pub(crate) fn finish_counted(self, count: usize) -> Bytes {
        let mut whole = Self(Vec::with_capacity(self.0.len() + 4));
        whole.0.push(4);
        whole.varint(count as u64);
        whole.0.extend(self.0);
        whole.finish()
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.into()
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn address(&mut self, address: SocketAddr) {
        match address.ip() {
            IpAddr::V4(ip) => {
                self.0.push(4);
                self.0.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                self.0.push(6);
                self.0.extend(ip.octets());
            }
        }
        self.0.extend(address.port().to_le_bytes());
    }

    /// Text with its length in one byte, cut at a character border if it is longer than 255 bytes.
    pub(crate) fn short_text(&mut self, text: &str) {
        let mut length = text.len().min(255);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        self.0.push(length as u8);
        self.0.extend(&text.as_bytes()[..length]);
    }

    fn stamps(mut self, stamps: impl ExactSizeIterator<Item = (PeerName, Stamp)>) -> Bytes {
        self.varint(stamps.len() as u64);
        for (name, stamp) in stamps {
            self.0.extend(name.0);
            self.0.extend(stamp.life.tag.to_le_bytes());
            self.varint(stamp.life.incarnation);
            self.varint(stamp.version);
        }
        self.finish()
    }

    pub(crate) fn delta(&mut self, delta: &Delta) {
        self.0.extend(delta.peer.0);
        self.0.extend(delta.life.tag.to_le_bytes());
        self.varint(delta.life.incarnation);
        self.varint(delta.from);
        self.varint(delta.to - delta.from);
        if delta.from == 0 {
            self.varint(delta.floor);
        }
        self.varint(delta.links.len() as u64);
        for (name, cell) in &delta.links {
            self.0.extend(name.0);
            self.0.push(cell.state.bits());
            self.0.extend(cell.state.far().iter().flat_map(|far| far.0.to_le_bytes()));
            self.varint(delta.to - cell.version);
        }
        self.varint(delta.facts.len() as u64);
        for ((ns, key), fact) in &delta.facts {
            self.0.push(*ns);
            self.varint(key.len() as u64);
            self.0.extend(key);
            self.varint(delta.to - fact.version);
            self.varint(fact.value.as_ref().map_or(0, |v| v.len() as u64 + 1));
            self.0.extend(fact.value.as_deref().unwrap_or_default());
        }
    }
}
