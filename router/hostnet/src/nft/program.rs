//! Programs: a table whose rules never change, over named sets and maps whose elements do.
//!
//! [`install`] replaces the table as a whole; [`change`] adds and removes elements in one transaction; [`read`] tells
//! what is there. Each works in the network namespace of the calling thread, and waits for nothing.

use std::net::IpAddr;

use super::{
    attribute::Attributes,
    expression::Expressions,
    ruleset::{Message, Operation},
    survey::INET,
    transaction,
    watch::Author,
};
use crate::HostError;

/// A table (`inet NAME`).
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name. Nobody else may have a table of this name.
    pub table: String,
    /// Its sets and maps.
    pub sets: Vec<SetSpec>,
    /// Its chains; a chain comes before those that jump to it.
    pub chains: Vec<ChainSpec>,
}

/// A set, or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// Its name.
    pub name: String,
    /// The parts of its keys.
    pub key: Vec<Field>,
    /// Values of a map.
    pub value: Option<Field>,
    /// Whether keys are intervals, which must not overlap.
    pub has_intervals: bool,
}

/// What a part of a key, or a value, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A number that means nothing to the kernel. Shown as `mark`.
    Number,
    /// A protocol above IP.
    Protocol,
    /// A port.
    Port,
}

/// A part of a key, or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Of an [`Field::Ipv4`] or [`Field::Ipv6`].
    Address(IpAddr),
    /// Of a [`Field::Number`].
    Number(u32),
    /// Of a [`Field::Protocol`].
    Protocol(u8),
    /// Of a [`Field::Port`].
    Port(u16),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// Its key; of an interval, the lowest.
    pub key: Vec<Value>,
    /// Of an interval, the highest key, included.
    pub last: Option<Vec<Value>>,
    /// What a map has for it.
    pub value: Option<Value>,
}

/// A chain.
#[derive(Debug, Clone)]
pub struct ChainSpec {
    /// Its name.
    pub name: String,
    /// Where it is entered, if not by jumps.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it says, for who lists it: not everything that the kernel can do has a form in the nft tool. Only the
    /// first 50 characters are shown.
    pub note: String,
    /// What it does.
    pub expressions: Expressions,
}

/// Where packets enter a chain, at the usual place for filters. What ends without verdict is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// On their way to this host.
    Input = 1,
    /// On their way through this host; frames through a bridge too, with `br_netfilter`.
    Forward = 2,
}

/// Elements of one set that go and come.
#[derive(Debug, Clone)]
pub struct SetChange<'a> {
    /// Which set.
    pub set: &'a SetSpec,
    /// What goes; all of it must be there.
    pub remove: Vec<Item>,
    /// What comes then; none of it must be there.
    pub add: Vec<Item>,
}

/// Replaces the table, if there is one, by `program` with these elements. There is no moment in between.
///
/// # Errors
/// [`HostError::Unsupported`] when the kernel has no nf_tables; [`HostError::NoPermission`]; what else the kernel says.
/// Nothing was changed then.
pub fn install(program: &Program, elements: &[SetChange<'_>]) -> Result<Author, HostError> {
    let mut messages = vec![
        table(program, Operation::NewTable),
        table(program, Operation::DeleteTable),
        table(program, Operation::NewTable),
    ];
    messages.extend(program.sets.iter().zip(1..).map(|(set, id)| new_set(program, set, id)));
    for chain in &program.chains {
        messages.push(new_chain(program, chain));
    }
    for chain in &program.chains {
        messages.extend(chain.rules.iter().map(|rule| new_rule(program, chain, rule)));
    }
    messages.extend(elements.iter().flat_map(|change| element_messages(&program.table, change)));
    transaction::commit_if(&messages, None).map(Author)
}

/// Removes and adds elements: all of them or none. With a `generation`, only if no table of this namespace was changed
/// since [`generation`] gave it.
///
/// # Errors
/// [`is_stale`] tells whether the generation was another. What else the kernel says, if what goes is not there, or what
/// comes is, or collides with what is. Nothing was changed then.
pub fn change(table: &str, changes: &[SetChange<'_>], generation: Option<u32>) -> Result<Author, HostError> {
    let messages: Vec<Message> = changes.iter().flat_map(|change| element_messages(table, change)).collect();
    transaction::commit_if(&messages, generation).map(Author)
}

/// Whether somebody else changed a table in between.
#[must_use]
pub fn is_stale(error: &HostError) -> bool {
    error.errno() == Some(libc::ERESTART)
}

/// Removes the table of this name, whether it is there or not.
///
/// # Errors
/// [`HostError::NoPermission`], or what else the kernel says. A kernel without nf_tables has nothing to remove.
pub fn uninstall(name: &str) -> Result<(), HostError> {
    let program = Program { table: name.to_owned(), sets: Vec::new(), chains: Vec::new() };
    let messages = [table(&program, Operation::NewTable), table(&program, Operation::DeleteTable)];
    match transaction::commit(&messages) {
        Err(HostError::Unsupported { .. }) => Ok(()),
        other => other,
    }
}

impl Field {
    /// Bytes of a value.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Ipv4 | Self::Number => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// How the nft tool knows the type (nftables: `enum datatypes`).
    const fn type_number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Number => 19,
            Self::Protocol => 12,
            Self::Port => 13,
        }
    }
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Self::Address(IpAddr::V6(v6)) => v6.octets().to_vec(),
            Self::Number(number) => number.to_ne_bytes().to_vec(),
            Self::Protocol(protocol) => vec![protocol],
            Self::Port(port) => port.to_be_bytes().to_vec(),
        }
    }
}

