//! A server that wants to be trusted and to trust.

use std::sync::Arc;

use crate::server::{Security, Server};

#[allow(clippy::unwrap_used, reason = "a test that cannot go on")]
/// A server that only who trusts the first part and shows the token may use.
pub(crate) fn start() -> (String, Server) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let security = Security { tls: Arc::new(tls), token: "secret".to_owned() };
    (pem(cert.der()), Server::start(Some(security)))
}

/// RFC 7468.
fn pem(certificate: &[u8]) -> String {
    let text: Vec<char> = encode(certificate).chars().collect();
    let lines: Vec<String> = text.chunks(64).map(String::from_iter).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let number = u32::from_be_bytes(padded);
        for n in 0..4 {
            let sextet = (number >> (18 - 6 * n)) & 63;
            text.push(if n <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}
