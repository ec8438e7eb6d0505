//! Questions to the running daemon: a line in, an answer back, over a unix socket that only its owner may use.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    str::FromStr,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use weave_policy::{PodId, Traffic};

use crate::{expected, explain::Place, source::Event};

/// The longest question, in bytes.
const MAX_LINE: u64 = 1024;
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// How long a client may take to ask.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Answered when everything that was written before is in the kernel.
    Sync,
    /// How things are.
    Status,
    /// How things are, for Prometheus.
    Metrics,
    /// Why a connection may be opened, or not.
    Explain([Place; 2], Traffic),
    /// A pod is about to be started: answered when its addresses are isolated as they have to be.
    Expect(PodId, Vec<IpAddr>),
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["sync"] => Ok(Self::Sync),
            ["status"] => Ok(Self::Status),
            ["metrics"] => Ok(Self::Metrics),
            ["explain", source, destination, traffic] => {
                Ok(Self::Explain([source.parse()?, destination.parse()?], parse_traffic(traffic)?))
            }
            ["expect", ref pod_and_addresses @ ..] => {
                let (pod, addresses) = expected::parse(pod_and_addresses)?;
                Ok(Self::Expect(pod, addresses))
            }
            _ => bail!("`{line}` is no request"),
        }
    }
}

/// Reads `80/tcp`, `53/udp`, or the number of another protocol.
///
/// # Errors
/// When the text is neither.
pub fn parse_traffic(text: &str) -> anyhow::Result<Traffic> {
    match text.split_once('/') {
        Some((port, protocol)) => {
            let port = port.parse().with_context(|| format!("`{port}` is no port"))?;
            Ok(Traffic::To(protocol.to_uppercase().parse()?, port))
        }
        None if text == "icmp" => Ok(Traffic::Other(1)),
        None => {
            let number =
                text.parse().with_context(|| format!("`{text}` is no port/protocol, such as 80/tcp"))?;
            Ok(Traffic::Other(number))
        }
    }
}

/// Begins to answer at `path`, each client on a thread of its own.
///
/// # Errors
/// When the socket cannot be made, or another daemon answers there.
pub fn listen(path: &Path, events: SyncSender<Event>) -> anyhow::Result<()> {
    let making = || format!("making socket {}", path.display());
    if UnixStream::connect(path).is_ok() {
        bail!("another weave-npc answers at {}", path.display());
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(making)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(making),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(making)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(making)?;
    let serve = move || {
        for client in listener.incoming() {
            let events = events.clone();
            let answer =
                move || client.map_err(anyhow::Error::from).and_then(|client| answer(client, &events));
            let report = move || {
                if let Err(error) = answer() {
                    tracing::debug!("a client went unanswered: {error:#}");
                }
            };
            if let Err(error) = thread::Builder::new().name("npc-client".to_owned()).spawn(report) {
                tracing::warn!("cannot answer a client: {error}");
            }
        }
    };
    thread::Builder::new().name("npc-control".to_owned()).spawn(serve).with_context(making)?;
    Ok(())
}

fn answer(mut client: UnixStream, events: &SyncSender<Event>) -> anyhow::Result<()> {
    client.set_read_timeout(Some(ASK_WITHIN))?;
    let mut line = String::new();
    BufReader::new((&client).take(MAX_LINE)).read_line(&mut line)?;
    let answer = match line.parse() {
        Ok(request) => {
            let (reply, replied) = sync_channel(1);
            events.send(Event::Request(request, reply))?;
            replied.recv()?
        }
        Err(error) => format!("error: {error:#}"),
    };
    client.write_all(answer.as_bytes())?;
    Ok(client.shutdown(Shutdown::Both)?)
}

/// Asks the daemon at `path`, and waits for its answer at most for `patience`.
///
/// # Errors
/// When there is none, it takes too long, or says that it could not.
pub fn ask(path: &Path, question: &str, patience: Duration) -> anyhow::Result<String> {
    let mut stream =
        UnixStream::connect(path).with_context(|| format!("no weave-npc answers at {}", path.display()))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).context("weave-npc did not answer in time")?;
    match answer.strip_prefix("error: ") {
        Some(error) => bail!("{}", error.trim_end()),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use weave_policy::Protocol;

    use super::*;

    #[test]
    fn questions_are_read_and_nonsense_is_refused() {
        assert_eq!("sync\n".parse::<Request>().unwrap(), Request::Sync);
        let ends = [Place::Address([10, 0, 0, 1].into()), Place::Pod(PodId::new("x", "a"))];
        let explain = |traffic: &str| format!("explain 10.0.0.1 x/a {traffic}").parse::<Request>();
        assert_eq!(
            explain("80/tcp").unwrap(),
            Request::Explain(ends.clone(), Traffic::To(Protocol::Tcp, 80))
        );
        assert_eq!(explain("icmp").unwrap(), Request::Explain(ends, Traffic::Other(1)));
        let expect = Request::Expect(PodId::new("x", "a"), vec!["fd00::1".parse().unwrap()]);
        assert_eq!("expect x/a fd00::1".parse::<Request>().unwrap(), expect);
        assert!("expect x/a".parse::<Request>().is_err());
        for nonsense in ["80", "x/tcp", "80/icmp", "70000/tcp", "1000"] {
            assert!(nonsense == "80" || explain(nonsense).is_err(), "{nonsense}");
        }
        assert!("".parse::<Request>().is_err());
        assert!("explain here there 80/tcp".parse::<Request>().is_err());
    }
}
