//! Our manifest in a cluster: an API server that enforces roles, and kubelets. Selected by `cargo xtask test --kubernetes`.

use anyhow::{Context as _, Result, ensure};
use weave_tests::{
    clock::{Look, wait_until},
    kubernetes::{Control, LIMIT, Node, images, play},
    lab::{Host, Segment},
    product::Programs,
    scene::lab,
    tool,
};

/// The nodes; their names are in the pods' manifest.
const NODES: [&str; 2] = ["n1", "n2"];

/// Fetches the page of the web server by its Service's name. (A time-out of its own crashes the static busybox of Debian 12.)
const FETCH: &str = "timeout 3 wget -q -O - http://web.default.svc.cluster.local";

#[test]
#[ignore = "needs Kubernetes, containerd, runc, iptables, busybox-static and dnsmasq-base: run with cargo xtask test --kubernetes"]
fn a_cluster_lives_by_our_manifest() -> Result<()> {
    play("a_cluster_lives_by_our_manifest", |programs| {
        let mut lab = lab()?;
        let mut hosts = Vec::new();
        for name in ["control"].iter().chain(&NODES) {
            hosts.push(lab.add_host(name)?);
        }
        let segment = lab.join(&mut hosts.iter_mut().collect::<Vec<_>>())?;
        let images = images(&lab, programs)?;
        let control = Control::start(&lab, &hosts[0], &NODES)?;
        let mut nodes = Vec::new();
        for host in &hosts[1..] {
            nodes.push(Node::start(&lab, &control, host, &images)?);
        }
        let lived = live(&control, programs, segment, &mut nodes);
        if lived.is_err() {
            control.keep_logs()?;
        }
        lived
    })
}

fn live(control: &Control<'_>, programs: &Programs, segment: Segment, nodes: &mut [Node<'_>]) -> Result<()> {
    nodes_get_ready(control)?;
    pods_reach_each_other(control)?;
    policies_are_enforced(control)?;
    a_roll_out_loses_nothing(control)?;
    control.no_errors()?;
    a_deleted_node_leaves_nothing(control, programs, segment, nodes)?;
    control.no_errors()
}

/// Nothing but `kubectl apply` of our manifest makes nodes ready.
fn nodes_get_ready(control: &Control<'_>) -> Result<()> {
    const READY: &str = "get nodes -o jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    const NETWORK: &str =
        "get nodes -o jsonpath={.items[*].status.conditions[?(@.type==\"NetworkUnavailable\")].reason}";
    control.await_answer_to("nodes without a network", READY, |said| said == "False False")?;
    control.apply("manifests/kubernetes/weave.yaml")?;
    control.await_answer_to("nodes to be ready", READY, |said| said == "True True")?;
    control.await_answer_to("the nodes' condition", NETWORK, |said| said == "WeaveIsUp WeaveIsUp")?;
    await_roll_out(control)
}

fn await_roll_out(control: &Control<'_>) -> Result<()> {
    let limit = LIMIT.as_secs();
    control.tell(&format!("-n kube-system rollout status daemonset/weave-net --timeout={limit}s")).map(drop)
}

/// Across nodes and on one, by address, and by a Service's name from a name server behind a Service.
fn pods_reach_each_other(control: &Control<'_>) -> Result<()> {
    control.apply("tests/kubernetes/pods.yaml")?;
    for pod in ["web", "far", "near"] {
        let what = format!("pod {pod}");
        let line = format!("get pod {pod} -o jsonpath={{.status.phase}}");
        control.await_answer_to(&what, &line, |said| said == "Running")?;
    }
    let web = address(control, "web")?;
    for pod in ["far", "near"] {
        control.await_inside(pod, &format!("ping -c 3 -W 3 {web}"), true)?;
        let own = address(control, pod)?;
        control.await_inside("web", &format!("ping -c 3 -W 3 {own}"), true)?;
        let page = control.await_inside(pod, FETCH, true)?;
        ensure!(page.contains("served by weave"), "{pod} got {page}");
    }
    Ok(())
}

fn address(control: &Control<'_>, pod: &str) -> Result<String> {
    let line = format!("get pod {pod} -o jsonpath={{.status.podIP}}");
    control.await_answer_to("a pod's address", &line, |said| !said.is_empty())
}

