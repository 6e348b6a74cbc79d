//! The TLS of the server's port, and of its connections to kubelets.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::pki::{KeyedCertificate, Pki};

/// A certificate, key or authority that TLS can not use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM text holds no certificate or key.
    #[error("reading {what}: {source}")]
    Pem {
        /// Which file.
        what: String,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The key does not fit the certificate, or neither is of a kind that TLS uses.
    #[error("using {what}: {source}")]
    Config {
        /// Which certificate.
        what: String,
        /// Why.
        source: rustls::Error,
    },
    /// The authority can not check client certificates.
    #[error("using ca.crt to check client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem {
            what: what.into(),
            source,
        })
}

fn key(of: &KeyedCertificate) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(of.key.as_bytes()).map_err(|source| TlsError::Pem {
        what: of.key_path.display().to_string(),
        source,
    })
}

fn roots(ca: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "ca.crt")? {
        roots.add(certificate).map_err(|source| TlsError::Config {
            what: "ca.crt".into(),
            source,
        })?;
    }
    Ok(Arc::new(roots))
}

/// What checks client certificates against the cluster's authority.
pub(crate) fn client_verifier(pki: &Pki) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    Ok(WebPkiClientVerifier::builder_with_provider(roots(&pki.ca_certificate)?, provider()).build()?)
}

/// The server's side: HTTP/2 and HTTP/1.1, a client certificate welcome but not needed.
pub(crate) fn server(pki: &Pki, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, TlsError> {
    let what = || pki.api_server.certificate_path.display().to_string();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Config { what: what(), source })?
        .with_client_cert_verifier(Arc::new(AnyClient(verifier)))
        .with_single_cert(
            certificates(&pki.api_server.certificate, &what())?,
            key(&pki.api_server)?,
        )
        .map_err(|source| TlsError::Config { what: what(), source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The client's side towards kubelets, whose sessions need HTTP/1.1.
pub(crate) fn kubelet_client(pki: &Pki) -> Result<ClientConfig, TlsError> {
    let what = || pki.kubelet_client.certificate_path.display().to_string();
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Config { what: what(), source })?
        .with_root_certificates(roots(&pki.ca_certificate)?)
        .with_client_auth_cert(
            certificates(&pki.kubelet_client.certificate, &what())?,
            key(&pki.kubelet_client)?,
        )
        .map_err(|source| TlsError::Config { what: what(), source })
}

/// Lets every client certificate through the handshake, once the client has proved that it holds the key.
///
/// Who it stands for is asked afterwards, as upstream does, so that a stranger's certificate is answered with a
/// readable `401 Unauthorized` and not with a broken connection.
#[derive(Debug)]
struct AnyClient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
