//! States: an SPI, a key, a replay window.

use std::{collections::BTreeMap, io};

use super::{
    Cipher, EspKey, REPLAY_WINDOW, REQUEST, SPI_FIRST, SPI_MASK, Session, StateId, StateSpec, Use,
    channel::{ESP, LIMITS_LEN, Reader, SELECTOR_LEN, Writer, no_limits, selector},
    encapsulation, family_of, number_of,
};
use weave_model::EspOver;

use crate::{Family, HostError};

const NEW: u16 = 0x10;
const DELETE: u16 = 0x11;
const GET: u16 = 0x12;

/// Attributes: `XFRMA_ENCAP`, `XFRMA_ALG_AEAD`, `XFRMA_REPLAY_ESN_VAL`.
const ENCAPSULATION: u16 = 4;
const AEAD: u16 = 18;
const REPLAY: u16 = 23;
/// Sequence numbers have 64 bits (`XFRM_STATE_ESN`).
const FLAG_ESN: u8 = 128;
/// `XFRM_MODE_TRANSPORT`.
pub(super) const TRANSPORT: u8 = 0;
/// What was counted, and statistics.
const CURRENT_LEN: usize = 32;
const STATISTICS_LEN: usize = 12;
const ALGORITHM_NAME_LEN: usize = 64;

impl Session {
    /// Our states, and what went through them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn states(&self) -> Result<BTreeMap<StateId, Use>, HostError> {
        let parts = self.channel.dump(GET, NEW);
        let parts = parts.map_err(|e| HostError::from_answer("reading the table of ESP keys", e))?;
        Ok(parts.iter().filter_map(|part| read(part)).collect())
    }

    /// Makes a state. One of that name must not be there.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] when the kernel has no ESP or not this cipher; `EEXIST` in [`HostError::Kernel`].
    pub fn add_state(&self, spec: &StateSpec, key: &EspKey) -> Result<(), HostError> {
        let answer = self.channel.order(NEW, &write(spec, self.port, key));
        answer.map_err(|error| refusal(family_of(spec.id.to), spec.cipher, error))
    }

    /// Takes a state away; its key is wiped by the kernel. One that is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_state(&self, id: StateId) -> Result<(), HostError> {
        let body = Writer::default().address(Some(id.to)).network_number(id.spi);
        let body = body.short(number_of(family_of(id.to))).byte(ESP).zeros(1);
        match self.channel.order(DELETE, &body) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                Err(HostError::from_answer("removing an ESP key", error))
            }
            _ => Ok(()),
        }
    }
}

/// `struct xfrm_usersa_info`, the algorithm with its key, and the replay window.
pub(super) fn write(spec: &StateSpec, port: u16, key: &EspKey) -> Writer {
    let StateSpec { id, from, cipher, over } = spec;
    let family = family_of(id.to);
    let mut name = cipher.name().as_bytes().to_vec();
    name.resize(ALGORITHM_NAME_LEN, 0);
    let aead = Writer::default().bytes(&name).number(36 * 8).number(16 * 8).bytes(&key.0);
    let words = REPLAY_WINDOW.div_ceil(32);
    let replay =
        Writer::default().number(words).zeros(16).number(REPLAY_WINDOW).bytes(&vec![
            0;
            usize::try_from(words)
                .unwrap_or_default()
                * 4
        ]);
    let state = selector(port, family, Some(*from), Some(id.to))
        .address(Some(id.to))
        .network_number(id.spi)
        .byte(ESP)
        .zeros(3)
        .address(Some(*from))
        .append(&no_limits())
        .zeros(CURRENT_LEN + STATISTICS_LEN + 4)
        .number(REQUEST)
        .short(number_of(family))
        .byte(TRANSPORT)
        .byte(0)
        .byte(FLAG_ESN)
        .zeros(7)
        .attribute(AEAD, &aead)
        .attribute(REPLAY, &replay);
    match over {
        EspOver::Ip => state,
        EspOver::Udp => state.attribute(ENCAPSULATION, &encapsulation::template()),
    }
}

/// A state of the kernel, if it is ours.
fn read(part: &[u8]) -> Option<(StateId, Use)> {
    let mut reader = Reader(part);
    reader.skip(SELECTOR_LEN)?;
    let destination = reader;
    reader.skip(16)?;
    let spi = u32::from_be_bytes(reader.take()?);
    let [protocol, ..]: [u8; 4] = reader.take()?;
    reader.skip(16 + LIMITS_LEN)?;
    let (bytes, packets) = (reader.long()?, reader.long()?);
    reader.skip(16 + STATISTICS_LEN + 4)?;
    let request = reader.number()?;
    let family = match u16::from_ne_bytes(reader.take()?) {
        number if number == number_of(Family::V4) => Family::V4,
        number if number == number_of(Family::V6) => Family::V6,
        _ => return None,
    };
    let to = { destination }.address(family)?;
    let is_ours = protocol == ESP && request == REQUEST && spi & SPI_MASK == SPI_FIRST;
    is_ours.then_some((StateId { to, spi }, Use { packets, bytes }))
}

/// What a refusal means to the operator.
fn refusal(family: Family, cipher: Cipher, source: io::Error) -> HostError {
    let missing = |feature, advice, source| HostError::Unsupported { feature, advice, source };
    match (source.raw_os_error(), family, cipher) {
        (Some(libc::EPROTONOSUPPORT | libc::EPROTOTYPE | libc::EAFNOSUPPORT), Family::V4, _) => {
            missing("ESP over IPv4", "load the kernel module esp4 (CONFIG_INET_ESP)", source)
        }
        (Some(libc::EPROTONOSUPPORT | libc::EPROTOTYPE | libc::EAFNOSUPPORT), Family::V6, _) => {
            missing("ESP over IPv6", "load the kernel module esp6 (CONFIG_INET6_ESP)", source)
        }
        (Some(libc::ENOSYS | libc::ENOENT), _, Cipher::Aes256Gcm) => {
            missing("AES-GCM for ESP", "load the kernel modules gcm, seqiv and aesni_intel", source)
        }
        (Some(libc::ENOSYS | libc::ENOENT), _, Cipher::ChaCha20Poly1305) => {
            missing("ChaCha20-Poly1305 for ESP", "load the kernel modules chacha20poly1305 and seqiv", source)
        }
        _ => HostError::from_answer("adding an ESP key", source),
    }
}
