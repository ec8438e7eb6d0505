//! What one end says of a link: how it is, and whose key is at the other end.

use crate::OverlayKind;

/// A few bytes that tell keys apart. Two routers that have one name by mistake differ in it; it need not withstand who looks for
/// a second key with the same, since whoever has the mesh's password could lie anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct KeyTag(pub(crate) u32);

impl KeyTag {
    /// The sum of the key's words.
    pub(crate) fn of(key: &[u8; 32]) -> Self {
        let (words, _) = key.as_chunks::<4>();
        Self(words.iter().fold(0, |sum, word| sum.wrapping_add(u32::from_le_bytes(*word))))
    }
}

/// One end's view of a link (see [`crate::wire`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkState {
    bits: u8,
    /// Zero if the link is gone.
    far: KeyTag,
}

impl LinkState {
    pub(crate) const GONE: Self = Self { bits: 0xff, far: KeyTag(0) };

    /// A link to the router with that key.
    pub(crate) const fn new(class: u8, overlay: Option<OverlayKind>, outbound: bool, far: KeyTag) -> Self {
        let overlay = match overlay {
            None => 0,
            Some(OverlayKind::Sleeve) => 1,
            Some(OverlayKind::Fastdp) => 2,
        };
        Self { bits: (class & 0x0f) | (overlay << 4) | ((outbound as u8) << 6), far }
    }

    /// A link that is up, as it was read; `None` if the bits mean nothing.
    pub(crate) const fn from_wire(bits: u8, far: KeyTag) -> Option<Self> {
        if bits & 0x80 == 0 && bits & 0x30 != 0x30 { Some(Self { bits, far }) } else { None }
    }

    /// The first byte on the wire; 255 when the link is gone.
    pub(crate) const fn bits(self) -> u8 {
        self.bits
    }

    /// Whose key is at the other end, if the link is up.
    pub(crate) const fn far(self) -> Option<KeyTag> {
        if self.is_up() { Some(self.far) } else { None }
    }

    /// The same, if it is a link to the router with this key; a link to anybody else is none.
    pub(crate) fn towards(self, key: KeyTag) -> Self {
        if self.far == key { self } else { Self::GONE }
    }

    pub(crate) const fn is_up(self) -> bool {
        self.bits != 0xff
    }

    /// The overlay in use, if the link is up and one works.
    pub(crate) const fn overlay(self) -> Option<OverlayKind> {
        match self.bits >> 4 & 0x03 {
            1 => Some(OverlayKind::Sleeve),
            2 => Some(OverlayKind::Fastdp),
            _ => None,
        }
    }

    pub(crate) const fn is_outbound(self) -> bool {
        self.is_up() && self.bits & 0x40 != 0
    }

    pub(crate) const fn class(self) -> u8 {
        self.bits & 0x0f
    }
}

/// Whether an end says that frames get through.
pub(crate) const fn carries(state: LinkState) -> bool {
    state.is_up() && state.overlay().is_some()
}

/// Whether the kernel carries frames over a link in both directions, as its ends say.
pub(crate) fn is_fast((forth, back): (LinkState, LinkState)) -> bool {
    [forth, back].iter().all(|state| state.is_up() && state.overlay() == Some(OverlayKind::Fastdp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_key_counts_for_its_tag() {
        let tags = (0..32).map(|at| {
            let mut key = [7; 32];
            key[at] += 1;
            KeyTag::of(&key)
        });
        assert!(tags.into_iter().all(|tag| tag != KeyTag::of(&[7; 32])));
    }

    #[test]
    fn a_link_to_another_key_is_none() {
        let (one, other) = (KeyTag::of(&[1; 32]), KeyTag::of(&[2; 32]));
        let state = LinkState::new(3, Some(OverlayKind::Fastdp), true, one);
        assert_eq!(state.towards(one), state);
        assert_eq!(state.towards(other), LinkState::GONE);
        assert_eq!(LinkState::GONE.towards(KeyTag(0)).far(), None);
        assert_eq!(LinkState::from_wire(state.bits(), one), Some(state));
        assert!([0x80, 0xff, 0x30, 0x7f].iter().all(|bits| LinkState::from_wire(*bits, one).is_none()));
    }
}
