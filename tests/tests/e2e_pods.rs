//! Pods that CNI starts: isolated before they are connected, and many at once.

use std::{fs, net::IpAddr, thread, time::Duration};

use anyhow::{Result, anyhow, ensure};
use serde_json::json;
use weave_api::NetworkRequest;
use weave_tests::{
    clock,
    cni::{Pod, Scene, address, await_state, config, play_alone, state},
    lab::Container,
    scene::{LIMIT, await_ping},
    tool,
    traffic::{PingReport, measure},
};

/// A namespace whose pods nobody may reach, and a pod of it that has no address yet.
const CLOSED: &str = "
apiVersion: v1
kind: Namespace
metadata: { name: closed }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nobody, namespace: closed }
spec: { podSelector: {}, policyTypes: [Ingress] }
---
apiVersion: v1
kind: Pod
metadata: { name: safe, namespace: closed }
spec: { nodeName: h1, containers: [] }
";

#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn a_pod_is_isolated_before_it_is_connected_or_not_connected() -> Result<()> {
    play_alone("a_pod_is_isolated_before_it_is_connected_or_not_connected", &[], |scene| {
        let Scene { lab, plugins, router, .. } = scene;
        let host = router.host();
        let before = state(router)?;
        let socket = router.run_dir().join("npc.sock");
        let config = config(router, "1.0.0", &json!({ "policySocket": socket }));
        let containers = [host.add_container("safe")?, host.add_container("open")?];
        let arguments = ["K8S_POD_NAMESPACE=closed;K8S_POD_NAME=safe", "IgnoreUnknown=1"];
        let pod = |number: usize| Pod::of(host, &containers[number]).with(arguments[number]);

        let refused = plugins.refused("ADD", &pod(0), &config)?;
        ensure!(refused.code() == 11 && refused.text().contains("weave-npc"), "{}", refused.0);
        await_state(router, &before)?;

        let policies = lab.directory().join("policies");
        fs::create_dir_all(&policies)?;
        fs::write(policies.join("closed.yaml"), CLOSED)?;
        let npc = scene.programs.weaver().with_file_name("weave-npc");
        let mut daemon = host.command(&npc);
        daemon.arg("--policy-dir").arg(&policies).arg("--socket").arg(&socket);
        daemon.args(["--node-name=h1", "--metrics-address=127.0.0.1:0"]);
        let mut daemon = host.spawn(daemon, "weave-npc-of-cni")?;
        // Asked while the daemon may still be reading: the plugin waits for it.
        let safe = address(&plugins.must("ADD", &pod(0), &config)?)?;
        let open = address(&plugins.must("ADD", &pod(1), &config)?)?;
        await_ping(lab, &containers[0], open)?;
        let line = format!("ping {safe} --count 10 --timeout 0.1");
        let ping: PingReport = measure(lab.generator(), &containers[1], &line)?;
        ensure!(ping.sent == 10 && ping.received == 0, "{ping:?}: {}", daemon.last_words(20));

        for number in [0, 1] {
            plugins.must("DEL", &pod(number), &config)?;
        }
        await_state(router, &before)?;
        ensure!(daemon.stop("TERM", LIMIT)?.success(), "{}", daemon.last_words(5));
        tool::run(host.command(&npc).arg("reset"))?;
        Ok(())
    })
}

/// How long ADD takes, one at a time and fifty at once; printed, and checked only for being all there.
#[test]
#[ignore = "needs network namespaces: run with cargo xtask test"]
fn fifty_pods_start_at_once_and_each_has_its_own_address() -> Result<()> {
    const POOL: usize = 50;
    play_alone("fifty_pods_start_at_once_and_each_has_its_own_address", &[], |scene| {
        let Scene { plugins, router, .. } = scene;
        let host = router.host();
        let before = state(router)?;
        let containers: Vec<Container> =
            (0..POOL).map(|n| host.add_container(&format!("p{n}"))).collect::<Result<_>>()?;
        let pods: Vec<Pod<'_>> = containers.iter().map(|container| Pod::of(host, container)).collect();
        let config = config(router, "1.0.0", &json!({}));
        let timed = |pod: &Pod<'_>| -> Result<(Duration, IpAddr)> {
            let start = clock::now();
            let result = plugins.must("ADD", pod, &config)?;
            Ok((start.elapsed(), address(&result)?))
        };
        let delete_all = || pods.iter().try_for_each(|pod| plugins.must("DEL", pod, &config).map(drop));
        let one_by_one: Vec<_> = pods.iter().map(timed).collect::<Result<_>>()?;
        tell("one at a time", one_by_one)?;
        delete_all()?;
        let at_once: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = pods.iter().map(|pod| scope.spawn(|| timed(pod))).collect();
            running
                .into_iter()
                .map(|run| run.join().map_err(|_| anyhow!("a run panicked"))?)
                .collect::<Result<_>>()
        })?;
        tell("fifty at once", at_once)?;
        ensure!(router.call(&NetworkRequest {})?.exposed.len() == 1, "the host was given several addresses");
        delete_all()?;
        await_state(router, &before)?;
        Ok(())
    })
}

/// Prints the median and the 99th percentile, and checks that no address was given twice.
fn tell(what: &str, mut runs: Vec<(Duration, IpAddr)>) -> Result<()> {
    let distinct: std::collections::BTreeSet<IpAddr> = runs.iter().map(|(_, address)| *address).collect();
    ensure!(distinct.len() == runs.len(), "two pods have one address");
    runs.sort();
    let at = |percent: usize| runs[(runs.len() - 1) * percent / 100].0;
    let line = format!("CNI ADD, {what}: p50 {:.1?}, p99 {:.1?}, {} runs", at(50), at(99), runs.len());
    weave_tests::sandbox::complain(&line)?;
    Ok(())
}