/// A policy comes: who may not is kept out, on the same node too. A label makes one who may.
fn policies_are_enforced(control: &Control<'_>) -> Result<()> {
    control.apply("tests/kubernetes/policy.yaml")?;
    for pod in ["far", "near"] {
        control.await_inside(pod, FETCH, false)?;
        control.tell(&format!("label pod {pod} may=yes"))?;
        control.await_inside(pod, FETCH, true)?;
        control.tell(&format!("label pod {pod} may-"))?;
        control.await_inside(pod, FETCH, false)?;
    }
    control.tell("delete networkpolicy web")?;
    control.await_inside("far", FETCH, true)?;
    control.await_inside("near", FETCH, true).map(drop)
}

/// While every pod of the DaemonSet is replaced, pods on both nodes go on reaching each other.
fn a_roll_out_loses_nothing(control: &Control<'_>) -> Result<()> {
    let web = address(control, "web")?;
    let far = address(control, "far")?;
    let pings = [("far", web), ("web", far)];
    for (pod, to) in &pings {
        let start =
            format!("date -u +%T >/tmp/started; ping -i 0.1 {to} >/tmp/pings 2>&1 & echo $! >/tmp/pid");
        control.await_inside(pod, &start, true)?;
    }
    control.tell("-n kube-system rollout restart daemonset/weave-net")?;
    await_roll_out(control)?;
    for (pod, _) in &pings {
        // The last one may still be on its way.
        let (_, said) = control.inside(pod, "kill -INT $(cat /tmp/pid); sleep 1; tail -n 3 /tmp/pings")?;
        // "… packets transmitted, … packets received, …"
        let counts = said.lines().find(|line| line.contains("transmitted")).unwrap_or_default();
        let mut numbers =
            counts.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u32>().ok());
        let (sent, received) = numbers.next().zip(numbers.next()).with_context(|| said.clone())?;
        let (_, all) = control.inside(pod, "cat /tmp/started; grep -o 'seq=[0-9]*' /tmp/pings")?;
        let started = all.lines().next().unwrap_or_default();
        ensure!(
            sent > 50 && sent - received <= 1,
            "{pod}, pings 0.1 s apart since {started}, not answered: {:?}; {said}",
            missing(&all, sent)
        );
    }
    Ok(())
}

/// The numbers below `sent` of which no answer speaks.
fn missing(answers: &str, sent: u32) -> Vec<u32> {
    let answered: std::collections::BTreeSet<u32> =
        answers.split("seq=").filter_map(|word| word.trim().parse().ok()).collect();
    (0..sent).filter(|number| !answered.contains(number)).collect()
}

/// A node dies and is deleted: the others own its address space, and nothing names it.
fn a_deleted_node_leaves_nothing(
    control: &Control<'_>,
    programs: &Programs,
    segment: Segment,
    nodes: &mut [Node<'_>],
) -> Result<()> {
    let [first, second] = nodes else { anyhow::bail!("there are two nodes") };
    let members = "-n kube-system get configmap weave-net -o yaml";
    control
        .await_answer_to("both in the list", members, |said| said.contains("n1") && said.contains("n2"))?;
    let before = owners(programs, first.host())?;
    ensure!(before.contains("n2"), "{before}");
    segment.cut_off(second.host())?;
    second.kill()?;
    control.tell("delete node n2 --wait=false")?;
    control.await_answer_to("the dead one out of the list", members, |said| !said.contains("n2"))?;
    let waited = wait_until("the dead node's space to be reclaimed", LIMIT, || {
        let owners = owners(programs, first.host())?;
        Ok(Look::when(!owners.contains("n2"), || owners))
    });
    waited?;
    // Nobody is left there to say what its containers have said.
    let gone = "-n kube-system delete pods --field-selector=spec.nodeName=n2 --force --grace-period=0";
    control.tell(gone).map(drop)
}

/// Who owns address space, as a node's router sees it.
fn owners(programs: &Programs, host: &Host) -> Result<String> {
    tool::run(host.command(programs.weave()).args(["status", "ipam"]))
}
