//! What the generator's two ends say to each other.
//!
//! A client opens a TCP connection and sends one byte, its [`Mode`]. For the UDP modes the server answers with the
//! port of a fresh UDP socket (two bytes, big-endian); that socket lives as long as the connection.

use std::io::{self, Read, Write as _};

use anyhow::Result;
use serde::Serialize;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Read everything until the client has finished sending, then answer with the count of bytes (8 bytes).
    Sink,
    /// Send each datagram back.
    Echo,
    /// Count datagrams until the client sends a byte, then answer with count, bytes and reordered (8 bytes each).
    Count,
}

impl Mode {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Sink => b'S',
            Self::Echo => b'E',
            Self::Count => b'C',
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'S' => Some(Self::Sink),
            b'E' => Some(Self::Echo),
            b'C' => Some(Self::Count),
            _ => None,
        }
    }
}

/// Reads exactly `N` bytes.
pub(super) fn read_array<const N: usize>(mut from: impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Prints a report as one line of JSON.
pub(super) fn print(report: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    Ok(io::stdout().lock().write_all(line.as_bytes())?)
}

/// The value below which the share `part` of the ordered `samples` lies; zero when there are none.
pub(super) fn percentile(sorted: &[u64], part: f64) -> u64 {
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let samples: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&samples, 0.5), 50);
        assert_eq!(percentile(&samples, 0.99), 99);
        assert_eq!(percentile(&samples[..1], 0.99), 1);
        assert_eq!(percentile(&[], 0.5), 0);
    }
}
