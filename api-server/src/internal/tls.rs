//! The internal listener's certificate, read again when the files change: the operator renews it and no pod restarts for that.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use snafu::{ResultExt, Snafu};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const REREAD_INTERVAL: Duration = Duration::from_mins(1);

/// Why a certificate cannot be used.
#[derive(Debug, Snafu)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[snafu(display("reading {} failed", path.display()))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The key is of a kind that is not supported.
    #[snafu(display("the key in {} cannot be used", path.display()))]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[snafu(display("setting TLS up failed"))]
    Setup {
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate and its key in two PEM files.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    current: RwLock<Arc<CertifiedKey>>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Reads the files.
    pub fn read(certificate: PathBuf, key: PathBuf) -> Result<Arc<Self>, TlsError> {
        let files = Files { certificate, key };
        let current = RwLock::new(Arc::new(files.read()?));
        Ok(Arc::new(Self { files, current }))
    }

    /// What accepts TLS connections with it.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context(SetupSnafu)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again from time to time, until `end`. What cannot be read leaves the former certificate in use.
    pub async fn follow(self: Arc<Self>, end: CancellationToken) {
        while !end.is_cancelled() {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(REREAD_INTERVAL) => {}
            }
            let reread = self.clone();
            match tokio::task::spawn_blocking(move || reread.reread()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "The internal certificate could not be read again."),
                Err(error) => tracing::warn!(%error, "The task that reads the internal certificate ended."),
            }
        }
    }

    fn reread(&self) -> Result<(), TlsError> {
        let read = Arc::new(self.files.read()?);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.cert != read.cert {
            *current = read;
            tracing::info!("The internal listener has a new certificate.");
        }
        Ok(())
    }
}

impl Files {
    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .context(ReadSnafu {
                path: &self.certificate,
            })?;
        let key = PrivateKeyDer::from_pem_file(&self.key).context(ReadSnafu { path: &self.key })?;
        let key = any_supported_type(&key).context(KeySnafu { path: &self.key })?;
        Ok(CertifiedKey::new(chain, key))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &std::path::Path) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    #[test]
    fn a_renewed_certificate_is_taken_up_and_a_torn_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let held = Certificate::read(folder.path().join("tls.crt"), folder.path().join("tls.key")).unwrap();
        held.acceptor().unwrap();
        let renewed = write(folder.path());
        held.reread().unwrap();
        assert_eq!(held.current.read().unwrap().cert[0].as_ref(), renewed);
        std::fs::write(folder.path().join("tls.key"), "torn").unwrap();
        assert!(matches!(held.reread(), Err(TlsError::Read { .. })));
        assert_eq!(held.current.read().unwrap().cert[0].as_ref(), renewed);
    }
}
