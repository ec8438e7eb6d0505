//! The operator and the weather: what goes wrong, drawn from the seed.

use std::time::Duration;

use rand_core::RngCore as _;
use weave_model::{ContainerId, Interface, Mac};
use weave_names::RemoveFilter;

use crate::{
    check::Failure,
    host::{Ask, Container},
    world::{Outcome, World},
};

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Hosts at the start.
    pub peers: usize,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// Things that happen before the weather clears.
    pub steps: usize,
    /// Whether links break, hosts die and the network splits; without, the hosts only work.
    pub with_faults: bool,
    /// How long the nodes get to agree after the weather cleared.
    pub quiet: Duration,
}

impl Plan {
    /// A bad day for `peers` hosts.
    #[must_use]
    pub const fn bad_day(peers: usize, seed: u64) -> Self {
        Self { peers, seed, steps: 60, with_faults: true, quiet: Duration::from_secs(900) }
    }
}

/// Runs a plan to its end, checking all the way.
///
/// # Errors
/// The first invariant that breaks.
pub fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::new(plan.peers, plan.seed);
    if plan.with_faults {
        world.weather.loss_per_mille = world.rng.next_u32() % 50;
        world.weather.jitter = Duration::from_millis(u64::from(world.rng.next_u32() % 40));
    }
    world.start_all()?;
    for _ in 0..plan.steps {
        let pause = Duration::from_millis(u64::from(world.rng.next_u32() % 4000));
        world.run_for(pause)?;
        step(&mut world, plan.with_faults)?;
    }
    clear_up(&mut world)?;
    settle(&mut world, plan.quiet)?;
    Ok(world.outcome)
}

/// Waits until all agree, checking now and then; what they still disagree on at the end is the failure.
fn settle(world: &mut World, quiet: Duration) -> Result<(), Failure> {
    let slice = Duration::from_secs(10);
    let mut waited = Duration::ZERO;
    loop {
        world.run_for(slice)?;
        waited += slice;
        match world.check_agreement() {
            Ok(()) => return Ok(()),
            Err(failure) if waited >= quiet => return Err(failure),
            Err(_) => {}
        }
    }
}

fn pick(world: &mut World, n: usize) -> usize {
    (world.rng.next_u64() % n.max(1) as u64) as usize
}

fn living(world: &World) -> Vec<usize> {
    (0..world.hosts.len()).filter(|host| world.hosts[*host].node.is_some()).collect()
}

fn step(world: &mut World, with_faults: bool) -> Result<(), Failure> {
    let alive = living(world);
    let host = if alive.is_empty() { 0 } else { alive[pick(world, alive.len())] };
    let kinds = if with_faults { 100 } else { 60 };
    match pick(world, kinds) {
        0..40 => allocate(world, host),
        40..60 => release(world, host),
        60..68 => {
            let other = pick(world, world.hosts.len());
            if other != host {
                world.block(host, other);
            }
            Ok(())
        }
        68..72 => {
            split(world);
            Ok(())
        }
        72..80 => {
            world.heal();
            Ok(())
        }
        80..86 => {
            let ends = world.ends();
            if !ends.is_empty() {
                let at = pick(world, ends.len());
                world.reset_link(ends[at]);
            }
            Ok(())
        }
        86..94 => {
            world.kill(host);
            Ok(())
        }
        _ => {
            let dead: Vec<usize> = (0..world.hosts.len())
                .filter(|i| world.hosts[*i].node.is_none() && !world.hosts[*i].is_lost)
                .collect();
            match dead.as_slice() {
                [] => Ok(()),
                some => {
                    let at = pick(world, some.len());
                    world.start_host(some[at])
                }
            }
        }
    }
}

/// Cuts the hosts into two halves that do not hear each other.
fn split(world: &mut World) {
    let sides: Vec<bool> = (0..world.hosts.len()).map(|_| world.rng.next_u32() % 2 == 0).collect();
    for a in 0..sides.len() {
        for b in 0..sides.len() {
            if sides[a] != sides[b] {
                world.block(a, b);
            }
        }
    }
}

fn allocate(world: &mut World, host: usize) -> Result<(), Failure> {
    if world.hosts[host].node.is_none() {
        return Ok(());
    }
    let number = world.rng.next_u32() % 1_000_000;
    let Ok(container) = format!("c{host}-{number}").parse::<ContainerId>() else { return Ok(()) };
    let wait = Duration::from_secs(1 + u64::from(world.rng.next_u32() % 30));
    let state = &mut world.hosts[host];
    let life = state.life;
    let request = state.fresh_request();
    state.asked.insert(request, Ask::Allocate(container.clone()));
    world.with_node(host, life, |node, now| node.allocate(request, container, None, now + wait, now))
}

/// A container got its addresses: it is attached and named, and lives on whatever becomes of the router.
pub(crate) fn container_started(
    world: &mut World,
    host: usize,
    id: ContainerId,
    addresses: Vec<Interface>,
) -> Result<(), Failure> {
    let number = world.rng.next_u32();
    let [a, b, c, d] = number.to_be_bytes();
    let mac = Mac::local_unicast([2, host as u8, a, b, c, d]);
    let name = format!("app{}", number % 50);
    let state = &mut world.hosts[host];
    let container = Container { mac, addresses, name: Some(name.clone()) };
    state.containers.insert(id.clone(), container.clone());
    let Some(node) = state.node.as_mut() else { return Ok(()) };
    let now = world.now;
    let ips: Vec<_> = container.addresses.iter().map(|interface| interface.address()).collect();
    node.attach(mac, &weave_node::Attachment { container: id.clone(), addresses: ips.clone() }, now);
    for ip in ips {
        if let Err(error) = node.add_name(&id, &name, ip, now) {
            return Err(Failure::Refused { host, why: error.to_string() });
        }
    }
    Ok(())
}

fn release(world: &mut World, host: usize) -> Result<(), Failure> {
    let ids: Vec<ContainerId> = world.hosts[host].containers.keys().cloned().collect();
    if ids.is_empty() || world.hosts[host].node.is_none() {
        return Ok(());
    }
    let id = ids[pick(world, ids.len())].clone();
    let Some(container) = world.hosts[host].containers.remove(&id) else { return Ok(()) };
    // The container is gone from here on; when its address is free is the ring's to say.
    world.oracle.released(host, &id);
    let state = &mut world.hosts[host];
    let life = state.life;
    let request = state.fresh_request();
    state.asked.insert(request, Ask::Free(id.clone()));
    world.with_node(host, life, |node, now| {
        node.remove_names(&RemoveFilter { container: Some(id.clone()), ..RemoveFilter::default() }, now);
        node.detach(container.mac, now);
        node.free(request, &id, now);
    })
}

/// Heals the network, brings back every host that is not gone for good, and stops losing messages.
fn clear_up(world: &mut World) -> Result<(), Failure> {
    world.heal();
    world.weather.loss_per_mille = 0;
    for host in 0..world.hosts.len() {
        if world.hosts[host].node.is_none() && !world.hosts[host].is_lost {
            world.start_host(host)?;
        }
    }
    Ok(())
}
