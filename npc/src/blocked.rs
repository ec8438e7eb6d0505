//! Connections that were blocked: counted, and told to operators by the names of pods and policies.
//!
//! The kernel sends the beginning of what it drops, a limited number a second. From that on, everything is limited too:
//! lines in the log, and series of the counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use weave_hostnet::nft::{Expressions, Logged, LoggedPacket, PacketLog, Rule};
use weave_policy::{Direction, Flow, Protocol, Traffic};

use crate::{clock, source::Event};

/// The group at which dropped packets come, as it has always been.
pub const GROUP: u16 = 86;
/// How much of a packet comes: headers of IPv6 and TCP.
const BYTES: u32 = 64;
/// How many packets come a second from one chain of the program, after a first burst.
const PACKETS_PER_SECOND: u32 = 200;
const BURST: u32 = 400;
/// How many lines are logged in a second.
const LINES_PER_SECOND: usize = 10;
/// For how long a connection that was logged is not logged again.
const SILENCE: Duration = Duration::from_secs(60);
/// How many connections are remembered for that.
const REMEMBERED: usize = 4096;
/// How many series the counters have; more ports are counted together.
const SERIES: usize = 1000;
/// How long the thread waits at a time.
const LISTEN: Duration = Duration::from_secs(60);
/// Note of the rule that tells.
const TELLING: &str = "what is dropped is told";

/// The rule that sends the beginning of what is about to be dropped to [`GROUP`]. It is one of its own: what is above the
/// limit is dropped all the same.
#[must_use]
pub fn telling(direction: Direction) -> Rule {
    let limited = Expressions::default().at_most_per_second(PACKETS_PER_SECOND, BURST);
    Rule { note: TELLING.to_owned(), expressions: limited.log(GROUP, direction_name(direction), BYTES) }
}

/// A packet that was dropped, as a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// Whose policies dropped it: those of the pod at the destination for ingress.
    pub direction: Direction,
    /// What it was.
    pub flow: Flow,
    /// The port that it came from, where its protocol has ports.
    pub source_port: Option<u16>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flow { source, destination, traffic } = self.flow;
        match (traffic, self.source_port) {
            (Traffic::To(protocol, port), Some(source_port)) => {
                let from = std::net::SocketAddr::new(source, source_port);
                let to = std::net::SocketAddr::new(destination, port);
                write!(f, "{protocol} connection from {from} to {to}")
            }
            (Traffic::To(protocol, port), None) => {
                write!(f, "{protocol} connection from {source} to {destination} port {port}")
            }
            (Traffic::Other(number), _) => {
                write!(f, "connection of protocol {number} from {source} to {destination}")
            }
        }
    }
}

impl Blocked {
    /// Reads what the kernel sent; `None` if it is no packet of IP.
    #[must_use]
    pub fn of(packet: &LoggedPacket) -> Option<Self> {
        let direction = match packet.prefix.as_str() {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            _ => return None,
        };
        let (source, destination, protocol, rest) = match packet.bytes.first()? >> 4 {
            4 => read_v4(&packet.bytes)?,
            6 => read_v6(&packet.bytes)?,
            _ => return None,
        };
        let number = |at: usize| rest.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let (traffic, source_port) = match (Protocol::from_number(protocol), number(2)) {
            (Some(protocol), Some(port)) => (Traffic::To(protocol, port), number(0)),
            _ => (Traffic::Other(protocol), None),
        };
        Some(Self { direction, flow: Flow { source, destination, traffic }, source_port })
    }

    /// The labels of its counter: protocol, port of the destination, direction.
    fn series(&self) -> Series {
        let (protocol, port) = match self.flow.traffic {
            Traffic::To(protocol, port) => (protocol.to_string().to_lowercase(), port.to_string()),
            Traffic::Other(1) => ("icmp".to_owned(), String::new()),
            Traffic::Other(58) => ("icmpv6".to_owned(), String::new()),
            Traffic::Other(number) => (number.to_string(), String::new()),
        };
        Series { protocol, port, direction: direction_name(self.direction) }
    }
}

/// As labels and operators have it.
#[must_use]
pub const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

type Ends<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

