//! CNI plugins with real routers: every command and version, wrong questions, absent routers, many at once.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use weave_api::ListRequest;
use weave_tests::{
    cni::{self, Plugins, Pod, Scene, address, answer, await_state, config, play, play_alone, state},
    lab::{Container, Host},
    scene::{self, attach, await_mesh, await_ping, finish, hosts, lab, routers},
};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Checks a result against what the kernel has.
fn is_true(result: &Value, pod: &Pod<'_>, container: &Container) -> Result<()> {
    let interfaces = result["interfaces"].as_array().context("no interfaces")?;
    ensure!(interfaces.len() == 3 && interfaces[0]["name"] == "weave", "{result}");
    ensure!(interfaces[2]["name"] == "eth0" && interfaces[2]["sandbox"] == pod.netns.as_str(), "{result}");
    for (interface, place) in [(0, pod.host), (1, pod.host), (2, container)] {
        let name = interfaces[interface]["name"].as_str().unwrap_or_default();
        let shown = place.run(&format!("ip -o link show dev {name}"))?;
        let mac = interfaces[interface]["mac"].as_str().context("no Ethernet address")?;
        ensure!(shown.contains(mac), "{name} is said to have {mac}: {shown}");
    }
    let shown = container.run("ip -o addr show dev eth0")?;
    for ip in result["ips"].as_array().context("no addresses")? {
        ensure!(ip["interface"] == 2, "{ip}");
        ensure!(shown.contains(ip["address"].as_str().unwrap_or_default()), "{ip} is not there: {shown}");
    }
    let routes = container.run("ip route show")? + &container.run("ip -6 route show")?;
    for route in result["routes"].as_array().into_iter().flatten() {
        let (dst, gw) = (route["dst"].as_str().unwrap_or_default(), route["gw"].as_str().unwrap_or_default());
        let line = format!("{} via {gw} dev eth0", if dst.ends_with("/0") { "default" } else { dst });
        ensure!(routes.contains(&line), "no `{line}` among {routes}");
    }
    Ok(())
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn pods_reach_each_other_and_the_outside_and_leave_no_trace() -> Result<()> {
    play("pods_reach_each_other_and_the_outside_and_leave_no_trace", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        let routers = routers(programs, &hosts, &[])?;
        await_mesh(&routers, 1)?;
        let plugins = Plugins::install(&lab, programs)?;
        let before = [state(&routers[0])?, state(&routers[1])?];
        let mut made = Vec::new();
        for (router, name) in [(&routers[0], "p1"), (&routers[0], "p2"), (&routers[1], "p1")] {
            let container = router.host().add_container(name)?;
            let pod = Pod::of(router.host(), &container);
            let config = config(router, "1.0.0", &json!({}));
            let result = plugins.must("ADD", &pod, &config)?;
            is_true(&result, &pod, &container)?;
            // What was asked twice is answered alike.
            ensure!(plugins.must("ADD", &pod, &config)? == result, "the second ADD gave something else");
            made.push((router, container, config, result));
        }
        for (_, from, ..) in &made {
            for (.., result) in &made {
                await_ping(&lab, from, address(result)?)?;
            }
        }
        // By the gateway to the host's own underlay address: outside of the network.
        hosts[0].run("sysctl -qw net.ipv4.ip_forward=1")?;
        await_ping(&lab, &made[0].1, hosts[0].address()?.into())?;
        await_ping(&lab, &made[0].1, hosts[1].address()?.into())?;
        for (number, (router, container, config, result)) in made.into_iter().enumerate() {
            let mut pod = Pod::of(router.host(), &container);
            let mut config = config;
            config["prevResult"] = result;
            match number {
                0 => {}
                // The namespace has gone, and the runtime knows.
                1 => {
                    router.host().run(&format!("ip netns del {}", container.short_name()))?;
                    drop(container);
                    pod.netns = String::new();
                }
                _ => pod.netns = "/run/netns/none".to_owned(),
            }
            for _ in 0..2 {
                ensure!(plugins.must("DEL", &pod, &config)? == Value::Null, "DEL answered something");
            }
        }
        await_state(&routers[0], &before[0])?;
        await_state(&routers[1], &before[1])?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn every_version_is_spoken_as_it_is_written() -> Result<()> {
    play_alone(
        "every_version_is_spoken_as_it_is_written",
        &["--ipalloc-range=10.40.0.0/16,fd00:7ea::/64"],
        |scene| {
            let Scene { plugins, router, .. } = scene;
            let host = router.host();
            let before = state(router)?;
            for (number, version) in VERSIONS.into_iter().enumerate() {
                let container = host.add_container(&format!("v{number}"))?;
                let pod = Pod::of(host, &container);
                let mut config = config(router, version, &json!({ "dns": { "nameservers": ["10.40.0.1"] } }));
                let told = plugins.ask_alone("VERSION", host, &config)?.map_err(|e| anyhow!("{}", e.0))?;
                ensure!(
                    told["supportedVersions"] == json!(VERSIONS) && told["cniVersion"] == version,
                    "{told}"
                );
                let result = plugins.must("ADD", &pod, &config)?;
                is_true(&result, &pod, &container)?;
                ensure!(
                    result["cniVersion"] == version && result["dns"]["nameservers"][0] == "10.40.0.1",
                    "{result}"
                );
                let ips = result["ips"].as_array().context("no addresses")?;
                ensure!(ips.len() == 2, "not both families: {result}");
                let families: Vec<&Value> = ips.iter().map(|ip| &ip["version"]).collect();
                let has_families = version < "1.0.0";
                let is_told =
                    if has_families { families == ["4", "6"] } else { families.iter().all(|f| f.is_null()) };
                ensure!(is_told, "{result}");
                ensure!(result["interfaces"][2]["mtu"].is_u64() == (version == "1.1.0"), "{result}");
                config["prevResult"] = result;
                match plugins.ask("CHECK", &pod, &config)? {
                    Ok(answer) => ensure!(version >= "0.4.0" && answer.is_null(), "{version}: {answer}"),
                    Err(refused) => {
                        ensure!(version < "0.4.0" && refused.code() == 1, "{version}: {}", refused.0)
                    }
                }
                config["cni.dev/valid-attachments"] = json!([{ "containerID": pod.id, "ifname": "eth0" }]);
                for verb in ["GC", "STATUS"] {
                    match plugins.ask_alone(verb, host, &config)? {
                        Ok(answer) => ensure!(version == "1.1.0" && answer.is_null(), "{version}: {answer}"),
                        Err(refused) => ensure!(version < "1.1.0" && refused.code() == 1, "{}", refused.0),
                    }
                }
                plugins.must("DEL", &pod, &config)?;
            }
            await_state(router, &before)?;
            Ok(())
        },
    )
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn what_cannot_be_is_refused_by_number_and_leaves_nothing() -> Result<()> {
    play_alone("what_cannot_be_is_refused_by_number_and_leaves_nothing", &[], |scene| {
        let Scene { plugins, router, .. } = scene;
        let host = router.host();
        let taken = attach(router, "c1", "")?;
        let container = host.add_container("p1")?;
        // The host is given its address now, so that nothing of what follows does it.
        router.tell("expose")?;
        let before = state(router)?;
        let pod = |netns: &str, arguments: &str| Pod {
            netns: netns.to_owned(),
            ..Pod::of(host, &container).with(arguments)
        };
        let netns = container.netns().display().to_string();
        let here = format!("/proc/{}/ns/net", host.pid());
        let thief = format!("IP={}", taken.address());
        let outside = json!({ "ipam": { "routes": [{ "dst": "10.0.0.0/8", "gw": "192.0.2.1" }] } });
        let cases: [(&str, &str, Value, u64, &str); 17] = [
            ("", "", json!({}), 4, "CNI_NETNS"),
            ("p1", "", json!({}), 4, "absolute"),
            ("/run/netns/none", "", json!({}), 3, "/run/netns/none"),
            (&here, "", json!({}), 100, "host's own"),
            (&netns, "IP", json!({}), 4, "KEY=VALUE"),
            (&netns, "IP=10.32.0.256", json!({}), 7, "10.32.0.256"),
            (&netns, "MAC=01:00:5e:00:00:01", json!({}), 7, "01:00:5e"),
            (&netns, "IP=192.0.2.7", json!({}), 7, "192.0.2.7"),
            (&netns, &thief, json!({}), 102, "h1-c1"),
            (&netns, "", json!({ "bridge": "br0" }), 7, "br0"),
            (&netns, "", json!({ "mtu": 20 }), 7, "68"),
            (&netns, "", json!({ "isGateway": true }), 2, "isGateway"),
            (&netns, "", json!({ "ipam": { "subnet": "10.99.0.0/24" } }), 7, "10.99.0.0/24"),
            (&netns, "", json!({ "ipam": { "type": "no-such-plugin" } }), 7, "no-such-plugin"),
            (&netns, "", outside, 100, "10.0.0.0/8"),
            (&netns, "", json!({ "prevResult": { "ips": [] } }), 7, "first"),
            (&netns, "", json!({ "cniVersion": "0.2.0" }), 1, "0.2.0"),
        ];
        for (netns, arguments, extra, code, word) in cases {
            let refused = plugins.refused("ADD", &pod(netns, arguments), &config(router, "1.0.0", &extra))?;
            ensure!(refused.code() == code && refused.text().contains(word), "{word}: {}", refused.0);
            await_state(router, &before)?;
            let links = container.run("ip -o link show")?;
            ensure!(links.lines().count() == 1, "left in the container: {links}");
        }
        for (variable, value) in [("CNI_IFNAME", "a/b"), ("CNI_CONTAINERID", "../x"), ("CNI_COMMAND", "MAKE")]
        {
            let config = config(router, "1.0.0", &json!({}));
            let mut command = plugins.command(host, &config)?;
            command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", "c").env("CNI_IFNAME", "eth0");
            command.env("CNI_NETNS", &netns).env(variable, value);
            let refused = answer(command, &config)?.err().context("granted")?;
            ensure!(refused.code() == 4 && refused.text().contains(variable), "{}", refused.0);
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn check_sees_what_was_tampered_with() -> Result<()> {
    play_alone("check_sees_what_was_tampered_with", &[], |scene| {
        let Scene { plugins, router, .. } = scene;
        let host = router.host();
        let container = host.add_container("p1")?;
        let pod = Pod::of(host, &container);
        let mut config = config(router, "1.1.0", &json!({}));
        let missing = plugins.refused("CHECK", &pod, &config)?;
        ensure!(missing.code() == 7 && missing.text().contains("prevResult"), "{}", missing.0);
        let result = plugins.must("ADD", &pod, &config)?;
        config["prevResult"] = result.clone();
        plugins.must("CHECK", &pod, &config)?;
        let ip = result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
        let gateway = result["routes"][0]["gw"].as_str().unwrap_or_default().to_owned();
        let peer = result["interfaces"][1]["name"].as_str().unwrap_or_default().to_owned();
        let inside = |line: &str| container.run(line);
        let outside = |line: &str| host.run(line);
        type Run<'a> = &'a dyn Fn(&str) -> Result<String>;
        let default = format!("ip route add default via {gateway}");
        let tampering: [(Run<'_>, String, String, &str); 5] = [
            (&inside, "ip route del default".to_owned(), default.clone(), "route"),
            (
                &outside,
                format!("ip link set {peer} nomaster"),
                format!("ip link set {peer} master weave"),
                "bridge",
            ),
            (
                &outside,
                format!("bridge link set dev {peer} hairpin off"),
                format!("bridge link set dev {peer} hairpin on"),
                "hairpin",
            ),
            (&outside, format!("ip link set {peer} down"), format!("ip link set {peer} up"), "down"),
            (&inside, format!("ip addr del {ip} dev eth0"), format!("ip addr add {ip} dev eth0"), "address"),
        ];
        for (run, break_it, mend, word) in tampering {
            run(&break_it)?;
            let refused = plugins.refused("CHECK", &pod, &config)?;
            ensure!(refused.code() == 103 && refused.text().contains(word), "{break_it}: {}", refused.0);
            run(&mend)?;
            if word == "bridge" {
                outside(&format!("bridge link set dev {peer} hairpin on"))?;
            }
        }
        inside(&default)?;
        plugins.must("CHECK", &pod, &config)?;
        inside("ip link del eth0")?;
        let refused = plugins.refused("CHECK", &pod, &config)?;
        ensure!(refused.code() == 103 && refused.text().contains("no interface"), "{}", refused.0);
        plugins.must("DEL", &pod, &config)?;
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn garbage_is_what_this_network_has_and_nobody_lists() -> Result<()> {
    play_alone("garbage_is_what_this_network_has_and_nobody_lists", &[], |scene| {
        let Scene { plugins, router, .. } = scene;
        let host = router.host();
        let plain = attach(router, "c1", "")?;
        let containers: Vec<Container> =
            (1..=4).map(|n| host.add_container(&format!("p{n}"))).collect::<Result<_>>()?;
        let pods: Vec<Pod<'_>> = containers.iter().map(|container| Pod::of(host, container)).collect();
        let mut ours = config(router, "1.1.0", &json!({}));
        let other = config(router, "1.1.0", &json!({ "name": "other" }));
        for pod in &pods[..3] {
            plugins.must("ADD", pod, &ours)?;
        }
        plugins.must("ADD", &pods[3], &other)?;
        // An address without an interface, as weave-ipam leaves it.
        let mut only = ours.clone();
        only["type"] = json!("weave-ipam");
        only["ipam"] = json!({ "type": "weave-ipam" });
        let lost = Pod { id: "lost".to_owned(), ..Pod::of(host, &containers[0]) };
        plugins.must("ADD", &lost, &only)?;
        let blind = plugins.ask_alone("GC", host, &ours)?.err().context("garbage without a list")?;
        ensure!(blind.code() == 7, "{}", blind.0);
        ours["cni.dev/valid-attachments"] = json!([{ "containerID": pods[1].id, "ifname": "eth0" }]);
        for _ in 0..2 {
            plugins.ask_alone("GC", host, &ours)?.map_err(|e| anyhow!("{}", e.0))?;
        }
        let held = router.call(&ListRequest {})?.addresses_by_owner;
        let owners: Vec<&str> = held.keys().map(|id| id.as_str()).collect();
        let kept = [
            plain.id.clone(),
            format!("{}:eth0@weave", pods[1].id),
            format!("{}:eth0@other", pods[3].id),
            "weave:expose".to_owned(),
        ];
        ensure!(owners == kept, "{owners:?}");
        for (container, is_there) in containers.iter().zip([false, true, false, true]) {
            let links = container.run("ip -o link show")?;
            ensure!(links.contains("eth0") == is_there, "{}: {links}", container.name());
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn wishes_of_container_and_network_are_fulfilled() -> Result<()> {
    play_alone("wishes_of_container_and_network_are_fulfilled", &[], |scene| {
        let Scene { plugins, router, .. } = scene;
        let host = router.host();
        let add = |name: &str, arguments: &str, extra: Value| -> Result<(Value, Container)> {
            let container = host.add_container(name)?;
            let pod = Pod::of(host, &container).with(arguments);
            let result = plugins.must("ADD", &pod, &config(router, "1.1.0", &extra))?;
            is_true(&result, &pod, &container)?;
            Ok((result, container))
        };
        let (result, _keep) = add("p1", "IP=10.32.0.77;MAC=02:00:00:00:00:77;K8S_POD_NAME=web", json!({}))?;
        ensure!(result["ips"][0]["address"] == "10.32.0.77/12", "{result}");
        ensure!(result["interfaces"][2]["mac"] == "02:00:00:00:00:77", "{result}");
        let wishes =
            json!({ "runtimeConfig": { "ips": ["10.33.0.9/16"], "mac": "02:00:00:00:00:78" }, "mtu": 1300 });
        let (result, container) = add("p2", "", wishes)?;
        ensure!(
            result["ips"][0]["address"] == "10.33.0.9/16" && result["interfaces"][2]["mtu"] == 1300,
            "{result}"
        );
        ensure!(container.run("ip link show dev eth0")?.contains("mtu 1300"));
        let (result, container) =
            add("p3", "", json!({ "ipam": { "subnet": "10.34.0.0/16", "routes": [] } }))?;
        ensure!(address(&result)?.to_string().starts_with("10.34."), "{result}");
        ensure!(!container.run("ip route show")?.contains("default"), "a default route that nobody wanted");
        let gateway = json!({ "ipam": { "gateway": "10.32.0.77", "routes": [{ "dst": "203.0.113.0/24" }] } });
        let (result, _keep) = add("p4", "", gateway)?;
        ensure!(result["routes"] == json!([{ "dst": "203.0.113.0/24", "gw": "10.32.0.77" }]), "{result}");
        ensure!(result["ips"][0]["gateway"] == "10.32.0.77", "{result}");
        // The host can be told not to send frames back.
        let (result, _keep) = add("p5", "", json!({ "hairpinMode": false }))?;
        let port = result["interfaces"][1]["name"].as_str().unwrap_or_default();
        ensure!(host.run(&format!("bridge -d link show dev {port}"))?.contains("hairpin off"));
        let shown = host.run("bridge -d link show")?;
        ensure!(shown.matches("hairpin on").count() == 4, "{shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn without_a_router_or_a_ring_the_answer_says_what_is_missing() -> Result<()> {
    play("without_a_router_or_a_ring_the_answer_says_what_is_missing", |programs| {
        let mut lab = lab()?;
        let hosts: [Host; 2] = hosts(&mut lab)?;
        // Two routers are to agree, and the other never comes.
        let lonely = scene::start_all(programs, &hosts[..1], |_| scene::settings(2, &[], &[]))?;
        let plugins = Plugins::install(&lab, programs)?;
        let host = &hosts[0];
        let container = host.add_container("p1")?;
        let pod = Pod::of(host, &container);
        let lonely_config = config(&lonely[0], "1.1.0", &json!({ "waitSeconds": 1 }));
        let before = state(&lonely[0])?;
        let late = plugins.refused("ADD", &pod, &lonely_config)?;
        ensure!(late.code() == 11 && late.text().contains("consensus"), "{}", late.0);
        let status = plugins
            .ask_alone("STATUS", host, &lonely_config)?
            .err()
            .context("STATUS says that all is well")?;
        ensure!(status.code() == 50 && status.text().contains("consensus"), "{}", status.0);
        await_state(&lonely[0], &before)?;
        finish(lonely)?;

        let mut routers = routers(programs, &hosts[1..], &[])?;
        let host = &hosts[1];
        let container = host.add_container("p1")?;
        let pod = Pod::of(host, &container);
        let config = config(&routers[0], "1.1.0", &json!({ "waitSeconds": 1 }));
        let before = state(&routers[0])?;
        plugins.must("ADD", &pod, &config)?;
        routers[0].kill()?;
        let away =
            plugins.refused("ADD", &Pod { id: "other".to_owned(), ..Pod::of(host, &container) }, &config)?;
        ensure!(away.code() == 11 && away.text().contains("no weaver"), "{}", away.0);
        let status =
            plugins.ask_alone("STATUS", host, &config)?.err().context("STATUS says that all is well")?;
        ensure!(status.code() == 50, "{}", status.0);
        let refused = plugins.refused("GC", &pod, &{
            let mut gc = config.clone();
            gc["cni.dev/valid-attachments"] = json!([]);
            gc
        })?;
        ensure!(refused.code() == 11, "{}", refused.0);
        // DEL succeeds; the namespace goes, and the next life of the router frees the address.
        plugins.must("DEL", &pod, &config)?;
        host.run("ip netns del p1")?;
        drop(container);
        routers[0].restart()?;
        routers[0].await_ready()?;
        await_state(&routers[0], &before)?;
        finish(routers)
    })
}

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn addresses_may_come_from_another_plugin_and_ours_may_serve_others() -> Result<()> {
    play_alone("addresses_may_come_from_another_plugin_and_ours_may_serve_others", &[], |scene| {
        let Scene { plugins, router, .. } = scene;
        let host = router.host();
        // A plugin that writes down what it is asked.
        let script = r#"#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND $CNI_CONTAINERID" >> /run/weave-lab/asked
[ "$CNI_COMMAND" = ADD ] || exit 0
case $CNI_CONTAINERID in
    refused*) echo '{"code": 117, "msg": "not today"}'; exit 1;;
    dead-end*) gw=192.0.2.1;;
    *) gw=198.18.0.1;;
esac
echo '{"cniVersion": "1.0.0", "ips": [{"address": "198.18.0.7/24", "gateway": "'$gw'"}], "routes": [{"dst": "0.0.0.0/0"}]}'
"#;
        let file = plugins.directory().join("script-ipam");
        fs::write(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        let before = state(router)?;
        let container = host.add_container("p1")?;
        let named = |id: &str| Pod { id: id.to_owned(), ..Pod::of(host, &container) };
        let mut config = config(router, "1.0.0", &json!({ "ipam": { "type": "script-ipam" } }));
        let refused = plugins.refused("ADD", &named("refused"), &config)?;
        ensure!(refused.code() == 117 && refused.text().contains("not today"), "{}", refused.0);
        let refused = plugins.refused("ADD", &named("dead-end"), &config)?;
        ensure!(refused.code() == 100, "{}", refused.0);
        await_state(router, &before)?;
        let result = plugins.must("ADD", &named("good"), &config)?;
        is_true(&result, &named("good"), &container)?;
        ensure!(result["ips"][0]["gateway"] == "198.18.0.1", "{result}");
        config["prevResult"] = result;
        plugins.must("CHECK", &named("good"), &config)?;
        plugins.must("DEL", &named("good"), &config)?;
        await_state(router, &before)?;
        let asked = fs::read_to_string("/run/weave-lab/asked")?;
        let wanted = "ADD refused\nADD dead-end\nDEL dead-end\nADD good\nCHECK good\nDEL good\n";
        ensure!(asked == wanted, "{asked}");

        let mut only =
            json!({ "type": "weave-ipam", "ipam": { "type": "weave-ipam", "gateway": "10.32.0.1" } });
        only = cni::config(router, "1.0.0", &only);
        let result = plugins.must("ADD", &named("served"), &only)?;
        ensure!(result.get("interfaces").is_none() && result["ips"][0]["gateway"] == "10.32.0.1", "{result}");
        let bare = named("fixed").with("IP=10.32.0.99");
        ensure!(plugins.must("ADD", &bare, &only)?["ips"][0]["address"] == "10.32.0.99/12");
        only["prevResult"] = result;
        plugins.must("CHECK", &named("served"), &only)?;
        let other = plugins.refused("CHECK", &named("unserved"), &only)?;
        ensure!(other.code() == 103, "{}", other.0);
        for id in ["served", "served", "fixed"] {
            plugins.must("DEL", &named(id), &only)?;
        }
        await_state(router, &before)?;
        Ok(())
    })
}
