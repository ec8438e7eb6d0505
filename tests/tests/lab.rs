//! The lab itself: what it joins reaches each other, what it cuts does not, and nothing of it remains.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    clock::{Look, wait_until},
    lab::{Host, Lab, Place, in_sandbox},
    rival::Vxlan,
    sandbox,
    traffic::{FloodReport, PingPongReport, PingReport, Server, TcpReport, measure},
};

fn lab() -> Result<Lab> {
    Lab::new(vec![env!("CARGO_BIN_EXE_weave-lab").into()])
}

fn reaches(lab: &Lab, from: &Place, to: impl std::fmt::Display) -> Result<bool> {
    let report: PingReport = measure(lab.generator(), from, &format!("ping {to} --count 2 --timeout 0.5"))?;
    Ok(report.received > 0)
}

fn both_families_reach(lab: &Lab, segment: u8, from: &Host, to: &Host) -> Result<[bool; 2]> {
    let [v4, v6] = to.addresses_in(segment);
    Ok([reaches(lab, from, v4)?, reaches(lab, from, v6)?])
}

#[test]
fn hosts_of_one_segment_reach_each_other_and_hosts_of_two_do_not() -> Result<()> {
    in_sandbox("hosts_of_one_segment_reach_each_other_and_hosts_of_two_do_not", || {
        let mut lab = lab()?;
        let (mut h1, mut h2, mut h3) = (lab.add_host("h1")?, lab.add_host("h2")?, lab.add_host("h3")?);
        let near = lab.join(&mut [&mut h1, &mut h2])?;
        let far = lab.join(&mut [&mut h2, &mut h3])?;
        ensure!(both_families_reach(&lab, near.number(), &h1, &h2)? == [true, true]);
        ensure!(both_families_reach(&lab, far.number(), &h3, &h2)? == [true, true]);
        ensure!(both_families_reach(&lab, far.number(), &h1, &h3)? == [false, false]);
        Ok(())
    })
}

#[test]
fn a_cut_is_silent_and_a_healed_link_carries_again() -> Result<()> {
    in_sandbox("a_cut_is_silent_and_a_healed_link_carries_again", || {
        let mut lab = lab()?;
        let (mut h1, mut h2, mut h3) = (lab.add_host("h1")?, lab.add_host("h2")?, lab.add_host("h3")?);
        let segment = lab.join(&mut [&mut h1, &mut h2, &mut h3])?;
        let number = segment.number();
        segment.cut(&h1, &h2)?;
        ensure!(both_families_reach(&lab, number, &h1, &h2)? == [false, false]);
        ensure!(both_families_reach(&lab, number, &h1, &h3)? == [true, true], "only one pair was cut");
        segment.heal(&h1, &h2)?;
        ensure!(both_families_reach(&lab, number, &h1, &h2)? == [true, true]);
        segment.cut_off(&h3)?;
        ensure!(both_families_reach(&lab, number, &h1, &h3)? == [false, false]);
        segment.reconnect(&h3)?;
        ensure!(both_families_reach(&lab, number, &h1, &h3)? == [true, true]);
        Ok(())
    })
}

#[test]
fn containers_on_a_hand_made_vxlan_exchange_measured_traffic() -> Result<()> {
    in_sandbox("containers_on_a_hand_made_vxlan_exchange_measured_traffic", || {
        let mut lab = lab()?;
        let (mut a, mut b) = (lab.add_host("a")?, lab.add_host("b")?);
        lab.wire(&mut a, &mut b)?;
        let [near, far] = Vxlan::between(&a, &b, 1, 1450)?;
        let server = Server::start(lab.generator(), &far.container, far.address)?;
        let at = server.at();
        let tcp: TcpReport =
            measure(lab.generator(), &near.container, &format!("tcp {at} --streams 2 --seconds 0.3"))?;
        ensure!(tcp.bytes > 1_000_000, "{tcp:?}");
        let trips: PingPongReport =
            measure(lab.generator(), &near.container, &format!("ping-pong {at} --seconds 0.3"))?;
        ensure!(trips.count > 10 && trips.p50_us <= trips.p99_us, "{trips:?}");
        let flood: FloodReport =
            measure(lab.generator(), &near.container, &format!("flood {at} --seconds 0.3 --size 1350"))?;
        ensure!(flood.delivered > 100 && flood.bytes == flood.delivered * 1350, "{flood:?}");
        ensure!(a.counters()?["eth1"].sent > tcp.bytes, "the underlay carried it");
        Ok(())
    })
}

#[test]
fn a_container_has_its_own_network_and_its_own_resolver() -> Result<()> {
    in_sandbox("a_container_has_its_own_network_and_its_own_resolver", || {
        let mut lab = lab()?;
        let host = lab.add_host("h1")?;
        let container = host.add_container("c1")?;
        ensure!(host.run(&format!("ls {}", container.netns().display())).is_ok());
        ensure!(container.run("ip -o link show")?.lines().count() == 1, "only the loopback is there");
        container.use_resolver("10.32.0.1".parse()?, "weave.local.")?;
        ensure!(container.run("cat /etc/resolv.conf")?.contains("nameserver 10.32.0.1"));
        ensure!(!host.run("cat /etc/resolv.conf")?.contains("10.32.0.1"), "the host keeps its own");
        Ok(())
    })
}

#[test]
fn nothing_of_a_lab_remains_when_it_is_killed() -> Result<()> {
    let seconds = format!("86{:07}", std::process::id());
    let is_running = || -> Result<bool> {
        let lines =
            fs::read_dir("/proc")?.filter_map(|p| fs::read_to_string(p.ok()?.path().join("cmdline")).ok());
        Ok(lines.into_iter().any(|line| line == format!("sleep\0{seconds}\0")))
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_weave-lab"));
    let mut outer = Killed(command.args(["hold", &seconds]).stdout(Stdio::piped()).spawn()?);
    let mut said = String::new();
    BufReader::new(outer.0.stdout.take().context("stdout is a pipe")?).read_line(&mut said)?;
    ensure!(said == "ready\n", "the lab said: {said}");
    let limit = Duration::from_secs(5);
    wait_until("the lab's process", limit, || Ok(Look::when(is_running()?, || "not there".to_owned())))?;
    drop(outer);
    wait_until("its end", limit, || Ok(Look::when(!is_running()?, || "still there".to_owned())))?;
    ensure!(!Path::new(sandbox::DIRECTORY).exists(), "the lab's files are in its own tmpfs");
    Ok(())
}

/// A child that does not outlive the test, whichever way that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
