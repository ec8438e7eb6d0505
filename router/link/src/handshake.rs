//! The state machine of both ends.

use std::{collections::VecDeque, fmt, mem};

use crate::{
    error::HandshakeError,
    hello::{LocalHello, RemoteHello},
    identity::{Credentials, MAX_PASSWORDS},
    keys::{DataKeys, Encryption},
    local::{Agreed, Hellos, Local, NO_PASSWORD},
    noise::Noise,
    pake::{self, CONFIRMATION_LEN, ELEMENT_LEN},
    preamble::{PREAMBLE_LEN, Preamble, VERSIONS, VersionRange},
    secret::Secret,
    wire::{
        ABORT, DIALER_HELLO, DIALER_IDENTITY, DIALER_PROOF, LISTENER_ACCEPT, LISTENER_HELLO,
        LISTENER_IDENTITY, MAX_MESSAGE, Problem, Reader,
    },
};

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Opened the connection, and speaks first.
    Dialer,
    /// Accepted it.
    Listener,
}

/// One end of one handshake.
///
/// # Driving
/// 1. Send everything that `poll_transmit` returns, in order, each as one message.
/// 2. Hand each message that arrives to `handle_message`, then do 1 again: **also after an error**, because
///    the last message tells the other end why. Then take `poll_established`.
/// 3. After `Established` the stream is free for other use, in both directions.
/// 4. If the connection ends otherwise, for whatever reason, ask `has_unproven_guess`.
///
/// Deadlines are the caller's: nothing here takes time.
pub struct Handshake {
    local: Local,
    state: State,
    outgoing: VecDeque<Vec<u8>>,
    established: Option<Established>,
    unproven_guess: bool,
}

/// A link that came up: who is there, and the keys to speak with it.
#[derive(Debug)]
pub struct Established {
    /// What the other end says about itself.
    pub remote: RemoteHello,
    /// The protocol version that both speak from now on.
    pub version: u16,
    /// The features that both have.
    pub features: u64,
    /// How the data plane is carried.
    pub encryption: Encryption,
    /// The data plane's keys; to be dropped unused if it is carried in the clear.
    pub keys: DataKeys,
    /// Random, equal at both ends and never at two links: of two links between the same two routers, both
    /// ends can keep the same one.
    pub tiebreak: u128,
    /// Which of **our** passwords fitted; `None` in an open mesh. When every link of every router says 0,
    /// older passwords are not used any more.
    pub password_slot: Option<usize>,
}

/// Where we are: each variant waits for the message that its name tells.
enum State {
    DialerHello,
    ListenerHello { hello: Vec<u8>, pake: Option<pake::Dialer> },
    DialerProof { hellos: Hellos, psks: Vec<Secret<32>> },
    ListenerIdentity { noise: Noise, agreed: Agreed },
    DialerIdentity { noise: Noise, agreed: Agreed },
    ListenerAccept { accept: Secret<32>, established: Box<Established> },
    Over,
}

impl Handshake {
    /// Starts a handshake on a fresh connection.
    ///
    /// `exporter` is the TLS exporter value (RFC 8446, section 7.5) of this connection, the same at both ends
    /// if and only if nothing sits between them. `seed` must be fresh randomness for each handshake.
    #[must_use]
    pub fn new(
        side: Side,
        credentials: &Credentials,
        hello: LocalHello,
        exporter: [u8; 32],
        seed: [u8; 32],
    ) -> Self {
        Self::with_versions(side, credentials, hello, exporter, seed, VERSIONS)
    }

    pub(crate) fn with_versions(
        side: Side,
        credentials: &Credentials,
        hello: LocalHello,
        exporter: [u8; 32],
        seed: [u8; 32],
        versions: VersionRange,
    ) -> Self {
        let local = Local::new(side, credentials, hello, exporter, seed, versions);
        let mut outgoing = VecDeque::new();
        let state = match side {
            Side::Dialer => {
                let (hello, pake) = local.dialer_hello();
                outgoing.push_back(hello.clone());
                State::ListenerHello { hello, pake }
            }
            Side::Listener => State::DialerHello,
        };
        Self { local, state, outgoing, established: None, unproven_guess: false }
    }

