//! Clients of the engine from other hosts: over TCP, and only with a certificate. Whoever may ask the engine is root there.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a client may take to prove who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the proof lies that client and server ask of each other: files in PEM, as `docker` and `dockerd` take them.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Whose signature clients' certificates must have.
    pub authority: PathBuf,
    /// Our certificate, and those between it and an authority that clients trust.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where clients from other hosts are served.
#[derive(Clone)]
pub struct Remote {
    address: SocketAddr,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Remote {
    /// Reads the files; nothing listens yet.
    ///
    /// # Errors
    /// Names the file that cannot be read or makes no sense.
    pub fn new(address: SocketAddr, files: &TlsFiles) -> anyhow::Result<Self> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            authorities.add(certificate).with_context(|| files.authority.display().to_string())?;
        }
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
                .build()
                .with_context(|| files.authority.display().to_string())?;
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .with_context(|| format!("no private key in {}", files.key.display()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .with_context(|| {
                format!("{} and {} do not match", files.certificate.display(), files.key.display())
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { address, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(super) async fn listen(&self) -> anyhow::Result<TcpListener> {
        let address = self.address;
        TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address} for clients"))
    }

    /// What a client speaks once it has proved who it is.
    pub(super) async fn greet(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let greeted = tokio::time::timeout(PATIENCE, self.acceptor.accept(stream)).await;
        greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = read.with_context(|| format!("no certificate in {}", path.display()))?;
    ensure!(!all.is_empty(), "no certificate in {}", path.display());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicU32, Ordering},
    };

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConfig, pki_types::ServerName};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        runtime::Runtime,
    };
    use tokio_rustls::TlsConnector;

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn authority() -> Issuer {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Certificate and key, in PEM.
    fn signed(by: &Issuer) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["docker.test".to_owned()]).unwrap();
        (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
    }

    fn files(authority: &Issuer) -> (Dir, TlsFiles) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("weave-remote-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (certificate, key) = signed(authority);
        let put = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = TlsFiles {
            authority: put("ca.pem", &authority.pem()),
            certificate: put("cert.pem", &certificate),
            key: put("key.pem", &key),
        };
        (Dir(dir), files)
    }

    /// What a client hears who shows a certificate of `shown`, or none.
    async fn hears(remote: &Remote, authority: &Issuer, shown: Option<&Issuer>) -> io::Result<String> {
        let listener = remote.listen().await.unwrap();
        let address = listener.local_addr()?;
        let server = async {
            let (stream, _) = listener.accept().await?;
            let mut stream = remote.greet(stream).await?;
            stream.write_all(b"welcome").await?;
            stream.shutdown().await
        };
        let client = async {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let config = match shown.map(signed) {
                Some((certificate, key)) => {
                    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                    config.with_client_auth_cert(vec![certificate], key).unwrap()
                }
                None => config.with_no_client_auth(),
            };
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("docker.test").unwrap();
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            let mut heard = String::new();
            stream.read_to_string(&mut heard).await.map(|_| heard)
        };
        tokio::join!(server, client).1
    }

    #[test]
    fn only_who_shows_a_certificate_of_the_authority_is_let_in() {
        let (ours, other) = (authority(), authority());
        let (_dir, files) = files(&ours);
        let remote = Remote::new("127.0.0.1:0".parse().unwrap(), &files).unwrap();
        Runtime::new().unwrap().block_on(async {
            assert_eq!(hears(&remote, &ours, Some(&ours)).await.unwrap(), "welcome");
            assert!(hears(&remote, &ours, Some(&other)).await.is_err());
            assert!(hears(&remote, &ours, None).await.is_err());
        });
    }

    #[test]
    fn a_file_that_is_missing_or_makes_no_sense_is_named() {
        let (_dir, files) = files(&authority());
        let refused = |files: &TlsFiles| {
            format!("{:#}", Remote::new("127.0.0.1:0".parse().unwrap(), files).unwrap_err())
        };
        let lost = PathBuf::from("/nowhere/at-all.pem");
        for wrong in [
            TlsFiles { authority: lost.clone(), ..files.clone() },
            TlsFiles { certificate: lost.clone(), ..files.clone() },
            TlsFiles { key: lost, ..files.clone() },
        ] {
            assert!(refused(&wrong).contains("/nowhere/at-all.pem"), "{}", refused(&wrong));
        }
        let swapped = TlsFiles { certificate: files.key.clone(), ..files.clone() };
        assert!(refused(&swapped).contains("no certificate in "), "{}", refused(&swapped));
        let (_other_dir, others) = tests::files(&authority());
        let mixed = TlsFiles { key: others.key, ..files };
        assert!(refused(&mixed).contains("do not match"), "{}", refused(&mixed));
    }
}
