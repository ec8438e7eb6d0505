//! What a finished handshake leaves behind: the keys of the data plane.

use weave_model::EspOver;

use crate::{
    handshake::Side,
    hello::{LocalHello, RemoteHello},
    secret::Secret,
};

/// How the data plane of a link is to be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Sealed with this suite.
    Encrypted {
        /// The AEAD that both ends run fast.
        suite: Suite,
    },
    /// In the clear, because the mesh has no password.
    OpenMesh,
    /// In the clear, because each end has the other's address in its trusted subnets.
    TrustedSubnets,
}

/// An AEAD for the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Where both ends have it in hardware.
    Aes256Gcm,
    /// Everywhere else.
    ChaCha20Poly1305,
}

/// The secrets of one link's data plane, one for each direction. Wiped when dropped.
///
/// Every key that comes out is independent of the others: the direction, the use, the epoch and the lane are
/// part of its derivation. Our `send` is the other end's `receive`. All epochs follow from these secrets, so
/// the keys of past epochs are safe once the link has ended and its secrets are wiped, not before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeys {
    send: Secret<32>,
    receive: Secret<32>,
}

/// What follows from the end of Noise, at both ends alike but for the direction of the keys.
pub(crate) struct LinkSecrets {
    pub(crate) keys: DataKeys,
    /// What the listener sends to show that it is through.
    pub(crate) accept: Secret<32>,
    pub(crate) tiebreak: u128,
}

impl Encryption {
    /// What two ends come to: the same at both, whichever is `local`.
    pub(crate) const fn between(has_password: bool, local: &LocalHello, remote: &RemoteHello) -> Self {
        if !has_password {
            Self::OpenMesh
        } else if local.trusts_remote && remote.trusts_remote {
            Self::TrustedSubnets
        } else if local.aes_hardware && remote.aes_hardware {
            Self::Encrypted { suite: Suite::Aes256Gcm }
        } else {
            Self::Encrypted { suite: Suite::ChaCha20Poly1305 }
        }
    }
}

impl DataKeys {
    /// The key that seals what we send through the sleeve in this epoch on this lane.
    #[must_use]
    pub fn sleeve_send(&self, epoch: u32, lane: u8) -> Secret<32> {
        sleeve(&self.send, epoch, lane)
    }

    /// The key that opens what the other end sends through the sleeve in this epoch on this lane.
    #[must_use]
    pub fn sleeve_receive(&self, epoch: u32, lane: u8) -> Secret<32> {
        sleeve(&self.receive, epoch, lane)
    }

    /// The key under which our heartbeats on the kernel's path are authenticated. One key serves the whole link: a heartbeat
    /// carries no secret, and what was said once is not believed twice.
    #[must_use]
    pub fn heartbeat_send(&self) -> Secret<32> {
        self.send.expand(&[b"weave heartbeat v1"])
    }

    /// The key under which the other end's heartbeats are authenticated.
    #[must_use]
    pub fn heartbeat_receive(&self) -> Secret<32> {
        self.receive.expand(&[b"weave heartbeat v1"])
    }

    /// Key material of our outbound ESP association in this epoch, by what it travels in: 32 bytes of key, then 4 of salt (RFC 4106,
    /// section 8.1, and the order in which the kernel takes them).
    #[must_use]
    pub fn esp_send(&self, over: EspOver, epoch: u32) -> Secret<36> {
        esp(&self.send, over, epoch)
    }

    /// Key material of our inbound ESP association in this epoch; laid out like [`DataKeys::esp_send`].
    #[must_use]
    pub fn esp_receive(&self, over: EspOver, epoch: u32) -> Secret<36> {
        esp(&self.receive, over, epoch)
    }

    /// The number that tells our outbound ESP association in this epoch from others; no secret.
    #[must_use]
    pub fn esp_number_send(&self, over: EspOver, epoch: u32) -> u32 {
        esp_number(&self.send, over, epoch)
    }

