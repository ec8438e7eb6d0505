//! What Prometheus scrapes: the names that Weave Net has always had, and what it could not count.
//!
//! Everything is read from one snapshot of the engine's state at the time of the scrape; nothing is counted twice.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use weave_api::{ApiError, ConnectionState, Overlay, Report};
use weave_datapath::DropReason;
use weave_model::PeerName;

use crate::{
    engine::{self, Engine},
    fastdp::{self, Carried},
    ops::{Ops, stopping},
    report,
};

/// The state at one moment.
#[derive(Debug)]
struct Snapshot {
    report: Report,
    engine: engine::Counters,
    /// Sent, and heard.
    heartbeats: (u64, u64),
    key_changes: u64,
    mesh: weave_mesh::Counters,
    /// Facts of all routers that are held here.
    facts: usize,
    worker: weave_worker::Counters,
    dns: Option<weave_dns::Stats>,
    /// Frames of containers that came from addresses of others.
    forgeries: BTreeMap<weave_hostnet::Forgery, u64>,
    /// What the kernel carried for whom.
    carried: BTreeMap<IpAddr, Carried>,
    /// Whether the ring answers requests of its own: claims and allocations that wait.
    pending: usize,
    /// Own live names.
    own_names: usize,
}

type Labels<'a> = [(&'a str, String)];

impl Ops {
    /// The exposition, in the text format of OpenMetrics.
    pub(crate) async fn metrics(&self) -> Result<String, ApiError> {
        let facts = std::sync::Arc::clone(&self.facts);
        let (attached, mtu, forgeries) = (self.attached(), self.mtu(), self.forgeries());
        // Nobody counts where the kernel cannot.
        let carried = fastdp::carried().unwrap_or_default();
        let snapshot = self.engine.run(move |engine, now| {
            let report = report::build(engine, &facts, &attached, mtu, now);
            let snapshot = Snapshot::take(engine, report, facts.dns_stats(), now);
            Snapshot { forgeries, carried, ..snapshot }
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(snapshot.await.map_err(stopping)?));
        let mut exposition = String::new();
        text::encode(&mut exposition, &registry).map_err(ApiError::internal)?;
        Ok(exposition)
    }
}

impl Snapshot {
    fn take(engine: &Engine, report: Report, dns: Option<weave_dns::Stats>, now: Instant) -> Self {
        let own = report.router.name;
        let mesh = engine.node.mesh_status(now);
        Self {
            engine: engine.counters.clone(),
            heartbeats: engine.heartbeats(),
            key_changes: engine.key_changes(),
            mesh: mesh.counters,
            facts: mesh.facts,
            worker: engine.workers.counters(),
            dns,
            forgeries: BTreeMap::new(),
            carried: BTreeMap::new(),
            pending: engine.node.ipam_status().map_or(0, |status| status.pending.len()),
            own_names: report.dns.iter().flat_map(|dns| &dns.entries).filter(|e| e.peer == own).count(),
            report,
        }
    }

    fn connections(&self, out: &mut Page<'_, '_>) -> std::fmt::Result {
        let mut count_by_kind = BTreeMap::<_, f64>::new();
        for link in &self.report.router.connections {
            let encryption = if link.encrypted { "yes" } else { "" };
            let overlay = link.overlay.map(|overlay| overlay.to_string()).unwrap_or_default();
            let kind = (link.state.to_string(), overlay, encryption);
            *count_by_kind.entry(kind).or_default() += 1.0;
        }
        let mut family = out.gauge("weave_connections", "Number of peer-to-peer connections")?;
        for ((state, kind, encryption), count) in count_by_kind {
            let labels = [("state", state), ("type", kind), ("encryption", encryption.to_owned())];
            family.put(&labels, count)?;
        }
        out.count("weave_connection_terminations", "Links that have ended", self.engine.terminations())?;
        let mut ended = out.counter("weave_connection_ends", "Links that have ended, by how")?;
        ended.put_all(&["how"], &self.engine.ended)?;
        out.count("weave_connections_opened", "Links that were opened", self.engine.opened)?;
        let mut failures = out.counter(
            "weave_handshake_failures",
            "Attempts at links that came to nothing, by who dialled and why",
        )?;
        failures.put_all(&["side", "reason"], &self.engine.handshake_failures)?;
        let mut turns = out.counter(
            "weave_link_transitions",
            "Times that an overlay became able to carry a link, or ceased to",
        )?;
        turns.put_all(&["overlay", "to"], &self.engine.transitions)?;
        out.count(
            "weave_connection_refusals",
            "Connections refused in the handshake",
            self.engine.refused_links,
        )?;
        out.count(
            "weave_refused_inputs",
            "Facts and messages of peers that were refused",
            self.engine.refused_inputs,
        )
    }

