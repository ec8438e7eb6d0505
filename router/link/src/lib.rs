//! The handshake on the first stream of a fresh control connection: who is there, do we share a password, and
//! with which keys does the data plane go on.
//!
//! A [`Handshake`] is one end of it, a state machine that takes and gives whole messages; the shell puts a
//! length before each and carries them over QUIC, whose TLS 1.3 has encrypted the stream but authenticated
//! nobody: the certificates are made at each start and signed by themselves. A [`GuessLimiter`] says who may
//! try how often.
//!
//! # What it is worth
//! * *TLS exporter.* Both ends mix the exporter value of their TLS connection into every proof. Somebody who
//!   terminates TLS in the middle has two connections with two values: proofs relayed from one to the other
//!   fail.
//! * *SPAKE2.* With a password, each end learns only whether the other knows it too. The wire shows random
//!   curve points; nothing recorded, relayed or provoked can be compared with a dictionary offline.
//! * *Noise XXpsk0*, with the PAKE result as pre-shared key and everything said before in its prologue:
//!   proves both long-term keys, hides them and all names, and gives fresh keys that no later theft of a
//!   password or of a long-term key reveals.
//!
//! **A passive listener** sees QUIC: addresses, sizes, times. No names, no proof of a password, no key.
//!
//! **An active man in the middle without the password** ends TLS himself, so he reads the hellos: versions,
//! features, whether and how many passwords there are. He gets no further than they go, since names are sent
//! only after the password is proven, and he can always cut or disturb the connection. In an open mesh (no
//! password) he can join as a router of his own, as anybody can, so he can learn names there; but he cannot
//! pass off his key as another's, nor sit inside the link of two routers that pin each other's keys. He can
//! forge an abort with any reason: aborts are not authenticated, because most are sent when nothing can be.
//!
//! **A guesser** has *one guess per connection as dialer*: his only SPAKE2 message fixes one password, and
//! every reply of ours can be tested against that one alone. The listener proves itself first, so he may know
//! the outcome and vanish: [`Handshake::has_unproven_guess`] counts that as a failure. He has *up to four
//! guesses as listener*: the dialer does not say which password it means (a hint would be something to
//! compare a dictionary with), so it must test one reply for each password that the listener may have, and a
//! false listener makes each reply with another guess. He waits for us to dial him for that, at the pace of
//! our back-off.
//!
//! **A dishonest router**, one that knows the password, is a member: what it may do to the mesh is the mesh's
//! business. It cannot read or join the links of others (their keys come from ephemeral secrets), nor speak
//! with another's key. It can claim any name in its hello; the mesh pins names together with keys. Take its
//! password away by rotating: add the new one second everywhere, move it first everywhere, drop the old one.
//!
//! Limits: `snow` and `spake2` do not wipe their inner state, which lives as long as one handshake. X25519
//! and Ed25519 fall to a large quantum computer.
//!
//! # Messages
//! All numbers are big-endian. No message is longer than [`MAX_MESSAGE`] bytes, none may have bytes after its
//! end. Errors at either end are told by an *abort* in place of the next message.
//!
//! ```text
//!  dialer                                                listener
//!    | 1 dialer's hello: preamble, PAKE element              |
//!    |------------------------------------------------------>|  versions, features, passwords fit?
//!    |   2 listener's hello: preamble, a reply for each slot |
//!    |<------------------------------------------------------|
//!    | 3 dialer's proof: slot, Noise -> psk, e               |  which reply fits our password?
//!    |------------------------------------------------------>|  the dialer knows the password
//!    |   4 listener's identity: Noise <- e, ee, s, es        |
//!    |<------------------------------------------------------|
//!    | 5 dialer's identity: Noise -> s, se                   |  the listener owns its key
//!    |------------------------------------------------------>|  the dialer owns its key: established
//!    |   6 accept                                            |
//!    |<------------------------------------------------------|
//!    | established                                           |
//!
//!  preamble (38 bytes)                        1 dialer's hello (38 or 71 bytes)
//!    0  1  tag: 1 dialer's, 2 listener's        0 38  preamble
//!    1  8  "WEAVELNK"                          38 33  SPAKE2 element A, if there is a password
//!    9  2  oldest version spoken
//!   11  2  newest version spoken              2 listener's hello (39 to 299 bytes)
//!   13  8  features; the end that sets one      0 38  preamble
//!          of the upper 32 insists on it       38  1  number of slots: its passwords, 0 to 4
//!   21  1  flags: 1 has a password             39 33  slot 0: SPAKE2 element B
//!   22 16  random                              72 32          confirmation
//!                                             104 ..  further slots
//!
//!  3 dialer's proof (50 bytes)                4 listener's identity (128 to 447 bytes)
//!    0  1  tag 3                                0  1  tag 4
//!    1  1  slot; 0 without password             1 32  ephemeral key
//!    2 32  ephemeral key                       33 48  long-term key, sealed
//!   34 16  seal of an empty payload            81 ..  identity payload, sealed (16 bytes more)
//!
//!  5 dialer's identity (96 to 415 bytes)      6 accept (33 bytes)
//!    0  1  tag 5                                0  1  tag 6
//!    1 48  long-term key, sealed                1 32  accept proof
//!   49 ..  identity payload, sealed
//!
//!  identity payload (31 to 350 bytes)         abort (10 bytes)
//!    0  6  peer name                            0  1  tag 15
//!    6  8  UID                                  1  1  reason
//!   14  8  incarnation                          2  8  detail
//!   22  2  UDP port listened on
//!   24  4  sleeve receiver index              reasons: 1 malformed   2 misbehaved
//!   28  1  flags: 1 AES in hardware,            3 versions (detail: oldest, newest, 0)
//!          2 trusts the other's subnet          4 sender lacks features (detail: which)
//!   29  1  length of the nickname               5 wrong password
//!   30  n  nickname, UTF-8                      6 only the receiver has a password
//!    .  1  length of the software version       7 only the sender has a password
//!    .  m  software version, UTF-8, at most 64  8 failed by itself
//!                                               9 receiver lacks features (detail: which)
//! ```
//!
//! # Derivations
//! `H(label; a, b, ..)` is SHA-256 over the label and the parts, each after its length in 8 bytes. Extract
//! and Expand are HKDF's (RFC 5869) with SHA-256. Labels begin with `weave`; the code has them.
//!
//! ```text
//! stretched password = Argon2id(password, fixed salt, 19 MiB, 2 passes, 1 lane)
//! K                  = SPAKE2 over Ed25519 with the stretched password, sides told apart by labels
//! P                  = Extract(H(exporter, dialer's hello, listener's preamble, slot, element B), K)
//! confirmation, psk  = Expand(P, ..)                       psk = 0 without a password
//! prologue           = H(exporter, dialer's hello, listener's hello, slot)
//! link key           = Extract(Noise handshake hash, Noise split 1 | split 2)
//! accept, tiebreak, data from dialer, data from listener = Expand(link key, ..)
//! sleeve key         = Expand(data of the direction, label | epoch (4 bytes) | lane (1 byte))
//! ESP key and salt   = Expand(data of the direction, label | epoch (4 bytes))
//! ```
//!
//! The confirmation is a derived value, compared in constant time, not a sealed message: an AEAD tag need not
//! commit to its key, a hash does, so one confirmation can never fit two passwords.
#![forbid(unsafe_code)]

mod cipher;
mod error;
mod handshake;
mod hello;
mod identity;
mod keys;
mod limiter;
mod local;
mod noise;
mod pake;
mod preamble;
mod secret;
mod wire;

pub use error::{Fault, HandshakeError, Refusal};
pub use handshake::{Established, Handshake, Side};
pub use hello::{
    FEATURE_ESP, FEATURE_ESP_IN_UDP, FEATURE_FASTDP, FEATURE_NO_VXLAN, LocalHello, MAX_NICKNAME,
    MAX_SOFTWARE, RemoteHello,
};
pub use identity::{Credentials, Identity, MAX_PASSWORDS, StretchedPassword, TooManyPasswords};
pub use keys::{DataKeys, Encryption, Suite};
pub use limiter::GuessLimiter;
pub use preamble::{VERSIONS, VersionRange};
pub use secret::Secret;
pub use wire::{MAX_MESSAGE, Problem};
