//! A machine of one's own for each test.

use std::{
    env,
    future::Future,
    net::{IpAddr, UdpSocket},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use weave_hostnet::{AttachSpec, BridgeSpec, Host, LinkIndex, NetnsRef, names, netns};
use weave_model::Interface;

/// Set in the environment of the copy of this program that runs inside the namespaces.
const INSIDE: &str = "WEAVE_NETNS_TEST_INSIDE";
/// Set by a developer who is root: leaves the user namespace out, so that the tests run with all of root's rights.
const AS_ROOT: &str = "WEAVE_NETNS_TEST_AS_ROOT";

/// Runs `body` in new namespaces, with a tmpfs on `/run`. `test` is the full name of the calling test.
pub(crate) fn run<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if env::var_os(INSIDE).is_none() {
        let flags = if env::var_os(AS_ROOT).is_some() { "-nm" } else { "-Urnm" };
        let program = env::current_exe().unwrap();
        let mut again = Command::new("unshare");
        again
            .arg(flags)
            .arg(program)
            .args(["--exact", test, "--include-ignored", "--nocapture"])
            .env(INSIDE, "1");
        let status = again.status().expect("`unshare` (util-linux) is needed to run this test");
        assert!(status.success(), "{test} failed in its namespaces ({status})");
        return;
    }
    shell("mount -t tmpfs tmpfs /run && ip link set lo up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body());
    assert_eq!(link_names(), ["lo"], "the test left interfaces behind");
}

/// Runs a script; it has to succeed.
pub(crate) fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-e", "-c", script]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{script}` failed: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `ip -j` says.
pub(crate) fn ip(arguments: &str) -> Value {
    let text = shell(&format!("ip -d -j {arguments}"));
    if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
}

pub(crate) fn link_names() -> Vec<String> {
    let links = ip("link");
    links.as_array().unwrap().iter().map(|l| l["ifname"].as_str().unwrap().to_owned()).collect()
}

/// The global addresses of `device` as `ip` shows them, in order.
pub(crate) fn ip_addresses(prefix: &str, device: &str) -> Vec<String> {
    let shown = ip(&format!("{prefix} address show dev {device} scope global"));
    let infos =
        shown.as_array().unwrap().iter().flat_map(|l| l["addr_info"].as_array().cloned().unwrap_or_default());
    let mut addresses: Vec<String> = infos
        .filter(|i| i.is_object())
        .filter_map(|i| Some(format!("{}/{}", i["local"].as_str()?, i["prefixlen"])))
        .collect();
    addresses.sort();
    addresses
}

/// A process with a network namespace of its own, ended on drop.
pub(crate) struct Container {
    process: Child,
}

impl Container {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        let process = command.args(["-n", "sh", "-c", "ip link set lo up; echo ready; exec cat"]);
        let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self { process }
    }

    pub(crate) fn netns(&self) -> NetnsRef {
        NetnsRef::Pid(self.process.id())
    }

    /// The process that is the container.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A command prefix that runs a program inside.
    pub(crate) fn enter(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net ", self.process.id())
    }

    /// Whether a datagram to `address` arrives in `other`.
    pub(crate) fn reaches(&self, other: &Self, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let bind = move |netns: NetnsRef, to: IpAddr| {
            netns::in_netns(&netns.open().unwrap(), || UdpSocket::bind((to, 0)).unwrap()).unwrap()
        };
        let receiver = bind(other.netns(), address);
        let nowhere = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let sender = bind(self.netns(), nowhere);
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        sender.send_to(b"hello", receiver.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 8];
        receiver.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"hello")
    }

    /// Sends a datagram to `address`, wherever that may be.
    pub(crate) fn calls(&self, address: &str) {
        self.calls_with(address, b"hello");
    }

    /// Sends a datagram with this content.
    pub(crate) fn calls_with(&self, address: &str, content: &[u8]) {
        let bind = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let sender = netns::in_netns(&self.netns().open().unwrap(), bind).unwrap();
        sender.send_to(content, (address, 9)).unwrap();
    }

    /// What `ip -j` says inside.
    pub(crate) fn ip(&self, arguments: &str) -> Value {
        let text = shell(&format!("{}ip -d -j {arguments}", self.enter()));
        if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
    }

    pub(crate) fn link_names(&self) -> Vec<String> {
        let links = self.ip("link");
        links.as_array().unwrap().iter().map(|l| l["ifname"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn addresses(&self, device: &str) -> Vec<String> {
        let shown = self.ip(&format!("address show dev {device} scope global"));
        let infos = shown
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|l| l["addr_info"].as_array().cloned().unwrap_or_default());
        let mut addresses: Vec<String> =
            infos.filter_map(|i| Some(format!("{}/{}", i["local"].as_str()?, i["prefixlen"]))).collect();
        addresses.sort();
        addresses
    }

    pub(crate) fn ends(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _gone_already = self.process.kill();
        let _no_matter_how = self.process.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The bridge, up, with an MTU that is nobody's default.
pub(crate) async fn bridge(host: &Host) -> LinkIndex {
    host.ensure_bridge(&BridgeSpec { mtu: 1400, ..BridgeSpec::default() }).await.unwrap()
}

pub(crate) fn interfaces(texts: &[&str]) -> Vec<Interface> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn spec(netns: NetnsRef, id: &str, addresses: &[&str]) -> AttachSpec {
    AttachSpec {
        netns,
        bridge: names::BRIDGE.to_owned(),
        host_ifname: names::host_ifname(id),
        container_ifname: names::CONTAINER.to_owned(),
        mac: Some(names::mac_from_seed(id.as_bytes())),
        mtu: 1400,
        addresses: interfaces(addresses),
        multicast_route: true,
    }
}
