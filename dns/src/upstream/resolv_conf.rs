//! The servers that we forward to.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::config::Upstreams;

/// The most servers asked; the C library stops at three.
const MAX_SERVERS: usize = 8;
/// How often the file is looked at, at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The most of the file that is read.
const MAX_FILE: usize = 64 * 1024;

/// The list of upstream servers, kept up to date.
#[derive(Debug)]
pub(crate) struct Servers {
    path: Option<PathBuf>,
    /// Our own listeners, never forwarded to.
    own: Vec<SocketAddr>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    servers: Arc<[SocketAddr]>,
    version: Option<Version>,
    checked_at: Option<Instant>,
}

/// What tells two states of the file apart: a file that was put in place of another may have its time and length.
type Version = (SystemTime, u64, u64);

impl Servers {
    pub(crate) fn new(upstreams: Upstreams, own: Vec<SocketAddr>) -> Self {
        let (path, given) = match upstreams {
            Upstreams::ResolvConf(path) => (Some(path), Vec::new()),
            Upstreams::List(given) => (None, given),
        };
        let servers = without_own(given, &own).into();
        Self { path, own, state: Mutex::new(State { servers, version: None, checked_at: None }) }
    }

    /// The servers in the order of the file, which is read again when it changed.
    pub(crate) fn current(&self, now: Instant) -> Arc<[SocketAddr]> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = state.checked_at.is_none_or(|at| now.duration_since(at) >= CHECK_INTERVAL);
        if let Some(path) = self.path.as_deref().filter(|_| is_due) {
            state.checked_at = Some(now);
            self.reload(path, &mut state);
        }
        Arc::clone(&state.servers)
    }

    fn reload(&self, path: &Path, state: &mut State) {
        let version = std::fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len(), m.ino()))).ok();
        if version == state.version && version.is_some() {
            return;
        }
        match std::fs::read(path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(bytes.get(..MAX_FILE).unwrap_or(&bytes));
                state.servers = without_own(parse(&text), &self.own).into();
                tracing::debug!(path = %path.display(), servers = ?state.servers, "upstream servers read");
            }
            // What we knew still stands: editors replace the file, and it is away for a moment.
            Err(error) if state.version.is_some() || state.servers.is_empty() => {
                tracing::warn!(path = %path.display(), %error, "cannot read the upstream servers");
            }
            Err(_) => {}
        }
        state.version = version;
    }
}

/// The `nameserver` lines (resolv.conf(5)), on port 53. Lines that are no address, or name an interface, are left out.
fn parse(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>)
        {
            servers.push(SocketAddr::new(address, 53));
        }
    }
    servers
}

fn without_own(mut servers: Vec<SocketAddr>, own: &[SocketAddr]) -> Vec<SocketAddr> {
    servers.retain(|server| !own.iter().any(|own| is_own(*server, *own)));
    servers.dedup();
    servers.truncate(MAX_SERVERS);
    servers
}

/// Whether what we send to `server` would arrive at our listener on `own`.
fn is_own(server: SocketAddr, own: SocketAddr) -> bool {
    if server.port() != own.port() {
        return false;
    }
    let is_same_family = server.is_ipv4() == own.is_ipv4();
    server.ip() == own.ip()
        || server.ip().is_unspecified()
        // A listener on all addresses is also on every address that can be bound to.
        || (own.ip().is_unspecified() && is_same_family && UdpSocket::bind((server.ip(), 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_found_among_everything_else() {
        let text = "# comment\n; other\nsearch x.y\nnameserver 10.0.0.1\nnameserver\t::1 # note\n\
                    nameserver fe80::1%eth0\nnameserver junk\nnameservers 1.1.1.1\noptions rotate\n nameserver 10.0.0.2";
        let wanted = ["10.0.0.1:53", "[::1]:53", "10.0.0.2:53"].map(|s| s.parse().unwrap());
        assert_eq!(parse(text), wanted);
    }

    #[test]
    fn we_never_forward_to_ourselves() {
        let own = "127.0.0.1:53".parse().unwrap();
        let servers = |list: &[&str]| list.iter().map(|s| s.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let given = servers(&["127.0.0.1:53", "127.0.0.1:5353", "192.0.2.1:53"]);
        assert_eq!(without_own(given.clone(), &[own]), servers(&["127.0.0.1:5353", "192.0.2.1:53"]));
        let everywhere = "0.0.0.0:53".parse().unwrap();
        assert_eq!(without_own(given, &[everywhere]), servers(&["127.0.0.1:5353", "192.0.2.1:53"]));
    }

    #[test]
    fn the_file_is_read_again_when_it_changed_and_kept_when_it_is_away() {
        let path = std::env::temp_dir().join(format!("weave-dns-resolv-{}", std::process::id()));
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let servers = Servers::new(Upstreams::ResolvConf(path.clone()), Vec::new());
        let start = Instant::now();
        assert_eq!(*servers.current(start), ["192.0.2.1:53".parse().unwrap()]);

        std::fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        assert_eq!(servers.current(start).len(), 1, "not looked at again within a second");
        assert_eq!(servers.current(start + CHECK_INTERVAL).len(), 2);

        std::fs::remove_file(&path).unwrap();
        assert_eq!(servers.current(start + 2 * CHECK_INTERVAL).len(), 2);
    }

    #[test]
    fn a_file_put_in_the_place_of_another_of_the_same_length_and_time_is_read() {
        let path = std::env::temp_dir().join(format!("weave-dns-replaced-{}", std::process::id()));
        let beside = path.with_extension("new");
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).unwrap();
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH)
                .unwrap();
        };
        write(&path, "nameserver 192.0.2.1\n");
        write(&beside, "nameserver 192.0.2.2\n");
        let servers = Servers::new(Upstreams::ResolvConf(path.clone()), Vec::new());
        let start = Instant::now();
        assert_eq!(*servers.current(start), ["192.0.2.1:53".parse().unwrap()]);
        std::fs::rename(&beside, &path).unwrap();
        assert_eq!(*servers.current(start + CHECK_INTERVAL), ["192.0.2.2:53".parse().unwrap()]);
        std::fs::remove_file(&path).unwrap();
    }
}
