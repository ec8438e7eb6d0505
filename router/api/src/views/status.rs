//! The one screen of `weave status`.

use std::fmt::{Display, Write as _};

use crate::{ConnectionState, DnsReport, IpamReport, Report, RouterReport, Severity, views::label};

/// What runs, and what is wrong, framed by blank lines.
#[must_use]
pub fn status(report: &Report) -> String {
    let mut page = Page::default();
    page.gap();
    page.line("Version", &report.version);
    if !report.ready {
        page.line("State", "starting; not every part is ready");
    }
    page.gap();
    router(&mut page, &report.router);
    if let Some(report) = &report.ipam {
        page.gap();
        ipam(&mut page, report);
    }
    if let Some(report) = &report.dns {
        page.gap();
        dns(&mut page, report);
    }
    if !report.problems.is_empty() {
        page.gap();
    }
    for problem in &report.problems {
        page.line(
            match problem.severity {
                Severity::Error => "Error",
                Severity::Warning => "Warning",
            },
            &problem.message,
        );
        if let Some(hint) = &problem.hint {
            page.line("Remedy", hint);
        }
    }
    page.gap();
    page.0
}

fn router(page: &mut Page, router: &RouterReport) {
    page.line("Service", "router");
    page.line("Protocol", format_args!("weave {}..{}", router.protocol_min, router.protocol_max));
    page.line("Name", label(router.name, &router.nickname));
    page.line("Encryption", enabled(router.encryption));
    page.line("PeerDiscovery", enabled(router.discovery));
    page.line("Targets", router.targets.len());
    let states = router.connections.iter().map(|c| c.state);
    page.line("Connections", counted(router.connections.len(), &summary(states), ""));
    let theirs = router.peers.iter().flat_map(|p| &p.connections).map(|c| c.state);
    let links = match summary(theirs).as_str() {
        "" => String::new(),
        links => format!("with {links} conns"),
    };
    page.line("Peers", counted(router.peers.len(), &links, ""));
    page.line("TrustedSubnets", list(&router.trusted_subnets, "none"));
}

fn ipam(page: &mut Page, ipam: &IpamReport) {
    page.line("Service", "ipam");
    page.line("Status", &ipam.status);
    page.line("Range", list(&ipam.ranges, "none"));
    page.line("DefaultSubnet", list(&ipam.default_subnets, "none"));
    for conflict in &ipam.conflicts {
        page.line("Conflict", conflict);
    }
}

fn dns(page: &mut Page, dns: &DnsReport) {
    page.line("Service", "dns");
    page.line("Domain", &dns.domain);
    page.line("Upstream", list(&dns.upstream, "none"));
    page.line("TTL", dns.ttl);
    page.line("Entries", dns.entries.len());
}

/// `1 established, 1 failed`, in the order of the states; empty for none.
fn summary(states: impl Iterator<Item = ConnectionState>) -> String {
    let mut count_by_state = std::collections::BTreeMap::new();
    for state in states {
        *count_by_state.entry(state).or_insert(0_usize) += 1;
    }
    count_by_state.iter().map(|(state, n)| format!("{n} {state}")).collect::<Vec<_>>().join(", ")
}

fn counted(total: usize, parts: &str, none: &str) -> String {
    if parts.is_empty() { format!("{total}{none}") } else { format!("{total} ({parts})") }
}

fn enabled(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}

fn list<T: Display>(items: &[T], none: &str) -> String {
    match items {
        [] => none.to_owned(),
        items => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Lines with the label right-aligned in 15 columns.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, label: &str, value: impl Display) {
        let _ = writeln!(self.0, "{label:>15}: {value}");
    }

    fn gap(&mut self) {
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problem, views::sample::report};

    #[test]
    fn the_screen_has_the_shape_of_the_original() {
        let expected = "
        Version: 9.9.9

        Service: router
       Protocol: weave 1..1
           Name: aa:00:00:00:00:01(node-a)
     Encryption: enabled
  PeerDiscovery: enabled
        Targets: 1
    Connections: 5 (1 established, 1 pending, 2 failed, 1 connecting)
          Peers: 3 (with 2 established conns)
 TrustedSubnets: none

        Service: ipam
         Status: ready
          Range: 10.32.0.0/12
  DefaultSubnet: 10.32.0.0/12

        Service: dns
         Domain: weave.local.
       Upstream: 192.0.2.53
            TTL: 1
        Entries: 2

";
        assert_eq!(status(&report()), expected);
    }

    #[test]
    fn a_router_alone_without_services_is_shown_and_its_problems_come_with_remedies() {
        let mut report = report();
        report.ready = false;
        (report.ipam, report.dns) = (None, None);
        report.router.connections.clear();
        report.router.peers.truncate(1);
        report.router.peers[0].connections.clear();
        report.problems = vec![Problem {
            severity: Severity::Warning,
            message: "192.0.2.99:6783 refuses our password".to_owned(),
            hint: Some("give both routers the same password".to_owned()),
        }];
        let text = status(&report);
        assert!(text.contains("          State: starting"), "{text}");
        assert!(text.contains("    Connections: 0\n          Peers: 1\n"), "{text}");
        assert!(!text.contains("Service: ipam"), "{text}");
        let tail = "        Warning: 192.0.2.99:6783 refuses our password
         Remedy: give both routers the same password\n\n";
        assert!(text.ends_with(tail), "{text}");
    }
}