    /// Takes the next message of the other end.
    ///
    /// # Errors
    /// When the handshake has failed: nothing is established, and the connection is to be closed once what
    /// `poll_transmit` has left was sent: the message that tells the other end, unless the other end told us.
    pub fn handle_message(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        let result = self.advance(bytes);
        if let Err(error) = &result {
            // The reason is all that is left to say; and who ended it need not be told.
            self.established = None;
            self.outgoing.clear();
            self.outgoing.extend(error.to_abort().filter(|_| bytes.first() != Some(&ABORT)));
        }
        result
    }

    /// The next message for the other end.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    /// The link, once, as soon as the other end has shown that it has the same keys.
    #[must_use]
    pub fn poll_established(&mut self) -> Option<Established> {
        self.established.take()
    }

    /// Whether the other end had what it takes to test a guess at our password, and has not shown that it
    /// knows it. If the connection ends like this, count a failure for its address
    /// ([`GuessLimiter::record_failure`](crate::GuessLimiter::record_failure)): a guesser need not stay to be
    /// told.
    #[must_use]
    pub const fn has_unproven_guess(&self) -> bool {
        self.unproven_guess
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        // Whatever fails below leaves the handshake over.
        let state = mem::replace(&mut self.state, State::Over);
        if matches!(state, State::Over) {
            return Err(HandshakeError::Over);
        }
        if bytes.len() > MAX_MESSAGE {
            return Err(HandshakeError::Malformed { message: "message", problem: Problem::TooLong });
        }
        if bytes.first() == Some(&ABORT) {
            return Err(HandshakeError::from_abort(bytes, self.local.preamble.versions));
        }
        self.state = match state {
            State::DialerHello => self.on_dialer_hello(bytes)?,
            State::ListenerHello { hello, pake } => self.on_listener_hello(bytes, hello, pake.as_ref())?,
            State::DialerProof { hellos, psks } => self.on_dialer_proof(bytes, &hellos, &psks)?,
            State::ListenerIdentity { noise, agreed } => self.on_listener_identity(bytes, noise, &agreed)?,
            State::DialerIdentity { noise, agreed } => self.on_dialer_identity(bytes, noise, &agreed)?,
            State::ListenerAccept { accept, established } => self.on_accept(bytes, &accept, *established)?,
            State::Over => State::Over,
        };
        Ok(())
    }

    /// Listener: one reply and proof for each of our passwords, since the dialer does not say which is its
    /// own.
    fn on_dialer_hello(&mut self, bytes: &[u8]) -> Result<State, HandshakeError> {
        let local = &self.local;
        let mut reader = Reader::new(bytes, "dialer's hello");
        let remote = Preamble::decode(&mut reader, DIALER_HELLO, local.preamble.versions)?;
        let agreement = local.preamble.agree(&remote)?;
        let mut listener = local.preamble.encode(LISTENER_HELLO);
        let count = u8::try_from(local.passwords.len());
        listener.push(count.map_err(|_| HandshakeError::Internal("too many passwords"))?);
        let element = remote.has_password.then(|| reader.array::<ELEMENT_LEN>()).transpose()?;
        reader.finish()?;
        let mut psks = Vec::with_capacity(local.passwords.len());
        for (slot, password) in (0..).zip(&local.passwords) {
            let (reply, shared) = element
                .and_then(|element| pake::answer(password, &local.pake_seed(slot), &element))
                .ok_or_else(|| reader.error(Problem::Field("password exchange")))?;
            let proof = local.proof(&shared, bytes, &listener[..PREAMBLE_LEN], slot, &reply);
            listener.extend(reply);
            listener.extend(proof.confirmation.expose());
            psks.push(proof.psk);
        }
        self.unproven_guess = remote.has_password;
        self.outgoing.push_back(listener.clone());
        Ok(State::DialerProof {
            hellos: Hellos { dialer: bytes.to_vec(), listener, remote, agreement },
            psks,
        })
    }

