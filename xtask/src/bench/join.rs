//! Many routers that are started at once with the same single peer.

use std::time::Duration;

use anyhow::{Context as _, Result};
use weave_tests::{
    accounting,
    clock::{Look, now, pause, wait_until},
    product::{Programs, Router, Settings, mesh_in_words, shows_mesh},
};

use crate::inside;

/// A run that has not finished after this has stalled.
const STALLED: Duration = Duration::from_secs(240);

/// After the last link there is news on its way; steady is what remains when it has arrived.
const SETTLE: Duration = Duration::from_secs(10);

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    /// From the first start until every router reports every link and the whole topology.
    pub(super) seconds: f64,
    /// Bytes that all hosts sent on the underlay until then, Ethernet headers included.
    pub(super) bytes: f64,
    /// The largest router's memory at the end, in megabytes.
    pub(super) rss_mb: f64,
    /// Bytes per second and router on the underlay, once everything is known.
    pub(super) steady_bytes_per_s: f64,
    /// Per cent of a core and router, once everything is known.
    pub(super) idle_cpu_pct: f64,
}

/// Starts `count` routers and measures until all is known, and then for `window`.
pub(super) fn run(programs: &Programs, count: u8, window: Duration) -> Result<Joined> {
    let mut lab = inside::lab()?;
    let names = (1..=count).map(|n| format!("h{n}"));
    let mut hosts = names.map(|name| lab.add_host(&name)).collect::<Result<Vec<_>>>()?;
    let segment = lab.join(&mut hosts.iter_mut().collect::<Vec<_>>())?;
    let peer = hosts.first().context("at least two routers join")?.address()?.to_string();
    let settings = Settings {
        peers: vec![peer],
        password: Some("bench".to_owned()),
        flags: vec![format!("--ipalloc-init=consensus={count}")],
    };
    let (start, before) = (now(), lab.sent_on(segment)?);
    let routers = hosts.iter().map(|h| Router::start(programs, h, &settings)).collect::<Result<Vec<_>>>()?;
    await_whole(&routers)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = (lab.sent_on(segment)? - before) as f64;
    pause(SETTLE.min(window));
    let (start, sent, cpu) = (now(), lab.sent_on(segment)?, cpu_seconds(&routers)?);
    pause(window);
    let per_router_s = start.elapsed().as_secs_f64() * f64::from(count);
    let steady_bytes_per_s = (lab.sent_on(segment)? - sent) as f64 / per_router_s;
    let idle_cpu_pct = (cpu_seconds(&routers)? - cpu) * 100.0 / per_router_s;
    let mut rss_mb = 0.0_f64;
    for router in &routers {
        rss_mb = rss_mb.max(accounting::resident_bytes(router.pid()?)? as f64 / 1e6);
    }
    Ok(Joined { seconds, bytes, rss_mb, steady_bytes_per_s, idle_cpu_pct })
}

/// Waits until every router reports every link and the whole topology. One is asked at a time, so that asking costs
/// next to nothing; the last to be whole sets the time.
fn await_whole(routers: &[Router<'_>]) -> Result<()> {
    let count = routers.len();
    for router in routers {
        wait_until("the whole mesh", STALLED, || {
            Ok(match router.report() {
                Ok(report) if shows_mesh(&report, count, count * (count - 1)) => Look::Found(()),
                Ok(report) => Look::NotYet(mesh_in_words(&report)),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })?;
    }
    Ok(())
}

/// Processor time of all routers together.
fn cpu_seconds(routers: &[Router<'_>]) -> Result<f64> {
    routers.iter().map(|r| accounting::cpu_seconds(r.pid()?)).sum()
}
