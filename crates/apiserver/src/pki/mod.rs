//! The cluster's certificate authority and every certificate that it signs.
//!
//! All of it lies in one folder, under the names that kubeadm gives:
//!
//! ```text
//! <data-dir>/pki/
//!   ca.crt, ca.key                          the authority, ten years
//!   apiserver.crt, .key                     the API server's port
//!   apiserver-kubelet-client.crt, .key      the API server towards kubelets
//!   admin.crt, .key                         system:masters
//!   controller-manager.crt, .key            system:kube-controller-manager
//!   scheduler.crt, .key                     system:kube-scheduler
//!   kubelet-client.crt, .key                system:node:<name> towards the API server
//!   kubelet.crt, .key                       the kubelet's port
//!   sa.key, sa.pub                          signs and checks ServiceAccount tokens
//! ```
//!
//! What is there and still good is kept; a certificate that ends soon, that lacks a name, or that another
//! authority signed is made again with a new key. Making all of them takes a few milliseconds.

mod issue;
mod kubeconfig;

use std::{
    fs, io,
    io::Write as _,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use issue::{Authority, Profile};
pub use kubeconfig::write_kubeconfig;
use rcgen::KeyPair;

/// What went wrong with the files of the authority.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder could not be read or written.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A certificate or key could not be made or read.
    #[error("certificate {}: {source}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: rcgen::Error,
    },
}

/// A certificate with its private key, both as PEM, and where they lie.
#[derive(Clone)]
pub struct KeyedCertificate {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PKCS#8 PEM.
    pub key: String,
    /// The certificate's file.
    pub certificate_path: PathBuf,
    /// The key's file.
    pub key_path: PathBuf,
}

impl std::fmt::Debug for KeyedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of every log.
        f.debug_struct("KeyedCertificate")
            .field("certificate_path", &self.certificate_path)
            .finish_non_exhaustive()
    }
}

/// What the certificates are made out to.
#[derive(Clone, Debug)]
pub struct Names {
    /// The node that this server runs on.
    pub node_name: String,
    /// The node's addresses, and any other that clients use for the API server.
    pub addresses: Vec<IpAddr>,
    /// The first address of the Service range: the `kubernetes` Service.
    pub service_address: Option<IpAddr>,
    /// The cluster's DNS domain, such as `cluster.local`.
    pub cluster_domain: String,
}

impl Names {
    fn api_server(&self) -> Vec<String> {
        let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(String::from)
            .into();
        names.push(format!("kubernetes.default.svc.{}", self.cluster_domain));
        names.extend([
            String::from("localhost"),
            self.node_name.clone(),
            String::from("127.0.0.1"),
            String::from("::1"),
        ]);
        names.extend(
            self.addresses
                .iter()
                .chain(&self.service_address)
                .map(ToString::to_string),
        );
        deduplicated(names)
    }

    fn kubelet(&self) -> Vec<String> {
        let mut names = vec![
            self.node_name.clone(),
            String::from("localhost"),
            String::from("127.0.0.1"),
        ];
        names.extend(self.addresses.iter().map(ToString::to_string));
        deduplicated(names)
    }
}

fn deduplicated(names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// The authority and all certificates of one server, loaded or made.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate, PEM: what every client and server trusts.
    pub ca_certificate: String,
    /// Where the authority's certificate lies.
    pub ca_path: PathBuf,
    /// The API server's port.
    pub api_server: KeyedCertificate,
    /// The API server towards kubelets.
    pub kubelet_client: KeyedCertificate,
    /// The administrator.
    pub admin: KeyedCertificate,
    /// The controllers, when they run on another machine.
    pub controller_manager: KeyedCertificate,
    /// The scheduler, when it runs on another machine.
    pub scheduler: KeyedCertificate,
    /// The node towards the API server.
    pub node_client: KeyedCertificate,
    /// The kubelet's port.
    pub kubelet: KeyedCertificate,
    /// The private key that signs ServiceAccount tokens, PKCS#8 PEM.
    pub service_account_key: String,
}

