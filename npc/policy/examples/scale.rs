//! How long the compiler takes for a large cluster, how much memory, and how long for one change:
//! `cargo run --release -p weave-policy --example scale -- [NAMESPACES [json]]` (25,000 by default: 100,000 pods and 75,000
//! policies, all of them enforced here).
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement for people to read")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use weave_policy::{
    Change, Compiler, Labels, Namespace, Peer, Pod, PodId, Policy, PolicyId, Port, Protocol, Requirement,
    Rule, Scope, Selector, WhichPort,
};

const PODS: u32 = 4;
const POLICIES: u32 = 3;

fn main() {
    let namespaces = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(25_000);
    let changes: Vec<Change> = (0..namespaces).flat_map(objects).collect();
    let objects = memory();
    let mut compiler = Compiler::new(Scope::Everything);
    let start = Instant::now();
    changes.into_iter().for_each(|change| compiler.handle_change(change));
    let known = start.elapsed();
    let delta = compiler.poll_delta().unwrap_or_default();
    if std::env::args().nth(2).is_some() {
        let (seconds, memory) = (start.elapsed().as_secs_f64(), memory().saturating_sub(objects));
        println!(r#"{{"seconds":{seconds:.3},"mebibytes":{memory},"objects_mebibytes":{objects}}}"#);
        // What comes after the measurement should not look like a part of it to a profiler.
        std::process::exit(0);
    }
    println!(
        "{} pods, {} policies: {:.2} s ({:.2} s to take them in), {} elements, {} MiB beside the {objects} MiB of the objects",
        namespaces * PODS,
        namespaces * POLICIES,
        start.elapsed().as_secs_f64(),
        known.as_secs_f64(),
        delta.add.len(),
        memory().saturating_sub(objects),
    );
    drop(delta);
    let mut times: Vec<Duration> = (0..2000)
        .map(|n| {
            let mut pod = pod(n % namespaces, 0);
            pod.labels.insert("round".to_owned(), n.to_string());
            pod.labels.insert("app-2".to_owned(), "scale-3".to_owned());
            let start = Instant::now();
            compiler.handle_change(Change::Pod(pod));
            let delta = compiler.poll_delta();
            let took = start.elapsed();
            drop(delta);
            took
        })
        .collect();
    times.sort();
    println!("one pod relabelled: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}

fn objects(namespace: u32) -> Vec<Change> {
    let name = format!("namespace-{namespace}");
    let labels = Labels::from([("app".to_owned(), name.clone())]);
    let mut changes = vec![Change::Namespace(Namespace::new(name, labels))];
    changes.extend((0..POLICIES).map(|n| Change::Policy(policy(namespace, n))));
    changes.extend((0..PODS).map(|n| Change::Pod(pod(namespace, n))));
    changes
}

fn pod(namespace: u32, n: u32) -> Pod {
    let number = namespace * PODS + n;
    let label = |i: u32| (format!("app-{i}"), format!("scale-{i}"));
    Pod {
        labels: [label(n), label((n + 1) % PODS), ("round".to_owned(), "0".to_owned())].into(),
        addresses: vec![IpAddr::from((0x0a00_0000 + number).to_be_bytes())],
        ..Pod::new(PodId::new(format!("namespace-{namespace}"), format!("pod-{n}")), "node")
    }
}

fn policy(namespace: u32, n: u32) -> Policy {
    let selector =
        |i: u32| Selector::from_iter([Requirement::equals(format!("app-{i}"), format!("scale-{i}"))]);
    let peer = |i| {
        let of_namespace =
            Selector::from_iter([Requirement::equals("app", format!("namespace-{namespace}"))]);
        Peer::Pods { namespaces: (n == 2).then_some(of_namespace), pods: selector(i) }
    };
    let port =
        |number| Port { protocol: Protocol::Tcp, which: WhichPort::Numbers { first: number, last: number } };
    let rule = |i| Rule { peers: vec![peer(i)], ports: vec![port(80), port(443)] };
    Policy {
        id: PolicyId::new(format!("namespace-{namespace}"), format!("policy-{n}")),
        subject: selector(n),
        ingress: Some(vec![rule(n + 1)]),
        egress: (n == 1).then(|| vec![rule(3)]),
    }
}

/// The largest resident size so far, in MiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes =
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or(0) / 1024
}