    /// The number of our inbound ESP association in this epoch.
    #[must_use]
    pub fn esp_number_receive(&self, over: EspOver, epoch: u32) -> u32 {
        esp_number(&self.receive, over, epoch)
    }
}

impl LinkSecrets {
    pub(crate) fn new(link_key: &Secret<32>, side: Side) -> Self {
        let from_dialer = link_key.expand(&[b"weave link v1 data from dialer"]);
        let from_listener = link_key.expand(&[b"weave link v1 data from listener"]);
        let keys = match side {
            Side::Dialer => DataKeys { send: from_dialer, receive: from_listener },
            Side::Listener => DataKeys { send: from_listener, receive: from_dialer },
        };
        let tiebreak: Secret<16> = link_key.expand(&[b"weave link v1 tiebreak"]);
        Self {
            keys,
            accept: link_key.expand(&[b"weave link v1 accept"]),
            tiebreak: u128::from_be_bytes(*tiebreak.expose()),
        }
    }
}

fn sleeve(key: &Secret<32>, epoch: u32, lane: u8) -> Secret<32> {
    key.expand(&[b"weave sleeve v1", &epoch.to_be_bytes(), &[lane]])
}

fn esp(key: &Secret<32>, over: EspOver, epoch: u32) -> Secret<36> {
    let label: &[u8] = match over {
        EspOver::Ip => b"weave esp v1",
        EspOver::Udp => b"weave esp in udp v1",
    };
    key.expand(&[label, &epoch.to_be_bytes()])
}

fn esp_number(key: &Secret<32>, over: EspOver, epoch: u32) -> u32 {
    let label: &[u8] = match over {
        EspOver::Ip => b"weave esp number v1",
        EspOver::Udp => b"weave esp in udp number v1",
    };
    let number: Secret<4> = key.expand(&[label, &epoch.to_be_bytes()]);
    u32::from_be_bytes(*number.expose())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_direction_use_epoch_and_lane_has_its_own_key_and_both_ends_agree() {
        let link_key = Secret::new([9; 32]);
        let dialer = LinkSecrets::new(&link_key, Side::Dialer).keys;
        let listener = LinkSecrets::new(&link_key, Side::Listener).keys;
        let mut seen = BTreeSet::new();
        assert_eq!(dialer.heartbeat_send(), listener.heartbeat_receive());
        assert_eq!(dialer.heartbeat_receive(), listener.heartbeat_send());
        assert!(seen.insert(*dialer.heartbeat_send().expose()));
        assert!(seen.insert(*dialer.heartbeat_receive().expose()));
        for epoch in [0, 1, 255, 256, u32::MAX] {
            for lane in [0, 1, 255] {
                assert_eq!(dialer.sleeve_send(epoch, lane), listener.sleeve_receive(epoch, lane));
                assert_eq!(dialer.sleeve_receive(epoch, lane), listener.sleeve_send(epoch, lane));
                assert!(seen.insert(*dialer.sleeve_send(epoch, lane).expose()));
                assert!(seen.insert(*dialer.sleeve_receive(epoch, lane).expose()));
            }
            for over in EspOver::ALL {
                assert_eq!(dialer.esp_send(over, epoch), listener.esp_receive(over, epoch));
                assert_eq!(dialer.esp_receive(over, epoch), listener.esp_send(over, epoch));
                let (send, receive) =
                    (dialer.esp_number_send(over, epoch), dialer.esp_number_receive(over, epoch));
                assert_eq!(
                    (receive, send),
                    (listener.esp_number_send(over, epoch), listener.esp_number_receive(over, epoch))
                );
                assert_ne!(send, receive);
                for esp in [dialer.esp_send(over, epoch), dialer.esp_receive(over, epoch)] {
                    assert!(seen.insert(*esp.expose().first_chunk().unwrap()));
                }
            }
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let keys = LinkSecrets::new(&Secret::new([9; 32]), Side::Dialer).keys;
        assert_eq!(format!("{keys:?}"), "DataKeys { send: Secret(..), receive: Secret(..) }");
    }
}
