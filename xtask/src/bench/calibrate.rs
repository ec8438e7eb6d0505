//! What the machine can do, printed before anything is compared.

use std::{hint::black_box, time::Duration};

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use weave_tests::{
    clock,
    traffic::{Server, TcpReport, measure},
};

use super::Bench;
use crate::{inside, screen::complain};

/// Plaintext bytes of a datagram of the tunnel at an underlay MTU of 1500.
const DATAGRAM: usize = 1400;

/// Bytes copied at once: more than the caches near a core hold.
const COPY: usize = 64 << 20;

/// Seals between two looks at the clock.
const BATCH: usize = 1000;

pub(super) fn run(bench: &Bench) -> Result<()> {
    let window = Duration::from_millis(if bench.quick { 100 } else { 1000 });
    complain(&format!("calibration: memcpy {:.1} GB/s", copy(window)));
    for (name, algorithm) in [("AES-256-GCM", &AES_256_GCM), ("ChaCha20-Poly1305", &CHACHA20_POLY1305)] {
        let speed = seal(algorithm, window)?;
        complain(&format!("calibration: {name} seals {speed:.2} GB/s per core in datagrams of {DATAGRAM} B"));
    }
    let report = bare_veth(bench)?;
    complain(&format!("calibration: raw veth, 1 TCP stream {:.1} Gbit/s", report.gbit_per_s()));
    Ok(())
}

/// One TCP stream from host to host over the underlay that everything below stands on.
fn bare_veth(bench: &Bench) -> Result<TcpReport> {
    let mut lab = inside::lab()?;
    let (mut a, mut b) = (lab.add_host("a")?, lab.add_host("b")?);
    lab.wire(&mut a, &mut b)?;
    let server = Server::start(lab.generator(), &b, b.address()?.into())?;
    measure(lab.generator(), &a, &format!("tcp {} --seconds {}", server.at(), bench.seconds()))
}

/// Gigabytes copied per second.
fn copy(window: Duration) -> f64 {
    let from = vec![1_u8; COPY];
    let mut to = vec![0_u8; COPY];
    let (start, mut copied) = (clock::now(), 0_u64);
    while start.elapsed() < window {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        copied += COPY as u64;
    }
    copied as f64 / 1e9 / start.elapsed().as_secs_f64()
}

/// Gigabytes sealed per second by one core.
fn seal(algorithm: &'static aws_lc_rs::aead::Algorithm, window: Duration) -> Result<f64> {
    let refused = |_| anyhow!("the cipher refused a key or a datagram of the right size");
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32]).map_err(refused)?);
    let mut datagram = vec![0_u8; DATAGRAM];
    let (start, mut sealed, mut counter) = (clock::now(), 0_u64, 0_u64);
    while start.elapsed() < window {
        for _ in 0..BATCH {
            counter += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&counter.to_be_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), black_box(&mut datagram));
            black_box(tag.map_err(refused)?.as_ref());
        }
        sealed += (BATCH * DATAGRAM) as u64;
    }
    Ok(sealed as f64 / 1e9 / start.elapsed().as_secs_f64())
}
