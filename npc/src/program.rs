//! The program in the kernel: the same rules whatever the policies; see [`weave_policy::Element`] for what its sets and
//! maps hold.
//!
//! A connection is judged by what connection tracking knows of it: who opened it before any translation of the source
//! (the source of its first packet), and whom and which port it reached after translation of the destination (the source
//! of its answers). So services, host ports and masquerading are seen as the pods see them; every packet of a connection,
//! in both directions, gives the same answer; and an established connection can be judged anew at any time, without a
//! mark on it. Where we are, behind the translation of destinations and before that of sources, a packet that opens a
//! connection has all that in its header, which is read in less time: most connections are judged by that, once.
//!
//! ```text
//! forward, input
//!   established, and nobody in `rejudge`             accept     (all that most packets see)
//!   opens a connection                               multicast as below; to the headers of the bank in force
//!   established, and neither end in `rejudge`        accept
//!   related                                          accept     (ICMP errors, data connections)
//!   neighbour discovery, multicast listeners         accept
//!   multicast, if the operator wants                 accept
//!   to the bank in force
//! a bank of them
//!   not tracked, or fits no connection               the same by the packet's header
//!   opened by an isolated pod                        egress:  return if allowed, else drop
//!   to an isolated pod                               ingress: return if allowed, else drop    (forward only)
//! ```
//!
//! What is allowed is looked for by one peer number after the other, [`STEPS`]: only if the class has a row for it, by the
//! four ways to say which ports.
//!
//! All sets and maps that judge, and the chains that read them, are there twice, in two [banks](Bank); one element says
//! which is in force. The kernel makes a transaction visible set by set while it goes through it (a map of intervals when it
//! comes to it, the others at the beginning; see `nf_tables_commit`), so a packet on its way through a bank that is being
//! changed would meet a state that nobody wanted. So only the bank that is not in force is ever changed, and a packet
//! asks once which that is.
//!
//! What this node itself opens does not come by: it leaves by the output hook, and so do probes of containers. Traffic
//! between pods of one bridge comes by where `br_netfilter` calls the hooks of IP for bridges.

use weave_hostnet::nft::{
    ChainSpec, ConnectionState, End, Expressions, Field, Hook, IpFamily, Program, Register, Rule, SetSpec,
    Verdict, Way,
};
use weave_policy::{Direction, PeerId};

use crate::blocked;

/// Name of our table.
pub const TABLE: &str = "weave-npc";

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

/// One of the two copies of what judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bank {
    /// In force at the start.
    A,
    /// In force while [`SWITCH`] has its element.
    B,
}

/// The set that says which bank is in force.
pub const SWITCH: &str = "bank_b_in_force";

/// The set that has an element while a set of addresses to be judged has any: the only one that most packets ask.
pub const JUDGING: &str = "rejudge_any";

impl Bank {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The name of something in this bank.
    #[must_use]
    pub fn own(self, name: &str) -> String {
        match self {
            Self::A => format!("{name}_a"),
            Self::B => format!("{name}_b"),
        }
    }

