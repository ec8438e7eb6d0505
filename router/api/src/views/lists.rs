//! One line per thing: the views that follow a word after `weave status`, and `weave ps`.

use std::fmt::Write as _;

use crate::{
    ConnectionReport, ConnectionState, ContainerReport, DnsReport, ElectionReport, IpamReport, Overlay,
    OwnerReport, PeerReport, Retry, views::label,
};

/// Our own links and attempts.
#[must_use]
pub fn connections(connections: &[ConnectionReport]) -> String {
    let mut text = String::new();
    for link in connections {
        let line =
            format!("{} {:<21} {:<11} {}", arrow(link.outbound), link.address, link.state, details(link));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Every known router with its links as it describes them.
#[must_use]
pub fn peers(peers: &[PeerReport]) -> String {
    let mut text = String::new();
    for (index, peer) in peers.iter().enumerate() {
        let gone = if peer.reachable || index == 0 { "" } else { " - unreachable!" };
        let _ = writeln!(text, "{}{gone}", label(peer.name, &peer.nickname));
        for link in &peer.connections {
            let _ = writeln!(
                text,
                "   {} {:<21} {:<37} {}",
                arrow(link.outbound),
                link.address,
                label(link.name, &link.nickname),
                link.state
            );
        }
    }
    text
}

/// The addresses that links are kept to.
#[must_use]
pub fn targets(targets: &[String]) -> String {
    targets.iter().fold(String::new(), |text, target| text + target + "\n")
}

/// Who owns how much of the address space; the state in words while nobody owns any.
#[must_use]
pub fn ipam(ipam: &IpamReport) -> String {
    if ipam.owners.is_empty() {
        let election = ipam.election.as_ref().map(election).unwrap_or_default();
        return format!("{}\n{election}", ipam.status);
    }
    let mut text = String::new();
    for owner in &ipam.owners {
        let _ = writeln!(
            text,
            "{:<37} {:>8} IPs ({:04.1}% of total){}",
            label(owner.peer, &owner.nickname),
            owner.addresses,
            owner.percent,
            owner_note(owner, ipam.active)
        );
    }
    for conflict in &ipam.conflicts {
        let _ = writeln!(text, "conflict: {conflict}");
    }
    text
}

/// Who is heard and who is not, of those who vote on the first ring.
pub(super) fn election(election: &ElectionReport) -> String {
    let mut text = format!("heard: {}\n", election.heard.join(", "));
    if !election.missing.is_empty() {
        let _ = writeln!(text, "not heard: {}", election.missing.join(", "));
    }
    if election.lacking() > 0 {
        let _ = writeln!(text, "{} more must be heard: launch them, or connect to them", election.lacking());
    }
    text
}

/// The state of addresses in one line; while routers are waited for, with those that are not heard.
#[must_use]
pub fn ipam_state(ipam: &IpamReport) -> String {
    let lacking = ipam.election.as_ref().filter(|election| election.lacking() > 0);
    match lacking {
        Some(election) if !election.missing.is_empty() => {
            format!("{}; not heard: {}", ipam.status, election.missing.join(", "))
        }
        Some(election) => {
            format!("{}; {} more must be launched or connected", ipam.status, election.lacking())
        }
        None => ipam.status.clone(),
    }
}

/// Live names, without the domain.
#[must_use]
pub fn dns(dns: &DnsReport) -> String {
    let suffix = format!(".{}", dns.domain.trim_start_matches('.'));
    let mut text = String::new();
    for entry in &dns.entries {
        let host = entry.hostname.strip_suffix(&suffix).unwrap_or(&entry.hostname);
        let _ = writeln!(
            text,
            "{host:<12} {:<15} {:<12} {}",
            entry.address.to_string(),
            entry.container.short(),
            entry.peer
        );
    }
    text
}

/// Attached containers: id, Ethernet address, overlay addresses.
#[must_use]
pub fn containers(containers: &[ContainerReport]) -> String {
    let mut text = String::new();
    for container in containers {
        text.push_str(container.id.short());
        if let Some(mac) = container.mac {
            let _ = write!(text, " {mac}");
        }
        for address in &container.addresses {
            let _ = write!(text, " {address}");
        }
        text.push('\n');
    }
    text
}

const fn arrow(outbound: bool) -> &'static str {
    if outbound { "->" } else { "<-" }
}

/// What stands after the state: who and how for a link that is up, why and when next for one that is not.
fn details(link: &ConnectionReport) -> String {
    match link.state {
        ConnectionState::Established | ConnectionState::Pending => up(link),
        ConnectionState::Retrying | ConnectionState::Failed | ConnectionState::Connecting => down(link),
    }
}

fn up(link: &ConnectionReport) -> String {
    let encrypted = if link.encrypted { "encrypted" } else { "unencrypted" };
    let mut text = format!("{encrypted:<11}");
    if let Some(overlay) = link.overlay {
        let _ = write!(text, " {overlay}");
    }
    if let Some(peer) = link.peer {
        let _ = write!(text, " {}", label(peer, link.nickname.as_deref().unwrap_or_default()));
    }
    if let Some(mtu) = link.mtu {
        let _ = write!(text, " mtu={mtu}");
    }
    if let Some(rtt_us) = link.rtt_us {
        let _ = write!(text, " rtt={}.{:03}ms", rtt_us / 1000, rtt_us % 1000);
    }
    if let Some(seconds) = link.overlay_for_s {
        let _ = write!(text, " for={}", duration(seconds));
    }
    if let Some(info) = &link.info {
        let _ = write!(text, " - {info}");
    }
    text
}

/// In the two largest units: `12s`, `3m5s`, `1h2m`, `4d7h`.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn down(link: &ConnectionReport) -> String {
    let retry = link.retry.map(|retry| match retry {
        Retry::InS(seconds) => format!("retry: in {seconds}s"),
        Retry::Never => "retry: never".to_owned(),
    });
    [link.info.clone(), retry].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn owner_note(owner: &OwnerReport, active: u64) -> String {
    match (owner.own, owner.reachable) {
        (true, _) => format!(" ({active} active)"),
        (false, true) => String::new(),
        (false, false) => " - unreachable!".to_owned(),
    }
}

impl std::fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Established => "established",
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Connecting => "connecting",
        })
    }
}

