//! One registry as a source of manifests and blobs, and its failures in containerd's words, which people
//! know from events and search for.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::future::ready;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_spec::image::{Descriptor, MediaType};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::layers::Source;
use super::registries::Endpoint;

/// The manifests that an image can have, Docker's and OCI's.
const MANIFEST_TYPES: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A registry that does not accept a connection in this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A transfer in which nothing comes for this long has failed.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a registry did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such image, or no such tag of it.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry wants other credentials, or hides the image from these.
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    /// Anything else that the registry or the way to it said.
    #[error("{0}")]
    Answer(String),
}

/// A registry that has the image, ready for fetching from it.
#[derive(Clone)]
pub(super) struct Registry {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
}

/// A manifest or index with the digest of its bytes.
pub(super) struct Manifest {
    pub bytes: bytes::Bytes,
    pub digest: String,
}

impl Registry {
    /// Finds the image at the first endpoint that has it.
    pub async fn find(reference: &Reference, endpoints: Vec<Endpoint>) -> Result<(Self, Manifest), RegistryError> {
        let mut failure = None;
        for endpoint in endpoints {
            let registry = Self::at(reference, &endpoint)?;
            match registry.manifest(reference.digest()).await {
                Ok(manifest) => return Ok((registry, manifest)),
                // A loopback registry that does not speak TLS is asked again without: its answer counts.
                Err(error) => failure = Some(error),
            }
            if matches!(failure, Some(RegistryError::NotFound(_) | RegistryError::Denied(_))) && !endpoint.mirror {
                break;
            }
        }
        Err(failure.unwrap_or_else(|| RegistryError::Answer("no endpoint to ask".into())))
    }

    fn at(reference: &Reference, endpoint: &Endpoint) -> Result<Self, RegistryError> {
        let mut extra_root_certificates = Vec::new();
        if let Some(file) = &endpoint.tls.ca_file {
            let data = fs::read(file).map_err(|error| {
                RegistryError::Answer(format!("CA file {} for {}: {error}", file.display(), endpoint.host))
            })?;
            extra_root_certificates.push(Certificate {
                encoding: CertificateEncoding::Pem,
                data,
            });
        }
        let client = Client::try_from(ClientConfig {
            protocol: if endpoint.plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            accept_invalid_certificates: endpoint.tls.insecure_skip_verify,
            extra_root_certificates,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(SILENCE_TIMEOUT),
            user_agent: concat!("podium/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
        .map_err(|error| RegistryError::Answer(format!("set up TLS for {}: {}", endpoint.host, chain(&error))))?;
        let mut reference = reference.clone();
        if endpoint.mirror {
            reference.set_mirror_registry(endpoint.host.clone());
        }
        Ok(Self {
            client,
            reference,
            auth: endpoint.auth.clone(),
        })
    }

    /// A manifest by digest, or the one that the image's tag names.
    pub async fn manifest(&self, digest: Option<&str>) -> Result<Manifest, RegistryError> {
        let reference = match digest {
            Some(digest) => self.reference.clone_with_digest(digest.to_owned()),
            None => self.reference.clone(),
        };
        let (bytes, digest) = self
            .client
            .pull_manifest_raw(&reference, &self.auth, MANIFEST_TYPES)
            .await
            .map_err(|error| self.explain(error, &reference))?;
        Ok(Manifest { bytes, digest })
    }

    /// A blob's bytes, for a thread that may wait.
    pub async fn blob(&self, blob: &Descriptor) -> Result<Source, RegistryError> {
        let descriptor = OciDescriptor {
            media_type: blob.media_type().to_string(),
            digest: blob.digest().to_string(),
            size: blob.size().try_into().unwrap_or(i64::MAX),
            urls: None,
            annotations: None,
            ..OciDescriptor::default()
        };
        self.client
            .store_auth_if_needed(self.reference.resolve_registry(), &self.auth)
            .await;
        let stream = self
            .client
            .pull_blob_stream(&self.reference, &descriptor)
            .await
            .map_err(|error| self.explain(error, &self.reference))?;
        // The client's own check of the digest is an error after the last byte. Ours says more and comes
        // to the same, so the stream just ends there.
        let stream = stream
            .stream
            .take_while(|item| ready(!matches!(item, Err(error) if is_verdict(error))));
        Ok(Box::new(SyncIoBridge::new(StreamReader::new(stream))))
    }

    fn explain(&self, error: OciDistributionError, asked: &Reference) -> RegistryError {
        explain(error, &asked.to_string(), self.auth == RegistryAuth::Anonymous)
    }
}

/// What an index points to for this machine, or the manifest itself.
pub(super) fn is_index(media_type: Option<&MediaType>) -> bool {
    match media_type {
        Some(MediaType::ImageIndex) => true,
        Some(MediaType::Other(other)) => other == "application/vnd.docker.distribution.manifest.list.v2+json",
        _ => false,
    }
}

fn is_verdict(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<DigestError>())
}

fn explain(error: OciDistributionError, asked: &str, anonymous: bool) -> RegistryError {
    use OciDistributionError as E;
    match error {
        E::ImageManifestNotFoundError(_) => RegistryError::NotFound(asked.to_owned()),
        E::RegistryError { envelope, url } => {
            let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
            let said = envelope
                .errors
                .iter()
                .map(|error| format!("{}: {}", code(&error.code), error.message))
                .collect::<Vec<_>>()
                .join(", ");
            if has(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
                OciErrorCode::BlobUnknown,
            ]) {
                RegistryError::NotFound(asked.to_owned())
            } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                RegistryError::Denied(format!("server message: {said}"))
            } else {
                RegistryError::Answer(format!("unexpected answer from GET request to {url}: {said}"))
            }
        }
        E::ServerError { code: 404, .. } => RegistryError::NotFound(asked.to_owned()),
        E::ServerError { code, url, message } => {
            let status =
                http::StatusCode::from_u16(code).map_or_else(|_| code.to_string(), |status| status.to_string());
            let message = message.trim();
            let message: String = message.chars().take(512).collect();
            let answer = format!("unexpected status from GET request to {url}: {status}");
            RegistryError::Answer(if message.is_empty() {
                answer
            } else {
                format!("{answer}: {message}")
            })
        }
        E::UnauthorizedError { .. } if anonymous => {
            RegistryError::Denied("authorization failed: no basic auth credentials".into())
        }
        E::UnauthorizedError { url } => RegistryError::Denied(format!(
            "authorization failed: unexpected status from GET request to {url}: 401 Unauthorized"
        )),
        E::AuthenticationFailure(said) => RegistryError::Denied(format!(
            "failed to authorize: failed to fetch oauth token: {}",
            said.trim()
        )),
        E::RequestError(error) => {
            let url = error.url().map(ToString::to_string).unwrap_or_default();
            RegistryError::Answer(format!("failed to do request: Get {url:?}: {}", root_cause(&error)))
        }
        E::DigestError(error) => RegistryError::Answer(chain(&error)),
        other => RegistryError::Answer(chain(&other)),
    }
}

fn code(code: &OciErrorCode) -> String {
    match code {
        OciErrorCode::Other(code) => code.to_lowercase(),
        known => serde_json::to_value(known)
            .ok()
            .and_then(|value| value.as_str().map(|code| code.replace('_', " ").to_lowercase()))
            .unwrap_or_default(),
    }
}

/// The innermost reason, which is what went wrong; the outer ones only say where. An errno is said as
/// system calls say it everywhere, without its number.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_lowercase(),
        None => cause.to_string(),
    }
}

/// An error with its reasons.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let reason = source.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = source.source();
    }
    text
}
