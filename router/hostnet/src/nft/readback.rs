//! Reading a program back from the kernel: whether it is the one we mean, and which elements it has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weave_model::Mac;

use super::{
    attribute::{self, Attributes},
    encode::comment,
    program::{Field, Item, Program, Session, SetSpec, Value},
    transaction::{self, GENERIC_LEN, NFTABLES, is},
};
use crate::{HostError, netlink::Answer};

const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
const GET_SET: u8 = 10;
const NEW_SET: u8 = 9;
const NEW_ELEMENTS: u8 = 12;
const GET_ELEMENTS: u8 = 13;
const NEW_GENERATION: u8 = 15;
const GET_GENERATION: u8 = 16;
const TABLE: u16 = 1;

impl Session {
    /// The number of the last transaction in this network namespace, whoever made it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn generation(&self) -> Result<u32, HostError> {
        const ID: u16 = 1;
        let answers = transaction::ask(&self.0, GET_GENERATION, 0, &Attributes::default())?;
        let answer = answers.iter().find(|answer| is(answer, NEW_GENERATION));
        let id = answer.and_then(|answer| attribute::number(attribute::find(body(answer), ID)?));
        id.ok_or_else(|| unreadable("the generation"))
    }

    /// Whether there is a table of the program's name with rules, whoever made them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_any_rules(&self, program: &Program) -> Result<bool, HostError> {
        Ok(rules_of(program, &self.dump_rules(program)?.unwrap_or_default()).next().is_some())
    }

    /// Whether there is a table of this name.
    pub(super) fn has_table(&self, program: &Program) -> Result<bool, HostError> {
        const GET_TABLE: u8 = 1;
        let table = Attributes::default().text(TABLE, &program.table);
        Ok(absent(transaction::ask(&self.0, GET_TABLE, program.family(), &table))?.is_some())
    }

    fn dump_rules(&self, program: &Program) -> Result<Option<Vec<Answer>>, HostError> {
        let table = Attributes::default().text(TABLE, &program.table);
        absent(transaction::dump_of(&self.0, NFTABLES, GET_RULE, program.family(), &table))
    }

    /// The elements of all sets of `program`, in the order of its sets; `None` if the table is not there, its rules and
    /// sets are not those of `program`, or somebody was killed while [installing](Self::install) it.
    ///
    /// # Errors
    /// What the kernel says, or [`HostError::Kernel`] if an element makes no sense to us.
    pub fn read(&self, program: &Program) -> Result<Option<Vec<Vec<Item>>>, HostError> {
        let table = Attributes::default().text(TABLE, &program.table);
        let sets = absent(transaction::dump_of(&self.0, NFTABLES, GET_SET, program.family(), &table))?;
        let (Some(rules), Some(sets)) = (self.dump_rules(program)?, sets) else { return Ok(None) };
        if !has_rules(program, &rules) || !has_sets(program, &sets) || self.has_table(&program.stand_in())? {
            return Ok(None);
        }
        let mut items = Vec::new();
        for set in &program.sets {
            let Some(read) = absent(self.read_set(program, set))? else { return Ok(None) };
            items.push(read);
        }
        Ok(Some(items))
    }

    /// How many packets the rules with a counter have counted, in the order of the kernel's chains, by their notes. None if
    /// there is no such table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counts(&self, program: &Program) -> Result<Vec<(String, u64)>, HostError> {
        let rules = self.dump_rules(program)?.unwrap_or_default();
        Ok(rules_of(program, &rules).filter_map(|rule| counted(program, rule)).collect())
    }

    fn read_set(&self, program: &Program, set: &SetSpec) -> Result<Vec<Item>, HostError> {
        let answers = self.dump_set(program, set)?;
        read_elements(set, elements_in(&answers)).ok_or_else(|| unreadable(&set.name))
    }

    pub(super) fn dump_set(&self, program: &Program, set: &SetSpec) -> Result<Vec<Answer>, HostError> {
        const NAME: u16 = 2;
        let question = Attributes::default().text(TABLE, &program.table).text(NAME, &set.name);
        transaction::dump_of(&self.0, NFTABLES, GET_ELEMENTS, program.family(), &question)
    }
}

