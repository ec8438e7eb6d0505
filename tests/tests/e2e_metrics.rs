//! What Prometheus scrapes, read by a parser that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use weave_api::Overlay;
use weave_tests::{
    clock::{Look, wait_until},
    lab::Host,
    scene::{
        LIMIT, attach_each, await_all_pings, await_mesh, await_overlay, finish, hosts, lab, play, routers,
        start_open,
    },
    tool,
    traffic::{Server, TcpReport, measure},
};

/// Samples by name and labels, and the type of each family.
#[derive(Debug, Default)]
struct Exposition {
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
    types: BTreeMap<String, String>,
}

impl Exposition {
    /// Reads the text format of OpenMetrics: families one after another, each with its type before its samples; no
    /// sample twice; `# EOF` at the end and nothing behind it.
    fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        let mut family = String::new();
        let body = text.strip_suffix("# EOF\n").context("no # EOF at the end")?;
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
                ensure!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let earlier = all.types.insert(name.to_owned(), kind.to_owned());
                ensure!(earlier.is_none(), "{name} has its type twice");
                family = name.to_owned();
            } else if line.starts_with("# HELP ") {
                ensure!(line.split(' ').nth(3).is_some(), "no help: {line}");
            } else {
                all.sample(&family, line).with_context(|| line.to_owned())?;
            }
        }
        Ok(all)
    }

    fn sample(&mut self, family: &str, line: &str) -> Result<()> {
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').context("no closing brace")?)?),
            None => (series, BTreeMap::new()),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        ensure!(!name.is_empty() && name.chars().all(is_name), "no metric name");
        let suffixes: &[&str] = match self.types.get(family).map(String::as_str) {
            Some("counter") => &["_total"],
            Some("histogram") => &["_sum", "_count", "_bucket"],
            Some(_) => &[""],
            None => bail!("a sample without a type"),
        };
        let fits = suffixes.iter().any(|suffix| name == format!("{family}{suffix}"));
        ensure!(fits, "it does not belong to {family}");
        let value: f64 = value.parse().context("no number")?;
        let is_new = self.samples.insert((name.to_owned(), labels), value).is_none();
        ensure!(is_new, "the sample is there twice");
        Ok(())
    }

    fn get(&self, name: &str, wanted: &[(&str, &str)]) -> Result<f64> {
        let fits = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|found| found == value))
        };
        let mut found = self.samples.iter().filter(|((n, labels), _)| n == name && fits(labels));
        found.next().map(|(_, value)| *value).with_context(|| format!("no {name} with {wanted:?}"))
    }
}

/// `key="value",…`; none of our values needs an escape.
fn labels(text: &str) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').context("no label")?;
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).context("no quotes")?;
        ensure!(!value.contains(['"', '\\']), "an escape");
        ensure!(labels.insert(key.to_owned(), value.to_owned()).is_none(), "a label twice");
    }
    Ok(labels)
}

/// The metrics that the dashboard among the examples shows.
fn dashboard() -> Result<BTreeSet<String>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/monitoring/grafana.json");
    let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let panels = document["panels"].as_array().context("no panels")?;
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut names = BTreeSet::new();
    for expression in targets.filter_map(|target| target["expr"].as_str()) {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.extend(words.filter(|word| word.starts_with("weave_")).map(str::to_owned));
    }
    ensure!(names.len() > 10, "{names:?}");
    Ok(names)
}

