//! Looking at the tables of others: chains that drop what is forwarded, and the rules that we left in them.

use std::fmt;

use super::{
    attribute,
    program::Session,
    transaction::{dump, is},
};
use crate::{HostError, netlink::Answer};

/// `NFT_MSG_NEWCHAIN`, `NFT_MSG_GETCHAIN`, `NFT_MSG_NEWRULE`, `NFT_MSG_GETRULE`.
const NEW_CHAIN: u8 = 3;
const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;

/// `struct nfgenmsg`.
const GENERIC_LEN: usize = 4;

/// Families of tables (`NFPROTO_*`) in which forwarded packets can be dropped.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
/// The family in which bridges are asked.
pub(super) const BRIDGE: u8 = 7;

/// The comment by which we know our rules in chains of others, as `nft` stores comments: type, length, text.
pub(super) const MARK: &[u8] = b"\x00\x06weave\x00";

/// A chain of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
}

/// A rule with our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MarkedRule {
    pub(super) chain: Chain,
    /// The kernel's number for the rule, in network byte order.
    pub(super) handle: Vec<u8>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            INET => "inet",
            IPV4 => "ip",
            IPV6 => "ip6",
            _ => "other",
        };
        write!(f, "{family} {} {}", self.table, self.name)
    }
}

/// All chains on the forward hook whose policy is to drop.
pub(super) fn obstacles() -> Result<Vec<Chain>, HostError> {
    Ok(dump(GET_CHAIN)?.iter().filter(|a| is(a, NEW_CHAIN)).filter_map(read_obstacle).collect())
}

/// All rules with our mark, in whatever chain.
pub(super) fn marked_rules() -> Result<Vec<MarkedRule>, HostError> {
    Ok(dump(GET_RULE)?.iter().filter(|a| is(a, NEW_RULE)).filter_map(read_marked).collect())
}

/// What of ours stands in the kernel, and what stands in our packets' way. It is another when somebody flushed rules of ours, or
/// put up a chain that drops what is forwarded.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The last transaction before it was looked at.
    generation: u32,
    found: Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// The chain of each rule of ours, as `family table chain`, in order.
    chains_of_rules: Vec<String>,
    /// Chains of others that drop what is forwarded.
    obstacles: Vec<String>,
}

/// Looks at what stands; `table` of family `inet` is ours.
pub(super) fn standing(table: &str) -> Result<Standing, HostError> {
    // First: what is changed while we read is a reason to read again.
    let generation = Session::open()?.generation()?;
    Ok(Standing { generation, found: look(table)? })
}

/// Whether that stands still.
pub(super) fn still_stands(table: &str, stood: &mut Standing) -> Result<bool, HostError> {
    let generation = Session::open()?.generation()?;
    if generation == stood.generation {
        return Ok(true);
    }
    let is_same = look(table)? == stood.found;
    if is_same {
        stood.generation = generation;
    }
    Ok(is_same)
}

fn look(table: &str) -> Result<Found, HostError> {
    let rules = dump(GET_RULE)?;
    let rules = rules.iter().filter(|answer| is(answer, NEW_RULE));
    let mut chains_of_rules: Vec<String> = rules
        .filter_map(|answer| match read_marked(answer) {
            Some(marked) => Some(marked.chain),
            None => read_rule_s_chain(answer).filter(|chain| chain.family == INET && chain.table == table),
        })
        .map(|chain| chain.to_string())
        .collect();
    chains_of_rules.sort();
    let mut obstacles: Vec<String> = obstacles()?.iter().map(ToString::to_string).collect();
    obstacles.sort();
    Ok(Found { chains_of_rules, obstacles })
}

fn read_rule_s_chain(answer: &Answer) -> Option<Chain> {
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    let (generic, attributes) = answer.payload.split_first_chunk::<GENERIC_LEN>()?;
    read_chain(generic[0], attributes, TABLE, CHAIN)
}

fn read_obstacle(answer: &Answer) -> Option<Chain> {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const HOOK_NUMBER: u16 = 1;
    const FORWARD: u32 = 2;
    const POLICY_DROP: u32 = 0;
    let (generic, attributes) = answer.payload.split_first_chunk::<GENERIC_LEN>()?;
    let hook = attribute::find(attribute::find(attributes, HOOK)?, HOOK_NUMBER)?;
    let is_forward = attribute::number(hook)? == FORWARD;
    let drops = attribute::number(attribute::find(attributes, POLICY)?)? == POLICY_DROP;
    let chain = read_chain(generic[0], attributes, TABLE, NAME)?;
    (is_forward && drops && [INET, IPV4, IPV6].contains(&chain.family)).then_some(chain)
}

fn read_marked(answer: &Answer) -> Option<MarkedRule> {
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    const USER_DATA: u16 = 7;
    let (generic, attributes) = answer.payload.split_first_chunk::<GENERIC_LEN>()?;
    let is_ours = attribute::find(attributes, USER_DATA) == Some(MARK);
    let handle = attribute::find(attributes, HANDLE)?.to_vec();
    let chain = read_chain(generic[0], attributes, TABLE, CHAIN)?;
    is_ours.then_some(MarkedRule { chain, handle })
}

fn read_chain(family: u8, attributes: &[u8], table: u16, name: u16) -> Option<Chain> {
    let text = |kind: u16| attribute::text(attribute::find(attributes, kind)?);
    Some(Chain { family, table: text(table)?, name: text(name)? })
}