/// RFC 791.
fn read_v4(bytes: &[u8]) -> Option<Ends<'_>> {
    let header = bytes.first_chunk::<20>()?;
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let rest = bytes.get(usize::from(header[0] & 15) * 4..).unwrap_or_default();
    // Only the first fragment begins with ports.
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    Some((address(12), address(16), header[9], if is_later_fragment { &[] } else { rest }))
}

/// RFC 8200; extension headers are not looked into.
fn read_v6(bytes: &[u8]) -> Option<Ends<'_>> {
    let (header, rest) = bytes.split_first_chunk::<40>()?;
    let address = |at: usize| {
        let octets: Option<[u8; 16]> = header.get(at..at + 16)?.try_into().ok();
        octets.map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
    };
    Some((address(8)?, address(24)?, header[6], rest))
}

/// What a counter counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number; `other` for all that came when there were too many series.
    pub protocol: String,
    /// Port of the destination; empty where there is none.
    pub port: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
}

/// What was blocked so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Packets that opened no connection.
    pub packets_by_series: BTreeMap<Series, u64>,
    /// Times that the kernel had more to tell than there was room for.
    pub losses: u64,
}

impl Tally {
    fn count(&mut self, blocked: &Blocked) {
        let mut series = blocked.series();
        if self.packets_by_series.len() >= SERIES && !self.packets_by_series.contains_key(&series) {
            series = Series { protocol: "other".to_owned(), port: String::new(), ..series };
        }
        *self.packets_by_series.entry(series).or_default() += 1;
    }
}

/// Who is logged, and who not.
#[derive(Debug, Default)]
struct Throttle {
    logged: BTreeMap<(Flow, bool), Instant>,
    /// Begin of the present second, and lines in it.
    second: Option<(Instant, usize)>,
}

impl Throttle {
    /// Whether this is to be logged.
    fn lets_pass(&mut self, blocked: &Blocked, now: Instant) -> bool {
        let key = (blocked.flow, blocked.direction == Direction::Ingress);
        if self.logged.get(&key).is_some_and(|at| now.duration_since(*at) < SILENCE) {
            return false;
        }
        let (begin, lines) =
            self.second.filter(|(at, _)| now.duration_since(*at).as_secs() < 1).unwrap_or((now, 0));
        if lines >= LINES_PER_SECOND {
            return false;
        }
        self.second = Some((begin, lines + 1));
        if self.logged.len() >= REMEMBERED {
            self.logged.retain(|_, at| now.duration_since(*at) < SILENCE);
        }
        if self.logged.len() < REMEMBERED {
            self.logged.insert(key, now);
        }
        true
    }
}

/// The thread that listens, as others see it.
#[derive(Debug, Clone, Default)]
pub struct Listener(Arc<Mutex<Tally>>);

impl Listener {
    /// Begins to count, and to send [`Event::Blocked`] for what is to be logged. Without the kernel's help nothing is
    /// counted, and all else works.
    ///
    /// # Errors
    /// When the kernel does not tell, or no thread can be had.
    pub fn start(&self, events: SyncSender<Event>) -> anyhow::Result<()> {
        let log = PacketLog::new(GROUP, BYTES)?;
        let listener = self.clone();
        let listen = move || {
            let mut throttle = Throttle::default();
            loop {
                match log.wait(LISTEN) {
                    Ok(logged) => listener.take_in(&logged, &mut throttle, &events),
                    Err(error) => {
                        tracing::warn!("cannot hear of blocked connections any more: {error}");
                        return;
                    }
                }
            }
        };
        thread::Builder::new().name("npc-blocked".to_owned()).spawn(listen).context("listening")?;
        Ok(())
    }

