//! Ranges used to the last address.

use std::time::Duration;

use weave_model::{ContainerId, Subnet};

use super::world::{Asked, World};

impl World {
    /// Addresses of a range that a container may have.
    fn capacity(range: Subnet) -> usize {
        (1_usize << (range.net().max_prefix_len() - range.net().prefix_len())) - 2
    }

    fn used(&self, range: Subnet) -> usize {
        let net = range.net();
        let is_host = |a: &std::net::IpAddr| net.contains(a) && *a != net.network() && *a != net.broadcast();
        self.held.keys().filter(|address| is_host(address)).count()
    }

    /// Asks for `count` addresses of the range, by turns here and there, and waits as long as those who ask do.
    fn want(&mut self, at: &[usize], range: Subnet, count: usize, patience: Duration) {
        for index in at.iter().copied().cycle().take(count) {
            self.next_container += 1;
            let owner: ContainerId = format!("full{}", self.next_container).parse().unwrap();
            let request = self.request(index, Asked::Allocate(owner.clone()));
            self.log(|| format!("node {index}: {owner} wants one of {range} as {request:?}"));
            self.with(index, |ipam, now| {
                ipam.allocate(request, owner, Some(range), now + patience, now);
            });
        }
        self.run_until(self.now + patience + Duration::from_secs(1));
    }

    /// Before anything failed, 95 of 100 addresses find a user, however unevenly they were divided.
    pub(crate) fn check_full_use(&mut self) {
        let on: Vec<usize> = (0..self.nodes.len()).filter(|i| self.is_on(*i)).collect();
        let askers = &on[..1 + self.net.rng.below(on.len())];
        let range = self.ranges[0];
        let count = Self::capacity(range) - self.used(range);
        self.want(askers, range, count, Duration::from_secs(60));
        let (used, capacity) = (self.used(range), Self::capacity(range));
        assert!(
            used * 100 >= capacity * 95,
            "seed {}: {used} of {capacity} addresses are used, though nothing has failed",
            self.seed
        );
        // Half of them go again, so that the day has something to give.
        let held: Vec<_> = self.held.values().cloned().collect();
        for (index, owner) in held {
            if self.net.rng.chance(60) {
                self.free(index, &owner);
            }
        }
    }

    /// When all is quiet, whoever asks gets an address while one is free; so the last one finds a user too, and what two
    /// routers believe to be theirs comes to light.
    pub(crate) fn check_free_addresses_are_given(&mut self, on: &[usize]) {
        for range in self.ranges.clone() {
            let free = Self::capacity(range) - self.used(range);
            self.want(on, range, free, Duration::from_secs(90));
            let left = Self::capacity(range) - self.used(range);
            assert_eq!(
                left, 0,
                "seed {}: of {free} free addresses of {range}, {left} are not given",
                self.seed
            );
        }
    }
}
