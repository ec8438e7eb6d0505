//! News from a bridge.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use weave_hostnet::{FdbEvent, Host};
use weave_model::Mac;

use crate::{
    lab::{bridge, run, shell},
    site::mac,
};

const DEADLINE: Duration = Duration::from_secs(5);

/// `bridge monitor fdb`, in the namespace of the test.
pub(crate) struct Monitor {
    process: Child,
    lines: Receiver<String>,
}

impl Monitor {
    /// Starts it and waits until it hears.
    pub(crate) fn start() -> Self {
        let mut command = Command::new("bridge");
        let mut process = command.args(["monitor", "fdb"]).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let monitor = Self { process, lines };
        shell("ip link add name probe type bridge");
        let heard = || {
            shell(
                "bridge fdb replace 02:00:00:00:00:01 dev probe self local 2>/dev/null || true; bridge fdb del 02:00:00:00:00:01 dev probe self local 2>/dev/null || true",
            );
            monitor.lines.recv_timeout(Duration::from_millis(20)).is_ok()
        };
        assert!((0..200).any(|_| heard()), "`bridge monitor` hears nothing");
        shell("ip link del probe");
        while monitor.lines.recv_timeout(Duration::from_millis(100)).is_ok() {}
        monitor
    }

    /// All lines until one that contains `last`.
    pub(crate) fn stop_after(mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(last)) {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => lines.push(line),
                Err(_) => panic!("`{last}` was not among {lines:?}"),
            }
        }
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        lines
    }
}

/// The next event that is about `mac`.
async fn event_about(watch: &mut weave_hostnet::FdbWatch, mac: Mac) -> FdbEvent {
    let about = async {
        loop {
            match watch.next().await.unwrap() {
                event @ (FdbEvent::Learned { mac: of, .. } | FdbEvent::Gone { mac: of, .. }) if of == mac => {
                    return event;
                }
                FdbEvent::Resync => return FdbEvent::Resync,
                FdbEvent::Learned { .. } | FdbEvent::Gone { .. } => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, about).await.expect("an event")
}

#[test]
fn a_station_that_speaks_is_news_and_so_is_its_end() {
    run("news::a_station_that_speaks_is_news_and_so_is_its_end", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        let station = mac("stranger");
        shell(&format!(
            "ip link add p0 type veth peer name p1; ip link set p1 address {station}; \
             ip link set p0 master weave; ip link set p0 up"
        ));
        let port = host.link_index("p0").await.unwrap().unwrap();
        let mut watch = host.watch_fdb(bridge).await.unwrap();
        assert!(host.watch_fdb(weave_hostnet::LinkIndex(999)).await.is_err());
        assert_eq!(host.learned_stations(bridge).await.unwrap(), [].into());
        // What the bridge did not learn is no news.
        shell(
            "bridge fdb add 02:00:00:00:00:09 dev p0 master static; bridge fdb add 02:00:00:00:00:08 dev p0 master extern_learn",
        );
        shell("ip link set p1 up; ip address add 10.9.9.1/24 dev p1");
        let speak = || {
            let socket = std::net::UdpSocket::bind("10.9.9.1:0").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(b"hello", "10.9.9.255:9").unwrap();
        };
        let speaking = async {
            loop {
                speak();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let event = tokio::select! {
            event = event_about(&mut watch, station) => event,
            () = speaking => unreachable!(),
        };
        assert_eq!(event, FdbEvent::Learned { mac: station, port });
        assert_eq!(host.learned_stations(bridge).await.unwrap(), [(station, port)].into());
        shell("ip link del p0");
        assert_eq!(event_about(&mut watch, station).await, FdbEvent::Gone { mac: station, port });
        shell("ip link del weave");
    });
}

#[test]
fn our_own_entries_are_no_news_and_do_not_crowd_it_out() {
    run("news::our_own_entries_are_no_news_and_do_not_crowd_it_out", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        shell("ip tuntap add dev weave-tap mode tap");
        let tap = host.ensure_tap_port("weave-tap", bridge).await.unwrap();
        let mut watch = host.watch_fdb(bridge).await.unwrap();
        let many = (0..3000u16).map(|n| Mac([2, 0, 0, 4, n.to_be_bytes()[0], n.to_be_bytes()[1]])).collect();
        host.reconcile_bridge_fdb(tap, &many).await.unwrap();
        host.reconcile_bridge_fdb(tap, &[].into()).await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        shell("ip tuntap del dev weave-tap mode tap; ip link del weave");
    });
}

#[test]
fn lost_news_are_told() {
    run("news::lost_news_are_told", || async {
        let host = Host::open().await.unwrap();
        let bridge = bridge(&host).await;
        let mut watch = host.watch_fdb(bridge).await.unwrap();
        shell(
            "ip link add p0 type veth peer name p1; ip link set p0 master weave; ip link set p0 up; ip link set p1 up",
        );
        let forwards = || shell("bridge link show dev p0").contains("state forwarding");
        assert!((0..1000).any(|_| forwards()));
        // Dynamic entries look like learned ones; nobody reads meanwhile.
        let batch: String = (0..20_000u32)
            .map(|n| {
                format!(
                    "fdb replace 02:05:00:{:02x}:{:02x}:{:02x} dev p0 master dynamic\n",
                    n >> 16,
                    n >> 8 & 255,
                    n & 255
                )
            })
            .collect();
        std::fs::write("/run/batch", batch).unwrap();
        shell("bridge -batch /run/batch");
        let mut events = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(200), watch.next()).await {
            events.push(event);
        }
        assert!(events.contains(&FdbEvent::Resync), "{} events", events.len());
        assert!(host.learned_stations(bridge).await.unwrap().len() >= 20_000);
        shell("ip link del p0; ip link del weave");
    });
}
