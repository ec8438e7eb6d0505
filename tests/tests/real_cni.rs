//! Container runtimes that call CNI plugins by themselves: podman, containerd's CRI. Selected by `cargo xtask test --real`.

use anyhow::{Result, ensure};
use weave_api::{ListRequest, PsRequest};
use weave_tests::{
    clock::{Look, wait_until},
    cni::{Plugins, play},
    cni_clients::{Containerd, Podman, fetch, root_file_system},
    lab::Host,
    product::Router,
    scene::{LIMIT, attach, await_mesh, finish, hosts, lab, routers},
};

/// Who has addresses on this host, besides itself.
fn owners(router: &Router<'_>) -> Result<Vec<String>> {
    let held = router.call(&ListRequest {})?.addresses_by_owner.into_keys();
    let attached = router.call(&PsRequest::default())?.containers.into_iter().map(|c| c.id);
    let mut all: Vec<String> = held.chain(attached).map(|id| id.to_string()).collect();
    all.retain(|owner| owner != "weave:expose");
    all.sort();
    all.dedup();
    Ok(all)
}

fn await_nobody(router: &Router<'_>) -> Result<()> {
    let waited = wait_until("every address to be free", LIMIT, || {
        let owners = owners(router)?;
        Ok(Look::when(owners.is_empty(), || format!("{owners:?}")))
    });
    waited.map(drop)
}

#[test]
#[ignore = "needs podman, crun, busybox-static and the reference plugins: run with cargo xtask test --real"]
fn podman_runs_containers_on_two_hosts_by_our_plugin() -> Result<()> {
    play("podman_runs_containers_on_two_hosts_by_our_plugin", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let plugins = Plugins::install(&lab, programs)?;
        let root = root_file_system(&lab, "root")?;
        for host in &hosts {
            host.run("sysctl -qw net.ipv4.ip_forward=1")?;
        }
        let (one, two) =
            (Podman::new(&lab, &routers[0], &plugins)?, Podman::new(&lab, &routers[1], &plugins)?);
        let first = one.start("first", "", &root, "sleep 600")?;
        let second = two.start("second", "--publish=8080:80", &root, "httpd -f -h /www -p 80")?;
        one.tell(&format!("exec first ping -c 3 -W 5 {second}"))?;
        two.tell(&format!("exec second ping -c 3 -W 5 {first}"))?;
        let page = one.fetch("first", &second, 80)?;
        ensure!(page == "served by weave", "{page}");
        // The host's port leads there: from another host, and for the container itself.
        let host = hosts[1].address()?.to_string();
        for fetched in [fetch(hosts[0].command("env"), &host, 8080)?, two.fetch("second", &host, 8080)?] {
            ensure!(fetched == "served by weave", "{fetched}");
        }
        // A wish for an address, and who is refused gets no container.
        let third =
            two.start("third", "--ip=10.32.0.200 --mac-address=02:00:00:00:02:00", &root, "sleep 600")?;
        ensure!(third == "10.32.0.200", "{third}");
        ensure!(two.tell("exec third cat /sys/class/net/eth0/address")? == "02:00:00:00:02:00");
        let refused = two.start("thief", "--ip=10.32.0.200", &root, "sleep 600");
        ensure!(refused.is_err_and(|e| format!("{e:#}").contains("10.32.0.200")), "one address twice");
        ensure!(owners(&routers[1])?.len() == 2, "{:?}", owners(&routers[1])?);
        // A restart gives a new interface and leaves no old one.
        two.tell("restart --time=0 second")?;
        ensure!(owners(&routers[1])?.len() == 2, "{:?}", owners(&routers[1])?);
        one.tell("rm --force --time=0 first")?;
        two.tell("rm --force --time=0 second third thief")?;
        for router in &routers {
            await_nobody(router)?;
            let links = router.host().run("ip -o link show")?;
            ensure!(!links.contains("vethwe"), "{links}");
        }
        finish(routers)
    })
}

#[test]
#[ignore = "needs containerd, runc, busybox-static and the reference plugins: run with cargo xtask test --real"]
fn containerd_runs_a_container_by_our_plugin_and_everything_is_freed() -> Result<()> {
    play("containerd_runs_a_container_by_our_plugin_and_everything_is_freed", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let far = attach(&routers[1], "c1", "")?;
        let plugins = Plugins::install(&lab, programs)?;
        let root = root_file_system(&lab, "root")?;
        let containerd = Containerd::start(&lab, &routers[0], &plugins)?;
        for id in ["first", "second"] {
            let said = containerd.run(id, &root, &format!("/bin/ping -c 3 -W 5 {}", far.address()))?;
            // The very first may be sent before the other host knows who has come.
            ensure!(said.contains("seq=2"), "{said}");
            await_nobody(&routers[0])?;
        }
        let links = hosts[0].run("ip -o link show")?;
        ensure!(!links.contains("vethwe"), "{links}");
        drop(containerd);
        finish(routers)
    })
}
