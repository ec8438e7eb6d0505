//! What kind of day a run is: drawn from the seed, so that the number of hosts and the seed say everything.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use weave_model::Subnet;

/// Whom each host is told of at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Everybody of host 0.
    Star,
    /// Each of the one before it.
    Chain,
    /// Each of two random ones before it.
    Tree,
}

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
    /// Whom the hosts know at first.
    pub shape: Shape,
    /// Links that a host wants at most; 0 for a full mesh.
    pub conn_limit: usize,
    /// What addresses are taken from.
    pub ranges: Vec<Subnet>,
    /// Whether a restarted process knows that its store is the latest (see `weave_ipam::StoreMark`).
    pub with_marks: bool,
    /// How many sites the hosts are at; between sites messages take longer.
    pub sites: u32,
    /// Changes of one fact each whose spreading is timed; on calm days only.
    pub changes: usize,
    /// Is told what happens, if anybody wants to know.
    pub trace: Option<fn(&str)>,
}

/// Calm meshes beyond so many hosts are not full: the simulator would hold half a million links for a thousand.
const FULL_MESH: usize = 100;
/// Links of each host there.
const FEW_LINKS: usize = 20;

impl Plan {
    /// A bad day for `peers` hosts.
    #[must_use]
    pub fn bad_day(peers: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0070_6c61_6e00);
        let mut below = |n: u32| rng.next_u32() % n;
        let shape = [Shape::Star, Shape::Star, Shape::Chain, Shape::Tree][below(4) as usize];
        let is_partial = peers >= 6 && below(6) == 0;
        let conn_limit = if is_partial { 3 + below(3) as usize } else { 0 };
        let ranges = match below(20) {
            0..8 => "10.32.0.0/20",
            8..14 => "10.32.0.0/24",
            14..17 => "10.32.0.0/26",
            17 => "fd00:32::/112",
            _ => "10.32.0.0/24 fd00:32::/120",
        };
        Self {
            peers,
            seed,
            steps: if peers <= 12 { 60 } else { 40 },
            with_faults: true,
            quiet: Duration::from_secs(900),
            shape: if is_partial { Shape::Tree } else { shape },
            conn_limit,
            ranges: ranges.split(' ').filter_map(|range| range.parse().ok()).collect(),
            with_marks: below(2) == 0,
            sites: 1 + below(3),
            changes: 0,
            trace: None,
        }
    }

    /// A day on which the hosts only work, and are measured.
    #[must_use]
    pub fn calm(peers: usize, seed: u64) -> Self {
        let mut plan = Self { with_faults: false, sites: 1, changes: 50, ..Self::bad_day(peers, seed) };
        if peers > FULL_MESH {
            plan.limit_links(FEW_LINKS);
        }
        plan
    }

    /// Has the hosts make do with about so many links each; 0 for a full mesh.
    pub fn limit_links(&mut self, conn_limit: usize) {
        self.conn_limit = conn_limit;
        // With few links everybody cannot hang on one host.
        if conn_limit > 0 {
            self.shape = Shape::Tree;
        }
    }

    /// Whom a host is told of.
    pub(crate) fn targets_of(&self, host: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
        match (host, self.shape) {
            (0, _) => Vec::new(),
            (_, Shape::Star) => vec![0],
            (_, Shape::Chain) => vec![host - 1],
            (_, Shape::Tree) => {
                let mut targets: Vec<usize> = (0..2).map(|_| rng.next_u32() as usize % host).collect();
                targets.dedup();
                targets
            }
        }
    }
}
