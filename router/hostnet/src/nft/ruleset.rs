//! From what we want to the messages that bring it about. Pure: the same wish gives the same bytes.

use std::{collections::BTreeSet, net::IpAddr};

use weave_model::Subnet;

use super::{
    NftSpec,
    attribute::Attributes,
    encode,
    expression::{End, Expressions, Is, Meta, Verdict},
    load::{IpFamily, Register},
    program::{Field, Item, Program, SetChange, SetSpec, Value},
    survey::{Chain, INET, IPV4, IPV6, MARK, MarkedRule},
};

pub(super) const TABLE: &str = "weave";
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Operations of nf_tables (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    NewRule = 6,
    DeleteRule = 8,
    NewSet = 9,
    NewElements = 12,
    DeleteElements = 14,
}

/// One message of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Of the table (`NFPROTO_*`).
    pub(super) family: u8,
    pub(super) operation: Operation,
    pub(super) attributes: Attributes,
    /// Before the rules that are there, or behind them.
    pub(super) at_head: bool,
    /// What it is for, in errors.
    pub(super) doing: String,
    /// Whether the kernel's refusal means that it lacks NAT.
    pub(super) needs_nat: bool,
}

/// The transaction that replaces our table.
pub(super) fn replace(spec: &NftSpec) -> Vec<Message> {
    // Deleting what may not be there is an error, so it is made first; the kernel shows nobody the states between.
    let mut messages =
        vec![table(Operation::NewTable), table(Operation::DeleteTable), table(Operation::NewTable)];
    if !spec.masquerade.is_empty() {
        const SOURCE_NAT_PRIORITY: i32 = 100;
        const POSTROUTING_HOOK: u32 = 4;
        messages.push(base_chain("postrouting", "nat", POSTROUTING_HOOK, SOURCE_NAT_PRIORITY));
        let program = sources();
        let mut rules = groups();
        if let Some(local) = &spec.local {
            let changes = source_changes(&program, &BTreeSet::new(), local);
            messages.extend(encode::sets(&program).chain(encode::change(&program, &changes)));
            rules.extend(keep_sources(&spec.bridge));
        }
        rules.extend(spec.masquerade.iter().flat_map(|subnet| masquerade(*subnet, &spec.bridge)));
        messages.extend(rules.iter().map(|expressions| rule("postrouting", expressions, true)));
    }
    if !spec.protected_ports.is_empty() {
        const FILTER_PRIORITY: i32 = 0;
        const INPUT_HOOK: u32 = 1;
        messages.push(base_chain("input", "filter", INPUT_HOOK, FILTER_PRIORITY));
        let rules = spec.protected_ports.iter().flat_map(|port| protect(*port, &spec.bridge));
        messages.extend(rules.map(|expressions| rule("input", &expressions, false)));
    }
    messages
}

/// The transaction that removes our table, whether it is there or not.
pub(super) fn remove() -> Vec<Message> {
    vec![table(Operation::NewTable), table(Operation::DeleteTable)]
}

/// Replaces our rules in chains of others: what passes the bridge, and what is exposed, shall not be dropped there.
pub(super) fn pass(spec: &NftSpec, obstacles: &[Chain], ours: &[MarkedRule]) -> Vec<Message> {
    let rules = obstacles.iter().flat_map(|chain| {
        let rules = passes(spec, chain);
        rules.into_iter().map(|expressions| marked_rule(chain, &expressions))
    });
    ours.iter().map(delete_rule).chain(rules).collect()
}

/// Bridged frames come by here where `br_netfilter` is loaded, as on every host with Docker or Kubernetes.
fn passes(spec: &NftSpec, chain: &Chain) -> Vec<Expressions> {
    let from_bridge = || Expressions::default().interface(Meta::InputInterface, Is::Equal, &spec.bridge);
    let to_bridge = |rule: Expressions| rule.interface(Meta::OutputInterface, Is::Equal, &spec.bridge);
    let mut rules = vec![to_bridge(from_bridge()).verdict(Verdict::Accept)];
    let fits = |subnet: &&Subnet| match chain.family {
        IPV4 => subnet.net().addr().is_ipv4(),
        IPV6 => subnet.net().addr().is_ipv6(),
        _ => true,
    };
    for subnet in spec.masquerade.iter().filter(fits) {
        // In a table of one family the family is no question, and iptables does not know how to show it.
        let family = |rule: Expressions| if chain.family == INET { rule.family_of(*subnet) } else { rule };
        let out = family(from_bridge()).address(End::Source, Is::Equal, *subnet);
        let into = family(to_bridge(Expressions::default())).address(End::Destination, Is::Equal, *subnet);
        rules.extend([out, into].map(|rule| rule.verdict(Verdict::Accept)));
    }
    rules
}