impl SetSpec {
    /// The bytes of a key: one part as it is, several parts each padded to whole registers.
    fn key_bytes(&self, parts: &[Value]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend(part.bytes());
            if self.key.len() > 1 {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        bytes
    }

    pub(super) fn key_length(&self) -> usize {
        match self.key[..] {
            [field] => field.length(),
            _ => self.key.iter().map(|field| field.length().next_multiple_of(4)).sum(),
        }
    }

    /// Whether intervals are stored as one element with two ends, instead of one for each end.
    pub(super) const fn has_ranges(&self) -> bool {
        self.has_intervals && self.key.len() > 1
    }
}

const TABLE: u16 = 1;

fn table(program: &Program, operation: Operation) -> Message {
    let attributes = Attributes::default().text(TABLE, &program.table);
    message(operation, attributes, format!("changing table {}", program.table))
}

fn message(operation: Operation, attributes: Attributes, doing: String) -> Message {
    Message { family: INET, operation, attributes, at_head: false, doing, needs_nat: false }
}

fn new_set(program: &Program, set: &SetSpec, id: u32) -> Message {
    const NAME: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_TYPE: u16 = 4;
    const KEY_LENGTH: u16 = 5;
    const DATA_TYPE: u16 = 6;
    const DATA_LENGTH: u16 = 7;
    const DESCRIPTION: u16 = 9;
    const ID: u16 = 10;
    const CONCATENATION: u16 = 2;
    const ELEMENT: u16 = 1;
    const FIELD_LENGTH: u16 = 1;
    const INTERVAL: u32 = 0x4;
    const MAP: u32 = 0x8;
    const CONCATENATED: u32 = 0x80;
    let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    let flags = flag(set.has_intervals, INTERVAL)
        | flag(set.value.is_some(), MAP)
        | flag(set.has_ranges(), CONCATENATED);
    // The tool's number for a type of several parts has six bits for each.
    let key_type = set.key.iter().fold(0, |number, field| number << 6 | field.type_number());
    let mut attributes = Attributes::default()
        .text(TABLE, &program.table)
        .text(NAME, &set.name)
        .number(FLAGS, flags)
        .number(KEY_TYPE, key_type)
        .number(KEY_LENGTH, length(set.key_length()));
    if let Some(value) = set.value {
        attributes =
            attributes.number(DATA_TYPE, value.type_number()).number(DATA_LENGTH, length(value.length()));
    }
    // Only intervals of several parts need to know where the parts are.
    if set.has_ranges() {
        let fields = set.key.iter().fold(Attributes::default(), |list, field| {
            list.nested(ELEMENT, &Attributes::default().number(FIELD_LENGTH, length(field.length())))
        });
        attributes = attributes.nested(DESCRIPTION, &Attributes::default().nested(CONCATENATION, &fields));
    }
    message(Operation::NewSet, attributes.number(ID, id), format!("adding set {}", set.name))
}

fn new_chain(program: &Program, chain: &ChainSpec) -> Message {
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    const ACCEPT: u32 = 1;
    const FILTER_PRIORITY: u32 = 0;
    let mut attributes = Attributes::default().text(TABLE, &program.table).text(NAME, &chain.name);
    if let Some(hook) = chain.hook {
        let place =
            Attributes::default().number(HOOK_NUMBER, hook as u32).number(HOOK_PRIORITY, FILTER_PRIORITY);
        attributes = attributes.nested(HOOK, &place).number(POLICY, ACCEPT).text(TYPE, "filter");
    }
    message(Operation::NewChain, attributes, format!("adding chain {}", chain.name))
}

fn new_rule(program: &Program, chain: &ChainSpec, rule: &Rule) -> Message {
    const CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    const USER_DATA: u16 = 7;
    let attributes = Attributes::default()
        .text(TABLE, &program.table)
        .text(CHAIN, &chain.name)
        .nested(EXPRESSIONS, rule.expressions.attributes())
        .bytes(USER_DATA, &comment(rule));
    message(Operation::NewRule, attributes, format!("adding a rule to chain {}", chain.name))
}

/// A comment by which the rule is known again, as the nft tool stores comments: type, length, text.
pub(super) fn comment(rule: &Rule) -> Vec<u8> {
    // FNV-1a: no secret, only a name for what the rule says.
    let hash =
        rule.expressions.attributes().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let note: String = rule.note.chars().take(50).collect();
    let text = format!("{note} [{hash:016x}]\0");
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[0, length], text.as_bytes()].concat()
}