    /// Dialer: finds the reply that was made with our password, and starts Noise with it.
    fn on_listener_hello(
        &mut self,
        bytes: &[u8],
        dialer: Vec<u8>,
        pake: Option<&pake::Dialer>,
    ) -> Result<State, HandshakeError> {
        let local = &self.local;
        let mut reader = Reader::new(bytes, "listener's hello");
        let remote = Preamble::decode(&mut reader, LISTENER_HELLO, local.preamble.versions)?;
        let agreement = local.preamble.agree(&remote)?;
        let count = reader.u8()?;
        if usize::from(count) > MAX_PASSWORDS || (count > 0) != remote.has_password {
            return Err(reader.error(Problem::Field("number of passwords")));
        }
        let mut fitting = None;
        for slot in 0..count {
            let reply = reader.array::<ELEMENT_LEN>()?;
            let confirmation = Secret::new(reader.array::<CONFIRMATION_LEN>()?);
            let shared = pake
                .and_then(|pake| pake.finish(&reply))
                .ok_or_else(|| reader.error(Problem::Field("password exchange")))?;
            let proof = local.proof(&shared, &dialer, &bytes[..PREAMBLE_LEN], slot, &reply);
            if fitting.is_none() && proof.confirmation == confirmation {
                fitting = Some((slot, proof.psk));
            }
        }
        reader.finish()?;
        self.unproven_guess = count > 0 && fitting.is_none();
        if self.unproven_guess {
            return Err(HandshakeError::WrongPassword);
        }
        let (slot, psk) = fitting.unwrap_or((0, NO_PASSWORD));
        let hellos = Hellos { dialer, listener: bytes.to_vec(), remote, agreement };
        let mut noise = local.noise(&hellos, slot, &psk)?;
        self.outgoing.push_back(noise.write(&[DIALER_PROOF, slot], &[])?);
        // We dial with the first of ours, whichever slot it has there.
        let agreed = hellos.agreed((count > 0).then_some(0));
        Ok(State::ListenerIdentity { noise, agreed })
    }

    /// Listener: the dialer shows that it knows the password; only then do we say who we are.
    fn on_dialer_proof(
        &mut self,
        bytes: &[u8],
        hellos: &Hellos,
        psks: &[Secret<32>],
    ) -> Result<State, HandshakeError> {
        let mut reader = Reader::new(bytes, "dialer's proof");
        reader.tag(DIALER_PROOF)?;
        let slot = reader.u8()?;
        let psk = match psks.get(usize::from(slot)) {
            Some(psk) => psk,
            None if psks.is_empty() && slot == 0 => &NO_PASSWORD,
            None => return Err(reader.error(Problem::Field("password slot"))),
        };
        let mut noise = self.local.noise(hellos, slot, psk)?;
        match noise.read(reader.remaining()) {
            Some(payload) => Reader::new(&payload, "dialer's proof").finish()?,
            // An honest dialer has seen our proof before, and would have given up on another password.
            None if psks.is_empty() => return Err(HandshakeError::NotAuthentic),
            None => return Err(HandshakeError::WrongPassword),
        }
        self.unproven_guess = false;
        self.outgoing.push_back(noise.write(&[LISTENER_IDENTITY], &self.local.hello.encode())?);
        let agreed = hellos.agreed((!psks.is_empty()).then_some(slot.into()));
        Ok(State::DialerIdentity { noise, agreed })
    }

    /// Dialer: learns who the listener is, and says who we are.
    fn on_listener_identity(
        &mut self,
        bytes: &[u8],
        mut noise: Noise,
        agreed: &Agreed,
    ) -> Result<State, HandshakeError> {
        let mut reader = Reader::new(bytes, "listener's identity");
        reader.tag(LISTENER_IDENTITY)?;
        let remote = self.local.identity_of(&mut noise, reader, "listener's identity", agreed)?;
        let message = noise.write(&[DIALER_IDENTITY], &self.local.hello.encode())?;
        let (accept, established) = self.local.establish(noise, remote, agreed)?;
        self.outgoing.push_back(message);
        Ok(State::ListenerAccept { accept, established: Box::new(established) })
    }

    /// Listener: learns who the dialer is, and is through.
    fn on_dialer_identity(
        &mut self,
        bytes: &[u8],
        mut noise: Noise,
        agreed: &Agreed,
    ) -> Result<State, HandshakeError> {
        let mut reader = Reader::new(bytes, "dialer's identity");
        reader.tag(DIALER_IDENTITY)?;
        let remote = self.local.identity_of(&mut noise, reader, "dialer's identity", agreed)?;
        let (accept, established) = self.local.establish(noise, remote, agreed)?;
        self.outgoing.push_back([&[LISTENER_ACCEPT], &accept.expose()[..]].concat());
        self.established = Some(established);
        Ok(State::Over)
    }