    /// What was blocked so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, logged: &Logged, throttle: &mut Throttle, events: &SyncSender<Event>) {
        let packets = match logged {
            Logged::Packets(packets) => packets,
            Logged::Lost => {
                self.state().losses += 1;
                return;
            }
        };
        let blocked: Vec<Blocked> = packets.iter().filter_map(Blocked::of).collect();
        blocked.iter().for_each(|blocked| self.state().count(blocked));
        let now = clock::now();
        let mut told = BTreeSet::new();
        for blocked in blocked {
            if throttle.lets_pass(&blocked, now) && told.insert(blocked) {
                // A line that cannot be had now is not worth waiting for.
                let _too_busy = events.try_send(Event::Blocked(blocked));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Multicast, program};

    fn packet(prefix: &str, bytes: &[u8]) -> LoggedPacket {
        LoggedPacket { prefix: prefix.to_owned(), bytes: bytes.to_vec() }
    }

    fn v4(protocol: u8, fragment: u8, rest: &[u8]) -> Vec<u8> {
        let header = [0x45, 0, 0, 40, 0, 0, 0, fragment, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        [&header[..], rest].concat()
    }

    #[test]
    fn packets_of_both_families_are_read_as_connections() {
        let ports = [0x9c, 0x40, 0x15, 0x38];
        let tcp = Blocked::of(&packet("ingress", &v4(6, 0, &ports))).unwrap();
        assert_eq!(tcp.to_string(), "TCP connection from 10.0.0.2:40000 to 10.0.0.1:5432");
        assert_eq!(tcp.direction, Direction::Ingress);
        let ping = Blocked::of(&packet("egress", &v4(1, 0, &[8, 0, 0, 0]))).unwrap();
        assert_eq!(ping.flow.traffic, Traffic::Other(1));
        let fragment = Blocked::of(&packet("egress", &v4(17, 9, &ports))).unwrap();
        assert_eq!(fragment.flow.traffic, Traffic::Other(17), "a later fragment has no ports");
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        v6.extend([Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED].iter().flat_map(Ipv6Addr::octets));
        v6.extend(ports);
        let udp = Blocked::of(&packet("ingress", &v6)).unwrap();
        assert_eq!(udp.to_string(), "UDP connection from [::1]:40000 to [::]:5432");
        for length in 0..v6.len() {
            // Whatever is missing, it does not panic.
            let _some_or_none = Blocked::of(&packet("ingress", &v6[..length]));
        }
        assert_eq!(Blocked::of(&packet("ingress", &[0x4f])), None);
        assert_eq!(Blocked::of(&packet("other", &v6)), None);
    }

    #[test]
    fn lines_and_series_are_bounded() {
        let now = clock::now();
        let mut throttle = Throttle::default();
        let mut tally = Tally::default();
        let blocked = |port: u16| Blocked {
            direction: Direction::Ingress,
            flow: Flow {
                source: IpAddr::from([10, 0, 0, 2]),
                destination: IpAddr::from([10, 0, 0, 1]),
                traffic: Traffic::To(Protocol::Tcp, port),
            },
            source_port: Some(port),
        };
        assert!(throttle.lets_pass(&blocked(1), now) && !throttle.lets_pass(&blocked(1), now));
        assert!(throttle.lets_pass(&blocked(1), now + SILENCE));
        let later = now + 2 * SILENCE;
        let passed = (0..100).filter(|port| throttle.lets_pass(&blocked(*port), later)).count();
        assert_eq!(passed, LINES_PER_SECOND);
        for second in 0..10_000u16 {
            throttle.lets_pass(&blocked(second), later + Duration::from_secs(1) * u32::from(second));
            tally.count(&blocked(second));
        }
        assert!(throttle.logged.len() <= REMEMBERED);
        assert_eq!(tally.packets_by_series.len(), SERIES + 1);
        assert_eq!(tally.packets_by_series.values().sum::<u64>(), 10_000);
    }

    #[test]
    fn every_chain_that_drops_tells_before() {
        let program = program(Multicast::Judge);
        let drops = |rule: &&Rule| rule.note.starts_with("nothing allows");
        let dropping: Vec<_> =
            program.chains.iter().filter(|chain| chain.rules.iter().any(|r| drops(&r))).collect();
        assert_eq!(dropping.len(), 16, "two banks, two families, two views, two directions");
        for chain in dropping {
            let [.., tells, drops] = &chain.rules[..] else { panic!("{}", chain.name) };
            assert_eq!((&tells.note[..], &drops.note[..]), (TELLING, "nothing allows it"), "{}", chain.name);
        }
    }
}