/// What one message holds of a list of elements, in bytes: the list has to stay below 64 KiB.
const LIST_LIMIT: usize = 48 * 1024;

fn element_messages(table: &str, change: &SetChange<'_>) -> Vec<Message> {
    let set = change.set;
    let doing = |what| format!("{what} set {} of table {table}", set.name);
    let removals = lists(set, &change.remove);
    let removals = removals.map(|list| (Operation::DeleteElements, list, doing("removing from")));
    let additions = lists(set, &change.add).map(|list| (Operation::NewElements, list, doing("adding to")));
    let messages = removals.chain(additions).map(|(operation, list, doing)| {
        const NAME: u16 = 2;
        const ELEMENTS: u16 = 3;
        let attributes =
            Attributes::default().text(TABLE, table).text(NAME, &set.name).nested(ELEMENTS, &list);
        message(operation, attributes, doing)
    });
    messages.collect()
}

/// The elements, in lists that fit into a message.
fn lists(set: &SetSpec, items: &[Item]) -> impl Iterator<Item = Attributes> {
    const ELEMENT: u16 = 1;
    let mut full = Vec::new();
    let mut list = Attributes::default();
    for element in items.iter().flat_map(|item| elements(set, item)) {
        if list.as_bytes().len() + element.as_bytes().len() > LIST_LIMIT {
            full.push(std::mem::take(&mut list));
        }
        list = list.nested(ELEMENT, &element);
    }
    if !list.as_bytes().is_empty() {
        full.push(list);
    }
    full.into_iter()
}

/// An item as the kernel has it. An interval of a key of one part is two elements: the first key of it, and the first
/// key behind it, which is left out when there is none.
fn elements(set: &SetSpec, item: &Item) -> Vec<Attributes> {
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_END: u16 = 10;
    const INTERVAL_END: u32 = 1;
    let bytes = |bytes: &[u8]| super::expression::value(bytes);
    let mut first = Attributes::default().nested(KEY, &bytes(&set.key_bytes(&item.key)));
    let last = item.last.as_ref().map(|last| set.key_bytes(last));
    if let (true, Some(last)) = (set.has_ranges(), &last) {
        first = first.nested(KEY_END, &bytes(last));
    }
    if let Some(value) = item.value {
        first = first.nested(DATA, &bytes(&value.bytes()));
    }
    let behind = last.filter(|_| !set.has_ranges()).and_then(|last| successor(&last));
    let end = behind.map(|key| Attributes::default().nested(KEY, &bytes(&key)).number(FLAGS, INTERVAL_END));
    [first].into_iter().chain(end).collect()
}

/// The next number, of as many bytes, highest first.
pub(super) fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

/// A length of at most some hundred bytes.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