/// The elements that a dump of a set told of.
pub(super) fn elements_in(answers: &[Answer]) -> impl Iterator<Item = &[u8]> {
    const ELEMENTS: u16 = 3;
    let lists = answers.iter().filter(|answer| is(answer, NEW_ELEMENTS));
    let lists = lists.map(|answer| attribute::find(body(answer), ELEMENTS).unwrap_or_default());
    lists.flat_map(|list| attribute::read(list).map(|(_, element)| element))
}

/// The items that these elements of a set are; `None` if one makes no sense.
pub(super) fn read_elements<'a>(
    set: &SetSpec,
    elements: impl Iterator<Item = &'a [u8]>,
) -> Option<Vec<Item>> {
    let elements: Vec<Element> = elements.map(|element| read_element(set, element)).collect::<Option<_>>()?;
    Some(if set.has_intervals && !set.has_ranges() { join(set, elements) } else { items(elements) })
}

/// The note of a rule, and what its counter says; `None` for a rule without one, or that the program does not have.
fn counted(program: &Program, rule: &[u8]) -> Option<(String, u64)> {
    const USER_DATA: u16 = 7;
    const EXPRESSIONS: u16 = 4;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    const PACKETS: u16 = 2;
    let mut expressions = attribute::read(attribute::find(rule, EXPRESSIONS)?).map(|(_, each)| each);
    let counter = expressions.find(|each| {
        attribute::find(each, NAME).and_then(attribute::text).is_some_and(|name| name == "counter")
    })?;
    let packets = attribute::find(attribute::find(counter, DATA)?, PACKETS)?;
    let mark = attribute::find(rule, USER_DATA)?;
    let known = program.chains.iter().flat_map(|chain| &chain.rules).find(|rule| comment(rule) == mark)?;
    Some((known.note.clone(), u64::from_be_bytes(packets.try_into().ok()?)))
}

/// `None` if what was asked about is not there.
pub(super) fn absent<T>(answer: Result<T, HostError>) -> Result<Option<T>, HostError> {
    match answer {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// The rules of the program's table in a dump, which old kernels do not limit to that.
fn rules_of<'a>(program: &Program, answers: &'a [Answer]) -> impl Iterator<Item = &'a [u8]> {
    let rules = answers.iter().filter(|answer| is(answer, NEW_RULE)).map(body);
    rules.filter(|rule| {
        attribute::find(rule, TABLE).and_then(attribute::text).as_deref() == Some(&program.table)
    })
}

/// Whether the rules are those of the program, chain by chain, by their comments.
fn has_rules(program: &Program, answers: &[Answer]) -> bool {
    const CHAIN: u16 = 2;
    const USER_DATA: u16 = 7;
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for rule in rules_of(program, answers) {
        let chain = attribute::find(rule, CHAIN).and_then(attribute::text);
        let comment = attribute::find(rule, USER_DATA).unwrap_or_default().to_vec();
        found.push((chain.unwrap_or_default(), comment));
    }
    let rules =
        program.chains.iter().flat_map(|chain| chain.rules.iter().map(|rule| (&chain.name, comment(rule))));
    let mut wanted: Vec<(String, Vec<u8>)> = rules.map(|(chain, comment)| (chain.clone(), comment)).collect();
    // Within a chain the order counts; the kernel tells the chains in its own order.
    found.sort_by(|a, b| a.0.cmp(&b.0));
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    found == wanted
}

