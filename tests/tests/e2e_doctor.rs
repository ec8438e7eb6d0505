//! `weave doctor`: each fault that is made on a host is found and named, with what to do about it.

use anyhow::{Context as _, Result, ensure};
use weave_api::{Diagnosis, Finding, Overlay};
use weave_tests::{
    clock::{Look, wait_until},
    faults::{Fault, programs_with},
    lab::Host,
    product::{Router, Settings},
    scene::{LIMIT, attach_each, await_all_pings, await_mesh, finish, hosts, lab, play, settings, start_all},
    tool,
};

/// Settings without a password: the kernel may carry everything.
fn open(routers: usize, peers: &[&Host], flags: &[&str]) -> Settings {
    Settings { password: None, ..settings(routers, peers, flags) }
}

fn store_of(router: &Router<'_>) -> String {
    router.run_dir().join("db").display().to_string()
}

/// What `weave doctor -o json` finds, and how it ends.
fn doctor(router: &Router<'_>) -> Result<(Diagnosis, i32)> {
    let output = tool::output(router.weave().args(["doctor", "-o", "json"]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let diagnosis = serde_json::from_str(&text)
        .with_context(|| format!("{text}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((diagnosis, output.status.code().unwrap_or_default()))
}

fn await_finding(router: &Router<'_>, id: &str) -> Result<Diagnosis> {
    let found = wait_until(&format!("the finding {id} on {}", router.host().name()), LIMIT, || {
        let (diagnosis, code) = doctor(router)?;
        ensure!(code == i32::from(diagnosis.exit().code()), "it ends with {code}: {diagnosis:?}");
        let is_found = diagnosis.findings.iter().any(|finding| finding.id == id);
        Ok(if is_found { Look::Found(diagnosis) } else { Look::NotYet(format!("{diagnosis:?}")) })
    });
    found.map(|(diagnosis, _)| diagnosis)
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn the_doctor_names_a_blocked_port_an_overlap_and_an_mtu_that_does_not_fit() -> Result<()> {
    play("the_doctor_names_a_blocked_port_an_overlap_and_an_mtu_that_does_not_fit", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        for line in [
            "nft add table inet lab",
            "nft add chain inet lab in { type filter hook input priority -300 ; }",
            "nft add rule inet lab in udp dport 6784 drop",
        ] {
            hosts[1].run(line)?;
        }
        hosts[0].run("ip route add 10.77.4.0/24 via 172.31.1.250")?;
        let routers = start_all(programs, &hosts, |host| {
            let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
            open(2, peers, &["--ipalloc-range=10.77.0.0/16", "--mtu=1500"])
        })?;
        await_mesh(&routers, 1)?;
        let diagnosis = await_finding(&routers[0], "fastdp.path")?;
        for id in ["route.overlap", "mtu.fixed"] {
            let finding = diagnosis.findings.iter().find(|finding| finding.id == id);
            let finding = finding.with_context(|| format!("no {id} in {diagnosis:?}"))?;
            ensure!(!finding.remedy.is_empty(), "{finding:?}");
        }
        let (other, _) = doctor(&routers[1])?;
        ensure!(other.findings.iter().all(|finding| finding.id != "route.overlap"), "{other:?}");
        // Without a router the host's part is left.
        let store = store_of(&routers[0]);
        let run_dir = routers[0].run_dir().to_owned();
        finish(routers)?;
        let mut command = hosts[0].command(programs.weave());
        command.arg("--run-dir").arg(&run_dir).args(["doctor", "-o", "json", "--db-prefix", &store]);
        let output = tool::output(&mut command)?;
        let alone: Diagnosis = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        ensure!(alone.checks.iter().any(|id| id == "kernel.tun"), "{alone:?}");
        ensure!(alone.checks.iter().all(|id| id != "fastdp.path"), "{alone:?}");
        Ok(())
    })
}

fn finding<'d>(diagnosis: &'d Diagnosis, id: &str) -> Result<&'d Finding> {
    let found = diagnosis.findings.iter().find(|finding| finding.id == id);
    found.with_context(|| format!("no {id} in {diagnosis:?}"))
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn the_doctor_names_a_clock_that_differs_a_kernel_without_vxlan_and_a_path_that_is_too_small() -> Result<()> {
    play(
        "the_doctor_names_a_clock_that_differs_a_kernel_without_vxlan_and_a_path_that_is_too_small",
        |programs| {
            let mut lab = lab()?;
            let hosts: [Host; 3] = hosts(&mut lab)?;
            hosts[2].run("ip link set dev eth1 mtu 1400")?;
            let late = programs_with(programs, &[Fault::Clock(3600)])?;
            let old = programs_with(programs, &[Fault::NoVxlan])?;
            let mut routers = Vec::new();
            for (host, programs) in hosts.iter().zip([programs, &late, &old]) {
                let peers: &[&Host] = if host.number() == 1 { &[] } else { &[&hosts[0]] };
                routers.push(Router::start(programs, host, &open(3, peers, &[]))?);
            }
            routers.iter_mut().try_for_each(Router::await_ready)?;
            await_mesh(&routers, 3)?;
            // None of it keeps the network from working.
            let attached = attach_each(&routers)?;
            await_all_pings(&lab, &attached)?;

            let diagnosis = await_finding(&routers[0], "clock.skew")?;
            let clock = finding(&diagnosis, "clock.skew")?;
            ensure!(
                clock.what.contains("(h2) is 3") && clock.what.contains("s ahead of this host's"),
                "{clock:?}"
            );
            ensure!(
                diagnosis.findings.iter().filter(|finding| finding.id == "clock.skew").count() == 1,
                "{diagnosis:?}"
            );
            let diagnosis = await_finding(&routers[0], "mtu.path")?;
            ensure!(finding(&diagnosis, "mtu.path")?.what.contains("(h3)"), "{diagnosis:?}");
            ensure!(diagnosis.findings.iter().all(|finding| finding.id != "kernel.vxlan"), "{diagnosis:?}");

            // Seen from where the clock is wrong, everybody else is behind; two against one.
            let diagnosis = await_finding(&routers[1], "clock.skew")?;
            let clock = finding(&diagnosis, "clock.skew")?;
            ensure!(
                clock.what.starts_with("this host's clock is 3") && clock.what.contains("2 out of 2"),
                "{clock:?}"
            );

            let diagnosis = await_finding(&routers[2], "kernel.vxlan")?;
            ensure!(finding(&diagnosis, "kernel.vxlan")?.remedy.contains("modprobe vxlan"), "{diagnosis:?}");
            ensure!(diagnosis.findings.iter().all(|finding| finding.id != "fastdp.path"), "{diagnosis:?}");
            // Its neighbours know that it is no firewall.
            let diagnosis = await_finding(&routers[0], "fastdp.path")?;
            let slow = finding(&diagnosis, "fastdp.path")?;
            ensure!(
                slow.what.contains("(h3)") && slow.what.contains("the other host's kernel has no VXLAN"),
                "{slow:?}"
            );
            ensure!(slow.remedy.contains("modprobe vxlan"), "{slow:?}");
            let report = routers[2].report()?;
            let overlays = report.router.connections.iter().map(|link| link.overlay);
            ensure!(overlays.clone().all(|overlay| overlay == Some(Overlay::Sleeve)), "{report:?}");
            ensure!(report.router.connections.iter().any(|link| link.clock_skew_ms.is_some()), "{report:?}");
            finish(routers)
        },
    )
}
