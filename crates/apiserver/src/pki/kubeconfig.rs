//! Kubeconfig files: where the server is, whom to trust, and who one is.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{KeyedCertificate, PkiError, write};

/// Writes a kubeconfig whose only and current context is `podium`, readable by its owner alone.
///
/// Certificates and key are carried inside, so that the file can be copied to another machine.
pub fn write_kubeconfig(
    path: &Path,
    server: &str,
    ca_certificate: &str,
    credential: &KeyedCertificate,
    user: &str,
) -> Result<(), PkiError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|source| PkiError::Io {
            operation: "create",
            path: parent.to_owned(),
            source,
        })?;
    }
    let ca = BASE64_STANDARD.encode(ca_certificate);
    let certificate = BASE64_STANDARD.encode(&credential.certificate);
    let key = BASE64_STANDARD.encode(&credential.key);
    let text = format!(
        "\
apiVersion: v1
kind: Config
clusters:
- name: podium
  cluster:
    server: {server}
    certificate-authority-data: {ca}
contexts:
- name: podium
  context:
    cluster: podium
    user: {user}
current-context: podium
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    );
    write(path, 0o600, &text)
}