    fn links(&self, out: &mut Page<'_, '_>) -> std::fmt::Result {
        let up = || {
            let links = self.report.router.connections.iter();
            let links = links.filter(|link| link.state == ConnectionState::Established);
            links.filter_map(|link| Some((link, link.peer?.to_string())))
        };
        let mut overlay = out.gauge(
            "weave_link_fastdp",
            "1 where the kernel carries a link's frames, 0 where the tunnel does",
        )?;
        for (link, peer) in up() {
            let is_fast = link.overlay == Some(Overlay::Fastdp);
            overlay.put(&[("peer", peer)], f64::from(u8::from(is_fast)))?;
        }
        let mut rtt = out.gauge("weave_link_rtt_seconds", "Time there and back over the overlay in use")?;
        for (link, peer) in up() {
            if let Some(micros) = link.rtt_us.and_then(|micros| u32::try_from(micros).ok()) {
                rtt.put(&[("peer", peer)], f64::from(micros) / 1e6)?;
            }
        }
        let mut skew = out.gauge(
            "weave_link_clock_skew_seconds",
            "How far the clock at the other end is ahead of ours; nothing depends on it",
        )?;
        for (link, peer) in up() {
            if let Some(ms) = link.clock_skew_ms {
                #[expect(clippy::cast_precision_loss, reason = "a metric is a float, and milliseconds do")]
                skew.put(&[("peer", peer)], ms as f64 / 1e3)?;
            }
        }
        let mut beats = out.counter("weave_fastdp_heartbeats", "Heartbeats over the kernel's paths")?;
        beats.put(&[("direction", "sent".to_owned())], self.heartbeats.0)?;
        beats.put(&[("direction", "received".to_owned())], self.heartbeats.1)?;
        let mut keys =
            out.counter("weave_fastdp_rekeys", "Keys with which the kernel encrypts that were changed")?;
        keys.put(&[], self.key_changes)?;
        let mut mtu = out.gauge("weave_link_mtu_bytes", "Largest packet that a link carries")?;
        for (link, peer) in up() {
            if let Some(bytes) = link.mtu {
                mtu.put(&[("peer", peer)], f64::from(bytes))?;
            }
        }
        Ok(())
    }

    /// What the kernel carried, by neighbour.
    fn kernel_path(&self, out: &mut Page<'_, '_>) -> std::fmt::Result {
        let carried = self.carried_by_peer();
        let bytes = carried.iter().map(|(peer, c)| (*peer, c.sent.bytes, c.received.bytes));
        out.both_ways(
            "weave_fastdp_bytes",
            "Bytes of the kernel's tunnels, heartbeats included; headers of packets joined on the way count once",
            bytes,
        )?;
        let packets = carried.iter().map(|(peer, c)| (*peer, c.sent.packets, c.received.packets));
        out.both_ways(
            "weave_fastdp_packets",
            "Packets of the kernel's tunnels, heartbeats included; those joined on the way count once",
            packets,
        )
    }

    /// Of those with whom nobody shares an address.
    fn carried_by_peer(&self) -> BTreeMap<PeerName, Carried> {
        let mut peers_by_address = BTreeMap::<IpAddr, Vec<PeerName>>::new();
        for link in &self.report.router.connections {
            let address: Option<SocketAddr> = link.address.parse().ok();
            if let (ConnectionState::Established, Some(peer), Some(address)) =
                (link.state, link.peer, address)
            {
                peers_by_address.entry(address.ip()).or_default().push(peer);
            }
        }
        let alone = peers_by_address.iter().filter_map(|(address, peers)| match peers[..] {
            [peer] => Some((peer, *self.carried.get(address)?)),
            _ => None,
        });
        alone.collect()
    }

