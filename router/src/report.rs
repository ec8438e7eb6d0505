//! What the router says of itself: everything that `weave status` and `weave report` show.

use std::{net::IpAddr, sync::Arc, time::Instant};

use weave_api::{
    ApiError, BroadcastRoute, ConnectionReport, ConnectionState, ContainerReport, DnsEntry, DnsReport,
    ElectionReport, ErrorCode, IpamReport, KernelKey, Overlay, OwnerReport, PeerConnection, PeerReport,
    PendingReport, Problem, Report, Retry, RouterReport, Severity, UnicastRoute,
};
use weave_ipam::{ElectionStatus, IpamStatus, OwnerStatus};
use weave_mesh::{ConnectionStatus, MeshStatus, OverlayKind, PeerStatus};
use weave_model::{EspOver, Mac, PeerName, Subnet};
use weave_names::QueryName;

use crate::{
    app,
    engine::Engine,
    labels::{label, with_nicknames},
    ops::{self, Record},
};

mod data_plane;

/// What does not change while the router runs.
pub(crate) struct Facts {
    pub(crate) nickname: String,
    pub(crate) port: u16,
    pub(crate) encryption: bool,
    pub(crate) trusted_subnets: Vec<Subnet>,
    pub(crate) started: Instant,
    pub(crate) bridge_mac: Mac,
    pub(crate) dns: Option<DnsFacts>,
    pub(crate) default_subnets: Vec<Subnet>,
    /// Warnings of the start that still hold.
    pub(crate) warnings: Vec<String>,
}

/// The name service, as it was started.
pub(crate) struct DnsFacts {
    pub(crate) domain: String,
    pub(crate) listen: Vec<String>,
    pub(crate) upstream: Vec<String>,
    pub(crate) ttl: u32,
    pub(crate) server: Arc<weave_dns::Server>,
}

impl Facts {
    pub(crate) const fn has_dns(&self) -> bool {
        self.dns.is_some()
    }

    pub(crate) fn dns_stats(&self) -> Option<weave_dns::Stats> {
        self.dns.as_ref().map(|dns| dns.server.stats())
    }

    pub(crate) fn default_subnets(&self) -> &[Subnet] {
        &self.default_subnets
    }
}

/// Puts the whole state together.
pub(crate) fn build(
    engine: &Engine,
    facts: &Arc<Facts>,
    attached: &[Record],
    mtu: u16,
    now: Instant,
) -> Report {
    let mesh = engine.node.mesh_status(now);
    let ipam = engine.node.ipam_status();
    let mut report = Report {
        version: app::VERSION.to_owned(),
        ready: true,
        uptime_s: ops::uptime(facts.started).as_secs(),
        problems: problems(engine, facts, &mesh, ipam.as_ref()),
        router: router(engine, facts, &mesh, now),
        ipam: ipam.map(|status| self::ipam(engine, facts, status, &mesh)),
        dns: facts.dns.as_ref().map(|dns| self::dns(engine, dns)),
        data_plane: data_plane::build(engine, mtu),
        containers: attached.iter().map(container).collect(),
    };
    report.sort();
    report
}

pub(crate) fn container(record: &Record) -> ContainerReport {
    ContainerReport {
        id: record.holder().clone(),
        mac: Some(record.mac),
        addresses: record.addresses.clone(),
    }
}

