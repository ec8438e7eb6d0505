//! Asks until somebody answers.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rand_core::{OsRng, RngCore};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    cache::{Cache, Key},
    exchange::ask,
    resolv_conf::Servers,
};
use crate::wire::{self, ClientEdns, Layout};

/// A server that is silent for this part of the patience is joined by the next one.
const NEXT_AFTER_PART: u32 = 4;

/// A client's query, reduced to what an upstream server is told.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// The question on the wire, as the client spelled it.
    pub(crate) question: Vec<u8>,
    /// Whether the client validates by itself.
    pub(crate) checking_disabled: bool,
    /// The client's EDNS, if it speaks that.
    pub(crate) edns: Option<ClientEdns>,
}

/// An upstream server's response, byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// The response; its id and the case of its question are of no meaning to the client yet.
    pub(crate) message: Vec<u8>,
    /// What is where.
    pub(crate) layout: Arc<Layout>,
}

/// No server gave an answer in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure;

/// Forwards queries, with a small cache in front.
#[derive(Debug)]
pub(crate) struct Forwarder {
    servers: Servers,
    cache: Mutex<Cache>,
    patience: Duration,
    /// Where in the list to begin: moves on when the server there stays silent.
    first: AtomicUsize,
}

impl Forwarder {
    pub(crate) fn new(servers: Servers, patience: Duration) -> Self {
        Self { servers, cache: Mutex::default(), patience, first: AtomicUsize::new(0) }
    }

    /// The servers that would be asked now.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        self.servers.current(Instant::now()).to_vec()
    }

    /// The answer, if we have it.
    pub(crate) fn cached(&self, query: &Query) -> Option<Relayed> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.find(&key(query), Instant::now())
    }

    /// Asks one server after the other until one answers. One that is silent is not given up: the next is asked
    /// beside it, and the first answer wins.
    pub(crate) async fn forward(&self, query: &Query) -> Result<Relayed, Failure> {
        let start = Instant::now();
        let deadline = start + self.patience;
        let servers = self.servers.current(start);
        let first = self.first.load(Relaxed);
        let mut waiting: VecDeque<SocketAddr> = servers.iter().copied().collect();
        waiting.rotate_left(first.checked_rem(servers.len()).unwrap_or_default());
        let mut tries = JoinSet::new();
        let mut second_best = None;
        loop {
            match waiting.pop_front() {
                Some(server) => {
                    tries.spawn(ask_one(query.clone(), server));
                }
                None if tries.is_empty() => return second_best.ok_or(Failure),
                None => {}
            }
            let join_at = Instant::now() + self.patience / NEXT_AFTER_PART;
            let next_at = if waiting.is_empty() { deadline } else { deadline.min(join_at) };
            tokio::select! {
                Some(result) = tries.join_next() => match result {
                    Ok(Ok(response)) if is_final(&response) => {
                        self.keep(query, &response);
                        return Ok(response);
                    }
                    // It cannot or will not say; perhaps another can. If none can, the client is told so.
                    Ok(Ok(response)) => second_best = Some(response).filter(|r| r.layout.code < 16).or(second_best),
                    Ok(Err(error)) => tracing::debug!(%error, "upstream server failed"),
                    Err(_) => {}
                },
                () = sleep_until(next_at) => {
                    let _ = self.first.compare_exchange(first, first.wrapping_add(1), Relaxed, Relaxed);
                    if next_at == deadline {
                        return second_best.ok_or(Failure);
                    }
                }
            }
        }
    }

    fn keep(&self, query: &Query, response: &Relayed) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(key(query), response, Instant::now());
    }
}

async fn ask_one(query: Query, server: SocketAddr) -> io::Result<Relayed> {
    let mut id = [0; 2];
    OsRng.fill_bytes(&mut id);
    let message = wire::query(u16::from_be_bytes(id), &query.question, query.checking_disabled, query.edns);
    ask(server, &message, query.question.len()).await
}

/// Whether a response settles the question: it gives an answer, or says that there is none.
fn is_final(response: &Relayed) -> bool {
    const NO_ERROR: u16 = 0;
    const NX_DOMAIN: u16 = 3;
    matches!(response.layout.code, NO_ERROR | NX_DOMAIN)
}

fn key(query: &Query) -> Key {
    let mut question = query.question.clone();
    // Case means nothing in names; in the type and class behind them every bit counts.
    let name_len = question.len().saturating_sub(4);
    if let Some(name) = question.get_mut(..name_len) {
        name.make_ascii_lowercase();
    }
    Key { question, checking_disabled: query.checking_disabled, edns: query.edns }
}