    /// In which bank something of this name is, if in any, and its name without the bank.
    #[must_use]
    pub fn split(name: &str) -> Option<(Self, &str)> {
        let a = name.strip_suffix("_a").map(|name| (Self::A, name));
        a.or_else(|| name.strip_suffix("_b").map(|name| (Self::B, name)))
    }
}

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
    for bank in Bank::ALL {
        for family in FAMILIES {
            for view in [View::Connection, View::Header] {
                let of = |direction| judge((bank, family, view, direction));
                chains.extend(Direction::ALL.into_iter().flat_map(of));
            }
        }
        for hook in [Hook::Forward, Hook::Input] {
            chains.push(by_header(bank, hook));
            chains.push(by_connection(bank, hook));
        }
    }
    for hook in [Hook::Forward, Hook::Input] {
        chains.push(opening(hook, multicast));
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
/// Bytes of the first three, of which a row has its key.
const ROW_KEY: usize = 12;

fn entry(hook: Hook, multicast: Multicast) -> ChainSpec {
    let state = |mask| Expressions::default().connection_state(mask);
    let established = || state(ConnectionState::Established.bit());
    let mut rules = Vec::new();
    let settled = established().load_number(0, ADDRESS).is_not_in_set(JUDGING, ADDRESS);
    rules.push(accept("established, nobody to be judged anew", settled));
    let opens = state(ConnectionState::New.bit()).go_to(&opening_name(hook));
    rules.push(noted("opens a connection", opens));
    for family in FAMILIES {
        let rejudge = named("rejudge", family);
        let settled = established()
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
    rules.extend(groups(multicast));
    rules.extend(to_bank_in_force(|bank| by_connection_name(bank, hook)));
    ChainSpec { name: hook_name(hook).to_owned(), hook: Some(hook), rules }
}

/// What opens a connection. Neighbours and listeners open none: connection tracking leaves them alone.
fn opening(hook: Hook, multicast: Multicast) -> ChainSpec {
    let to_bank = to_bank_in_force(|bank| by_header_name(bank, hook));
    let rules = groups(multicast).into_iter().chain(to_bank).collect();
    ChainSpec { name: opening_name(hook), hook: None, rules }
}

fn groups(multicast: Multicast) -> Vec<Rule> {
    let group = |family| accept("multicast", Expressions::default().is_multicast(family));
    match multicast {
        Multicast::Pass => FAMILIES.map(group).into(),
        Multicast::Judge => Vec::new(),
    }
}

fn to_bank_in_force(chain: impl Fn(Bank) -> String) -> [Rule; 2] {
    let is_b = Expressions::default().load_number(0, ADDRESS).is_in_set(SWITCH, ADDRESS);
    [
        noted("bank b is in force", is_b.go_to(&chain(Bank::B))),
        noted("bank a is in force", Expressions::default().go_to(&chain(Bank::A))),
    ]
}

fn by_connection(bank: Bank, hook: Hook) -> ChainSpec {
    let untracked = ConnectionState::Untracked.bit() | ConnectionState::Invalid.bit();
    let by_header = Expressions::default().connection_state(untracked).jump(&by_header_name(bank, hook));
    let mut rules = vec![noted("not tracked, or invalid", by_header)];
    for family in FAMILIES {
        for direction in judged(hook) {
            rules.push(dispatch(Expressions::default(), (bank, family, View::Connection, *direction)));
        }
    }
    ChainSpec { name: by_connection_name(bank, hook), hook: None, rules }
}

fn by_header(bank: Bank, hook: Hook) -> ChainSpec {
    let mut rules = Vec::new();
    for family in FAMILIES {
        for direction in judged(hook) {
            let start = Expressions::default().is_family(family);
            rules.push(dispatch(start, (bank, family, View::Header, *direction)));
        }
    }
    rules.push(noted("the rest", Expressions::default().verdict(Verdict::Accept)));
    ChainSpec { name: by_header_name(bank, hook), hook: None, rules }
}

/// What this host receives, no pod of ours receives; what it sends, none sends; and ports belong to the router.
const fn judged(hook: Hook) -> &'static [Direction] {
    match hook {
        Hook::Forward => &[Direction::Egress, Direction::Ingress],
        Hook::Input => &[Direction::Egress],
        Hook::Output | Hook::BridgePort => &[],
    }
}

/// Which chain judges.
type Judge = (Bank, IpFamily, View, Direction);

/// If the subject is isolated, its permissions are looked up.
fn dispatch(start: Expressions, (bank, family, view, direction): Judge) -> Rule {
    let classes = bank.own(&classes(direction, family));
    let subject = load_end(start, family, view, subject(direction)).load_from_map(&classes, ADDRESS, CLASS);
    noted(&format!("pods in {classes}"), subject.jump(&judge_name((bank, family, view, direction))))
}

fn accept(note: &str, rule: Expressions) -> Rule {
    noted(note, rule.verdict(Verdict::Accept))
}

fn noted(note: &str, expressions: Expressions) -> Rule {
    Rule { note: note.to_owned(), expressions }
}

/// A chain of those that judge: what is looked up in it for one peer number of the other end, and which comes next.
///
/// They are told apart by chains, not by jumps, because a jump that comes back does not say what it found.
struct Step {
    /// Appended to the name of the judge.
    name: &'static str,
    peer: Whose,
    /// Looked up at once.
    ports: &'static [Which],
    /// Where it goes on if the class has a row for the peer number.
    row: Option<&'static str>,
    next: &'static str,
}

/// A peer number of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Pod,
    Everybody,
    Block,
}

