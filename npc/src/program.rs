//! The program in the kernel: the same rules whatever the policies; see [`weave_policy::Element`] for what its sets and
//! maps hold.
//!
//! A connection is judged by what connection tracking knows of it: who opened it before any translation of the source
//! (the source of its first packet), and whom and which port it reached after translation of the destination (the source
//! of its answers). So services, host ports and masquerading are seen as the pods see them; every packet of a connection,
//! in both directions, gives the same answer; and an established connection can be judged anew at any time, without a
//! mark on it.
//!
//! ```text
//! forward, input
//!   established, and neither end in `rejudge`        accept     (all that most packets see)
//!   related                                          accept     (ICMP errors, data connections)
//!   neighbour discovery, multicast listeners         accept
//!   multicast, if the operator wants                 accept
//!   not tracked, or fits no connection               the same by the packet's header
//!   opened by an isolated pod                        egress:  return if allowed, else drop
//!   to an isolated pod                               ingress: return if allowed, else drop    (forward only)
//! ```
//!
//! What this node itself opens does not come by: it leaves by the output hook, and so do probes of containers. Traffic
//! between pods of one bridge comes by where `br_netfilter` calls the hooks of IP for bridges.

use weave_hostnet::nft::{
    ChainSpec, ConnectionState, End, Expressions, Field, Hook, IpFamily, Program, Register, Rule, SetSpec,
    Verdict, Way,
};
use weave_policy::{Direction, PeerId};

/// Name of our table.
pub const TABLE: &str = "weave-npc";

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

/// Whether the operator lets multicast pass unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multicast {
    /// To whoever joined a group, from whomever.
    Pass,
    /// What isolated pods send is judged like everything else.
    Judge,
}

/// The program.
#[must_use]
pub fn program(multicast: Multicast) -> Program {
    let mut chains = Vec::new();
    for family in FAMILIES {
        for view in [View::Connection, View::Header] {
            for direction in Direction::ALL {
                chains.push(judge(family, view, direction));
            }
        }
    }
    for hook in [Hook::Forward, Hook::Input] {
        chains.push(by_header(hook));
    }
    for hook in [Hook::Forward, Hook::Input] {
        chains.push(entry(hook, multicast));
    }
    Program { table: TABLE.to_owned(), sets: sets(), chains }
}

/// What a packet is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// What connection tracking knows of its connection.
    Connection,
    /// Its own header, as if it were the first of its connection.
    Header,
}

/// Four registers for an address.
const ADDRESS: Register = Register(0);
/// A zero, the class of the subject, the number of its peer, protocol and port: in this order a key of the sets of
/// permissions.
const KEY: Register = Register(4);
const CLASS: Register = Register(5);
const PEER: Register = Register(6);
const PROTOCOL: Register = Register(7);
const PORT: Register = Register(8);

fn entry(hook: Hook, multicast: Multicast) -> ChainSpec {
    let state = |mask| Expressions::default().connection_state(mask);
    let accept = |note: &str, rule: Expressions| noted(note, rule.verdict(Verdict::Accept));
    let mut rules = Vec::new();
    for family in FAMILIES {
        let rejudge = named("rejudge", family);
        let settled = state(ConnectionState::Established.bit())
            .load_connection_source(Way::Original, family, ADDRESS)
            .is_not_in_set(&rejudge, ADDRESS)
            .load_connection_source(Way::Reply, family, ADDRESS)
            .is_not_in_set(&rejudge, ADDRESS);
        rules.push(accept("established, neither end to be judged anew", settled));
    }
    rules.push(accept("related", state(ConnectionState::Related.bit())));
    // Queries, reports and leaves of listeners, router and neighbour solicitations and advertisements, redirects; version
    // 2 reports (RFC 4861, 2710, 3810).
    for (first, last) in [(130, 137), (143, 143)] {
        rules.push(accept("neighbours and listeners", Expressions::default().icmpv6_type(first, last)));
    }
    if multicast == Multicast::Pass {
        for family in FAMILIES {
            rules.push(accept("multicast", Expressions::default().is_multicast(family)));
        }
    }
    let untracked = ConnectionState::Untracked.bit() | ConnectionState::Invalid.bit();
    rules.push(noted("not tracked, or invalid", state(untracked).jump(&by_header_name(hook))));
    for family in FAMILIES {
        for direction in judged(hook) {
            rules.push(dispatch(Expressions::default(), family, View::Connection, *direction));
        }
    }
    ChainSpec { name: hook_name(hook).to_owned(), hook: Some(hook), rules }
}

fn by_header(hook: Hook) -> ChainSpec {
    let mut rules = Vec::new();
    for family in FAMILIES {
        for direction in judged(hook) {
            rules.push(dispatch(Expressions::default().is_family(family), family, View::Header, *direction));
        }
    }
    rules.push(noted("the rest", Expressions::default().verdict(Verdict::Accept)));
    ChainSpec { name: by_header_name(hook), hook: None, rules }
}

/// What this host receives, no pod of ours receives.
const fn judged(hook: Hook) -> &'static [Direction] {
    match hook {
        Hook::Forward => &[Direction::Egress, Direction::Ingress],
        Hook::Input => &[Direction::Egress],
    }
}

