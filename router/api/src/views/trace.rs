//! `weave trace` and `weave doctor`.

use std::fmt::Write as _;

use crate::{
    Diagnosis, HopTrace, Severity, StationTrace, TraceResponse,
    views::{label, lists::duration},
};

/// Where a station is and how frames get there: a line for the station, and one for each link.
#[must_use]
pub fn trace(trace: &TraceResponse) -> String {
    let mut text = String::new();
    for station in &trace.stations {
        let _ = writeln!(text, "{}", self::station(station));
        for hop in &station.hops {
            let _ = writeln!(text, "   {}", self::hop(hop));
        }
        if !station.local && !station.reachable {
            text.push_str("   no way leads there: its router cannot be reached from here\n");
        }
    }
    if let Some(note) = &trace.note {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn station(station: &StationTrace) -> String {
    let owner = station.container.as_ref().map_or("(attached by nobody)", |id| id.short());
    let mut text = format!("{owner} {}", station.mac);
    for address in &station.addresses {
        let _ = write!(text, " {address}");
    }
    let router = label(station.peer, &station.nickname);
    let place = if station.local { " (this host)" } else { "" };
    let _ = write!(text, " at {router}{place} mtu={}", station.mtu);
    text
}

fn hop(hop: &HopTrace) -> String {
    let mut text = format!("-> {}", label(hop.to, &hop.nickname));
    match hop.overlay {
        Some(overlay) => {
            let _ = write!(text, " {overlay}");
        }
        None => text.push_str(" no data path"),
    }
    match hop.encrypted {
        Some(true) => text.push_str(" encrypted"),
        Some(false) => text.push_str(" unencrypted"),
        None => {}
    }
    if let Some(key) = &hop.kernel_key {
        let _ = write!(text, " key={key}/{}", duration(key.age_s));
    }
    if let Some(mtu) = hop.mtu {
        let _ = write!(text, " mtu={mtu}");
    }
    if let Some(rtt) = hop.rtt_us {
        // Of others' links only a bound is known.
        let sign = if hop.mtu.is_some() { "=" } else { "<" };
        let _ = write!(text, " rtt{sign}{}.{:03}ms", rtt / 1000, rtt % 1000);
    }
    if let Some(info) = &hop.info {
        let _ = write!(text, " - {info}");
    }
    text
}

/// Findings with their remedies, worst first; one line when all is well.
#[must_use]
pub fn doctor(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    for finding in &diagnosis.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let _ = writeln!(text, "{severity}: {} [{}]", finding.what, finding.id);
        let _ = writeln!(text, "   {}", finding.remedy);
    }
    let (checks, findings) = (diagnosis.checks.len(), diagnosis.findings.len());
    let outcome = if findings == 0 { "all is well".to_owned() } else { format!("{findings} found") };
    let _ = writeln!(text, "{checks} things looked at, {outcome}");
    text
}

#[cfg(test)]
mod tests {
    use weave_model::{Mac, PeerName};

    use super::*;
    use crate::Overlay;

    fn far() -> StationTrace {
        let names = [1, 2, 3].map(|n| PeerName([0xaa, 0, 0, 0, 0, n]));
        let hop = |from: usize, to: usize| HopTrace {
            from: names[from],
            to: names[to],
            nickname: format!("node-{to}"),
            overlay: Some(Overlay::Fastdp),
            encrypted: None,
            kernel_key: None,
            mtu: None,
            rtt_us: Some(2_000),
            info: None,
        };
        let near = HopTrace {
            overlay: Some(Overlay::Sleeve),
            encrypted: Some(true),
            mtu: Some(1376),
            rtt_us: Some(1_042),
            info: Some("no answer yet on UDP 6784".to_owned()),
            ..hop(0, 1)
        };
        StationTrace {
            mac: Mac([2, 0, 0, 0, 0, 9]),
            container: Some("4f1c09aa21be77".parse().unwrap()),
            addresses: vec!["10.32.0.7".parse().unwrap()],
            peer: names[2],
            nickname: "node-2".to_owned(),
            local: false,
            reachable: true,
            mtu: 1376,
            hops: vec![near, hop(1, 2)],
        }
    }

    #[test]
    fn each_link_on_the_way_has_a_line() {
        let answer = TraceResponse { target: "10.32.0.7".to_owned(), stations: vec![far()], note: None };
        let expected = "\
4f1c09aa21be 02:00:00:00:00:09 10.32.0.7 at aa:00:00:00:00:03(node-2) mtu=1376
   -> aa:00:00:00:00:02(node-1) sleeve encrypted mtu=1376 rtt=1.042ms - no answer yet on UDP 6784
   -> aa:00:00:00:00:03(node-2) fastdp rtt<2.000ms
";
        assert_eq!(trace(&answer), expected);
    }

    #[test]
    fn what_cannot_be_reached_and_what_nobody_has_is_said_in_words() {
        let mut station = far();
        (station.reachable, station.hops) = (false, vec![]);
        let note = Some("nobody has 10.32.0.7".to_owned());
        let text = trace(&TraceResponse { target: String::new(), stations: vec![station], note });
        assert!(text.contains("\n   no way leads there"), "{text}");
        assert!(text.ends_with("\nnobody has 10.32.0.7\n"), "{text}");
    }

    #[test]
    fn findings_come_with_their_remedies() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.check("kernel.tun");
        assert_eq!(doctor(&diagnosis), "1 things looked at, all is well\n");
        diagnosis.find("kernel.tun", Severity::Error, "no TAP device can be made", "modprobe tun");
        let expected = "\
error: no TAP device can be made [kernel.tun]
   modprobe tun
1 things looked at, 1 found
";
        assert_eq!(doctor(&diagnosis), expected);
    }
}