fn has_sets(program: &Program, answers: &[Answer]) -> bool {
    const NAME: u16 = 2;
    const KEY_LENGTH: u16 = 5;
    let found: Vec<(Option<String>, Option<u32>)> = answers
        .iter()
        .filter(|answer| is(answer, NEW_SET))
        .filter(|answer| {
            attribute::find(body(answer), TABLE).and_then(attribute::text).as_deref() == Some(&program.table)
        })
        .map(|answer| {
            let name = attribute::find(body(answer), NAME).and_then(attribute::text);
            (name, attribute::find(body(answer), KEY_LENGTH).and_then(attribute::number))
        })
        .collect();
    found.len() == program.sets.len()
        && program.sets.iter().all(|set| {
            let length = u32::try_from(set.key_length()).ok();
            found.contains(&(Some(set.name.clone()), length))
        })
}

/// An element as the kernel has it.
struct Element {
    key: Vec<u8>,
    is_end: bool,
    item: Item,
}

fn read_element(set: &SetSpec, element: &[u8]) -> Option<Element> {
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_END: u16 = 10;
    const VALUE: u16 = 1;
    const INTERVAL_END: u32 = 1;
    let bytes = |kind| attribute::find(attribute::find(element, kind)?, VALUE);
    let flags = attribute::find(element, FLAGS).and_then(attribute::number).unwrap_or(0);
    let key = bytes(KEY)?;
    let last = match bytes(KEY_END) {
        Some(last) if set.has_ranges() => Some(parts(set, last)?),
        _ => None,
    };
    let value = match (set.value, bytes(DATA)) {
        (Some(field), Some(data)) => Some(part(field, data)?),
        _ => None,
    };
    let item = Item { key: parts(set, key)?, last, value };
    Some(Element { key: key.to_vec(), is_end: flags & INTERVAL_END != 0, item })
}

fn items(elements: Vec<Element>) -> Vec<Item> {
    elements.into_iter().map(|element| element.item).collect()
}

/// Makes intervals of their two ends.
fn join(set: &SetSpec, mut elements: Vec<Element>) -> Vec<Item> {
    // An end has the key of the interval that begins there, if one does, and belongs to the one before it.
    elements.sort_by(|a, b| (&a.key, !a.is_end).cmp(&(&b.key, !b.is_end)));
    let mut items: Vec<Item> = Vec::new();
    for element in elements {
        if element.is_end {
            if let Some(open) = items.last_mut().filter(|item| item.last.is_none()) {
                open.last = predecessor(&element.key).and_then(|last| parts(set, &last));
            }
        } else {
            items.push(element.item);
        }
    }
    let highest = vec![0xff; set.key_length()];
    for open in items.iter_mut().filter(|item| item.last.is_none()) {
        open.last = parts(set, &highest);
    }
    items
}

fn predecessor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut before = bytes.to_vec();
    for byte in before.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            return Some(before);
        }
    }
    None
}

pub(super) fn parts(set: &SetSpec, mut bytes: &[u8]) -> Option<Vec<Value>> {
    let mut parts = Vec::new();
    for field in &set.key {
        parts.push(part(*field, bytes)?);
        bytes = bytes.get(field.length().next_multiple_of(4)..).unwrap_or_default();
    }
    Some(parts)
}

fn part(field: Field, bytes: &[u8]) -> Option<Value> {
    let bytes = bytes.get(..field.length())?;
    Some(match field {
        Field::Ipv4 => Value::Address(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        Field::Ipv6 => Value::Address(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
        Field::Number => Value::Number(u32::from_ne_bytes(bytes.try_into().ok()?)),
        Field::Protocol => Value::Protocol(bytes[0]),
        Field::Port => Value::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
        Field::Ethernet => Value::Ethernet(Mac(bytes.try_into().ok()?)),
        Field::Interface => Value::Interface(bytes.try_into().ok()?),
    })
}

/// The attributes of a message of netfilter.
fn body(answer: &Answer) -> &[u8] {
    answer.payload.get(GENERIC_LEN..).unwrap_or_default()
}

fn unreadable(what: &str) -> HostError {
    let source = std::io::Error::other(format!("the kernel's answer about {what} makes no sense"));
    HostError::Kernel { doing: "reading nftables".to_owned(), source }
}