/// The addresses of a name; nothing when it is unknown.
pub(crate) fn lookup(engine: &Engine, name: &str) -> Result<Vec<IpAddr>, ApiError> {
    let Some(names) = engine.node.names() else { return Ok(Vec::new()) };
    let bad = || ApiError::new(ErrorCode::BadRequest, format!("`{name}` is not a host name"));
    let query = QueryName::from_text(name).ok_or_else(bad)?;
    let domain = names.domain();
    let query = query.within(domain).ok_or_else(bad)?;
    let mut found: Vec<IpAddr> = names
        .records()
        .filter(|(_, record)| {
            QueryName::from_text(record.hostname.as_str())
                .is_some_and(|own| own.as_bytes() == query.as_bytes())
        })
        .map(|(_, record)| record.address)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn router(engine: &Engine, facts: &Facts, mesh: &MeshStatus, now: Instant) -> RouterReport {
    RouterReport {
        name: mesh.name,
        nickname: mesh.nickname.clone(),
        uid: mesh.uid.to_string(),
        port: facts.port,
        protocol_min: weave_link::VERSIONS.oldest,
        protocol_max: weave_link::VERSIONS.newest,
        encryption: facts.encryption,
        discovery: mesh.discovery,
        targets: mesh.targets.iter().map(ToString::to_string).collect(),
        trusted_subnets: facts.trusted_subnets.clone(),
        peers: mesh.peers.iter().map(|peer| self::peer(peer, mesh)).collect(),
        connections: mesh.connections.iter().map(|status| connection(engine, status, now)).collect(),
        unicast_routes: mesh
            .unicast_routes
            .iter()
            .map(|(dest, via)| UnicastRoute { dest: *dest, via: Some(*via) })
            .collect(),
        broadcast_routes: mesh
            .broadcast_routes
            .iter()
            .map(|(source, via)| BroadcastRoute { source: *source, via: via.clone() })
            .collect(),
        terminations: engine.counters.terminations(),
    }
}

fn nickname(mesh: &MeshStatus, name: PeerName) -> String {
    mesh.peers.iter().find(|peer| peer.name == name).map(|peer| peer.nickname.clone()).unwrap_or_default()
}

/// What the mesh calls an owner, or what it was called when it was still there.
fn nickname_of_owner(mesh: &MeshStatus, owner: &OwnerStatus) -> String {
    let met = mesh.peers.iter().find(|peer| peer.name == owner.peer);
    met.map_or_else(|| owner.nickname.clone(), |peer| peer.nickname.clone())
}

fn peer(peer: &PeerStatus, mesh: &MeshStatus) -> PeerReport {
    let connections = peer
        .links
        .iter()
        .map(|link| PeerConnection {
            name: link.peer,
            nickname: nickname(mesh, link.peer),
            address: address_of(mesh, peer, link.peer),
            outbound: link.outbound,
            state: if link.established { ConnectionState::Established } else { ConnectionState::Pending },
        })
        .collect();
    PeerReport {
        name: peer.name,
        nickname: peer.nickname.clone(),
        uid: peer.uid.to_string(),
        version: peer.incarnation,
        reachable: peer.reachable,
        connections,
    }
}

/// Where a link of a peer leads: for our own links the address in use, for others' the first one advertised.
fn address_of(mesh: &MeshStatus, near: &PeerStatus, far: PeerName) -> String {
    if near.name == mesh.name {
        let own = mesh.connections.iter().find(|c| c.peer == Some(far)).and_then(|c| c.address);
        if let Some(address) = own {
            return address.to_string();
        }
    }
    let advertised = mesh.peers.iter().find(|peer| peer.name == far).and_then(|peer| peer.addresses.first());
    advertised.map(ToString::to_string).unwrap_or_default()
}

fn connection(engine: &Engine, status: &ConnectionStatus, now: Instant) -> ConnectionReport {
    let address = match (&status.address, &status.target) {
        (Some(address), _) => address.to_string(),
        (None, Some(target)) => target.to_string(),
        (None, None) => String::new(),
    };
    let state = match status.state {
        weave_mesh::ConnectionState::Established => ConnectionState::Established,
        weave_mesh::ConnectionState::Pending => ConnectionState::Pending,
        weave_mesh::ConnectionState::Retrying => ConnectionState::Retrying,
        weave_mesh::ConnectionState::Failed => ConnectionState::Failed,
        weave_mesh::ConnectionState::Connecting => ConnectionState::Connecting,
    };
    let retry = match (state, status.retry_in) {
        (_, Some(wait)) => Some(Retry::InS(wait.as_secs())),
        (ConnectionState::Failed, None) => Some(Retry::Never),
        _ => None,
    };
    ConnectionReport {
        address,
        outbound: status.outbound,
        state,
        encrypted: status.encrypted.unwrap_or(false),
        overlay: status.overlay.map(|kind| match kind {
            OverlayKind::Sleeve => Overlay::Sleeve,
            OverlayKind::Fastdp => Overlay::Fastdp,
        }),
        overlay_for_s: status
            .overlay_since
            .filter(|_| status.overlay.is_some())
            .map(|since| now.saturating_duration_since(since).as_secs()),
        peer: status.peer,
        nickname: status.peer.map(|_| status.nickname.clone()),
        mtu: status.mtu,
        rtt_us: status.rtt.and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        kernel_key: status
            .peer
            .filter(|_| status.overlay == Some(OverlayKind::Fastdp))
            .and_then(|peer| kernel_key(engine, peer, now)),
        clock_skew_ms: status.peer.and_then(|peer| engine.skew_of(peer)),
        since_s: status.since.as_secs(),
        info: info(status),
        retry,
    }
}

/// With what the kernel encrypts what leaves for a peer, if it does.
pub(crate) fn kernel_key(engine: &Engine, peer: PeerName, now: Instant) -> Option<KernelKey> {
    let key = engine.key_of(peer)?;
    Some(KernelKey {
        cipher: key.cipher.to_string(),
        in_udp: key.over == EspOver::Udp,
        number: key.number,
        age_s: now.saturating_duration_since(key.since).as_secs(),
    })
}

/// Why a connection is not as good as it could be.
pub(crate) fn info(status: &ConnectionStatus) -> Option<String> {
    if !status.text.is_empty() {
        return Some(status.text.clone());
    }
    let fastdp =
        status.overlays.iter().find(|overlay| overlay.kind == OverlayKind::Fastdp && !overlay.in_use);
    fastdp.map(|fastdp| fastdp.note.clone()).filter(|note| !note.is_empty())
}

fn ipam(engine: &Engine, facts: &Facts, status: IpamStatus, mesh: &MeshStatus) -> IpamReport {
    let labelled = |text: String| with_nicknames(&text, engine.node.ipam());
    IpamReport {
        ready: status.ring_id.is_some(),
        status: labelled(status.state),
        election: status.election.as_ref().map(|vote| election(engine, facts, vote, mesh)),
        ranges: status.ranges,
        default_subnets: status.default_subnets,
        owners: status
            .owners
            .iter()
            .map(|owner| OwnerReport {
                peer: owner.peer,
                nickname: nickname_of_owner(mesh, owner),
                addresses: owner.addresses,
                percent: owner.percent,
                reachable: owner.reachable,
                own: owner.local,
            })
            .collect(),
        active: status.active as u64,
        pending: status
            .pending
            .iter()
            .filter_map(|pending| {
                Some(PendingReport {
                    container: pending.owner.clone()?,
                    request: String::new(),
                    waiting_s: 0,
                    reason: labelled(pending.waiting_for.to_string()),
                })
            })
            .collect(),
        entries: status.ring_entries as u64,
        seeds: status.seeds,
        conflicts: status.problems.iter().map(|problem| labelled(problem.to_string())).collect(),
    }
}

fn election(engine: &Engine, facts: &Facts, vote: &ElectionStatus, mesh: &MeshStatus) -> ElectionReport {
    let known = |peer: &PeerName| {
        label(*peer, engine.node.ipam().and_then(|ipam| ipam.nickname(*peer)).unwrap_or_default())
    };
    let is_unanswered = |link: &&ConnectionStatus| link.outbound && link.peer.is_none();
    let unanswered = mesh.connections.iter().filter(is_unanswered);
    let targets = unanswered.filter_map(|link| link.target.as_ref().map(ToString::to_string));
    let own = label(mesh.name, &facts.nickname);
    ElectionReport {
        quorum: vote.quorum as u64,
        heard: [own].into_iter().chain(vote.heard.iter().map(known)).collect(),
        missing: vote.missing.iter().map(known).chain(targets).collect(),
    }
}

fn dns(engine: &Engine, facts: &DnsFacts) -> DnsReport {
    let entries = engine
        .node
        .names()
        .into_iter()
        .flat_map(weave_names::Names::records)
        .map(|(peer, record)| DnsEntry {
            hostname: record.hostname.to_string(),
            address: record.address,
            container: record.container.clone(),
            peer,
        })
        .collect();
    DnsReport {
        domain: facts.domain.clone(),
        listen: facts.listen.clone(),
        upstream: facts.upstream.clone(),
        ttl: facts.ttl,
        entries,
    }
}

/// What an operator should look at.
fn problems(engine: &Engine, facts: &Facts, mesh: &MeshStatus, ipam: Option<&IpamStatus>) -> Vec<Problem> {
    let warning = |message: String, hint: Option<&str>| Problem {
        severity: Severity::Warning,
        message,
        hint: hint.map(str::to_owned),
    };
    let mut problems: Vec<Problem> = facts.warnings.iter().map(|text| warning(text.clone(), None)).collect();
    for collision in &mesh.collisions {
        problems.push(Problem {
            severity: Severity::Error,
            message: format!(
                "two routers use the name {}: the second one spoke from {}",
                collision.name, collision.heard_from
            ),
            hint: Some("give one of them another --name, or remove its cloned store".to_owned()),
        });
    }
    for problem in ipam.into_iter().flat_map(|status| &status.problems) {
        problems.push(warning(with_nicknames(&problem.to_string(), engine.node.ipam()), None));
    }
    let unreachable = ipam.into_iter().flat_map(|status| &status.owners).filter(|owner| !owner.reachable);
    for owner in unreachable {
        let name = nickname_of_owner(mesh, owner);
        problems.push(warning(
            format!("{} ({name}) owns {} addresses and cannot be reached", owner.peer, owner.addresses),
            Some("bring it back, or if it is gone for good: weave rmpeer"),
        ));
    }
    problems
}
