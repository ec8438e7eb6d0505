//! Queries over TCP (RFC 7766).

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_server::net::xfer::Protocol;
use rand_core::RngCore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_CLIENT, Shared};
use crate::responder::Decision;

/// A connection that sends no whole query, or takes no answer, for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left, mostly): time for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longer queries are no queries.
const MAX_QUERY: usize = 4096;

/// Who is connected how often.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<BTreeMap<IpAddr, usize>>);

/// One counted connection; counted off when dropped.
struct Slot {
    shared: Arc<Shared>,
    client: IpAddr,
}

/// Serves one listener until it is dropped.
pub(crate) async fn serve_tcp<R>(listener: TcpListener, shared: Arc<Shared>, new_rng: impl Fn() -> R)
where
    R: RngCore + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        // Without a slot the connection is closed at once, and the client knows.
        if shared.admits(client.ip())
            && let Some(slot) = Slot::take(&shared, client.ip())
        {
            let rng = new_rng();
            connections.spawn(async move {
                if let Err(error) = serve(stream, client, &slot.shared, rng).await {
                    tracing::trace!(%client, %error, "DNS connection ended");
                }
            });
        }
    }
}

/// Answers one query after the other; a client that pipelines waits in its own connection only.
async fn serve(
    mut stream: TcpStream,
    client: SocketAddr,
    shared: &Shared,
    mut rng: impl RngCore,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some(query) = timeout(IDLE, read_query(&mut stream)).await?? else { return Ok(()) };
        let since = Instant::now();
        let message = match shared.responder.decide(&query, client, Protocol::Tcp, &mut rng) {
            Decision::Send(message, outcome) => {
                shared.counters.record(outcome, since.elapsed());
                message
            }
            Decision::Forward(pending) => shared.forward(&pending, since).await,
            Decision::Ignore => return Ok(()),
        };
        let len = u16::try_from(message.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes(), message.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// Reads one query with its length in front; None at the end of the connection.
async fn read_query(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u16().await {
        Ok(len) => usize::from(len),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if len > MAX_QUERY {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut query = vec![0; len];
    stream.read_exact(&mut query).await?;
    Ok(Some(query))
}

impl Slot {
    fn take(shared: &Arc<Shared>, client: IpAddr) -> Option<Self> {
        let mut count_by_client = shared.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = count_by_client.values().sum();
        let own = count_by_client.get(&client).copied().unwrap_or_default();
        if total >= MAX_CONNECTIONS || own >= MAX_CONNECTIONS_PER_CLIENT {
            return None;
        }
        count_by_client.insert(client, own + 1);
        Some(Self { shared: Arc::clone(shared), client })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut count_by_client = self.shared.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        match count_by_client.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                count_by_client.remove(&self.client);
            }
        }
    }
}
