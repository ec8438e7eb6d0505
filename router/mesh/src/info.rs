//! What a router says of itself in fact 0:"".

use std::net::SocketAddr;

use bytes::Bytes;
use weave_model::Uid;

use crate::{
    MessageError,
    wire::{Reader, Writer},
};

/// The most addresses that one router publishes.
pub(crate) const MAX_ADDRESSES: usize = 8;

/// A router's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) uid: Uid,
    pub(crate) public_key: [u8; 32],
    pub(crate) listen_port: u16,
    /// Links beyond which it refuses peers that are in reach already; 0 is no limit.
    pub(crate) conn_limit: u16,
    pub(crate) nickname: String,
    pub(crate) version: String,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Info {
    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.bytes(&self.uid.0.to_le_bytes());
        writer.bytes(&self.public_key);
        writer.bytes(&self.listen_port.to_le_bytes());
        writer.bytes(&self.conn_limit.to_le_bytes());
        writer.short_text(&self.nickname);
        writer.short_text(&self.version);
        let addresses = &self.addresses[..self.addresses.len().min(MAX_ADDRESSES)];
        writer.bytes(&[addresses.len() as u8]);
        addresses.iter().for_each(|a| writer.address(*a));
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes);
        let info = Self {
            uid: Uid(reader.u64()?),
            public_key: reader.array()?,
            listen_port: reader.u16()?,
            conn_limit: reader.u16()?,
            nickname: short_text(&mut reader)?,
            version: short_text(&mut reader)?,
            addresses: {
                let count = reader.u8()?;
                if usize::from(count) > MAX_ADDRESSES {
                    return Err(MessageError::Unparsable("too many addresses"));
                }
                (0..count).map(|_| reader.address()).collect::<Result<_, _>>()?
            },
        };
        reader.finish()?;
        Ok(info)
    }
}

/// Text for people: control characters would reach their terminal, so they are replaced.
fn short_text(reader: &mut Reader<'_>) -> Result<String, MessageError> {
    let length = reader.u8()?;
    let bytes = reader.take(length.into())?;
    let text = std::str::from_utf8(bytes).map_err(|_| MessageError::Unparsable("text is not UTF-8"))?;
    Ok(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_survives_a_round_trip_and_loses_its_control_characters() {
        let info = Info {
            uid: Uid(7),
            public_key: [3; 32],
            listen_port: 6783,
            conn_limit: 30,
            nickname: "host\u{1b}[2J".to_owned(),
            version: "é".repeat(200),
            addresses: vec!["192.0.2.1:6783".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()],
        };
        let read = Info::decode(&info.encode()).unwrap();
        assert_eq!(read.nickname, "host?[2J");
        assert_eq!(read.version, "é".repeat(127));
        assert_eq!((read.conn_limit, read.addresses), (30, info.addresses));
    }
}
