//! What each end says about itself, inside the encrypted part of the handshake.

use weave_model::{PeerName, Uid};

use crate::{
    error::HandshakeError,
    wire::{Problem, Reader},
};

/// The longest nickname, in bytes; a longer one of our own is cut.
pub const MAX_NICKNAME: usize = 255;

/// The longest software version, in bytes; a longer one of our own is cut.
pub const MAX_SOFTWARE: usize = 64;

/// Feature bit: this router's kernel carries frames as VXLAN on UDP 6784, where the link allows that.
pub const FEATURE_FASTDP: u64 = 1;

/// Feature bit: this router would let its kernel carry frames, but that has no VXLAN. Told so that the operator at the
/// other end looks at the kernel and not at firewalls.
pub const FEATURE_NO_VXLAN: u64 = 2;

/// Feature bit: this router's kernel can encrypt what it carries (ESP, with either suite).
pub const FEATURE_ESP: u64 = 4;

/// Feature bit: what it encrypts may also come in UDP.
pub const FEATURE_ESP_IN_UDP: u64 = 8;

const AES_HARDWARE: u8 = 1;
const TRUSTS_REMOTE: u8 = 2;

/// What we tell the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalHello {
    /// Our name in the mesh.
    pub name: PeerName,
    /// This run of our router.
    pub uid: Uid,
    /// How many times our store was opened; facts of an older incarnation are void.
    pub incarnation: u64,
    /// For people, usually the host name. Sent with its control characters replaced, at most
    /// [`MAX_NICKNAME`] bytes.
    pub nickname: String,
    /// The UDP port that we listen on.
    pub listen_port: u16,
    /// Our software's name and version, for status; at most [`MAX_SOFTWARE`] bytes.
    pub software: String,
    /// Whether AES-GCM is fast here.
    pub aes_hardware: bool,
    /// Whether the other end's address lies in our trusted subnets.
    pub trusts_remote: bool,
    /// The receiver index that the other end writes in its sleeve datagrams to us.
    pub sleeve_index: u32,
    /// Feature bits, sent in the readable part of the hello. Whoever sets a bit of the upper 32 insists on
    /// that feature: there is no link with an end that lacks it.
    pub features: u64,
}

/// What the other end told us, authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteHello {
    /// Its name in the mesh, as it claims: the mesh pins it together with the key.
    pub name: PeerName,
    /// This run of its router.
    pub uid: Uid,
    /// How many times its store was opened.
    pub incarnation: u64,
    /// For people; free of control characters, at most [`MAX_NICKNAME`] characters.
    pub nickname: String,
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// Its software's name and version; free of control characters, at most [`MAX_SOFTWARE`] characters.
    pub software: String,
    /// Whether AES-GCM is fast there.
    pub aes_hardware: bool,
    /// Whether our address lies in its trusted subnets.
    pub trusts_remote: bool,
    /// The receiver index to write in our sleeve datagrams to it.
    pub sleeve_index: u32,
    /// Its feature bits.
    pub features: u64,
    /// Its long-term X25519 key, of which it has shown that it has the secret half.
    pub public_key: [u8; 32],
}

impl LocalHello {
    /// The identity payload. Features are not in it: they are in the readable hello, which the handshake
    /// authenticates.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(self.name.0);
        bytes.extend(self.uid.0.to_be_bytes());
        bytes.extend(self.incarnation.to_be_bytes());
        bytes.extend(self.listen_port.to_be_bytes());
        bytes.extend(self.sleeve_index.to_be_bytes());
        let aes_hardware = u8::from(self.aes_hardware) * AES_HARDWARE;
        let trusts_remote = u8::from(self.trusts_remote) * TRUSTS_REMOTE;
        bytes.push(aes_hardware | trusts_remote);
        for text in [printable(&self.nickname, MAX_NICKNAME), printable(&self.software, MAX_SOFTWARE)] {
            bytes.push(u8::try_from(text.len()).expect("a text is cut to at most 255 bytes"));
            bytes.extend(text.as_bytes());
        }
        bytes
    }
}

impl RemoteHello {
    /// Reads an identity payload of the message that errors call `message`.
    pub(crate) fn decode(
        payload: &[u8],
        message: &'static str,
        features: u64,
        public_key: [u8; 32],
    ) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new(payload, message);
        let name = PeerName(reader.array()?);
        let uid = Uid(reader.u64()?);
        let incarnation = reader.u64()?;
        let listen_port = reader.u16()?;
        let sleeve_index = reader.u32()?;
        let flags = reader.u8()?;
        if flags & !(AES_HARDWARE | TRUSTS_REMOTE) != 0 {
            return Err(reader.error(Problem::Field("flags")));
        }
        let nickname = text(&mut reader, MAX_NICKNAME, "nickname")?;
        let software = text(&mut reader, MAX_SOFTWARE, "software version")?;
        reader.finish()?;
        Ok(Self {
            name,
            uid,
            incarnation,
            nickname,
            listen_port,
            software,
            aes_hardware: flags & AES_HARDWARE != 0,
            trusts_remote: flags & TRUSTS_REMOTE != 0,
            sleeve_index,
            features,
            public_key,
        })
    }
}