    /// What went through the tunnel, and what was thrown away.
    fn data_plane(&self, out: &mut Page<'_, '_>) -> std::fmt::Result {
        let links = &self.report.data_plane.links;
        let bytes = links.iter().map(|link| (link.peer, link.counters.tx_bytes, link.counters.rx_bytes));
        out.both_ways("weave_sleeve_bytes", "Bytes of the tunnel's datagrams", bytes)?;
        let packets =
            links.iter().map(|link| (link.peer, link.counters.tx_packets, link.counters.rx_packets));
        out.both_ways("weave_sleeve_packets", "Datagrams of the tunnel", packets)?;
        out.count(
            "weave_sleeve_rekeys",
            "Times that a sending lane of the tunnel took a new key",
            self.worker.rekeys,
        )?;
        let harmless = DropReason::ALL.into_iter().filter(|reason| !reason.is_loss());
        let harmless: Vec<&str> = harmless.map(DropReason::label).collect();
        let mut drops = out.counter("weave_drops", "Frames and datagrams that somebody misses, by reason")?;
        for (reason, count) in self.worker.drops.iter().filter(|(reason, _)| !harmless.contains(reason)) {
            drops.put(&[("reason", (*reason).to_owned())], *count)?;
        }
        let mut forged = out.counter(
            "weave_forged_frames",
            "Frames of containers that were dropped because they came from addresses of others, by which",
        )?;
        for (kind, count) in &self.forgeries {
            forged.put(&[("reason", kind.name().to_owned())], *count)?;
        }
        out.number(
            "weave_mtu_bytes",
            "MTU of the bridge and of containers",
            self.report.data_plane.mtu.into(),
        )
    }

    fn gossip(&self, out: &mut Page<'_, '_>) -> std::fmt::Result {
        let mut messages = out.counter("weave_gossip_messages", "Messages of the mesh, by kind")?;
        messages.put_all(&["direction", "kind"], &self.engine.gossip_messages)?;
        let mut bytes = out.counter("weave_gossip_bytes", "Bytes of the mesh's messages, by kind")?;
        bytes.put_all(&["direction", "kind"], &self.engine.gossip_bytes)?;
        let mut drops =
            out.counter("weave_gossip_drops", "Messages for others that were not passed on, by reason")?;
        for (reason, count) in [
            ("no_route", self.mesh.dropped_no_route),
            ("hop_limit", self.mesh.dropped_hop_limit),
            ("duplicate", self.mesh.dropped_duplicate),
            ("unknown_origin", self.mesh.dropped_unknown_origin),
            ("backlog", self.mesh.dropped_backlog),
        ] {
            drops.put(&[("reason", reason.to_owned())], count)?;
        }
        out.count("weave_gossip_relayed", "Messages passed on for others", self.mesh.relayed)?;
        out.count("weave_gossip_mismatches", "Comparisons that found a difference", self.mesh.mismatches)?;
        out.count(
            "weave_route_computations",
            "Times that the routes were computed",
            self.mesh.recalculations,
        )?;
        out.number("weave_gossip_facts", "Facts of all routers that are held here", whole(self.facts))?;
        out.count("weave_peers_joined", "Routers that came", self.engine.joined)?;
        out.count("weave_peers_left", "Routers that went", self.engine.left)?;
        out.number("weave_peers", "Routers known, this one included", whole(self.report.router.peers.len()))
    }

    fn addresses(&self, out: &mut Page<'_, '_>) -> std::fmt::Result {
        let Some(ipam) = &self.report.ipam else { return Ok(()) };
        let mut requests = out.counter("weave_ipam_requests", "Requests to the ring, by how they ended")?;
        requests.put_all(&["outcome"], &self.engine.ring_requests)?;
        let waits = &self.engine.ring_waits;
        let what = "Time that the ring took to answer a request";
        out.histogram("weave_ipam_wait_seconds", what, &engine::WAIT_BUCKETS, &waits.counts, waits.sum)?;
        let mut used = out.gauge("weave_ips", "Number of IP addresses")?;
        used.put(&[("state", "local-used".to_owned())], whole(ipam.active))?;
        let all: f64 = ipam.ranges.iter().map(|range| size(range.net())).sum();
        out.number("weave_max_ips", "Size of the IP address space used for allocation", all)?;
        let gone = || ipam.owners.iter().filter(|owner| !owner.reachable);
        let count: u128 = gone().map(|owner| owner.addresses).sum();
        #[expect(clippy::cast_precision_loss, reason = "a metric is a float, and the share matters")]
        out.number("weave_ipam_unreachable_count", "Addresses owned by unreachable peers", count as f64)?;
        let percent = gone().map(|owner| owner.percent).sum();
        out.number(
            "weave_ipam_unreachable_percentage",
            "Share of addresses owned by unreachable peers",
            percent,
        )?;
        out.number("weave_ipam_pending_requests", "Requests for addresses that wait", whole(self.pending))
    }

