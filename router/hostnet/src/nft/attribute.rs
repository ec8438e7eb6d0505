//! Netlink attributes: `{ length: u16, type: u16, value, padding to 4 bytes }` in host byte order, values of nftables
//! in network byte order (Linux: `include/uapi/linux/netlink.h`).

const HEADER_LEN: usize = 4;
/// Set in the type of an attribute whose value is attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// The bits of a type that are no flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// A list of attributes under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Names, addresses and rules: far below the limit of 64 KiB.
        let length = u16::try_from(HEADER_LEN + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a list of attributes; ends at the first one that does not fit.
pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = bytes.get(HEADER_LEN..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    read(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A number in network byte order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Text with a final zero.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8(value[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let inner = Attributes::default().number(1, 7);
        let list = Attributes::default().text(1, "weave").nested(2, &inner).bytes(3, &[9]);
        assert_eq!(list.as_bytes().len(), 12 + 12 + 8);
        let back: Vec<_> = read(list.as_bytes()).collect();
        assert_eq!(back.len(), 3);
        assert_eq!(text(back[0].1).as_deref(), Some("weave"));
        assert_eq!(read(back[1].1).next().and_then(|(_, value)| number(value)), Some(7));
        assert_eq!(back[2], (3, [9].as_slice()));
    }

    #[test]
    fn damaged_lists_end_instead_of_panicking() {
        for bytes in [&[][..], &[4, 0], &[3, 0, 1, 0], &[255, 255, 1, 0, 1], &[0; 8]] {
            assert_eq!(read(bytes).count(), 0, "{bytes:?}");
        }
    }
}
