//! The links, by what the router knows of them.

use weave_api::{ConnectionReport, ConnectionState, Diagnosis, Overlay, Report, Retry, Severity};

use crate::config::MIN_MTU;

/// A link that is younger than this many seconds is still being tried out.
const YOUNG_S: u64 = 5;
/// A path that carries so many bytes less than the best is why all containers have a small MTU.
const MUCH_SMALLER: u16 = 100;
/// Clocks that differ by more than this many milliseconds are worth a word; those that follow a time server differ by less
/// than a tenth of a second.
const SKEWED_MS: u64 = 5_000;
/// Reasons for the tunnel that somebody chose, and one that the examination of the host finds.
const KNOWN: [&str; 4] = ["--no-fastdp", "not encrypted", "does not offer", "this host's kernel"];

pub(super) fn examine(report: &Report, diagnosis: &mut Diagnosis) {
    for id in ["link.failed", "link.pending", "fastdp.path", "mtu.path", "mtu.fixed", "clock.skew", "router"]
    {
        diagnosis.check(id);
    }
    for problem in &report.problems {
        let remedy = problem.hint.clone().unwrap_or_else(|| "see `weave status`".to_owned());
        diagnosis.find("router", problem.severity, problem.message.clone(), remedy);
    }
    for link in &report.router.connections {
        match link.state {
            ConnectionState::Failed | ConnectionState::Retrying => {
                unlinked(link, report.router.port, diagnosis)
            }
            ConnectionState::Pending => pending(link, diagnosis),
            ConnectionState::Established => established(link, diagnosis),
            ConnectionState::Connecting => {}
        }
    }
    sizes(report, diagnosis);
    clocks(report, diagnosis);
}

/// `192.0.2.12:6783 (node-b)`.
fn whom(link: &ConnectionReport) -> String {
    match link.nickname.as_deref() {
        Some(nickname) if !nickname.is_empty() => format!("{} ({nickname})", link.address),
        _ => link.address.clone(),
    }
}

fn unlinked(link: &ConnectionReport, port: u16, diagnosis: &mut Diagnosis) {
    // Ourselves among the targets: nothing is amiss.
    if link.retry == Some(Retry::Never) && link.info.as_deref().is_some_and(|info| info.contains("ourself")) {
        return;
    }
    let why = link.info.clone().unwrap_or_else(|| "for no known reason".to_owned());
    let remedy = format!(
        "see that weaver runs there with the same password, and that firewalls let UDP {port} pass both ways"
    );
    diagnosis.find("link.failed", Severity::Error, format!("no link to {}: {why}", whom(link)), remedy);
}

fn pending(link: &ConnectionReport, diagnosis: &mut Diagnosis) {
    if link.since_s < YOUNG_S {
        return;
    }
    let why = link.info.as_deref().map(|info| format!(": {info}")).unwrap_or_default();
    let what = format!("linked to {}, but frames do not get through{why}", whom(link));
    let remedy = "see what between the hosts drops UDP datagrams that control messages survive: small MTUs, rate limits";
    diagnosis.find("link.pending", Severity::Error, what, remedy);
}

fn established(link: &ConnectionReport, diagnosis: &mut Diagnosis) {
    let Some(why) = &link.info else { return };
    let is_settled = link.overlay_for_s.is_some_and(|seconds| seconds >= YOUNG_S);
    if link.overlay != Some(Overlay::Sleeve) || !is_settled || KNOWN.iter().any(|reason| why.contains(reason))
    {
        return;
    }
    let what = format!("the slower tunnel carries frames to {}: {why}", whom(link));
    let remedy = if why.contains("other host's kernel") {
        "load the module there (modprobe vxlan) and restart its weaver, or say --no-fastdp there"
    } else if link.encrypted {
        "let ESP (IP protocol 50) or UDP 6785 pass both ways between the two hosts, or say --no-fastdp on one of them"
    } else {
        "let UDP 6784 pass both ways between the two hosts, or say --no-fastdp on one of them"
    };
    diagnosis.find("fastdp.path", Severity::Warning, what, remedy);
}

