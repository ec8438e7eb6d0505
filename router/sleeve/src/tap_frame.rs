//! A frame as the TAP hands it over, understood once and then split for as many links as it goes to.

use weave_model::{Mac, checksum};

use crate::{
    Discard,
    layers::Layers,
    vnet::{VNET_LEN, VirtioHeader},
};

/// The longest headers of a burst that we carry, bytes: Ethernet with two tags, IPv6 with some options, TCP with all
/// of its options.
pub(crate) const MAX_HEAD: usize = 256;

/// The longest frame: an IP packet of 65,535 bytes behind Ethernet and two VLAN tags.
pub(crate) const MAX_FRAME: usize = 65_535 + 22;

/// One frame from the TAP.
#[derive(Debug)]
pub struct TapFrame<'a> {
    bytes: &'a [u8],
    shape: Shape,
}

/// What can be done with a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Only carried as it is.
    Opaque,
    /// A TCP or UDP packet with its checksum open.
    OpenChecksum(Layers),
    /// Many segments of `segment` bytes behind one set of headers, checksums open.
    Burst { layers: Layers, segment: u16 },
}

impl<'a> TapFrame<'a> {
    /// Reads what came from the TAP: a virtio header and a frame. A checksum that is left open in another way than
    /// TCP's and UDP's is completed here.
    ///
    /// # Errors
    /// `BadTapFrame`: a kernel that does not keep to what it was told, or (when the frame is made from a peer's
    /// records, to be passed on) a peer's fault that was seen late.
    pub fn parse(buffer: &'a mut [u8]) -> Result<Self, Discard> {
        let Some((head, bytes)) = buffer.split_first_chunk_mut::<VNET_LEN>() else {
            return Err(Discard::BadTapFrame);
        };
        if !(14..=MAX_FRAME).contains(&bytes.len()) {
            return Err(Discard::BadTapFrame);
        }
        let header = VirtioHeader::decode(*head);
        let shape = match header.segment() {
            Some(segment) => burst(&header, bytes, segment)?,
            None if header.needs_checksum() => open_checksum(&header, bytes)?,
            None => Shape::Opaque,
        };
        Ok(Self { bytes, shape })
    }

    /// The station it is for.
    #[must_use]
    pub fn destination(&self) -> Mac {
        self.mac(0)
    }

    /// The station that sent it.
    #[must_use]
    pub fn source(&self) -> Mac {
        self.mac(6)
    }

    /// The frame itself, from the destination address on.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) const fn shape(&self) -> Shape {
        self.shape
    }

    fn mac(&self, at: usize) -> Mac {
        Mac(self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default())
    }
}

fn burst(header: &VirtioHeader, bytes: &[u8], segment: u16) -> Result<Shape, Discard> {
    let layers = Layers::parse(bytes).ok_or(Discard::BadTapFrame)?;
    let is_sound = header.is_burst_of(&layers)
        && header.needs_checksum()
        && header.checksum_range() == checksum_field(&layers)
        && segment > 0
        && layers.payload <= MAX_HEAD
        && bytes.len() - layers.network <= 65_535;
    if is_sound { Ok(Shape::Burst { layers, segment }) } else { Err(Discard::BadTapFrame) }
}

fn open_checksum(header: &VirtioHeader, bytes: &mut [u8]) -> Result<Shape, Discard> {
    let range = header.checksum_range();
    if let Some(layers) = Layers::parse(bytes).filter(|layers| checksum_field(layers) == range) {
        return Ok(Shape::OpenChecksum(layers));
    }
    let (start, field) = range;
    let covered = bytes.get(start..).ok_or(Discard::BadTapFrame)?;
    let sum = !checksum::fold(checksum::add(0, covered));
    // A UDP checksum of zero would say that there is none (RFC 768).
    let sum = if sum == 0 && field - start == 6 { 0xffff } else { sum };
    let slot = bytes.get_mut(field..field + 2).ok_or(Discard::BadTapFrame)?;
    slot.copy_from_slice(&sum.to_be_bytes());
    Ok(Shape::Opaque)
}

fn checksum_field(layers: &Layers) -> (usize, usize) {
    (layers.transport, layers.transport + layers.checksum_offset())
}