/// Asks from within the host, as a scraper there would.
fn scrape(host: &Host, path: &str) -> Result<(String, String)> {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/6782; printf 'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
    );
    let mut command = host.command("bash");
    let answer = tool::run(command.args(["-c", &script]))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    Ok((head.to_owned(), body.to_owned()))
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn prometheus_reads_what_the_router_counts() -> Result<()> {
    play("prometheus_reads_what_the_router_counts", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &["--metrics-addr=127.0.0.1:6782"])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_all_pings(&lab, &attached)?;
        // Neighbours compare hashes every ten seconds or so, each in its own time.
        wait_until("hashes of both neighbours to be counted", LIMIT, || {
            let seen = Exposition::parse(&scrape(&hosts[0], "/metrics")?.1)?;
            let is_counted = |direction| {
                let labels = [("direction", direction), ("kind", "hash")];
                seen.get("weave_gossip_bytes_total", &labels).is_ok_and(|bytes| bytes > 0.0)
            };
            Ok(Look::when(is_counted("sent") && is_counted("received"), || "not yet".to_owned()))
        })?;
        let (head, body) = scrape(&hosts[0], "/metrics")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        ensure!(head.to_ascii_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
        let first = Exposition::parse(&body)?;
        let link = [("state", "established"), ("type", "sleeve"), ("encryption", "yes")];
        ensure!(first.get("weave_connections", &link)? == 1.0, "{first:?}");
        ensure!(first.get("weave_ips", &[("state", "local-used")])? == 1.0, "{first:?}");
        ensure!(first.get("weave_max_ips", &[])? == f64::from(1 << 20), "{first:?}");
        let peer = [("peer", "02:00:00:00:00:02")];
        for name in ["weave_sleeve_bytes_total", "weave_sleeve_packets_total", "weave_link_rtt_seconds"] {
            ensure!(first.get(name, &peer)? > 0.0, "{name}: {first:?}");
        }
        for name in ["weave_route_computations_total", "weave_dns_latency_seconds_count"] {
            first.get(name, &[])?;
        }
        ensure!(
            first.get("weave_link_transitions_total", &[("overlay", "sleeve"), ("to", "up")])? >= 1.0,
            "{first:?}"
        );
        for (name, kind) in [("weave_gossip_messages_total", "facts"), ("weave_gossip_bytes_total", "hash")] {
            for direction in ["sent", "received"] {
                ensure!(first.get(name, &[("direction", direction), ("kind", kind)])? > 0.0, "{first:?}");
            }
        }
        ensure!(first.get("weave_ipam_wait_seconds_count", &[])? >= 1.0, "{first:?}");
        ensure!(first.get("weave_gossip_facts", &[])? >= 4.0, "{first:?}");
        ensure!(first.get("weave_sleeve_rekeys_total", &[])? == 0.0, "{first:?}");
        first.get("weave_fastdp_heartbeats_total", &[("direction", "sent")])?;
        ensure!(first.get("weave_link_clock_skew_seconds", &peer)?.abs() < 60.0, "{first:?}");
        ensure!(first.get("weave_ipam_requests_total", &[("outcome", "granted")])? >= 1.0, "{first:?}");
        ensure!(first.get("weave_connections_opened_total", &[])? >= 1.0, "{first:?}");
        let shown = dashboard()?;
        for name in ["weave_gossip_facts", "weave_sleeve_rekeys_total", "weave_link_clock_skew_seconds"] {
            ensure!(shown.contains(name), "the dashboard does not show {name}");
        }
        for name in shown {
            let bare =
                ["_total", "_bucket"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
            ensure!(first.types.contains_key(bare), "the dashboard shows {name}, and there is none");
        }
        // What merely was not ours to send is no drop.
        ensure!(first.get("weave_drops_total", &[("reason", "kernel_serves_all")]).is_err(), "{first:?}");
        first.get("weave_drops_total", &[("reason", "no_route")])?;
        await_all_pings(&lab, &attached)?;
        let second = Exposition::parse(&scrape(&hosts[0], "/metrics")?.1)?;
        let names = |all: &Exposition| all.types.keys().cloned().collect::<BTreeSet<_>>();
        ensure!(names(&first) == names(&second), "the families differ");
        for ((name, labels), before) in first.samples.iter().filter(|((n, _), _)| n.ends_with("_total")) {
            let after = second.samples.get(&(name.clone(), labels.clone()));
            ensure!(after.is_some_and(|after| after >= before), "{name} went back");
        }
        // For reading, and nothing but this.
        let (head, _) = scrape(&hosts[0], "/v1/report")?;
        ensure!(head.starts_with("HTTP/1.1 404"), "{head}");
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn what_the_kernel_carries_is_counted_by_neighbour() -> Result<()> {
    play("what_the_kernel_carries_is_counted_by_neighbour", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = start_open(programs, &hosts, &["--metrics-addr=127.0.0.1:6782"])?;
        await_mesh(&routers, 1)?;
        let attached = attach_each(&routers)?;
        await_overlay(&routers, Overlay::Fastdp)?;
        await_all_pings(&lab, &attached)?;
        let peers = ["02:00:00:00:00:02", "02:00:00:00:00:01"];
        let carried = |host: usize, name: &str, direction: &str| {
            let seen = Exposition::parse(&scrape(&hosts[host], "/metrics")?.1)?;
            seen.get(name, &[("peer", peers[host]), ("direction", direction)])
        };
        let server = Server::start(lab.generator(), &attached[1].container, attached[1].address())?;
        let line = format!("tcp {} --seconds 0.3", server.at());
        // The tunnel carries the first frames for a container that the kernel's tables do not name yet.
        wait_until("a stream that the kernel carries whole", LIMIT, || {
            let all = || -> Result<[f64; 3]> {
                Ok([
                    carried(0, "weave_fastdp_bytes_total", "sent")?,
                    carried(1, "weave_fastdp_bytes_total", "received")?,
                    carried(0, "weave_sleeve_bytes_total", "sent")?,
                ])
            };
            let before = all()?;
            let tcp: TcpReport = measure(lab.generator(), &attached[0].container, &line)?;
            let after = all()?;
            let [sent, received, tunnel] = [0, 1, 2].map(|which| after[which] - before[which]);
            // What is under way twice, and headers: by far less than as much again.
            let payload = tcp.bytes as f64;
            ensure!(payload > 1e6, "{tcp:?}");
            ensure!(
                sent + tunnel > payload * 0.99 && sent < payload * 2.0,
                "sent {sent}, {tunnel} by the tunnel: {tcp:?}"
            );
            ensure!(
                received + tunnel > payload * 0.99 && received < payload * 2.0,
                "received {received}, {tunnel} by the tunnel: {tcp:?}"
            );
            Ok(Look::when(tunnel < payload * 0.001, || format!("{tunnel} of {payload} by the tunnel")))
        })?;
        for (host, direction) in [(0, "sent"), (0, "received"), (1, "sent"), (1, "received")] {
            ensure!(carried(host, "weave_fastdp_packets_total", direction)? > 0.0, "{host} {direction}");
        }
        finish(routers)
    })
}