/// A way to say which ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Port,
    All,
    Protocol,
    Range,
}

/// In order; jumps go to the first. Most of what is allowed is so to a pod by the number of a port: that is looked up
/// before it is asked whether there is a row.
const STEPS: [Step; 6] = {
    use Which::{All, Port, Protocol, Range};
    const REST: &[Which] = &[All, Protocol, Range];
    const EVERY: &[Which] = &[Port, All, Protocol, Range];
    const fn step(
        name: &'static str,
        peer: Whose,
        ports: &'static [Which],
        row: Option<&'static str>,
        next: &'static str,
    ) -> Step {
        Step { name, peer, ports, row, next }
    }
    [
        step("", Whose::Pod, &[Port], Some("_pod"), "_anybody"),
        step("_pod", Whose::Pod, REST, None, "_anybody"),
        step("_anybody", Whose::Everybody, &[], Some("_everybody"), "_address"),
        step("_everybody", Whose::Everybody, EVERY, None, "_address"),
        step("_address", Whose::Block, &[], Some("_block"), DENIED),
        step("_block", Whose::Block, EVERY, None, DENIED),
    ]
};

/// Appended to the name of the judge: the chain that drops.
const DENIED: &str = "_denied";

/// Returns if a permission is there, and drops otherwise. A chain comes before those that go to it.
fn judge(judge: Judge) -> impl Iterator<Item = ChainSpec> {
    let steps = STEPS.iter().rev().map(move |step| look_up(judge, step));
    std::iter::once(denied(judge)).chain(steps)
}

fn denied(judge: Judge) -> ChainSpec {
    let drop = Expressions::default().count().verdict(Verdict::Drop);
    let rules = vec![blocked::telling(judge.3), noted("nothing allows it", drop)];
    ChainSpec { name: judge_name(judge) + DENIED, hook: None, rules }
}

fn look_up(judge: Judge, step: &Step) -> ChainSpec {
    let chain = |name: &str| judge_name(judge) + name;
    let mut rules: Vec<Rule> = step.ports.iter().map(|ports| permission(judge, step.peer, *ports)).collect();
    if let Some(more) = step.row {
        let rule = key(judge, step.peer, ROW_KEY, |rule| rule);
        let rule = rule.is_in_set(&judge.0.own("rows"), KEY).go_to(&chain(more));
        rules.push(noted(&format!("something allowed to {}", step.peer.name()), rule));
    }
    rules.push(noted("the next", Expressions::default().go_to(&chain(step.next))));
    ChainSpec { name: chain(step.name), hook: None, rules }
}

/// Returns if it is allowed in this way.
fn permission(judge: Judge, peer: Whose, ports: Which) -> Rule {
    let (bank, _, view, _) = judge;
    let (set, length) = match ports {
        Which::All => ("all", ROW_KEY),
        Which::Protocol => ("protocol", ROW_KEY + 4),
        Which::Range => ("range", ROW_KEY + 4),
        Which::Port => ("port", ROW_KEY + 8),
    };
    let rule = key(judge, peer, length, |rule| match ports {
        Which::All => rule,
        Which::Protocol => rule.load_protocol(PROTOCOL),
        Which::Port => load_port(rule.load_protocol(PROTOCOL), view, PORT),
        Which::Range => load_port(rule.load_protocol(PROTOCOL), view, PORT).load_from_map(
            &bank.own("ranges"),
            PROTOCOL,
            PROTOCOL,
        ),
    });
    let rule = rule.is_in_set(&bank.own(&format!("allow_{set}")), KEY).verdict(Verdict::Return);
    noted(&format!("{set} allowed to {}", peer.name()), rule)
}

