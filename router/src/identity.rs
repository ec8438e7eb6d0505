//! Who this router is, from one start to the next.

use anyhow::Context as _;
use aws_lc_rs::hmac;
use weave_link::Identity;
use weave_model::PeerName;

use crate::{
    clock,
    exit::{Exit, Fatal},
    store::Store,
};

/// Names of values in the store's own part.
pub(crate) const INCARNATION: &str = "incarnation";
const KEY: &str = "identity";
const NAME: &str = "name";
const STORE_ID: &str = "store-id";
const TARGETS: &str = "targets";

/// The identity of this run.
pub(crate) struct Local {
    pub(crate) identity: Identity,
    pub(crate) name: PeerName,
    /// Grows with each start, so that others can tell our runs apart by order.
    pub(crate) incarnation: u64,
    /// Random, made with the store: a router that lost its store is not the one that held its addresses.
    pub(crate) store_id: u64,
}

impl Local {
    /// Reads the identity, or makes one at the first start, and counts this start.
    pub(crate) fn load(store: &Store, name: Option<PeerName>) -> anyhow::Result<Self> {
        let identity = load_identity(store)?;
        let name = load_name(store, name, &identity)?;
        store.set_router_value(NAME, name.to_string().as_bytes())?;
        let incarnation = number(store, INCARNATION)?.unwrap_or(0) + 1;
        store.set_router_value(INCARNATION, &incarnation.to_le_bytes())?;
        let store_id = match number(store, STORE_ID)? {
            Some(id) => id,
            None => {
                let id = clock::random_u64();
                store.set_router_value(STORE_ID, &id.to_le_bytes())?;
                id
            }
        };
        Ok(Self { identity, name, incarnation, store_id })
    }

    /// The key of QUIC's stateless resets (RFC 9000, section 10.3). It is the same after a restart, so that a peer whose
    /// link died with the last run learns so from the first packet that it sends, and not by silence.
    pub(crate) fn reset_key(&self) -> hmac::Key {
        self.derive(b"weave quic stateless reset v1")
    }

    /// The key by which our own QUIC connection ids are recognised after a restart.
    pub(crate) fn connection_id_key(&self) -> hmac::Key {
        self.derive(b"weave quic connection id v1")
    }

    fn derive(&self, label: &[u8]) -> hmac::Key {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &self.identity.to_bytes()[..]);
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, label).as_ref())
    }

    /// The name alone, without counting a start; for `--print-peer-name`.
    pub(crate) fn peek_name(store: &Store, name: Option<PeerName>) -> anyhow::Result<PeerName> {
        let identity = load_identity(store)?;
        load_name(store, name, &identity)
    }
}

/// The name of earlier runs: the addresses in the store are owned under it. At the first start the one given, or the
/// one made from the key.
fn load_name(store: &Store, given: Option<PeerName>, identity: &Identity) -> anyhow::Result<PeerName> {
    let Some(bytes) = store.router_value(NAME)? else {
        return Ok(given.unwrap_or_else(|| identity.peer_name()));
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged(NAME))?;
    let stored: PeerName = text.parse().map_err(|_| damaged(NAME))?;
    match given {
        Some(given) if given != stored => {
            let message = format!(
                "the store belongs to the router {stored}, not to {given}; nothing was changed. Leave --name out, or \
                 give another --db-prefix"
            );
            Err(Fatal::error(Exit::Store, message))
        }
        Some(_) | None => Ok(stored),
    }
}

fn load_identity(store: &Store) -> anyhow::Result<Identity> {
    if let Some(bytes) = store.router_value(KEY)? {
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| damaged(KEY))?;
        return Ok(Identity::from_bytes(bytes));
    }
    let identity = Identity::generate(clock::seed());
    store.set_router_value(KEY, &identity.to_bytes()[..]).context("cannot keep the new identity")?;
    Ok(identity)
}

/// The targets of the last run, for `--resume`.
pub(crate) fn load_targets(store: &Store) -> anyhow::Result<Vec<String>> {
    match store.router_value(TARGETS)? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| damaged(TARGETS)),
        None => Ok(Vec::new()),
    }
}

/// Keeps the targets for the next `--resume`.
pub(crate) fn save_targets(store: &Store, targets: &[String]) -> anyhow::Result<()> {
    store.set_router_value(TARGETS, &serde_json::to_vec(targets)?)
}

fn number(store: &Store, name: &str) -> anyhow::Result<Option<u64>> {
    let Some(bytes) = store.router_value(name)? else { return Ok(None) };
    let bytes = bytes.as_slice().try_into().map_err(|_| damaged(name))?;
    Ok(Some(u64::from_le_bytes(bytes)))
}

fn damaged(name: &str) -> anyhow::Error {
    let message = format!(
        "the value `{name}` in the store is damaged; nothing was changed. Restore the store from a backup, or move it \
         away: this router then starts with a new name and without its addresses"
    );
    Fatal::error(Exit::Store, message)
}
