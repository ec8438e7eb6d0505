//! What one end works with during a handshake, and what it derives from that.

use crate::{
    error::HandshakeError,
    handshake::{Established, Side},
    hello::{LocalHello, RemoteHello},
    identity::{Credentials, Identity, MAX_PASSWORDS, StretchedPassword},
    keys::{Encryption, LinkSecrets},
    noise::Noise,
    pake::{self, Proof},
    preamble::{Agreement, Preamble, VersionRange},
    secret::{Secret, digest},
    wire::{DIALER_HELLO, Reader},
};

/// The pre-shared key of an open mesh: none (Noise's customary zeroes).
pub(crate) const NO_PASSWORD: Secret<32> = Secret::new([0; 32]);

/// What does not change while the handshake runs.
pub(crate) struct Local {
    pub(crate) side: Side,
    pub(crate) identity: Identity,
    pub(crate) passwords: Vec<StretchedPassword>,
    pub(crate) hello: LocalHello,
    pub(crate) exporter: Secret<32>,
    pub(crate) preamble: Preamble,
    pub(crate) seed: Secret<32>,
}

/// Both hellos as they were on the wire, and what follows from them.
pub(crate) struct Hellos {
    pub(crate) dialer: Vec<u8>,
    pub(crate) listener: Vec<u8>,
    pub(crate) remote: Preamble,
    pub(crate) agreement: Agreement,
}

/// What is settled before the identities are exchanged.
pub(crate) struct Agreed {
    pub(crate) agreement: Agreement,
    pub(crate) remote_features: u64,
    pub(crate) password_slot: Option<usize>,
}

impl Local {
    /// `credentials`, `exporter` and `seed` are those of [`Handshake::new`](crate::Handshake::new).
    pub(crate) fn new(
        side: Side,
        credentials: &Credentials,
        hello: LocalHello,
        exporter: [u8; 32],
        seed: [u8; 32],
        versions: VersionRange,
    ) -> Self {
        let seed = Secret::new(seed);
        let passwords: Vec<_> = credentials.passwords.iter().take(MAX_PASSWORDS).cloned().collect();
        let preamble = Preamble {
            versions,
            features: hello.features,
            has_password: !passwords.is_empty(),
            random: *seed.expand::<16>(&[b"weave hello random"]).expose(),
        };
        let identity = credentials.identity.clone();
        Self { side, identity, passwords, hello, exporter: Secret::new(exporter), preamble, seed }
    }

    pub(crate) fn dialer_hello(&self) -> (Vec<u8>, Option<pake::Dialer>) {
        let mut hello = self.preamble.encode(DIALER_HELLO);
        let password = self.passwords.first().cloned();
        let pake = password.map(|password| pake::Dialer::new(password, self.pake_seed(0)));
        hello.extend(pake.iter().flat_map(pake::Dialer::element));
        (hello, pake)
    }

    /// Each exchange has a secret exponent of its own.
    pub(crate) fn pake_seed(&self, slot: u8) -> Secret<32> {
        self.seed.expand(&[b"weave pake", &[slot]])
    }

    /// What the PAKE result of one slot is worth on this connection, after these hellos, for this reply.
    pub(crate) fn proof(
        &self,
        shared: &Secret<32>,
        dialer: &[u8],
        listener: &[u8],
        slot: u8,
        reply: &[u8],
    ) -> Proof {
        let parts = [self.exporter.expose(), dialer, listener, &[slot], reply];
        Proof::new(shared, &digest(b"weave link v1 pake transcript", &parts))
    }

    pub(crate) fn noise(&self, hellos: &Hellos, slot: u8, psk: &Secret<32>) -> Result<Noise, HandshakeError> {
        let parts = [self.exporter.expose(), &hellos.dialer[..], &hellos.listener, &[slot]];
        let prologue = digest(b"weave link v1 prologue", &parts);
        Noise::new(self.side, &self.identity, psk, &prologue, self.seed.expand(&[b"weave noise"]))
    }

    /// Reads the other end's identity out of its Noise message.
    pub(crate) fn identity_of(
        &self,
        noise: &mut Noise,
        reader: Reader<'_>,
        message: &'static str,
        agreed: &Agreed,
    ) -> Result<RemoteHello, HandshakeError> {
        let payload = noise.read(reader.remaining()).ok_or(HandshakeError::NotAuthentic)?;
        let key = noise.remote_key().ok_or(HandshakeError::Internal("Noise has no remote key"))?;
        if !self.identity.accepts(&key) {
            return Err(HandshakeError::WeakKey);
        }
        RemoteHello::decode(&payload, message, agreed.remote_features, key)
    }

    pub(crate) fn establish(
        &self,
        noise: Noise,
        remote: RemoteHello,
        agreed: &Agreed,
    ) -> Result<(Secret<32>, Established), HandshakeError> {
        let LinkSecrets { keys, accept, tiebreak } = LinkSecrets::new(&noise.into_link_key()?, self.side);
        let Agreed { agreement: Agreement { version, features }, password_slot, .. } = *agreed;
        let encryption = Encryption::between(!self.passwords.is_empty(), &self.hello, &remote);
        Ok((accept, Established { remote, version, features, encryption, keys, tiebreak, password_slot }))
    }
}

impl Hellos {
    pub(crate) const fn agreed(&self, password_slot: Option<usize>) -> Agreed {
        Agreed { agreement: self.agreement, remote_features: self.remote.features, password_slot }
    }
}
