//! Queries in datagrams.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_server::net::xfer::Protocol;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use rand_core::RngCore;
use tokio::{io::Interest, net::UdpSocket, task::JoinSet, time::Instant};

use super::{MAX_FORWARDED, Shared, memo::Memo};
use crate::{
    responder::{Decision, Pending},
    stats::Outcome,
};

/// Room for one receive; the kernel may join up to 64 datagrams of one sender into it, up to 64 KiB in all.
const BUFFER: usize = 65_535;
/// Receive this often, `BATCH_SIZE` buffers each, before other tasks get their turn.
const BATCHES_PER_TURN: usize = 4;
/// After a failed receive (the interface is down, mostly): a socket that stays broken must not keep a core busy.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A socket that answers from the address that was asked, which matters when it listens on all addresses.
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

/// Serves one socket until it is dropped.
///
/// # Errors
/// When the socket cannot be set up, or the runtime shuts down.
pub(crate) async fn serve_udp(io: UdpSocket, shared: Arc<Shared>, mut rng: impl RngCore) -> io::Result<()> {
    let state = UdpSocketState::new((&io).into())?;
    let socket = Arc::new(Socket { io, state });
    let mut storage = vec![0; BUFFER * BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    let mut forwards = JoinSet::new();
    let mut memo = Memo::default();
    loop {
        socket.io.readable().await?;
        for _ in 0..BATCHES_PER_TURN {
            let received = match socket.receive(&mut storage, &mut metas) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "cannot read from the DNS socket");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    break;
                }
            };
            for (buffer, meta) in storage.chunks(BUFFER).zip(&metas).take(received) {
                if !shared.admits(meta.addr.ip()) {
                    continue;
                }
                let joined = buffer.get(..meta.len).unwrap_or_default();
                for datagram in joined.chunks(meta.stride.max(1)) {
                    if !repeat(&socket, &shared, datagram, meta, &mut memo) {
                        handle(&socket, &shared, datagram, meta, &mut rng, &mut forwards, &mut memo);
                    }
                }
            }
        }
        while forwards.try_join_next().is_some() {}
        tokio::task::yield_now().await;
    }
}

/// Answers what was asked before in the same words.
fn repeat(socket: &Socket, shared: &Shared, datagram: &[u8], meta: &RecvMeta, memo: &mut Memo) -> bool {
    let since = Instant::now();
    let names = shared.responder.names();
    let Some(message) = memo.answer(&names, datagram) else { return false };
    socket.send(message, meta.addr, meta.dst_ip);
    shared.counters.record(Outcome::Answered, since.elapsed());
    true
}

fn handle(
    socket: &Arc<Socket>,
    shared: &Arc<Shared>,
    datagram: &[u8],
    meta: &RecvMeta,
    rng: &mut impl RngCore,
    forwards: &mut JoinSet<()>,
    memo: &mut Memo,
) {
    let since = Instant::now();
    match shared.responder.decide(datagram, meta.addr, Protocol::Udp, rng) {
        Decision::Send(message, outcome) => {
            socket.send(&message, meta.addr, meta.dst_ip);
            shared.counters.record(outcome, since.elapsed());
            memo.keep(datagram, &message, outcome);
        }
        // The semaphore refuses what is beyond the bound; a refusal is short, so twice the bound is enough tasks.
        Decision::Forward(pending) if forwards.len() < 2 * MAX_FORWARDED => {
            let (socket, shared) = (Arc::clone(socket), Arc::clone(shared));
            let (to, from) = (meta.addr, meta.dst_ip);
            forwards.spawn(forward(socket, shared, pending, since, to, from));
        }
        Decision::Forward(_) | Decision::Ignore => {}
    }
}

async fn forward(
    socket: Arc<Socket>,
    shared: Arc<Shared>,
    pending: Box<Pending>,
    since: Instant,
    to: SocketAddr,
    from: Option<IpAddr>,
) {
    let message = shared.forward(&pending, since).await;
    socket.send(&message, to, from);
}

impl Socket {
    /// Reads what is there, without waiting.
    fn receive(&self, storage: &mut [u8], metas: &mut [RecvMeta; BATCH_SIZE]) -> io::Result<usize> {
        let mut chunks = storage.chunks_mut(BUFFER);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), &mut buffers, metas))
    }

    /// Sends, or drops when the kernel has no room: the client asks again.
    fn send(&self, contents: &[u8], destination: SocketAddr, src_ip: Option<IpAddr>) {
        let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip };
        if let Err(error) = self.state.try_send((&self.io).into(), &transmit) {
            tracing::trace!(%error, %destination, "answer not sent");
        }
    }
}