    fn names(&self, out: &mut Page<'_, '_>) -> std::fmt::Result {
        if self.report.dns.is_none() {
            return Ok(());
        }
        out.number("weave_dns_entries", "Names that this router has registered", whole(self.own_names))?;
        let Some(stats) = &self.dns else { return Ok(()) };
        let mut queries = out.counter("weave_dns_queries", "Queries, by how they ended")?;
        for outcome in weave_dns::Outcome::ALL {
            queries.put(&[("outcome", outcome.as_str().to_owned())], stats.count(outcome))?;
        }
        out.histogram(
            "weave_dns_latency_seconds",
            "Time from reading a query to sending its answer",
            &weave_dns::LATENCY_BUCKETS,
            &stats.latency,
            stats.latency_sum,
        )
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut page = Page(&mut encoder);
        self.connections(&mut page)?;
        self.links(&mut page)?;
        self.kernel_path(&mut page)?;
        self.data_plane(&mut page)?;
        self.gossip(&mut page)?;
        self.addresses(&mut page)?;
        self.names(&mut page)
    }
}

/// Writes families one after another.
struct Page<'a, 'e>(&'a mut DescriptorEncoder<'e>);

/// One name with several sets of labels.
struct Counters<'m>(MetricEncoder<'m>);
struct Gauges<'m>(MetricEncoder<'m>);

impl Page<'_, '_> {
    fn counter<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Counters<'s>, std::fmt::Error> {
        Ok(Counters(self.0.encode_descriptor(name, help, None, MetricType::Counter)?))
    }

    fn gauge<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Gauges<'s>, std::fmt::Error> {
        Ok(Gauges(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?))
    }

    fn count(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let family = self.counter(name, help)?;
        ConstCounter::new(value).encode(family.0)
    }

    /// What was sent to each peer, and received from it.
    fn both_ways(
        &mut self,
        name: &str,
        help: &str,
        counts: impl Iterator<Item = (PeerName, u64, u64)>,
    ) -> std::fmt::Result {
        let mut family = self.counter(name, help)?;
        for (peer, sent, received) in counts {
            for (direction, count) in [("sent", sent), ("received", received)] {
                family.put(&[("peer", peer.to_string()), ("direction", direction.to_owned())], count)?;
            }
        }
        Ok(())
    }

    /// Times by class: upper bounds, and how many fell into each class and into none.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[Duration],
        counts: &[u64],
        sum: Duration,
    ) -> std::fmt::Result {
        let bounds = bounds.iter().map(Duration::as_secs_f64).chain(std::iter::once(f64::MAX));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), counts.iter().sum(), &buckets, None)
    }

    fn number(&mut self, name: &str, help: &str, value: f64) -> std::fmt::Result {
        let family = self.gauge(name, help)?;
        ConstGauge::new(value).encode(family.0)
    }
}

impl Counters<'_> {
    fn put(&mut self, labels: &Labels<'_>, value: u64) -> std::fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_family(&labels.to_vec())?)
    }
}

impl Counters<'_> {
    fn put_all<const N: usize>(
        &mut self,
        names: &[&str; N],
        counts: &engine::ByWords<N>,
    ) -> std::fmt::Result {
        for (words, count) in counts {
            let labels: Vec<(&str, String)> =
                names.iter().copied().zip(words.iter().map(|word| (*word).to_owned())).collect();
            self.put(&labels, *count)?;
        }
        Ok(())
    }
}

impl Gauges<'_> {
    fn put(&mut self, labels: &Labels<'_>, value: f64) -> std::fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_family(&labels.to_vec())?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float; counts stay far below its 2^53")]
fn whole(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

fn size(net: ipnet::IpNet) -> f64 {
    let bits = match net {
        ipnet::IpNet::V4(net) => 32 - net.prefix_len(),
        ipnet::IpNet::V6(net) => 128 - net.prefix_len(),
    };
    f64::from(bits).exp2()
}