fn text(reader: &mut Reader<'_>, limit: usize, field: &'static str) -> Result<String, HandshakeError> {
    let bytes = reader.counted()?;
    match str::from_utf8(bytes) {
        Ok(text) if text.len() <= limit => Ok(printable(text, limit)),
        _ => Err(reader.error(Problem::Field(field))),
    }
}

/// `text` with `?` for every character that could change how a terminal or a log shows its surroundings, cut
/// to at most `limit` bytes. The result is never longer than `text`.
fn printable(text: &str, limit: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(limit));
    for character in text.chars().map(|c| if is_deceptive(c) { '?' } else { c }) {
        if clean.len() + character.len_utf8() > limit {
            break;
        }
        clean.push(character);
    }
    clean
}

/// Control characters, line and paragraph separators, and the invisible ones that reorder or hide text
/// (Unicode Standard Annex 9; Unicode Technical Report 36).
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local() -> LocalHello {
        LocalHello {
            name: PeerName([2, 0, 0, 0, 0, 1]),
            uid: Uid(7),
            incarnation: 3,
            nickname: "host1".to_owned(),
            listen_port: 6783,
            software: "weave 0.1.0".to_owned(),
            aes_hardware: true,
            trusts_remote: false,
            sleeve_index: 0x0102_0304,
            features: 5,
        }
    }

    fn decode(bytes: &[u8]) -> Result<RemoteHello, HandshakeError> {
        RemoteHello::decode(bytes, "identity", 5, [6; 32])
    }

    #[test]
    fn a_payload_with_a_byte_more_or_less_is_refused() {
        let mut bytes = local().encode();
        bytes.push(0);
        let error = |problem| Err(HandshakeError::Malformed { message: "identity", problem });
        assert_eq!(decode(&bytes), error(Problem::Trailing));
        assert_eq!(decode(&bytes[..bytes.len() - 2]), error(Problem::Short));
    }

    #[test]
    fn unknown_flags_and_broken_text_are_refused() {
        let mut bytes = local().encode();
        bytes[28] |= 4;
        let error =
            |field| Err(HandshakeError::Malformed { message: "identity", problem: Problem::Field(field) });
        assert_eq!(decode(&bytes), error("flags"));
        bytes[28] &= !4;
        bytes[30] = 0xff;
        assert_eq!(decode(&bytes), error("nickname"));
    }

    #[test]
    fn an_overlong_nickname_is_cut_between_characters() {
        let hello = LocalHello { nickname: "ä".repeat(200), ..local() };
        assert_eq!(decode(&hello.encode()).unwrap().nickname, "ä".repeat(127));
    }

    #[test]
    fn text_that_would_confuse_a_terminal_is_defused() {
        let hello = LocalHello { nickname: "a\x1b[2Jb\u{202e}c\n".to_owned(), ..local() };
        assert_eq!(decode(&hello.encode()).unwrap().nickname, "a?[2Jb?c?");
    }

    proptest! {
        #[test]
        fn every_hello_survives_the_wire(
            name: [u8; 6], uid: u64, incarnation: u64, nickname in "[a-zß漢-]{0,60}", listen_port: u16,
            software in "[ -~]{0,64}", aes_hardware: bool, trusts_remote: bool, sleeve_index: u32,
        ) {
            let local = LocalHello {
                name: PeerName(name), uid: Uid(uid), incarnation, nickname, listen_port, software, aes_hardware,
                trusts_remote, sleeve_index, features: 5,
            };
            let remote = decode(&local.encode()).unwrap();
            let LocalHello { name, uid, incarnation, nickname, listen_port, software, .. } = local;
            prop_assert_eq!(remote, RemoteHello {
                name, uid, incarnation, nickname, listen_port, software, aes_hardware, trusts_remote, sleeve_index,
                features: 5, public_key: [6; 32],
            });
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn whatever_text_a_peer_sends_comes_out_printable(text: Vec<char>) {
            let text: String = text.into_iter().take(60).collect();
            let mut bytes = LocalHello { nickname: String::new(), software: String::new(), ..local() }.encode();
            bytes.truncate(29);
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend(text.as_bytes());
            bytes.push(0);
            let nickname = decode(&bytes).unwrap().nickname;
            prop_assert!(!nickname.chars().any(is_deceptive));
            prop_assert_eq!(nickname.chars().count(), text.chars().count());
        }
    }
}
