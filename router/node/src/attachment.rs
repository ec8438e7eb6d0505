//! Which container sits behind a MAC address: the fact that lets every router find it.
//!
//! Namespace [`NAMESPACE`], key: the six bytes of the MAC. Value: postcard of [`Attachment`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weave_mesh::Namespace;
use weave_model::{ContainerId, Mac};

/// Where attachments are kept among a peer's facts.
pub(crate) const NAMESPACE: Namespace = Namespace(16);
/// Most addresses on one container interface that we accept from a peer.
const MAX_ADDRESSES: usize = 64;

/// A container interface on some host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Whose interface it is.
    pub container: ContainerId,
    /// Its addresses, in the order they were given.
    pub addresses: Vec<IpAddr>,
}

/// A fact that is no attachment. The peer's fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// The key is not a unicast MAC address.
    #[error("the key of an attachment is not a unicast MAC address")]
    Key,
    /// The value does not parse.
    #[error("the value of an attachment does not parse")]
    Value,
    /// More than 64 addresses.
    #[error("an attachment names {0} addresses, more than {MAX_ADDRESSES}")]
    TooMany(usize),
}

impl Attachment {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Encoding into a vector fails only when memory does.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, AttachmentError> {
        let (attachment, rest): (Self, _) =
            postcard::take_from_bytes(value).map_err(|_| AttachmentError::Value)?;
        if !rest.is_empty() {
            return Err(AttachmentError::Value);
        }
        match attachment.addresses.len() {
            0..=MAX_ADDRESSES => Ok(attachment),
            n => Err(AttachmentError::TooMany(n)),
        }
    }
}

pub(crate) fn decode_key(key: &[u8]) -> Result<Mac, AttachmentError> {
    let mac = Mac(key.try_into().map_err(|_| AttachmentError::Key)?);
    if mac.is_multicast() { Err(AttachmentError::Key) } else { Ok(mac) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_survives_a_round_trip_and_junk_is_refused() {
        let attachment = Attachment {
            container: "web".parse().unwrap(),
            addresses: vec!["10.32.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        };
        let bytes = attachment.encode();
        assert_eq!(Attachment::decode(&bytes), Ok(attachment));
        let trailing = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Attachment::decode(&trailing), Err(AttachmentError::Value));
        assert_eq!(Attachment::decode(&[]), Err(AttachmentError::Value));
        assert_eq!(decode_key(&[1, 2, 3]), Err(AttachmentError::Key));
        assert_eq!(decode_key(&[0xff; 6]), Err(AttachmentError::Key));
    }
}
