//! What joins hosts, and how it is cut.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::{Context as _, Result};

use super::{
    host::{Host, ipv4, ipv6},
    place::Place,
};

/// Hosts on a segment from which on they are introduced to each other. The kernel has one table of learnt neighbours for all
/// namespaces together, of 1,024 entries (`gc_thresh3`), and drops packets when it is full; lasting entries do not count.
const LARGE: usize = 20;

/// A switch with some hosts on it. Copies name the same segment.
///
/// Both kinds of cut are silent: interfaces stay up and packets vanish, as they do where a network is partitioned.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    number: u8,
    switch: u32,
}

impl Segment {
    pub(super) fn new(switch: &Place, number: u8, hosts: &mut [&mut Host]) -> Result<Self> {
        let segment = Self { number, switch: switch.pid() };
        switch
            .ip(&format!("link add seg{number} type bridge mcast_snooping 0\nlink set seg{number} up\n"))?;
        let mut ports = String::new();
        for host in &mut *hosts {
            let port = segment.port(host);
            writeln!(ports, "link add {port} type veth peer name eth{number} netns {}", host.pid())?;
            writeln!(ports, "link set {port} master seg{number} up")?;
        }
        switch.ip(&ports)?;
        for host in &mut *hosts {
            number_interface(host, number)?;
        }
        if hosts.len() > LARGE {
            segment.introduce(hosts)?;
        }
        Ok(segment)
    }

    /// Gives every host lasting entries for all others.
    fn introduce(self, hosts: &[&mut Host]) -> Result<()> {
        let mut entries = Vec::new();
        for host in hosts {
            let shown = host.run(&format!("ip -o link show eth{}", self.number))?;
            let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
            let mac = words.nth(1).context("an interface without an Ethernet address")?;
            entries.push(self.neighbours(host, |address| {
                format!("neigh replace {address} lladdr {mac} nud permanent dev eth{}", self.number)
            }));
        }
        for (at, host) in hosts.iter().enumerate() {
            let others =
                entries.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, text)| text.as_str());
            host.ip(&others.collect::<String>())?;
        }
        Ok(())
    }

    /// The number in its addresses.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    fn port(self, host: &Host) -> String {
        format!("p{}-{}", self.number, host.number())
    }

    fn switch(self) -> std::process::Command {
        let mut command = std::process::Command::new("nsenter");
        command.args([
            "--target",
            &self.switch.to_string(),
            "--mount",
            "--net",
            "--",
            "bridge",
            "link",
            "set",
        ]);
        command
    }

    /// Takes `host` off the segment: nothing it sends arrives, nothing arrives at it.
    ///
    /// # Errors
    /// When the switch refuses.
    pub fn cut_off(self, host: &Host) -> Result<()> {
        crate::tool::run(self.switch().args(["dev", &self.port(host), "state", "0"])).map(drop)
    }

    /// Undoes [`Self::cut_off`].
    ///
    /// # Errors
    /// When the switch refuses.
    pub fn reconnect(self, host: &Host) -> Result<()> {
        crate::tool::run(self.switch().args(["dev", &self.port(host), "state", "3"])).map(drop)
    }

    /// Makes what `from` sends to `to` vanish, in this direction only: the neighbour entry leads nowhere.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn cut_one_way(self, from: &Host, to: &Host) -> Result<()> {
        from.ip(&self.neighbours(to, |a| {
            format!("neigh replace {a} lladdr 02:00:00:00:00:fe nud permanent dev eth{}", self.number)
        }))
    }

    /// Undoes [`Self::cut_one_way`].
    ///
    /// # Errors
    /// When `ip` refuses, or nothing was cut.
    pub fn heal_one_way(self, from: &Host, to: &Host) -> Result<()> {
        from.ip(&self.neighbours(to, |a| format!("neigh del {a} dev eth{}", self.number)))
    }

    /// Makes two hosts unreachable to each other, and to nobody else.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn cut(self, a: &Host, b: &Host) -> Result<()> {
        self.cut_one_way(a, b)?;
        self.cut_one_way(b, a)
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// When `ip` refuses, or nothing was cut.
    pub fn heal(self, a: &Host, b: &Host) -> Result<()> {
        self.heal_one_way(a, b)?;
        self.heal_one_way(b, a)
    }

    fn neighbours(self, host: &Host, line: impl Fn(IpAddr) -> String) -> String {
        host.addresses_in(self.number).into_iter().fold(String::new(), |text, a| text + &line(a) + "\n")
    }
}

/// Joins two hosts by a veth pair.
pub(super) fn wire(number: u8, a: &mut Host, b: &mut Host) -> Result<()> {
    a.ip(&format!("link add eth{number} type veth peer name eth{number} netns {}\n", b.pid()))?;
    number_interface(a, number)?;
    number_interface(b, number)
}

/// Gives a host's new interface its addresses and brings it up.
fn number_interface(host: &mut Host, segment: u8) -> Result<()> {
    let (v4, v6) = (ipv4(segment, host.number()), ipv6(segment, host.number()));
    host.ip(&format!(
        "addr add {v4}/24 dev eth{segment}\naddr add {v6}/64 dev eth{segment} nodad\nlink set eth{segment} up\n"
    ))?;
    host.joined(segment);
    Ok(())
}
