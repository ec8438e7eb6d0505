//! The sleeve side by side with hand-made kernel VXLAN, on this machine, in namespaces of its own.
//!
//! `cargo run --release --example against-vxlan -- [rounds] [seconds] [workers] [underlay MTU]`; needs `iperf3`.
//! Both are measured in every round, so that the ratio of a round means something on a busy machine.
#![allow(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is its purpose")]
#![allow(dead_code, reason = "the rig serves tests too")]

#[path = "../tests/netns/rig.rs"]
mod rig;
#[path = "../tests/netns/sandbox.rs"]
mod sandbox;

use std::{
    fs,
    net::UdpSocket,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use rig::{Host, LinkStyle, connect, ip, now};
use weave_hostnet::{NetnsRef, netns::in_netns};
use weave_sleeve::Suite;

fn main() -> ExitCode {
    sandbox::run(|arguments| {
        let number =
            |at: usize, default: u32| arguments.get(at).and_then(|a| a.parse().ok()).unwrap_or(default);
        measure(number(0, 5), number(1, 2), number(2, 2) as usize, number(3, 1500));
        ExitCode::SUCCESS
    })
}

/// One way of joining two containers: where to measure, and what to call it.
struct Way {
    name: &'static str,
    client: String,
    server: String,
    address: String,
}

fn measure(rounds: u32, seconds: u32, workers: usize, mtu: u32) {
    let ways = [
        vxlan(mtu),
        sleeve("sleeve AES", Some(Suite::Aes256Gcm), workers, mtu, 3),
        sleeve("sleeve clear", None, workers, mtu, 5),
    ];
    let names: Vec<_> = ways.iter().map(|(way, _)| way.name).collect();
    println!("{names:?}");

    for streams in [1, 4] {
        let mut ratios = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            let rates: Vec<f64> = ways
                .iter()
                .map(|(way, _)| {
                    let before = worker_seconds();
                    let rate = throughput(way, streams, seconds);
                    let gbit = rate * f64::from(seconds);
                    print!("{:.0} ", (worker_seconds() - before) * 1e3 / gbit);
                    rate
                })
                .collect();
            print!("ms of workers/Gbit  ");
            let line: Vec<_> = rates.iter().map(|r| format!("{r:6.2} ({:.2})", r / rates[0])).collect();
            println!("tcp x{streams} Gbit/s  {}", line.join("  "));
            for (list, rate) in ratios.iter_mut().zip(&rates) {
                list.push(rate / rates[0]);
            }
        }
        let medians: Vec<_> = ratios.iter_mut().map(|list| format!("{:.2}", median(list))).collect();
        println!("tcp x{streams} median of ratios: {}", medians.join("  "));
    }
    for gap in [Duration::from_micros(100), Duration::from_micros(200), Duration::from_millis(1)] {
        for _ in 0..rounds.min(2) {
            let line: Vec<_> = ways.iter().map(|(way, _)| ping_pong(way, gap)).collect();
            println!("ping-pong gap {gap:?} p50/p99 us  {}", line.join("  "));
        }
    }
    for (way, routers) in &ways {
        for router in routers {
            let counters = router.workers.counters();
            let drops: Vec<_> = counters.drops.iter().filter(|(_, n)| **n > 0).collect();
            println!("{}: {drops:?} sleeps {} {:?}", way.name, counters.sleeps, counters.links);
            println!(
                "  read {} {} written {} {}",
                counters.frames_read, counters.bytes_read, counters.frames_written, counters.bytes_written
            );
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default());
}

fn vxlan(mtu: u32) -> (Way, Vec<rig::Router>) {
    let (a, b) = (Host::new(1, mtu - 100), Host::new(2, mtu - 100));
    a.cable(&b, mtu);
    for (host, far) in [(&a, &b), (&b, &a)] {
        let (local, remote) =
            (rig::underlay(host.number, far.number), rig::underlay(far.number, host.number));
        ip(&format!(
            "-n {} link add vx mtu {} type vxlan id 1 dstport 6784 local {local} remote {remote} dev u{}",
            host.name,
            mtu - 50,
            far.number
        ));
        ip(&format!("-n {} link set vx master weave up", host.name));
    }
    (
        Way {
            name: "kernel VXLAN",
            client: format!("c{}", a.number),
            server: format!("c{}", b.number),
            address: Host::overlay(2).to_string(),
        },
        Vec::new(),
    )
}

fn sleeve(
    name: &'static str,
    suite: Option<Suite>,
    workers: usize,
    mtu: u32,
    first: u8,
) -> (Way, Vec<rig::Router>) {
    let (a, b) = (Host::new(first, mtu - 100), Host::new(first + 1, mtu - 100));
    a.cable(&b, mtu);
    let routers = vec![a.router(workers), b.router(workers)];
    let found = connect((&routers[0], first), (&routers[1], first + 1), LinkStyle { suite, is_ipv6: false });
    println!("{name}: overlay MTU {found}");
    routers[0].route(first, &[(first + 1, first + 1)], &[(first, &[first + 1])]);
    routers[1].route(first + 1, &[(first, first)], &[(first + 1, &[first])]);
    (
        Way {
            name,
            client: format!("c{}", a.number),
            server: format!("c{}", b.number),
            address: Host::overlay(first + 1).to_string(),
        },
        routers,
    )
}

fn throughput(way: &Way, streams: u32, seconds: u32) -> f64 {
    let mut server = spawn(&way.server, "iperf3 -s -1");
    let command = format!("iperf3 -c {} -t {seconds} -P {streams} -f g --json", way.address);
    let text = (0..50)
        .find_map(|_| {
            inside(&way.client, &command).ok().filter(|text| text.contains("sum_received")).or_else(|| {
                std::thread::park_timeout(Duration::from_millis(50));
                None
            })
        })
        .unwrap_or_else(|| panic!("{}: no throughput: {:?}", way.name, inside(&way.client, &command)));
    let _ended = server.wait();
    let sum = text.split("\"sum_received\"").nth(1).unwrap();
    let rate = sum.split("\"bits_per_second\":").nth(1).unwrap();
    rate.trim().split([',', '\n', '}']).next().unwrap().trim().parse::<f64>().unwrap() / 1e9
}

/// UDP there and back, one at a time with a pause between.
fn ping_pong(way: &Way, gap: Duration) -> String {
    let open = |netns: &str| {
        let netns = NetnsRef::Path(format!("/run/netns/{netns}").into()).open().unwrap();
        in_netns(&netns, || UdpSocket::bind("0.0.0.0:7007").unwrap()).unwrap()
    };
    let (client, server) = (open(&way.client), open(&way.server));
    client.connect((way.address.as_str(), 7007)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // Longer than the client's patience, so that one lost datagram is only one.
    server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..length], from).unwrap();
        }
    });
    let mut times = Vec::new();
    let mut buffer = [0; 100];
    for _ in 0..3000 {
        let start = now();
        client.send(&[7; 64]).unwrap();
        if client.recv(&mut buffer).is_ok() {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let end = now() + gap;
        while now() < end {
            std::thread::park_timeout(gap / 2);
        }
    }
    echo.join().unwrap();
    times.sort_by(f64::total_cmp);
    let lost = 3000 - times.len();
    format!(
        "{:.0}/{:.0}{}",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        if lost > 0 { format!(" lost {lost}") } else { String::new() }
    )
}

fn median(list: &mut [f64]) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

/// Runs a command in a namespace; its output, or what went wrong.
fn inside(netns: &str, command: &str) -> Result<String, String> {
    let output = Command::new("ip").args(["netns", "exec", netns, "sh", "-c", command]).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{command}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Starts a command in a namespace.
fn spawn(netns: &str, command: &str) -> Child {
    Command::new("ip")
        .args(["netns", "exec", netns, "sh", "-c", &format!("exec {command}")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ip (iproute2) runs")
}

/// Processor time that all workers have had.
fn worker_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let workers = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("weave-worker"))
    });
    let nanoseconds = workers.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}