impl std::fmt::Display for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Fastdp => "fastdp",
            Self::Sleeve => "sleeve",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::sample::report;

    #[test]
    fn connections_keep_the_columns_of_the_original_and_say_why_and_when() {
        let expected = "\
-> 192.0.2.12:6783       established encrypted   fastdp aa:00:00:00:00:02(node-b) mtu=1376
<- 192.0.2.13:51234      pending     encrypted   sleeve aa:00:00:00:00:03(node-c)
-> 192.0.2.11:6783       failed      cannot connect to ourself, retry: never
-> 192.0.2.99:6783       failed      no answer within 10s, retry: in 12s
-> 192.0.2.50:6783       connecting
";
        assert_eq!(connections(&report().router.connections), expected);
    }

    #[test]
    fn several_attributes_are_kept_apart() {
        let mut link = report().router.connections.remove(0);
        link.rtt_us = Some(1_042);
        link.overlay_for_s = Some(3_725);
        link.info = Some("was sleeve for 3s".to_owned());
        let line = connections(&[link]);
        assert!(line.ends_with(" mtu=1376 rtt=1.042ms for=1h2m - was sleeve for 3s\n"), "{line}");
    }

    #[test]
    fn peers_show_their_own_view_of_their_links() {
        let expected = "\
aa:00:00:00:00:01(node-a)
   -> 192.0.2.12:6783       aa:00:00:00:00:02(node-b)             established
aa:00:00:00:00:02(node-b)
   <- 192.0.2.11:40112      aa:00:00:00:00:01(node-a)             established
aa:00:00:00:00:03(node-c) - unreachable!
";
        assert_eq!(peers(&report().router.peers), expected);
    }

    #[test]
    fn ranges_are_counted_with_ourselves_first() {
        let expected = "\
aa:00:00:00:00:01(node-a)               524288 IPs (50.0% of total) (3 active)
aa:00:00:00:00:02(node-b)               524288 IPs (50.0% of total) - unreachable!
";
        let mut ipam_report = report().ipam.unwrap();
        assert_eq!(ipam(&ipam_report), expected);
        ipam_report.owners.clear();
        ipam_report.status = "awaiting consensus (quorum: 2, known: 1)".to_owned();
        assert_eq!(ipam(&ipam_report), "awaiting consensus (quorum: 2, known: 1)\n");
        let heard = vec!["aa:00:00:00:00:01(node-a)".to_owned()];
        ipam_report.election = Some(ElectionReport { quorum: 2, heard, missing: Vec::new() });
        let line = "awaiting consensus (quorum: 2, known: 1); 1 more must be launched or connected";
        assert_eq!(ipam_state(&ipam_report), line);
        ipam_report.election.as_mut().unwrap().missing =
            vec!["aa:00:00:00:00:02(node-b)".to_owned(), "192.0.2.13:6783".to_owned()];
        let expected = "\
awaiting consensus (quorum: 2, known: 1)
heard: aa:00:00:00:00:01(node-a)
not heard: aa:00:00:00:00:02(node-b), 192.0.2.13:6783
1 more must be heard: launch them, or connect to them
";
        assert_eq!(ipam(&ipam_report), expected);
        let line =
            "awaiting consensus (quorum: 2, known: 1); not heard: aa:00:00:00:00:02(node-b), 192.0.2.13:6783";
        assert_eq!(ipam_state(&ipam_report), line);
    }

    #[test]
    fn names_are_listed_without_their_domain() {
        let expected = "\
db           10.44.0.1       77c2d0e81b55 aa:00:00:00:00:02
web          10.40.0.3       4f1c09aa21be aa:00:00:00:00:01
";
        assert_eq!(dns(&report().dns.unwrap()), expected);
    }

    #[test]
    fn targets_and_containers_take_a_line_each() {
        assert_eq!(targets(&report().router.targets), "192.0.2.12\n");
        let expected = "\
weave:expose 10.40.0.1/12
4f1c09aa21be 6e:02:11:5d:9a:01 10.9.1.7/24 10.40.0.3/12
";
        assert_eq!(containers(&report().containers), expected);
        assert_eq!(containers(&[]), "");
    }
}