    /// Dialer: the listener is through, and so are we.
    fn on_accept(
        &mut self,
        bytes: &[u8],
        accept: &Secret<32>,
        established: Established,
    ) -> Result<State, HandshakeError> {
        let mut reader = Reader::new(bytes, "accept");
        reader.tag(LISTENER_ACCEPT)?;
        let proof = Secret::new(reader.array()?);
        reader.finish()?;
        if proof != *accept {
            return Err(HandshakeError::NotAuthentic);
        }
        self.established = Some(established);
        Ok(State::Over)
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::DialerHello => "awaits dialer's hello",
            State::ListenerHello { .. } => "awaits listener's hello",
            State::DialerProof { .. } => "awaits dialer's proof",
            State::ListenerIdentity { .. } => "awaits listener's identity",
            State::DialerIdentity { .. } => "awaits dialer's identity",
            State::ListenerAccept { .. } => "awaits accept",
            State::Over => "over",
        };
        f.debug_struct("Handshake")
            .field("side", &self.local.side)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use weave_model::{PeerName, Uid};

    use super::*;

    fn end(side: Side, oldest: u16, newest: u16) -> Handshake {
        let number = u8::from(side == Side::Dialer);
        let credentials =
            Credentials { identity: crate::Identity::generate([number; 32]), passwords: vec![] };
        let hello = LocalHello {
            name: PeerName([2, 0, 0, 0, 0, number]),
            uid: Uid(number.into()),
            incarnation: 1,
            nickname: "host".to_owned(),
            listen_port: 6783,
            software: "test".to_owned(),
            aes_hardware: true,
            trusts_remote: false,
            sleeve_index: 1,
            features: 0,
        };
        let versions = VersionRange { oldest, newest };
        Handshake::with_versions(side, &credentials, hello, [1; 32], [number; 32], versions)
    }

    /// Hands messages over until nobody has any; the first error at each end.
    fn run(dialer: &mut Handshake, listener: &mut Handshake) -> [Result<(), HandshakeError>; 2] {
        let mut results = [Ok(()), Ok(())];
        loop {
            if let Some(message) = dialer.poll_transmit() {
                let result = listener.handle_message(&message);
                results[1] = results[1].clone().and(result);
            } else if let Some(message) = listener.poll_transmit() {
                let result = dialer.handle_message(&message);
                results[0] = results[0].clone().and(result);
            } else {
                return results;
            }
        }
    }

    #[test]
    fn both_ends_settle_on_the_newest_version_that_both_speak() {
        let (mut dialer, mut listener) = (end(Side::Dialer, 1, 3), end(Side::Listener, 2, 5));
        assert_eq!(run(&mut dialer, &mut listener), [Ok(()), Ok(())]);
        assert_eq!(dialer.poll_established().unwrap().version, 3);
        assert_eq!(listener.poll_established().unwrap().version, 3);
    }

    #[test]
    fn ends_without_a_common_version_both_name_both_ranges() {
        let (mut dialer, mut listener) = (end(Side::Dialer, 1, 1), end(Side::Listener, 2, 4));
        let (old, new) = (VersionRange { oldest: 1, newest: 1 }, VersionRange { oldest: 2, newest: 4 });
        let expected = [
            Err(HandshakeError::VersionMismatch { ours: old, theirs: new }),
            Err(HandshakeError::VersionMismatch { ours: new, theirs: old }),
        ];
        assert_eq!(run(&mut dialer, &mut listener), expected);
        assert!(dialer.poll_established().is_none() && listener.poll_established().is_none());
    }

    #[test]
    fn a_later_version_may_change_all_of_a_hello_but_its_beginning() {
        let mut listener = end(Side::Listener, 1, 1);
        let mut hello = end(Side::Dialer, 9, 9).poll_transmit().unwrap();
        hello.truncate(13);
        hello.extend([0xff; 300]);
        assert!(matches!(listener.handle_message(&hello), Err(HandshakeError::VersionMismatch { .. })));
    }

    #[test]
    fn a_handshake_can_move_between_threads() {
        fn assert_send<T: Send>() {}
        assert_send::<Handshake>();
        assert_send::<Established>();
    }
}
