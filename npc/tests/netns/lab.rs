//! A host with pods for each test.

use std::{
    env, fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use weave_hostnet::netns::{NetnsRef, in_netns};
use weave_npc::{clock, control};

/// Set in the environment of the copy of this program that runs inside the namespaces.
const INSIDE: &str = "WEAVE_NPC_TEST_INSIDE";
const MANIFESTS: &str = "/run/manifests";
const SOCKET: &str = "/run/npc.sock";
/// How long an attempt may take until it counts as dropped. A round trip takes less than a millisecond here.
const PATIENCE: Duration = Duration::from_millis(400);

/// Runs `body` in new namespaces, on a host with a bridge. `test` is the full name of the calling test.
pub(crate) fn run(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_none() {
        let mut again = Command::new("unshare");
        again
            .arg("-Urnm")
            .arg(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(INSIDE, "1");
        let status = again.status().expect("`unshare` (util-linux) is needed to run this test");
        assert!(status.success(), "{test} failed in its namespaces ({status})");
        return;
    }
    shell(
        "mount -t tmpfs tmpfs /run; mkdir /run/manifests; ip link set lo up; ip link add br0 type bridge; \
         ip link set br0 up; ip address add 10.0.0.254/16 dev br0; ip address add fd00::fe/16 dev br0 nodad; \
         echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
    body();
    shell(&format!("{} reset", env!("CARGO_BIN_EXE_weave-npc")));
    assert_eq!(shell("nft list tables").trim(), "", "something was left in the kernel");
}

/// Runs a script; it has to succeed.
pub(crate) fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-e", "-c", script]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{script}` failed: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, patience: Duration, condition: impl Fn() -> bool) -> Duration {
    let start: Instant = clock::now();
    while !condition() {
        assert!(start.elapsed() < patience, "{what} did not come to be within {patience:?}");
        thread::yield_now();
    }
    start.elapsed()
}

/// Writes a manifest as a whole, as tools do.
pub(crate) fn write(name: &str, text: &str) {
    let path = Path::new(MANIFESTS).join(name);
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(&draft, &path).unwrap();
}

pub(crate) fn remove(name: &str) {
    fs::remove_file(Path::new(MANIFESTS).join(name)).unwrap();
}

/// A running `weave-npc`, killed on drop.
pub(crate) struct Npc(Child);

impl Npc {
    /// Starts it, and waits until everything is in force.
    pub(crate) fn start(more: &[&str]) -> Self {
        let process = Self::launch(&[&["--policy-dir", MANIFESTS], more].concat(), &[]);
        wait_until("an answering daemon", Duration::from_secs(10), || process.is_in_force());
        process
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn launch(arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weave-npc"));
        command.args(["--socket", SOCKET]).args(arguments).envs(environment.iter().cloned());
        Self(command.spawn().unwrap())
    }

    /// Whether everything that it was told is in force.
    #[allow(clippy::unused_self, reason = "it is about the daemon that runs")]
    pub(crate) fn is_in_force(&self) -> bool {
        control::ask(Path::new(SOCKET), "sync", Duration::from_secs(5)).is_ok()
    }

    /// Whether it answers anything.
    #[allow(clippy::unused_self, reason = "it is about the daemon that runs")]
    pub(crate) fn is_answering(&self) -> bool {
        control::ask(Path::new(SOCKET), "status", Duration::from_secs(5)).is_ok()
    }

    /// Waits until all that was written is in the kernel.
    pub(crate) fn sync(&self) {
        let answer = control::ask(Path::new(SOCKET), "sync", Duration::from_secs(5)).unwrap();
        assert_eq!(answer, "in force\n");
    }

    pub(crate) fn ask(&self, question: &str) -> String {
        control::ask(Path::new(SOCKET), question, Duration::from_secs(5)).unwrap()
    }

    pub(crate) fn kill(mut self) {
        self.stop();
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill_now(&mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _gone_already = self.0.kill();
        let _no_matter_how = self.0.wait();
    }
}

impl Drop for Npc {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Another node: a network namespace with a bridge of its own, which is linked to that of the first.
pub(crate) struct Node(Child);

impl Node {
    /// Its addresses are 10.0.0.253 and fd00::fd.
    pub(crate) fn new() -> Self {
        let process = namespace();
        let node = Self(process);
        let (pid, enter) = (node.0.id(), node.enter());
        shell(&format!(
            "ip link add node{pid} type veth peer name uplink netns {pid}; ip link set node{pid} master br0 up; \
             {enter} ip link add br0 type bridge; {enter} ip link set br0 up; \
             {enter} ip link set uplink master br0 up; \
             {enter} ip address add 10.0.0.253/16 dev br0; {enter} ip address add fd00::fd/16 dev br0 nodad; \
             {enter} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward; \
                            echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'"
        ));
        node
    }

    /// A command prefix that runs a program there.
    pub(crate) fn enter(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net ", self.0.id())
    }

    /// Runs `work` there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(&NetnsRef::Pid(self.0.id()).open().unwrap(), work).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _no_matter_how = self.0.wait();
    }
}

/// A process in a network namespace of its own, which ends with its input.
fn namespace() -> Child {
    let mut command = Command::new("unshare");
    let process = command.args(["-n", "sh", "-c", "ip link set lo up; echo ready; exec cat"]);
    let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    process.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    process
}

/// A network namespace with a port at the bridge.
pub(crate) struct Pod {
    process: Child,
    v4: IpAddr,
    v6: IpAddr,
}

impl Pod {
    /// Pod `name` of namespace `x` with label `app=NAME`, at 10.0.0.NUMBER and fd00::NUMBER, and its manifest.
    pub(crate) fn new(name: &str, number: u8) -> Self {
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)]);
        let pod = Self::at(IpAddr::from([10, 0, 0, number]), v6);
        write(&format!("pod-{name}.yaml"), &pod.manifest(name));
        pod
    }

    /// A pod at 10.0.0.NUMBER and fd00::NUMBER of which no manifest says anything.
    pub(crate) fn unknown(number: u8) -> Self {
        Self::at(
            IpAddr::from([10, 0, 0, number]),
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)]),
        )
    }

    /// A pod at these addresses.
    pub(crate) fn at(v4: IpAddr, v6: IpAddr) -> Self {
        Self::on("", v4, v6)
    }

    /// A pod at these addresses on another node, by the prefix that [`Node::enter`] gives.
    pub(crate) fn on(node: &str, v4: IpAddr, v6: IpAddr) -> Self {
        let pod = Self { process: namespace(), v4, v6 };
        let (pid, enter) = (pod.process.id(), pod.enter());
        shell(&format!(
            "{node} ip link add veth{pid} type veth peer name eth0 netns {pid}; \
             {node} ip link set veth{pid} master br0 up; \
             {enter} ip address add {v4}/16 dev eth0; {enter} ip address add {v6}/16 dev eth0 nodad; \
             {enter} ip link set eth0 up; {enter} ip route add default via 10.0.0.254; \
             {enter} sh -c 'echo 0 0 > /proc/sys/net/ipv4/ping_group_range'"
        ));
        pod
    }

    fn manifest(&self, name: &str) -> String {
        let Self { v4, v6, .. } = self;
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: x, labels: {{app: {name}}}}}\n\
             spec:\n  nodeName: here\n  containers:\n  - name: c\n    ports:\n    - {{name: web, containerPort: 80}}\n\
             status: {{podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
        )
    }

    /// A command prefix that runs a program inside.
    pub(crate) fn enter(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net ", self.process.id())
    }

    pub(crate) fn v4(&self) -> IpAddr {
        self.v4
    }

    pub(crate) fn v6(&self) -> IpAddr {
        self.v6
    }

    /// Runs `work` inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(&NetnsRef::Pid(self.process.id()).open().unwrap(), work).unwrap()
    }

    /// Echoes what comes to these ports, by TCP and UDP, until the test ends.
    pub(crate) fn serve(&self, ports: &[u16]) {
        for port in ports {
            let (tcp, udp) = self.inside(|| {
                (TcpListener::bind(("::", *port)).unwrap(), UdpSocket::bind(("::", *port)).unwrap())
            });
            thread::spawn(move || {
                tcp.incoming().flatten().for_each(|stream| _ = thread::spawn(|| echo(stream)))
            });
            thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    let _lost = udp.send_to(&buffer[..length], from);
                }
            });
        }
    }

    /// An open connection to there, if that can be had.
    pub(crate) fn connect(&self, to: IpAddr, port: u16) -> Option<TcpStream> {
        self.inside(|| connect(to, port))
    }

    /// Whether a TCP connection to there can be opened and used, and a datagram comes back from there.
    pub(crate) fn reaches(&self, to: IpAddr, port: u16) -> (bool, bool) {
        let tcp = self.connect(to, port).is_some_and(|mut stream| works(&mut stream));
        (tcp, self.inside(|| datagram_returns(to, port, 8)))
    }

    /// Whether an echo request is answered.
    pub(crate) fn pings(&self, to: IpAddr) -> bool {
        self.inside(|| ping(to))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _no_matter_how = self.process.wait();
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Opens a connection from where the calling thread is.
pub(crate) fn connect(to: IpAddr, port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(to, port), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

/// Whether what is sent comes back.
pub(crate) fn works(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

/// Whether an echo request from where the calling thread is gets an answer (RFC 792, RFC 4443).
fn ping(to: IpAddr) -> bool {
    let (domain, protocol, request) = if to.is_ipv4() {
        (Domain::IPV4, Protocol::ICMPV4, [8, 0, 0, 0, 0, 0, 0, 1])
    } else {
        (Domain::IPV6, Protocol::ICMPV6, [128, 0, 0, 0, 0, 0, 0, 1])
    };
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&request, &SocketAddr::new(to, 0).into()).is_ok() && socket.read(&mut [0; 64]).is_ok()
}

/// Whether a datagram of `length` bytes comes back from there.
pub(crate) fn datagram_returns(to: IpAddr, port: u16, length: usize) -> bool {
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = vec![7; length];
    let mut back = vec![0; length + 1];
    socket.send_to(&sent, (to, port)).is_ok()
        && socket.recv(&mut back).is_ok_and(|received| back[..received] == sent)
}
