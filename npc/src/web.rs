//! `/metrics` and `/readyz` over HTTP: for reading only, and little of it at a time.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::Context;

use crate::{control::Request, source::Event};

/// The longest head of a request, in bytes.
const MAX_HEAD: u64 = 16 * 1024;
/// How many clients are served at a time; more are turned away.
const CLIENTS: usize = 8;
/// How long a client, or the daemon, may take.
const PATIENCE: Duration = Duration::from_secs(5);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Begins to answer at `address`.
///
/// # Errors
/// When it cannot be listened there.
pub fn serve(address: SocketAddr, events: SyncSender<Event>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("serving metrics at {address}"))?;
    let bound = listener.local_addr()?;
    let clients = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        for client in listener.incoming().flatten() {
            let (events, clients) = (events.clone(), clients.clone());
            if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS {
                clients.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let counted = clients.clone();
            let answer = move || {
                if let Err(error) = answer(&client, &events) {
                    tracing::debug!("a client went unanswered: {error:#}");
                }
                clients.fetch_sub(1, Ordering::AcqRel);
            };
            if let Err(error) = thread::Builder::new().name("npc-web".to_owned()).spawn(answer) {
                counted.fetch_sub(1, Ordering::AcqRel);
                tracing::warn!("cannot answer a client: {error}");
            }
        }
    };
    thread::Builder::new().name("npc-metrics".to_owned()).spawn(accept).context("serving metrics")?;
    Ok(bound)
}

fn answer(mut client: &TcpStream, events: &SyncSender<Event>) -> anyhow::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client.take(MAX_HEAD)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head has to be read, or closing would take the answer back.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, kind, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["GET", "/metrics"] => ("200 OK", OPEN_METRICS, ask(Request::Metrics, events)?),
        ["GET", "/readyz"] => match ask(Request::Sync, events)? {
            text if text.starts_with("error") => ("503 Service Unavailable", PLAIN, text),
            text => ("200 OK", PLAIN, text),
        },
        _ => ("404 Not Found", PLAIN, "there are /metrics and /readyz\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    Ok(client.write_all(body.as_bytes())?)
}

fn ask(request: Request, events: &SyncSender<Event>) -> anyhow::Result<String> {
    let (reply, replied) = sync_channel(1);
    events.send(Event::Request(request, reply))?;
    Ok(replied.recv_timeout(PATIENCE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn what_the_daemon_says_is_passed_on() {
        let (sender, events) = sync_channel(4);
        let address = serve(SocketAddr::from(([127, 0, 0, 1], 0)), sender).unwrap();
        thread::spawn(move || {
            for event in events {
                let Event::Request(request, reply) = event else { panic!("{event:?}") };
                let text = if request == Request::Metrics { "# EOF\n" } else { "error: not yet\n" };
                reply.send(text.to_owned()).unwrap();
            }
        });
        let metrics = get(address, "/metrics");
        assert!(
            metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.ends_with("\r\n\r\n# EOF\n"),
            "{metrics}"
        );
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 503"));
        assert!(get(address, "/").starts_with("HTTP/1.1 404"));
    }
}