impl Pki {
    /// Loads the authority and its certificates from `dir`, making what is missing or no longer good.
    pub fn open(dir: &Path, names: &Names) -> Result<Self, PkiError> {
        fs::create_dir_all(dir).map_err(|source| PkiError::Io {
            operation: "create",
            path: dir.to_owned(),
            source,
        })?;
        let authority = Authority::open(dir)?;
        let node_user = format!("system:node:{}", names.node_name);
        let server = |file, common_name, alternative_names| {
            authority.issue(
                dir,
                &Profile {
                    file,
                    common_name,
                    organization: None,
                    alternative_names,
                },
            )
        };
        let client = |file, common_name, organization| {
            authority.issue(
                dir,
                &Profile {
                    file,
                    common_name,
                    organization,
                    alternative_names: Vec::new(),
                },
            )
        };
        Ok(Self {
            api_server: server("apiserver", "kube-apiserver", names.api_server())?,
            kubelet: server("kubelet", node_user.as_str(), names.kubelet())?,
            kubelet_client: client(
                "apiserver-kubelet-client",
                "kube-apiserver-kubelet-client",
                Some("system:masters"),
            )?,
            admin: client("admin", "kubernetes-admin", Some("system:masters"))?,
            controller_manager: client("controller-manager", "system:kube-controller-manager", None)?,
            scheduler: client("scheduler", "system:kube-scheduler", None)?,
            node_client: client("kubelet-client", &node_user, Some("system:nodes"))?,
            service_account_key: service_account_key(dir)?,
            ca_path: dir.join("ca.crt"),
            ca_certificate: authority.certificate,
        })
    }
}

fn service_account_key(dir: &Path) -> Result<String, PkiError> {
    let path = dir.join("sa.key");
    let public = dir.join("sa.pub");
    let certificate_error = |source| PkiError::Certificate {
        path: path.clone(),
        source,
    };
    if let Some(pem) = read_if_present(&path)? {
        KeyPair::from_pem(&pem).map_err(certificate_error)?;
        return Ok(pem);
    }
    let key = KeyPair::generate().map_err(certificate_error)?;
    write(&public, 0o644, &key.public_key_pem())?;
    let pem = key.serialize_pem();
    write(&path, 0o600, &pem)?;
    Ok(pem)
}

/// A file's text, or `None` when there is no such file.
fn read_if_present(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Io {
            operation: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Puts a whole file in its place at once, so that a crash leaves the old one or the new one.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), PkiError> {
    let error = |operation| {
        move |source| PkiError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // A leftover of a crash may have another mode: it is not reused.
    match fs::remove_file(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(error("remove leftover of")(source));
        }
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(error("create"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(error("write"))?;
    fs::rename(&temporary, path).map_err(error("replace"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(node: &str) -> Names {
        Names {
            node_name: node.into(),
            addresses: vec!["192.0.2.7".parse().unwrap()],
            service_address: Some("10.96.0.1".parse().unwrap()),
            cluster_domain: "cluster.local".into(),
        }
    }

    #[test]
    fn what_is_good_is_kept_and_what_lacks_a_name_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path(), &names("a")).unwrap();
        let second = Pki::open(dir.path(), &names("a")).unwrap();
        assert_eq!(first.ca_certificate, second.ca_certificate);
        assert_eq!(first.api_server.certificate, second.api_server.certificate);
        assert_eq!(first.service_account_key, second.service_account_key);
        let renamed = Pki::open(dir.path(), &names("b")).unwrap();
        assert_eq!(first.ca_certificate, renamed.ca_certificate);
        assert_eq!(first.admin.certificate, renamed.admin.certificate);
        assert_ne!(first.api_server.certificate, renamed.api_server.certificate);
        assert_ne!(first.node_client.certificate, renamed.node_client.certificate);
    }

    #[test]
    fn another_authority_makes_every_certificate_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path(), &names("a")).unwrap();
        fs::remove_file(dir.path().join("ca.crt")).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let second = Pki::open(dir.path(), &names("a")).unwrap();
        assert_ne!(first.ca_certificate, second.ca_certificate);
        assert_ne!(first.admin.certificate, second.admin.certificate);
    }

    #[test]
    fn keys_and_kubeconfigs_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &names("a")).unwrap();
        let kubeconfig = dir.path().join("deep/admin.conf");
        write_kubeconfig(
            &kubeconfig,
            "https://127.0.0.1:6443",
            &pki.ca_certificate,
            &pki.admin,
            "kubernetes-admin",
        )
        .unwrap();
        for path in [
            &kubeconfig,
            &pki.admin.key_path,
            &dir.path().join("sa.key"),
            &dir.path().join("ca.key"),
        ] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                path.display()
            );
        }
        let text = fs::read_to_string(&kubeconfig).unwrap();
        assert!(text.contains("current-context: podium"), "{text}");
        assert!(text.contains("server: https://127.0.0.1:6443"), "{text}");
    }

    #[test]
    fn a_damaged_authority_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Pki::open(dir.path(), &names("a")).unwrap();
        fs::write(dir.path().join("ca.key"), "nonsense").unwrap();
        let error = Pki::open(dir.path(), &names("a")).unwrap_err().to_string();
        assert!(error.contains("ca.key"), "{error}");
    }
}
