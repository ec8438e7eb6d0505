//! The same lists with everything that is known, as tables with a head: `-o wide`.

use crate::{
    ConnectionReport, ContainerReport, DataPlaneReport, DnsReport, IpamReport, PeerReport, Report, Retry,
    views::{self, label, lists::duration},
};

/// Our own links and attempts, with what went over them.
#[must_use]
pub fn connections(connections: &[ConnectionReport], data_plane: &DataPlaneReport) -> String {
    let head = [
        "",
        "ADDRESS",
        "STATE",
        "SINCE",
        "PEER",
        "OVERLAY",
        "FOR",
        "ENCRYPTED",
        "MTU",
        "RTT",
        "SENT",
        "RECEIVED",
        "DROPPED",
        "RETRY",
        "INFO",
    ];
    let rows = connections.iter().map(|link| {
        let counters = data_plane.links.iter().find(|l| Some(l.peer) == link.peer).map(|l| l.counters);
        let bytes = |of: fn(&crate::Counters) -> u64| counters.as_ref().map(of).map(views::bytes);
        vec![
            if link.outbound { "->" } else { "<-" }.to_owned(),
            link.address.clone(),
            link.state.to_string(),
            duration(link.since_s),
            link.peer
                .map_or_else(String::new, |peer| label(peer, link.nickname.as_deref().unwrap_or_default())),
            link.overlay.map_or_else(String::new, |overlay| overlay.to_string()),
            link.overlay_for_s.map_or_else(String::new, duration),
            encryption(link),
            link.mtu.map_or_else(String::new, |mtu| mtu.to_string()),
            link.rtt_us.map_or_else(String::new, |us| format!("{}.{:03}ms", us / 1000, us % 1000)),
            bytes(|c| c.tx_bytes).unwrap_or_default(),
            bytes(|c| c.rx_bytes).unwrap_or_default(),
            counters.map_or_else(String::new, |c| c.rx_dropped.to_string()),
            match link.retry {
                Some(Retry::InS(seconds)) => format!("in {seconds}s"),
                Some(Retry::Never) => "never".to_owned(),
                None => String::new(),
            },
            link.info.clone().unwrap_or_default(),
        ]
    });
    table(&head, rows)
}

/// Whether a link is encrypted; where the kernel does that, with what and since when.
fn encryption(link: &ConnectionReport) -> String {
    match &link.kernel_key {
        _ if link.peer.is_none() => String::new(),
        Some(key) => format!("{key} {}", duration(key.age_s)),
        None if link.encrypted => "yes".to_owned(),
        None => "no".to_owned(),
    }
}

/// Every known router, one line each.
#[must_use]
pub fn peers(peers: &[PeerReport]) -> String {
    let head = ["PEER", "REACHABLE", "LINKS", "VERSION", "UID", "ADDRESSES"];
    let rows = peers.iter().enumerate().map(|(index, peer)| {
        let seen = peers.iter().flat_map(|other| &other.connections).filter(|link| link.name == peer.name);
        let mut addresses: Vec<&str> =
            seen.map(|link| link.address.as_str()).filter(|a| !a.is_empty()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        vec![
            label(peer.name, &peer.nickname),
            if peer.reachable || index == 0 { "yes" } else { "no" }.to_owned(),
            peer.connections.len().to_string(),
            peer.version.to_string(),
            peer.uid.clone(),
            addresses.join(","),
        ]
    });
    table(&head, rows)
}

/// Who owns how much, what waits, and what is wrong.
#[must_use]
pub fn ipam(ipam: &IpamReport) -> String {
    let head = ["PEER", "ADDRESSES", "SHARE", "REACHABLE", "SEED"];
    let rows = ipam.owners.iter().map(|owner| {
        vec![
            label(owner.peer, &owner.nickname),
            owner.addresses.to_string(),
            format!("{:.1}%", owner.percent),
            if owner.reachable { "yes" } else { "no" }.to_owned(),
            if ipam.seeds.contains(&owner.peer) { "yes" } else { "no" }.to_owned(),
        ]
    });
    let waiting = ipam.pending.iter().map(|p| vec![p.container.to_string(), p.reason.clone()]);
    let mut text = format!("{}, {} active, {} ring entries\n", ipam.status, ipam.active, ipam.entries);
    text += &ipam.election.as_ref().map(super::lists::election).unwrap_or_default();
    text += &table(&head, rows);
    if !ipam.pending.is_empty() {
        text += &table(&["WAITING", "FOR"], waiting);
    }
    ipam.conflicts.iter().fold(text, |text, conflict| format!("{text}conflict: {conflict}\n"))
}

/// Names with whole ids and full names.
#[must_use]
pub fn dns(dns: &DnsReport) -> String {
    let rows = dns.entries.iter().map(|entry| {
        vec![
            entry.hostname.clone(),
            entry.address.to_string(),
            entry.container.to_string(),
            entry.peer.to_string(),
        ]
    });
    table(&["NAME", "ADDRESS", "CONTAINER", "PEER"], rows)
}

/// Containers with whole ids.
#[must_use]
pub fn containers(containers: &[ContainerReport]) -> String {
    let rows = containers.iter().map(|container| {
        vec![
            container.id.to_string(),
            container.mac.map_or_else(String::new, |mac| mac.to_string()),
            container.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        ]
    });
    table(&["CONTAINER", "MAC", "ADDRESSES"], rows)
}

/// The one screen, and each list behind it.
#[must_use]
pub fn status(report: &Report) -> String {
    let mut text = views::status(report);
    text += &connections(&report.router.connections, &report.data_plane);
    text.push('\n');
    text += &peers(&report.router.peers);
    if let Some(ipam) = &report.ipam {
        text.push('\n');
        text += &self::ipam(ipam);
    }
    text.push('\n');
    text
}

/// Columns as wide as their widest cell, two spaces between them; nothing but the head where there are no rows.
fn table<const N: usize>(head: &[&str; N], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            padded.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::sample::report;

    #[test]
    fn tables_have_a_head_and_columns_as_wide_as_needed() {
        let report = report();
        let text = peers(&report.router.peers);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "PEER                       REACHABLE  LINKS  VERSION  UID               ADDRESSES"
        );
        assert_eq!(
            lines[1],
            "aa:00:00:00:00:01(node-a)  yes        1      1        0000000000000001  192.0.2.11:40112"
        );
        assert!(lines[3].starts_with("aa:00:00:00:00:03(node-c)  no "), "{text}");
        assert_eq!(containers(&[]), "CONTAINER  MAC  ADDRESSES\n");
    }

    #[test]
    fn nothing_that_the_narrow_views_say_is_missing() {
        let report = report();
        let links = connections(&report.router.connections, &report.data_plane);
        for part in
            ["192.0.2.99:6783", "no answer within 10s", "in 12s", "never", "1376", "fastdp", "ADDRESS"]
        {
            assert!(links.contains(part), "{part}: {links}");
        }
        let shown = ipam(report.ipam.as_ref().unwrap());
        assert!(shown.starts_with("ready, 3 active") && shown.contains("50.0%"), "{shown}");
        assert!(dns(report.dns.as_ref().unwrap()).contains("db.weave.local.   10.44.0.1"));
        assert!(status(&report).contains("Service: router"));
    }
}