impl Whose {
    const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Everybody => "everybody",
            Self::Block => "blocks",
        }
    }
}

/// Loads a key. The peer comes first: mostly it is not there, and the rule ends.
fn key(
    (bank, family, view, direction): Judge,
    peer: Whose,
    length: usize,
    load_ports: impl Fn(Expressions) -> Expressions,
) -> Expressions {
    let other = match subject(direction) {
        End::Source => End::Destination,
        End::Destination => End::Source,
    };
    let rule = Expressions::default().begin_key(KEY, length);
    let rule = match peer {
        Whose::Everybody => rule.load_number(PeerId::EVERYBODY.0, PEER),
        Whose::Pod | Whose::Block => {
            let peers = bank.own(&named(peer.name(), family));
            load_end(rule, family, view, other).load_from_map(&peers, ADDRESS, PEER)
        }
    };
    let rule = load_end(load_ports(rule), family, view, subject(direction));
    rule.load_from_map(&bank.own(&classes(direction, family)), ADDRESS, CLASS)
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
        Hook::Output => "output",
        Hook::BridgePort => "bridge",
    }
}

fn opening_name(hook: Hook) -> String {
    format!("{}_opening", hook_name(hook))
}

fn by_connection_name(bank: Bank, hook: Hook) -> String {
    bank.own(hook_name(hook))
}

fn by_header_name(bank: Bank, hook: Hook) -> String {
    bank.own(&format!("{}_header", hook_name(hook)))
}

fn judge_name((bank, family, view, direction): Judge) -> String {
    let view = match view {
        View::Connection => "",
        View::Header => "_header",
    };
    bank.own(&format!("judge_{}{view}", classes(direction, family)))
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
    use Field::{Ipv4, Ipv6, Number};
    let mut sets = [SWITCH, JUDGING].map(|name| SetSpec::of(name, &[Number])).to_vec();
    for (family, address) in FAMILIES.into_iter().zip([Ipv4, Ipv6]) {
        sets.push(SetSpec::of(named("rejudge", family), &[address]));
    }
    for bank in Bank::ALL {
        sets.extend(sets_of_bank().into_iter().map(|set| SetSpec { name: bank.own(&set.name), ..set }));
    }
    sets
}

fn sets_of_bank() -> Vec<SetSpec> {
    use Field::{Ipv4, Ipv6, Number, Port, Protocol};
    let map = |name: &str, key: &[Field]| SetSpec { value: Some(Number), ..SetSpec::of(name, key) };
    let intervals = |name: &str, key: &[Field]| SetSpec { has_intervals: true, ..map(name, key) };
    let mut sets = Vec::new();
    for (family, address) in FAMILIES.into_iter().zip([Ipv4, Ipv6]) {
        sets.push(map(&named("pods", family), &[address]));
        sets.push(intervals(&named("blocks", family), &[address]));
        for direction in Direction::ALL {
            sets.push(map(&classes(direction, family), &[address]));
        }
    }
    sets.push(intervals("ranges", &[Protocol, Port]));
    sets.push(SetSpec::of("rows", &[Number, Number, Number]));
    sets.push(SetSpec::of("allow_all", &[Number, Number, Number]));
    sets.push(SetSpec::of("allow_protocol", &[Number, Number, Number, Protocol]));
    sets.push(SetSpec::of("allow_port", &[Number, Number, Number, Protocol, Port]));
    sets.push(SetSpec::of("allow_range", &[Number, Number, Number, Number]));
    sets
}
