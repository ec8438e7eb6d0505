//! Two ends of a connection, and the wire between them.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
};

use weave_link::{
    Credentials, Established, Handshake, HandshakeError, Identity, LocalHello, Side, StretchedPassword,
};
use weave_model::{Password, PeerName, Uid};

/// Everything that one end is made of; the fields may be changed before it starts.
#[derive(Clone)]
pub(crate) struct End {
    pub(crate) side: Side,
    pub(crate) credentials: Credentials,
    pub(crate) hello: LocalHello,
    pub(crate) exporter: [u8; 32],
    pub(crate) seed: [u8; 32],
}

/// What came of a handshake.
pub(crate) struct Outcome {
    pub(crate) dialer: Result<Option<Established>, HandshakeError>,
    pub(crate) listener: Result<Option<Established>, HandshakeError>,
    /// What was sent, in order, as it was sent.
    pub(crate) sent: Vec<(Side, Vec<u8>)>,
}

impl End {
    /// The dialer of the test, with these passwords.
    pub(crate) fn dialer(passwords: &[&str]) -> Self {
        Self::new(Side::Dialer, 1, passwords)
    }

    /// The listener of the test, with these passwords.
    pub(crate) fn listener(passwords: &[&str]) -> Self {
        Self::new(Side::Listener, 2, passwords)
    }

    fn new(side: Side, number: u8, passwords: &[&str]) -> Self {
        let identity = Identity::generate([number; 32]);
        let hello = LocalHello {
            name: PeerName([2, 0, 0, 0, 0, number]),
            uid: Uid(100 + u64::from(number)),
            incarnation: 1,
            nickname: format!("nickname-of-host-{number}"),
            listen_port: 6783,
            software: "weave 0.1.0".to_owned(),
            aes_hardware: true,
            trusts_remote: false,
            sleeve_index: 1000 + u32::from(number),
            features: 0b11,
        };
        let passwords = passwords.iter().map(|text| stretched(text)).collect();
        Self {
            side,
            credentials: Credentials { identity, passwords },
            hello,
            exporter: [0xee; 32],
            seed: [number; 32],
        }
    }

    pub(crate) fn with_exporter(self, byte: u8) -> Self {
        Self { exporter: [byte; 32], ..self }
    }

    pub(crate) fn with_seed(self, byte: u8) -> Self {
        Self { seed: [byte; 32], ..self }
    }

    pub(crate) fn with_hello(mut self, change: impl FnOnce(&mut LocalHello)) -> Self {
        change(&mut self.hello);
        self
    }

    pub(crate) fn start(&self) -> Handshake {
        Handshake::new(self.side, &self.credentials, self.hello.clone(), self.exporter, self.seed)
    }
}

impl Outcome {
    /// Both links, for a handshake that must succeed.
    pub(crate) fn both(self) -> (Established, Established) {
        (self.dialer.unwrap().unwrap(), self.listener.unwrap().unwrap())
    }

    /// Both errors, for a handshake that must fail.
    pub(crate) fn errors(self) -> (HandshakeError, HandshakeError) {
        (self.dialer.unwrap_err(), self.listener.unwrap_err())
    }
}

/// Lets two ends speak over a wire that changes nothing.
pub(crate) fn connect(dialer: &End, listener: &End) -> Outcome {
    connect_through(dialer, listener, |_, message| message)
}

/// Lets two ends speak over a wire that may change each message; `wire` is also told its number, from 0.
pub(crate) fn connect_through(
    dialer: &End,
    listener: &End,
    mut wire: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
) -> Outcome {
    let (mut dialer, mut listener) = (dialer.start(), listener.start());
    let mut results = [Ok(()), Ok(())];
    let mut sent = vec![];
    loop {
        let (side, message) = match (dialer.poll_transmit(), listener.poll_transmit()) {
            (Some(message), None) => (Side::Dialer, message),
            (None, Some(message)) => (Side::Listener, message),
            (None, None) => break,
            (Some(_), Some(_)) => panic!("both ends speak at once"),
        };
        assert!(message.len() <= weave_link::MAX_MESSAGE);
        let delivered = wire(sent.len(), message.clone());
        sent.push((side, message));
        assert!(sent.len() < 10, "the handshake does not end");
        let (receiver, result) = match side {
            Side::Dialer => (&mut listener, &mut results[1]),
            Side::Listener => (&mut dialer, &mut results[0]),
        };
        let taken = receiver.handle_message(&delivered);
        if result.is_ok() {
            *result = taken;
        }
    }
    let [dialer_result, listener_result] = results;
    // An end that failed must have nothing to show either.
    let (dialer, listener) = (dialer.poll_established(), listener.poll_established());
    assert!(dialer_result.is_ok() || dialer.is_none());
    assert!(listener_result.is_ok() || listener.is_none());
    Outcome { dialer: dialer_result.map(|()| dialer), listener: listener_result.map(|()| listener), sent }
}

/// Whether `needle` occurs in `hay`.
pub(crate) fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// Stretches each password of the tests once: it is slow on purpose.
pub(crate) fn stretched(text: &str) -> StretchedPassword {
    static DONE: LazyLock<Mutex<BTreeMap<String, StretchedPassword>>> = LazyLock::new(Mutex::default);
    let mut done = DONE.lock().unwrap();
    let stretch = || StretchedPassword::new(&Password::new(text.into()).unwrap());
    done.entry(text.to_owned()).or_insert_with(stretch).clone()
}
