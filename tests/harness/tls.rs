//! TLS in front of servers that speak none, under an authority that no machine knows by itself.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// The file to trust it by.
    pub fn file(&self) -> String {
        self.file.path().display().to_string()
    }

    /// Ends TLS in front of the server at `to`, with a certificate for `name`.
    pub async fn front(&self, name: &str, to: SocketAddr) -> Front {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // Only the first test of a program installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Front::start(TlsAcceptor::from(Arc::new(config)), to).await
    }
}

/// A server behind TLS. Dropped, it ends.
pub struct Front {
    pub address: SocketAddr,
    names: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Front {
    async fn start(acceptor: TlsAcceptor, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&names);
        let serve = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                connections.spawn(async move {
                    // A client that does not trust us breaks off here.
                    let Ok(mut tls) = acceptor.accept(socket).await else { return };
                    let name = tls.get_ref().1.server_name().unwrap_or("none");
                    seen.lock().unwrap().push(name.to_owned());
                    let mut plain = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the front owns it and aborts it")]
        let server = tokio::spawn(serve);
        Self { address, names, server }
    }

    /// The names that clients asked for, of the handshakes that succeeded.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}
