//! The phases of a run.

use std::time::Duration;

use rand_chacha::rand_core::RngCore as _;
use weave_mesh::Namespace;
use weave_model::{ContainerId, Mac, PeerName};
use weave_node::Attachment;

use crate::{
    check::Failure,
    plan::Plan,
    world::{Outcome, World},
};

/// Where a run is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is going on, in words.
    pub phase: &'static str,
    /// Virtual time since the start.
    pub elapsed: Duration,
    /// Nodes that are up.
    pub living: usize,
    /// Of these, how many agree with most.
    pub agreeing: usize,
    /// Messages so far.
    pub messages: u64,
}

/// Runs a plan to its end, checking all the way.
///
/// # Errors
/// The first invariant that breaks.
pub fn run(plan: &Plan) -> Result<Outcome, Failure> {
    run_watched(plan, &mut |_| {})
}

/// The same, telling now and then how far it is.
///
/// # Errors
/// The first invariant that breaks.
pub fn run_watched(plan: &Plan, watch: &mut dyn FnMut(Progress)) -> Result<Outcome, Failure> {
    let mut world = World::new(plan);
    if plan.with_faults {
        bad_day(&mut world, watch)?
    } else {
        good_day(&mut world, watch)?
    }
    world.everybody_gets_an_address()?;
    settle(&mut world, "agree again", Duration::from_secs(120), watch)?;
    idle(&mut world, watch)?;
    Ok(world.outcome)
}

fn bad_day(world: &mut World, watch: &mut dyn FnMut(Progress)) -> Result<(), Failure> {
    world.weather.loss_per_mille = world.rng.next_u32() % 50;
    world.weather.jitter = Duration::from_millis(u64::from(world.rng.next_u32() % 40));
    world.deadly_effects = [0, 5_000, 2_000][world.below(3)];
    world.start_all()?;
    for _ in 0..world.plan.steps {
        let pause = Duration::from_millis(u64::from(world.rng.next_u32() % 4000));
        world.run_for(pause)?;
        world.step()?;
        watch(world.progress("bad weather"));
    }
    clear_up(world)?;
    world.outcome.agreed_after = settle(world, "agree after the bad weather", world.plan.quiet, watch)?;
    Ok(())
}

fn good_day(world: &mut World, watch: &mut dyn FnMut(Progress)) -> Result<(), Failure> {
    world.start_all()?;
    join(world, watch)?;
    time_changes(world, watch)?;
    for _ in 0..world.plan.steps {
        let pause = Duration::from_millis(u64::from(world.rng.next_u32() % 1000));
        world.run_for(pause)?;
        world.step()?;
        watch(world.progress("work"));
    }
    settle(world, "agree after work", world.plan.quiet, watch)?;
    Ok(())
}

/// Waits until the mesh has formed.
fn join(world: &mut World, watch: &mut dyn FnMut(Progress)) -> Result<(), Failure> {
    let slice = Duration::from_millis(50);
    while world.now - world.start < world.plan.quiet {
        world.run_for(slice)?;
        let progress = world.progress("join");
        watch(progress);
        if progress.agreeing == progress.living && world.everybody_is_known() {
            world.outcome.agreed_after = world.now - world.start;
            world.outcome.bytes_to_agree = world.outcome.bytes;
            return Ok(());
        }
    }
    world.check_agreement()
}

/// Attaches a container here and there, and times until the last node knows.
fn time_changes(world: &mut World, watch: &mut dyn FnMut(Progress)) -> Result<(), Failure> {
    /// How exactly it is timed, and for how long.
    const TICK: Duration = Duration::from_millis(5);
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut times = Vec::new();
    for number in 0..world.plan.changes {
        let host = world.below(world.hosts.len());
        let [a, b] = (number as u16).to_be_bytes();
        let mac = Mac::local_unicast([6, 0, 0, 0, a, b]);
        let Ok(container) = format!("timed{number}").parse::<ContainerId>() else { continue };
        let began = world.now;
        world.on_node(host, |node, now| {
            node.attach(mac, &Attachment { container, addresses: Vec::new() }, now);
        })?;
        while !world.everybody_has(world.hosts[host].name, mac) {
            if world.now - began > PATIENCE {
                let about = format!("knows nothing of a change at host {host} after {PATIENCE:?}");
                return Err(Failure::Disagreement { host, about });
            }
            world.run_for(TICK)?;
        }
        times.push(world.now - began);
        world.on_node(host, |node, now| node.detach(mac, now))?;
        let pause = Duration::from_millis(u64::from(world.rng.next_u32() % 1000));
        world.run_for(pause)?;
        watch(world.progress("time changes"));
    }
    times.sort_unstable();
    let quantile =
        |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied();
    world.outcome.changes = times.len();
    world.outcome.change_p50 = quantile(50).unwrap_or_default();
    world.outcome.change_p99 = quantile(99).unwrap_or_default();
    Ok(())
}

