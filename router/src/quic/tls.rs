//! TLS for control links: privacy and a session to bind to, not identity.
//!
//! Each start makes a new key and certificate. Nobody checks them: a man in the middle can terminate TLS, and is then
//! stopped by the link handshake, whose keys depend on the exporter of *both* TLS sessions being the same.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};

/// Names the protocol inside TLS; another program on the port is told apart before anything else happens.
const ALPN: &[u8] = b"weave-mesh/1";
/// The name in the certificate and in SNI; carries no information.
pub(super) const SERVER_NAME: &str = "weave";
/// One end of an idle link says something this often. It is also what keeps a NAT binding open: RFC 4787 REQ-5 asks
/// NATs for two minutes, many give 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A link that is silent for this long is dead.
const MAX_IDLE: Duration = Duration::from_secs(25);
/// Flow-control window of the one stream, in bytes: a message is at most 1 MiB, a few may be under way.
const STREAM_WINDOW: u32 = 4 << 20;

/// Client and server configuration for one run of the daemon.
pub(crate) struct Tls {
    pub(crate) client: quinn::ClientConfig,
    pub(crate) server: quinn::ServerConfig,
}

impl Tls {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certified = rcgen::generate_simple_self_signed(vec![SERVER_NAME.to_owned()])
            .context("cannot make a TLS certificate")?;
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3 is not available")?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .context("cannot use the TLS certificate")?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;

        let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3 is not available")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = rustls::client::Resumption::disabled();

        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        client.transport_config(Arc::new(transport(Some(KEEP_ALIVE))));
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
        server.transport_config(Arc::new(transport(None)));
        Ok(Self { client, server })
    }
}

/// Bytes of datagrams that may wait to be read; all of ours are of nine bytes ([`super::skew`]).
const DATAGRAMS: usize = 256;

/// One stream, hardly any datagrams, no MTU search: messages are small and idle links should cost nothing. Only the
/// dialler keeps the link alive; its pings and their acknowledgements serve both ends.
fn transport(keep_alive: Option<Duration>) -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS)
        .mtu_discovery_config(None)
        .keep_alive_interval(keep_alive)
        .max_idle_timeout(Some(quinn::VarInt::from_u32(MAX_IDLE.as_millis() as u32).into()))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(STREAM_WINDOW.into())
        .send_window(u64::from(STREAM_WINDOW));
    config
}

/// Accepts every certificate, and checks that the other end holds its key, so that the session is with one party.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