fn sizes(report: &Report, diagnosis: &mut Diagnosis) {
    let up = || {
        let links =
            report.router.connections.iter().filter(|link| link.state == ConnectionState::Established);
        links.filter_map(|link| Some((link, link.mtu?)))
    };
    let mtu = report.data_plane.mtu;
    let best = up().map(|(_, mtu)| mtu).max().unwrap_or_default();
    for (link, carried) in up() {
        if carried < mtu {
            let (severity, so) = match link.overlay {
                Some(Overlay::Sleeve) => (Severity::Warning, "larger ones are sent in pieces"),
                Some(Overlay::Fastdp) | None => (Severity::Error, "larger ones are lost"),
            };
            let what = format!(
                "the path to {} carries packets of {carried} bytes and containers may send {mtu}: {so}",
                whom(link)
            );
            let remedy = if carried < MIN_MTU {
                "give the underlay between the hosts a larger MTU: containers cannot be held to less than IPv6 needs".to_owned()
            } else {
                format!("launch with --mtu {carried}, or without --mtu: then it follows the paths")
            };
            diagnosis.find("mtu.fixed", severity, what, remedy);
        } else if carried.saturating_add(MUCH_SMALLER) <= best {
            let what = format!(
                "the path to {} carries packets of {carried} bytes only and others carry {best}: all containers are held to the least",
                whom(link)
            );
            let remedy = "give all underlay networks the same MTU; see `weave status connections`";
            diagnosis.find("mtu.path", Severity::Warning, what, remedy);
        }
    }
}

/// Where most others agree that ours is wrong, it is named and not they.
fn clocks(report: &Report, diagnosis: &mut Diagnosis) {
    let links = &report.router.connections;
    let known: Vec<(&ConnectionReport, i64)> =
        links.iter().filter_map(|link| Some((link, link.clock_skew_ms?))).collect();
    let wrong: Vec<_> = known.iter().filter(|(_, ahead)| ahead.unsigned_abs() > SKEWED_MS).collect();
    let remedy = "let all hosts follow a time server (systemd-timesyncd, chrony): the network does not need it, \
                  but logs cannot be compared, and certificates may seem expired";
    let is_ours = |ahead: &dyn Fn(i64) -> bool| {
        wrong.len() > 1 && wrong.len() * 2 > known.len() && wrong.iter().all(|(_, ms)| ahead(*ms))
    };
    let ours = if is_ours(&|ms| ms > 0) {
        Some("behind")
    } else if is_ours(&|ms| ms < 0) {
        Some("ahead of")
    } else {
        None
    };
    if let (Some(way), Some(least)) = (ours, wrong.iter().map(|(_, ms)| ms.unsigned_abs()).min()) {
        let (seconds, many, all) = (least / 1000, wrong.len(), known.len());
        let what =
            format!("this host's clock is {seconds} s or more {way} those of {many} out of {all} neighbours");
        return diagnosis.find("clock.skew", Severity::Warning, what, remedy);
    }
    for (link, ahead) in wrong {
        let (seconds, way) = (ahead.unsigned_abs() / 1000, if *ahead > 0 { "ahead of" } else { "behind" });
        let what = format!("the clock of {} is {seconds} s {way} this host's", whom(link));
        diagnosis.find("clock.skew", Severity::Warning, what, remedy);
    }
}

#[cfg(test)]
mod tests {
    use weave_api::{DataPlaneReport, RouterReport};
    use weave_model::PeerName;

    use super::*;

    fn link(name: &str) -> ConnectionReport {
        ConnectionReport {
            address: format!("192.0.2.1:{}", name.len()),
            outbound: true,
            state: ConnectionState::Established,
            encrypted: false,
            overlay: Some(Overlay::Fastdp),
            overlay_for_s: Some(60),
            peer: None,
            nickname: Some(name.to_owned()),
            mtu: Some(1450),
            rtt_us: None,
            kernel_key: None,
            clock_skew_ms: None,
            since_s: 60,
            info: None,
            retry: None,
        }
    }

    /// The ids that are found for these links on a router whose containers have this MTU.
    fn found(links: Vec<ConnectionReport>, mtu: u16) -> Vec<String> {
        diagnose(links, mtu).findings.into_iter().map(|finding| finding.id).collect()
    }