/// If the subject is isolated, its permissions are looked up.
fn dispatch(start: Expressions, family: IpFamily, view: View, direction: Direction) -> Rule {
    let classes = classes(direction, family);
    let subject = load_end(start, family, view, subject(direction)).load_from_map(&classes, ADDRESS, CLASS);
    noted(&format!("pods in {classes}"), subject.jump(&judge_name(family, view, direction)))
}

fn noted(note: &str, expressions: Expressions) -> Rule {
    Rule { note: note.to_owned(), expressions }
}

/// Returns if a permission is there, and drops otherwise.
fn judge(family: IpFamily, view: View, direction: Direction) -> ChainSpec {
    let other = match subject(direction) {
        End::Source => End::Destination,
        End::Destination => End::Source,
    };
    let mut rules = Vec::new();
    for ports in ["port", "protocol", "all", "range"] {
        for peer in ["pods", "everybody", "blocks"] {
            // The peer comes first: mostly it is not there, and the rule ends.
            let rule = Expressions::default().begin_key(KEY);
            let rule = match peer {
                "everybody" => rule.load_number(PeerId::EVERYBODY.0, PEER),
                _ => load_end(rule, family, view, other).load_from_map(&named(peer, family), ADDRESS, PEER),
            };
            let rule = match ports {
                "all" => rule,
                "protocol" => rule.load_protocol(PROTOCOL),
                "port" => load_port(rule.load_protocol(PROTOCOL), view, PORT),
                _ => load_port(rule.load_protocol(PROTOCOL), view, PORT)
                    .load_from_map("ranges", PROTOCOL, PROTOCOL),
            };
            let rule = load_end(rule, family, view, subject(direction));
            let rule = rule.load_from_map(&classes(direction, family), ADDRESS, CLASS);
            let rule = rule.is_in_set(&format!("allow_{ports}"), KEY).verdict(Verdict::Return);
            rules.push(noted(&format!("{ports} allowed to {peer}"), rule));
        }
    }
    rules.push(noted("nothing allows it", Expressions::default().count().verdict(Verdict::Drop)));
    ChainSpec { name: judge_name(family, view, direction), hook: None, rules }
}

const fn subject(direction: Direction) -> End {
    match direction {
        Direction::Ingress => End::Destination,
        Direction::Egress => End::Source,
    }
}

fn load_end(rule: Expressions, family: IpFamily, view: View, end: End) -> Expressions {
    match (view, end) {
        (View::Connection, End::Source) => rule.load_connection_source(Way::Original, family, ADDRESS),
        (View::Connection, End::Destination) => rule.load_connection_source(Way::Reply, family, ADDRESS),
        (View::Header, end) => rule.load_header_address(end, family, ADDRESS),
    }
}

fn load_port(rule: Expressions, view: View, to: Register) -> Expressions {
    match view {
        View::Connection => rule.load_connection_port(Way::Reply, to),
        View::Header => rule.load_header_port(to),
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Forward => "forward",
        Hook::Input => "input",
    }
}

fn by_header_name(hook: Hook) -> String {
    format!("{}_header", hook_name(hook))
}

fn judge_name(family: IpFamily, view: View, direction: Direction) -> String {
    let view = match view {
        View::Connection => "",
        View::Header => "_header",
    };
    format!("judge_{}{view}", classes(direction, family))
}

pub(crate) fn named(name: &str, family: IpFamily) -> String {
    match family {
        IpFamily::V4 => format!("{name}4"),
        IpFamily::V6 => format!("{name}6"),
    }
}

pub(crate) fn classes(direction: Direction, family: IpFamily) -> String {
    match direction {
        Direction::Ingress => named("ingress", family),
        Direction::Egress => named("egress", family),
    }
}

pub(crate) fn sets() -> Vec<SetSpec> {
    use Field::{Ipv4, Ipv6, Number, Port, Protocol};
    let set = |name: &str, key: &[Field]| SetSpec {
        name: name.to_owned(),
        key: key.to_vec(),
        value: None,
        has_intervals: false,
    };
    let map = |name: &str, key: &[Field]| SetSpec { value: Some(Number), ..set(name, key) };
    let intervals = |name: &str, key: &[Field]| SetSpec { has_intervals: true, ..map(name, key) };
    let mut sets = Vec::new();
    for (family, address) in FAMILIES.into_iter().zip([Ipv4, Ipv6]) {
        sets.push(map(&named("pods", family), &[address]));
        sets.push(intervals(&named("blocks", family), &[address]));
        for direction in Direction::ALL {
            sets.push(map(&classes(direction, family), &[address]));
        }
        sets.push(set(&named("rejudge", family), &[address]));
    }
    sets.push(intervals("ranges", &[Protocol, Port]));
    sets.push(set("allow_all", &[Number, Number, Number]));
    sets.push(set("allow_protocol", &[Number, Number, Number, Protocol]));
    sets.push(set("allow_port", &[Number, Number, Number, Protocol, Port]));
    sets.push(set("allow_range", &[Number, Number, Number, Number]));
    sets
}