fn marked_rule(chain: &Chain, expressions: &Expressions) -> Message {
    const USER_DATA: u16 = 7;
    let rule = rule_in(chain, expressions);
    Message { attributes: rule.attributes.bytes(USER_DATA, MARK), at_head: true, ..rule }
}

fn delete_rule(rule: &MarkedRule) -> Message {
    const HANDLE: u16 = 3;
    let attributes = chain_of(&rule.chain).bytes(HANDLE, &rule.handle);
    let doing = format!("removing our rule from chain {}", rule.chain);
    Message { family: rule.chain.family, ..message(Operation::DeleteRule, attributes, doing) }
}

/// A transaction that fails at its last message, after everything that NAT needs: deleting a table that is not there.
pub(super) fn try_masquerade() -> Vec<Message> {
    let wanted = NftSpec { bridge: TABLE.to_owned(), masquerade: multicast_nets(), ..NftSpec::default() };
    let impossible = Attributes::default().text(1, "weave-probe");
    let end = Message { attributes: impossible, ..table(Operation::DeleteTable) };
    replace(&wanted).into_iter().chain([end]).collect()
}

/// Multicast is never masqueraded: receivers tell senders apart by their addresses.
fn groups() -> Vec<Expressions> {
    multicast_nets()
        .into_iter()
        .map(|net| {
            Expressions::default()
                .family_of(net)
                .address(End::Destination, Is::Equal, net)
                .verdict(Verdict::Return)
        })
        .collect()
}

fn multicast_nets() -> Vec<Subnet> {
    ["224.0.0.0/4", "ff00::/8"].into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// The sets of our table: containers of this host that see who calls from outside.
pub(super) fn sources() -> Program {
    let sets = LOCAL.map(|(_, name, field)| SetSpec::of(name, &[field]));
    Program { table: TABLE.to_owned(), sets: sets.into(), chains: Vec::new() }
}

/// By family, the set and what it holds.
const LOCAL: [(IpFamily, &str, Field); 2] =
    [(IpFamily::V4, "local4", Field::Ipv4), (IpFamily::V6, "local6", Field::Ipv6)];

/// What has to change in those sets.
pub(super) fn source_changes<'p>(
    program: &'p Program,
    gone: &BTreeSet<IpAddr>,
    come: &BTreeSet<IpAddr>,
) -> Vec<SetChange<'p>> {
    let items = |addresses: &BTreeSet<IpAddr>, set: &SetSpec| -> Vec<Item> {
        let of_family = addresses.iter().filter(|address| address.is_ipv6() == (set.key == [Field::Ipv6]));
        of_family
            .map(|address| Item { key: vec![Value::Address(*address)], last: None, value: None })
            .collect()
    };
    let changes =
        program.sets.iter().map(|set| SetChange { set, remove: items(gone, set), add: items(come, set) });
    changes.filter(|change| !change.remove.is_empty() || !change.add.is_empty()).collect()
}

fn keep_sources(bridge: &str) -> [Expressions; 2] {
    LOCAL.map(|(family, set, _)| {
        Expressions::default()
            .is_family(family)
            .interface(Meta::OutputInterface, Is::Equal, bridge)
            .load_header_address(End::Destination, family, Register(0))
            .is_in_set(set, Register(0))
            .verdict(Verdict::Return)
    })
}

