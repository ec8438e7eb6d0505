//! The handshake through its public face: two ends, and whatever may sit between them.

mod adversary;
mod agreement;
#[cfg(test)]
mod harness;
mod refusal;
