//! From a program and its elements to the messages that bring them about. Pure: the same wish gives the same bytes.

use std::net::IpAddr;

use super::{
    attribute::Attributes,
    expression::{expression, value},
    program::{ChainSpec, Field, INTERFACE_LENGTH, Item, Program, Rule, SetChange, SetSpec, Value},
    ruleset::{self, Base, Message, Operation},
};

impl Field {
    /// Bytes of a value.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Ipv4 | Self::Number => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ethernet => 6,
            Self::Interface => INTERFACE_LENGTH,
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
            Self::Ethernet => 9,
            Self::Interface => 41,
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
            Self::Ethernet(mac) => mac.0.to_vec(),
            Self::Interface(name) => name.to_vec(),
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

/// The transaction that replaces the table of `program`.
pub(super) fn install(program: &Program, elements: &[SetChange<'_>]) -> Vec<Message> {
    // Deleting what may not be there is an error, so it is made first; the kernel shows nobody the states between.
    let operations = [Operation::NewTable, Operation::DeleteTable, Operation::NewTable];
    let mut messages: Vec<Message> =
        operations.into_iter().map(|operation| table(program.family(), &program.table, operation)).collect();
    messages.extend(sets(program));
    messages.extend(program.chains.iter().map(|chain| new_chain(program, chain)));
    for chain in &program.chains {
        messages.extend(chain.rules.iter().map(|rule| new_rule(program, chain, rule)));
    }
    messages.extend(change(program, elements));
    messages
}

/// The part of a transaction that makes the sets.
pub(super) fn sets(program: &Program) -> impl Iterator<Item = Message> + '_ {
    program.sets.iter().zip(1..).map(|(set, id)| new_set(program, set, id))
}

/// The transaction that removes and adds elements.
pub(super) fn change(program: &Program, changes: &[SetChange<'_>]) -> Vec<Message> {
    changes.iter().flat_map(|change| element_messages(program, change)).collect()
}

/// The transaction that removes a table, whether it is there or not.
pub(super) fn uninstall(family: u8, name: &str) -> Vec<Message> {
    [Operation::NewTable, Operation::DeleteTable].map(|operation| table(family, name, operation)).into()
}

fn table(family: u8, name: &str, operation: Operation) -> Message {
    let attributes = Attributes::default().text(TABLE, name);
    message(family, operation, attributes, format!("changing table {name}"))
}

fn message(family: u8, operation: Operation, attributes: Attributes, doing: String) -> Message {
    Message { family, operation, attributes, at_head: false, doing, needs_nat: false }
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
    const EXPRESSION: u16 = 17;
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
    if set.has_counters {
        // Every element gets one of its own.
        attributes = attributes.nested(EXPRESSION, &expression("counter", &Attributes::default()));
    }
    message(
        program.family(),
        Operation::NewSet,
        attributes.number(ID, id),
        format!("adding set {}", set.name),
    )
}

fn new_chain(program: &Program, chain: &ChainSpec) -> Message {
    let base = chain.hook.map(|hook| {
        let (hook, priority) = hook.place();
        Base { kind: "filter", hook, priority }
    });
    let attributes = ruleset::chain(&program.table, &chain.name, base);
    message(program.family(), Operation::NewChain, attributes, format!("adding chain {}", chain.name))
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
    message(
        program.family(),
        Operation::NewRule,
        attributes,
        format!("adding a rule to chain {}", chain.name),
    )
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

fn element_messages(program: &Program, change: &SetChange<'_>) -> Vec<Message> {
    let (set, table) = (change.set, &program.table);
    let doing = |what| format!("{what} set {} of table {table}", set.name);
    let removals = lists(set, &change.remove);
    let removals = removals.map(|list| (Operation::DeleteElements, list, doing("removing from")));
    let additions = lists(set, &change.add).map(|list| (Operation::NewElements, list, doing("adding to")));
    let messages = removals.chain(additions).map(|(operation, list, doing)| {
        const NAME: u16 = 2;
        const ELEMENTS: u16 = 3;
        let attributes =
            Attributes::default().text(TABLE, table).text(NAME, &set.name).nested(ELEMENTS, &list);
        message(program.family(), operation, attributes, doing)
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
    let bytes = |bytes: &[u8]| value(bytes);
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
fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use weave_model::Mac;

    use super::{
        super::{attribute, expression::Expressions, readback::read_elements},
        *,
    };

    fn number(number: u32) -> Option<Value> {
        Some(Value::Number(number))
    }

    /// Encodes items, and decodes what the kernel would give back.
    fn there_and_back(set: &SetSpec, items: &[Item]) -> Vec<Item> {
        let all: Vec<Attributes> = lists(set, items).collect();
        let elements =
            all.iter().flat_map(|list| attribute::read(list.as_bytes()).map(|(_, element)| element));
        read_elements(set, elements).expect("our own elements make sense")
    }

    #[test]
    fn items_are_elements_and_come_back() {
        let spec =
            |key: &[Field], value, has_intervals| SetSpec { value, has_intervals, ..SetSpec::of("set", key) };
        let address = |text: &str| Value::Address(text.parse().unwrap());
        let item = |key: Vec<Value>, last, value| Item { key, last, value };
        let cases = [
            (
                spec(&[Field::Ipv4], Some(Field::Number), false),
                vec![item(vec![address("10.0.0.1")], None, number(7))],
            ),
            (
                spec(&[Field::Number, Field::Protocol, Field::Port], None, false),
                vec![item(vec![Value::Number(9), Value::Protocol(17), Value::Port(53)], None, None)],
            ),
            (
                spec(&[Field::Protocol, Field::Port], Some(Field::Number), true),
                vec![item(
                    vec![Value::Protocol(6), Value::Port(80)],
                    Some(vec![Value::Protocol(6), Value::Port(90)]),
                    number(1),
                )],
            ),
            (
                spec(&[Field::Interface, Field::Ethernet, Field::Ipv4], None, false),
                vec![item(
                    vec![Value::interface("veth0"), Value::Ethernet(Mac([2; 6])), address("10.0.0.1")],
                    None,
                    None,
                )],
            ),
            // Neighbours that touch, and the end of all addresses.
            (
                spec(&[Field::Ipv4], Some(Field::Number), true),
                vec![
                    item(vec![address("0.0.0.0")], Some(vec![address("9.255.255.255")]), number(1)),
                    item(vec![address("10.0.0.0")], Some(vec![address("10.0.0.255")]), number(2)),
                    item(vec![address("192.0.2.0")], Some(vec![address("255.255.255.255")]), number(3)),
                ],
            ),
            (
                spec(&[Field::Ipv6], Some(Field::Number), true),
                vec![item(
                    vec![address("::")],
                    Some(vec![address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]),
                    number(4),
                )],
            ),
        ];
        for (set, items) in cases {
            assert_eq!(there_and_back(&set, &items), items, "{set:?}");
        }
    }

    #[test]
    fn many_elements_are_split_into_lists_that_fit_a_message() {
        let set = SetSpec::of("set", &[Field::Ipv4]);
        let item = |n: u32| Item {
            key: vec![Value::Address(IpAddr::from(n.to_be_bytes()))],
            last: None,
            value: None,
        };
        let items: Vec<Item> = (0..10_000).map(item).collect();
        let lengths: Vec<usize> = lists(&set, &items).map(|list| list.as_bytes().len()).collect();
        assert!(lengths.len() > 1 && lengths.iter().all(|length| *length <= LIST_LIMIT));
        assert_eq!(there_and_back(&set, &items), items);
    }

    #[test]
    fn a_comment_tells_rules_apart_and_fits() {
        let rule = |note: &str, expressions| Rule { note: note.to_owned(), expressions };
        let count = comment(&rule("same", Expressions::default().count()));
        assert_ne!(count, comment(&rule("same", Expressions::default())));
        let long = comment(&rule(&"x".repeat(1000), Expressions::default()));
        assert_eq!(usize::from(long[1]), long.len() - 2);
        let wide = comment(&rule(&"\u{1f310}".repeat(1000), Expressions::default()));
        assert_eq!(usize::from(wide[1]), wide.len() - 2);
    }
}