fn masquerade(subnet: Subnet, bridge: &str) -> [Expressions; 2] {
    let out = Expressions::default()
        .family_of(subnet)
        .address(End::Source, Is::Equal, subnet)
        .address(End::Destination, Is::Different, subnet)
        .interface(Meta::OutputInterface, Is::Different, bridge)
        .masquerade();
    let into = Expressions::default()
        .family_of(subnet)
        .address(End::Source, Is::Different, subnet)
        .address(End::Destination, Is::Equal, subnet)
        .interface(Meta::OutputInterface, Is::Equal, bridge)
        .masquerade();
    [out, into]
}

fn protect(port: u16, bridge: &str) -> [Expressions; 2] {
    [TCP, UDP].map(|protocol| {
        let from_containers = Expressions::default().interface(Meta::InputInterface, Is::Equal, bridge);
        from_containers.destination_port(protocol, port).verdict(Verdict::Drop)
    })
}

fn table(operation: Operation) -> Message {
    const NAME: u16 = 1;
    message(operation, Attributes::default().text(NAME, TABLE), format!("changing table {TABLE}"))
}

/// A message about our own table.
fn message(operation: Operation, attributes: Attributes, doing: String) -> Message {
    Message { family: INET, operation, attributes, at_head: false, doing, needs_nat: false }
}

fn base_chain(name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    let attributes = chain(TABLE, name, Some(Base { kind, hook, priority }));
    let doing = format!("adding chain {name} to table {TABLE}");
    Message { needs_nat: kind == "nat", ..message(Operation::NewChain, attributes, doing) }
}

/// What makes a chain one that packets meet by themselves.
pub(super) struct Base<'a> {
    pub(super) kind: &'a str,
    /// `NF_INET_*`.
    pub(super) hook: u32,
    /// Low ones first.
    pub(super) priority: i32,
}

/// The description of a chain, which lets pass what no rule of it judges.
pub(super) fn chain(table: &str, name: &str, base: Option<Base<'_>>) -> Attributes {
    const TABLE_NAME: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    const ACCEPT: u32 = 1;
    let attributes = Attributes::default().text(TABLE_NAME, table).text(NAME, name);
    let Some(base) = base else { return attributes };
    let place = Attributes::default()
        .number(HOOK_NUMBER, base.hook)
        .bytes(HOOK_PRIORITY, &base.priority.to_be_bytes());
    attributes.nested(HOOK, &place).number(POLICY, ACCEPT).text(TYPE, base.kind)
}

fn rule(chain: &str, expressions: &Expressions, needs_nat: bool) -> Message {
    let chain = Chain { family: INET, table: TABLE.to_owned(), name: chain.to_owned() };
    Message { needs_nat, ..rule_in(&chain, expressions) }
}

fn rule_in(chain: &Chain, expressions: &Expressions) -> Message {
    const EXPRESSIONS: u16 = 4;
    let attributes = chain_of(chain).nested(EXPRESSIONS, expressions.attributes());
    let doing = format!("adding a rule to chain {chain}");
    Message { family: chain.family, ..message(Operation::NewRule, attributes, doing) }
}

/// How messages about rules name the chain.
fn chain_of(chain: &Chain) -> Attributes {
    const TABLE_NAME: u16 = 1;
    const CHAIN_NAME: u16 = 2;
    Attributes::default().text(TABLE_NAME, &chain.table).text(CHAIN_NAME, &chain.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_only_the_chains_that_its_rules_need() {
        let operations = |spec: &NftSpec| replace(spec).iter().map(|m| m.operation).collect::<Vec<_>>();
        let ports = NftSpec { bridge: "weave".to_owned(), protected_ports: vec![6783], ..NftSpec::default() };
        use Operation::{DeleteTable, NewChain, NewRule, NewTable};
        assert_eq!(operations(&ports), [NewTable, DeleteTable, NewTable, NewChain, NewRule, NewRule]);
        let masquerade = vec!["10.32.0.0/12".parse().unwrap()];
        let nat = NftSpec { masquerade, protected_ports: vec![], ..ports };
        assert_eq!(
            operations(&nat),
            [NewTable, DeleteTable, NewTable, NewChain, NewRule, NewRule, NewRule, NewRule]
        );
        assert!(replace(&nat).iter().skip(3).all(|message| message.needs_nat));
    }
}
