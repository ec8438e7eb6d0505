//! Policies: whose packets need a state, whose do not, and whose are dropped.

use super::{
    Direction, PRIORITY_ALL, PRIORITY_PEER, Policies, REQUEST, Rule, Session, Whom,
    channel::{ESP, LIMITS_LEN, Reader, Writer, no_limits, read_selector, selector},
    family_of, number_of,
    state::TRANSPORT,
};
use crate::{Family, HostError};

const NEW: u16 = 0x13;
const DELETE: u16 = 0x14;
const GET: u16 = 0x15;
const UPDATE: u16 = 0x19;

/// `XFRMA_TMPL`.
const TEMPLATE: u16 = 5;
/// `XFRM_POLICY_IN`, `XFRM_POLICY_OUT`, `XFRM_POLICY_ALLOW`, `XFRM_POLICY_BLOCK`.
const IN: u8 = 0;
const OUT: u8 = 1;
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
const CURRENT_LEN: usize = 32;

impl Session {
    /// Our policies.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn policies(&self) -> Result<Policies, HostError> {
        Ok(self.indexed()?.into_iter().map(|found| ((found.direction, found.whom), found.rule)).collect())
    }

    /// Puts a policy into force, in the place of the one that there is: no packet meets none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_policy(&self, direction: Direction, whom: Whom, rule: Rule) -> Result<(), HostError> {
        let answer = self.channel.order(UPDATE, &write(self.port, direction, whom, rule));
        answer.map_err(|e| HostError::from_answer("setting an IPsec policy", e))
    }

    /// Takes a policy of ours away. One that is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_policy(&self, direction: Direction, whom: Whom) -> Result<(), HostError> {
        for found in self.indexed()?.iter().filter(|found| (found.direction, found.whom) == (direction, whom))
        {
            // By its number: another with the same selector may be somebody else's.
            let empty = Writer::default().zeros(super::channel::SELECTOR_LEN);
            let body = empty.number(found.index).byte(direction_number(direction)).zeros(3);
            match self.channel.order(DELETE, &body) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                    return Err(HostError::from_answer("removing an IPsec policy", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn indexed(&self) -> Result<Vec<Found>, HostError> {
        let parts = self.channel.dump(GET, NEW);
        let parts = parts.map_err(|e| HostError::from_answer("reading the table of IPsec policies", e))?;
        Ok(parts.iter().filter_map(|part| read(part, self.port)).collect())
    }
}

/// A policy of ours in the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) direction: Direction,
    pub(super) whom: Whom,
    pub(super) rule: Rule,
    pub(super) index: u32,
}

const fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::In => IN,
        Direction::Out => OUT,
    }
}

/// `struct xfrm_userpolicy_info`, and the template of the state that is needed.
pub(super) fn write(port: u16, direction: Direction, whom: Whom, rule: Rule) -> Writer {
    let (family, peer, priority) = match whom {
        Whom::All(family) => (family, None, PRIORITY_ALL),
        Whom::Peer(peer) => (family_of(peer), Some(peer), PRIORITY_PEER),
    };
    let (from, to) = match direction {
        Direction::In => (peer, None),
        Direction::Out => (None, peer),
    };
    let action = if rule == Rule::Block { BLOCK } else { ALLOW };
    let policy = selector(port, family, from, to)
        .append(&no_limits())
        .zeros(CURRENT_LEN)
        .number(priority)
        .number(0)
        .byte(direction_number(direction))
        .byte(action)
        .zeros(2 + 4);
    match rule {
        Rule::Protect(spi) => policy.attribute(TEMPLATE, &template(family, spi.unwrap_or(0))),
        Rule::Allow | Rule::Block => policy,
    }
}

/// `struct xfrm_user_tmpl`: ESP in transport mode by a state of ours, whatever its algorithms.
fn template(family: Family, spi: u32) -> Writer {
    Writer::default()
        .zeros(16)
        .network_number(spi)
        .byte(ESP)
        .zeros(3)
        .short(number_of(family))
        .zeros(2 + 16)
        .number(REQUEST)
        .byte(TRANSPORT)
        .zeros(3)
        .bytes(&[0xff; 12])
}

/// A policy of the kernel, if it is ours.
pub(super) fn read(part: &[u8], port: u16) -> Option<Found> {
    let mut reader = Reader(part);
    let (family, from, to) = read_selector(&mut reader, port)?;
    reader.skip(LIMITS_LEN + CURRENT_LEN)?;
    let (priority, index) = (reader.number()?, reader.number()?);
    let [direction, action, ..]: [u8; 8] = reader.take()?;
    let (direction, peer) = match direction {
        IN if to.is_none() => (Direction::In, from),
        OUT if from.is_none() => (Direction::Out, to),
        _ => return None,
    };
    let whom = match (peer, priority) {
        (None, PRIORITY_ALL) => Whom::All(family),
        (Some(peer), PRIORITY_PEER) => Whom::Peer(peer),
        _ => return None,
    };
    let rule = match (action, reader.attribute(TEMPLATE)) {
        (ALLOW, Some(template)) => Rule::Protect(protects_with(template)?),
        (ALLOW, None) => Rule::Allow,
        _ => Rule::Block,
    };
    Some(Found { direction, whom, rule, index })
}

/// The SPI that a template names, if it asks for a state of ours.
fn protects_with(template: &[u8]) -> Option<Option<u32>> {
    let mut reader = Reader(template);
    reader.skip(16)?;
    let spi = u32::from_be_bytes(reader.take()?);
    reader.skip(4 + 4 + 16)?;
    (reader.number()? == REQUEST).then_some((spi != 0).then_some(spi))
}