    fn diagnose(links: Vec<ConnectionReport>, mtu: u16) -> Diagnosis {
        let router = RouterReport {
            name: PeerName([2, 0, 0, 0, 0, 1]),
            nickname: String::new(),
            uid: String::new(),
            port: 6783,
            protocol_min: 1,
            protocol_max: 1,
            encryption: false,
            discovery: true,
            targets: vec![],
            trusted_subnets: vec![],
            peers: vec![],
            connections: links,
            unicast_routes: vec![],
            broadcast_routes: vec![],
            terminations: 0,
        };
        let report = Report {
            version: String::new(),
            ready: true,
            uptime_s: 0,
            problems: vec![],
            router,
            ipam: None,
            dns: None,
            data_plane: DataPlaneReport { mtu, ..DataPlaneReport::default() },
            containers: vec![],
        };
        let mut diagnosis = Diagnosis::default();
        examine(&report, &mut diagnosis);
        diagnosis
    }

    #[test]
    fn a_clock_that_differs_is_named_and_ours_where_most_others_agree() {
        let told = |skews: &[i64]| {
            let link = |(n, ms): (usize, &i64)| ConnectionReport {
                clock_skew_ms: Some(*ms),
                ..link(&"x".repeat(n + 1))
            };
            let links = skews.iter().enumerate().map(link).collect();
            let findings = diagnose(links, 1450).findings;
            findings.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
        };
        assert_eq!(told(&[0, -4_900, 5_000]), [""; 0]);
        assert_eq!(
            told(&[0, 3_600_500, -7_000]),
            [
                "the clock of 192.0.2.1:2 (xx) is 3600 s ahead of this host's",
                "the clock of 192.0.2.1:3 (xxx) is 7 s behind this host's"
            ]
        );
        assert_eq!(told(&[-90_000]), ["the clock of 192.0.2.1:1 (x) is 90 s behind this host's"]);
        assert_eq!(
            told(&[70_000, 65_000, 0]),
            ["this host's clock is 65 s or more behind those of 2 out of 3 neighbours"]
        );
        assert_eq!(
            told(&[i64::MIN, -65_000]),
            ["this host's clock is 65 s or more ahead of those of 2 out of 2 neighbours"]
        );
    }

    #[test]
    fn a_link_that_is_as_good_as_it_can_be_is_no_finding() {
        let tunnel = |info: &str| ConnectionReport {
            overlay: Some(Overlay::Sleeve),
            info: Some(info.to_owned()),
            ..link("b")
        };
        let young = ConnectionReport { overlay_for_s: Some(1), ..tunnel("no answer yet on UDP 6784") };
        let chosen = tunnel(crate::fastdp::CANNOT_ENCRYPT);
        let ours = tunnel("this host's kernel has no VXLAN");
        assert_eq!(found(vec![link("a"), young, chosen, ours], 1450), [""; 0]);
        let theirs = tunnel("the other host's kernel has no VXLAN");
        let findings = diagnose(vec![theirs], 1450).findings;
        assert!(
            findings.len() == 1
                && findings[0].id == "fastdp.path"
                && findings[0].remedy.contains("modprobe vxlan")
        );
    }

    #[test]
    fn each_fault_of_a_link_has_an_id_of_its_own() {
        let blocked = ConnectionReport {
            overlay: Some(Overlay::Sleeve),
            info: Some("no answer yet on UDP 6784".to_owned()),
            ..link("b")
        };
        assert_eq!(found(vec![blocked], 1450), ["fastdp.path"]);
        let failed = ConnectionReport { state: ConnectionState::Failed, mtu: None, ..link("c") };
        assert_eq!(found(vec![failed], 1450), ["link.failed"]);
        let pending =
            ConnectionReport { state: ConnectionState::Pending, overlay: None, mtu: None, ..link("d") };
        assert_eq!(found(vec![pending], 1450), ["link.pending"]);
        assert_eq!(found(vec![link("e")], 1500), ["mtu.fixed"]);
        let small = ConnectionReport { mtu: Some(1350), ..link("f") };
        assert_eq!(found(vec![link("e"), small], 1350), ["mtu.path"]);
    }
}