/// Waits until all agree, with an operator at work, and tells how long that took; what they still disagree on at the end
/// is the failure.
fn settle(
    world: &mut World,
    phase: &'static str,
    quiet: Duration,
    watch: &mut dyn FnMut(Progress),
) -> Result<Duration, Failure> {
    /// How often agreement is looked for, and in how many of these looks the operator steps in.
    const SLICE: Duration = Duration::from_secs(5);
    const OPERATOR_EVERY: u32 = 8;
    let began = world.now;
    let mut looks = 0;
    loop {
        looks += 1;
        world.run_for(SLICE)?;
        let waited = world.now - began;
        let progress = world.progress(phase);
        watch(progress);
        if progress.agreeing == progress.living || waited >= quiet {
            match world.check_agreement() {
                Ok(()) => return Ok(waited),
                Err(failure) if waited >= quiet => {
                    world.note_states();
                    return Err(failure);
                }
                Err(_) => {}
            }
        }
        if looks % OPERATOR_EVERY == 0 {
            world.remove_the_lost(1)?;
            world.settle_own_spaces()?;
        }
    }
}

/// Heals the network, brings back every host that is not gone for good, and stops losing messages.
fn clear_up(world: &mut World) -> Result<(), Failure> {
    world.heal();
    world.weather.loss_per_mille = 0;
    world.deadly_effects = 0;
    for host in 0..world.hosts.len() {
        if world.hosts[host].power == crate::host::Power::Off {
            world.start_host(host)?;
        }
    }
    world.replace_dead_targets()?;
    world.outcome.bytes_to_agree = world.outcome.bytes;
    Ok(())
}

/// Nothing happens for a while: what do the nodes still tell each other?
fn idle(world: &mut World, watch: &mut dyn FnMut(Progress)) -> Result<(), Failure> {
    const CALM_DOWN: Duration = Duration::from_secs(20);
    const MEASURED: u32 = 30;
    /// Bytes per second that a node of a mesh of up to 30 may send when nothing happens.
    const ALLOWED: f64 = 300.0;
    world.run_for(CALM_DOWN)?;
    let before: Vec<u64> = world.hosts.iter().map(|host| host.bytes).collect();
    for _ in 0..MEASURED {
        world.run_for(Duration::from_secs(1))?;
        watch(world.progress("idle"));
    }
    let rates: Vec<f64> = world
        .living()
        .into_iter()
        .map(|host| (world.hosts[host].bytes - before[host]) as f64 / f64::from(MEASURED))
        .collect();
    world.outcome.steady_max = rates.iter().copied().fold(0.0, f64::max);
    world.outcome.steady_mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    if rates.len() <= 30 && world.outcome.steady_max > ALLOWED {
        return Err(Failure::Noisy { bytes_per_second: world.outcome.steady_max as u64 });
    }
    Ok(())
}

impl World {
    fn progress(&self, phase: &'static str) -> Progress {
        let nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let mut prints: Vec<u64> = nodes.map(|node| node.mesh().fingerprint()).collect();
        let living = prints.len();
        prints.sort_unstable();
        let agreeing = prints.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or_default();
        Progress { phase, elapsed: self.now - self.start, living, agreeing, messages: self.outcome.messages }
    }

    /// Tells whoever follows the run what each node thinks.
    fn note_states(&self) {
        for host in self.living() {
            if let Some(node) = &self.hosts[host].node {
                self.note(|| {
                    format!("host {host}: {:#?} {:#?}", node.mesh_status(self.now), node.ipam_status())
                });
            }
        }
    }

    fn everybody_is_known(&self) -> bool {
        self.hosts.first().and_then(|host| host.node.as_ref()).is_some_and(|node| {
            let known = node.mesh().routes().unicast().count() + 1;
            known == self.living().len()
        })
    }

    fn everybody_has(&self, peer: PeerName, mac: Mac) -> bool {
        /// Where nodes keep attachments among their facts.
        const ATTACHMENTS: Namespace = Namespace(16);
        let mut nodes = self.hosts.iter().filter_map(|host| host.node.as_ref());
        nodes.all(|node| node.mesh().fact(peer, ATTACHMENTS, &mac.0).is_some())
    }

    /// Every node is asked for an address, and has to give one as long as there are enough for all.
    fn everybody_gets_an_address(&mut self) -> Result<(), Failure> {
        const WAIT: Duration = Duration::from_secs(30);
        let living = self.living();
        if self.fewest_free() < living.len() as u128 {
            return Ok(());
        }
        let mut asked = Vec::new();
        for host in living {
            let Ok(id) = format!("last{host}").parse::<ContainerId>() else { continue };
            self.allocate_for(host, id.clone(), WAIT)?;
            asked.push((host, id));
        }
        self.run_for(WAIT + Duration::from_secs(1))?;
        match asked.into_iter().find(|(host, id)| !self.hosts[*host].containers.contains_key(id)) {
            Some((host, _)) => Err(Failure::NoAddress { host }),
            None => Ok(()),
        }
    }

    /// How many addresses nobody holds, in the range that has fewest of them.
    fn fewest_free(&self) -> u128 {
        let free = self.plan.ranges.iter().map(|range| {
            let net = range.net();
            let size = 1_u128 << (net.max_prefix_len() - net.prefix_len());
            let held = self.oracle.addresses().filter(|address| net.contains(address)).count();
            size.saturating_sub(2 + held as u128)
        });
        free.min().unwrap_or_default()
    }
}
