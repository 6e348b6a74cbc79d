//! Which pods may have an image that is on the node: those that could have pulled it. Otherwise a private image would be everybody's as soon
//! as one pod had it.
//!
//! ```text
//! <root>/image_manager/
//!   pulling/sha256-<hex of the reference>   a pull has begun and has not come to its end
//!   pulled/sha256-<hex of the image's id>   with what an image was pulled, by repository
//! ```
//!
//! An image that no pull brought (an archive's, or one that was there before) is everybody's; so is one that was pulled without a login.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cri::v1::AuthConfig;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A Secret with a login to a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Holder {
    /// The Secret's uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A digest of the login.
    pub credential_hash: String,
}

impl Holder {
    /// Whether who holds this may have what the other has pulled: with the same login, or from the same Secret, whose login may have changed.
    fn is_like(&self, other: &Self) -> bool {
        let same_login = !self.credential_hash.is_empty() && self.credential_hash == other.credential_hash;
        let secret = |holder: &Self| (holder.uid.clone(), holder.namespace.clone(), holder.name.clone());
        same_login || secret(self) == secret(other)
    }
}

/// A digest of a login.
pub fn credential_hash(login: &AuthConfig) -> String {
    let parts = [
        &login.username,
        &login.password,
        &login.auth,
        &login.identity_token,
        &login.registry_token,
    ];
    let mut hasher = Sha256::new();
    for part in parts {
        // With its length, so that no two logins are one text.
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize())
}

/// Who may have an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Any pod.
    Anyone,
    /// Pods with one of these logins, and those that can pull it.
    Holders(Vec<Holder>),
}

impl Who {
    /// Whether a pod with these logins may have the image as it is there.
    pub fn includes(&self, own: &[Holder]) -> bool {
        match self {
            Who::Anyone => true,
            Who::Holders(holders) => holders.iter().any(|holder| own.iter().any(|own| own.is_like(holder))),
        }
    }
}

/// With what an image was pulled, under one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Access {
    node_pods_accessible: bool,
    kubernetes_secrets: Vec<Holder>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    image_ref: String,
    credential_mapping: BTreeMap<String, Access>,
}

impl Record {
    fn who(&self, repository: &str) -> Who {
        match self.credential_mapping.get(repository) {
            Some(access) if access.node_pods_accessible => Who::Anyone,
            Some(access) => Who::Holders(access.kubernetes_secrets.clone()),
            None => Who::Holders(Vec::new()),
        }
    }

    fn note(&mut self, repository: &str, by: Option<Holder>) {
        let access = self.credential_mapping.entry(repository.to_owned()).or_default();
        match by {
            None => access.node_pods_accessible = true,
            Some(by) => {
                let same =
                    |known: &Holder| (&known.uid, &known.namespace, &known.name) == (&by.uid, &by.namespace, &by.name);
                access.kubernetes_secrets.retain(|known| !same(known));
                access.kubernetes_secrets.push(by);
            }
        }
    }
}

/// What is known of pulls on this node.
pub struct Records {
    directory: PathBuf,
    /// Two pulls may be of one image.
    writing: Mutex<()>,
}

impl Records {
    /// Kept in a directory, which need not be there yet.
    pub fn at(directory: PathBuf) -> Self {
        Self {
            directory,
            writing: Mutex::default(),
        }
    }

    /// Who may have an image under a name.
    pub fn who(&self, image: &str, reference: &str) -> Who {
        match self.record(image) {
            Ok(Some(record)) => record.who(repository(reference)),
            // A pull that was cut short may have brought it, nobody knows with which login.
            Ok(None) if self.intent(reference).exists() => Who::Holders(Vec::new()),
            Ok(None) => Who::Anyone,
            Err(error) => {
                tracing::warn!(image, %error, "the record of an image's pulls cannot be read");
                Who::Holders(Vec::new())
            }
        }
    }

    /// A pull begins.
    pub fn begin(&self, reference: &str) -> io::Result<()> {
        let path = self.intent(reference);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, reference)
    }

    /// A pull has come to its end; it brought an image, with a login or without, or it did not.
    pub fn end(&self, reference: &str, pulled: Option<(&str, Option<Holder>)>) -> io::Result<()> {
        if let Some((image, by)) = pulled {
            let _writing = self.writing.lock();
            let mut record = self.record(image)?.unwrap_or_default();
            record.image_ref = image.to_owned();
            record.note(repository(reference), by);
            let path = self.pulled(image);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let next = path.with_extension("next");
            fs::write(&next, serde_json::to_vec(&record)?)?;
            fs::rename(next, path)?;
        }
        match fs::remove_file(self.intent(reference)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn record(&self, image: &str) -> io::Result<Option<Record>> {
        match fs::read(self.pulled(image)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn intent(&self, reference: &str) -> PathBuf {
        named(&self.directory.join("pulling"), reference)
    }

    fn pulled(&self, image: &str) -> PathBuf {
        named(&self.directory.join("pulled"), image)
    }
}

fn named(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("sha256-{}", hex(&Sha256::digest(name))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A reference without tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    let last = name.rfind('/').map_or(0, |at| at + 1);
    match name[last..].find(':') {
        Some(at) => &name[..last + at],
        None => name,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn holder(uid: &str, password: &str) -> Holder {
        let login = AuthConfig {
            username: "user".into(),
            password: password.into(),
            ..Default::default()
        };
        Holder {
            uid: uid.into(),
            namespace: "n".into(),
            name: format!("secret-{uid}"),
            credential_hash: credential_hash(&login),
        }
    }

    #[test]
    fn an_image_is_for_those_who_can_pull_it() {
        let dir = tempfile::tempdir().unwrap();
        let records = || Records::at(dir.path().join("image_manager"));
        let may = |reference: &str, own: &[Holder]| records().who("sha256:1", reference).includes(own);
        let (name, same, other) = (
            "r.example:5000/a/b:1",
            "r.example:5000/a/b@sha256:2",
            "r.example:5000/a/c:1",
        );
        assert!(may(name, &[]), "what was not pulled is everybody's");

        // A pull that is under way, or was cut short, makes it nobody's but who can pull it.
        records().begin(name).unwrap();
        assert!(!may(name, &[holder("1", "p")]));
        records().end(name, None).unwrap();
        assert!(may(name, &[]));

        records().begin(name).unwrap();
        records().end(name, Some(("sha256:1", Some(holder("1", "p"))))).unwrap();
        for (reference, own, expected) in [
            (name, vec![], false),
            (name, vec![holder("1", "p")], true),
            (same, vec![holder("1", "p")], true),
            (name, vec![holder("1", "changed")], true),
            (name, vec![holder("2", "p")], true),
            (name, vec![holder("2", "q")], false),
            (name, vec![holder("2", "q"), holder("3", "p")], true),
            (other, vec![holder("1", "p")], false),
        ] {
            assert_eq!(may(reference, &own), expected, "{reference} {own:?}");
        }
        records().end(name, Some(("sha256:1", Some(holder("2", "q"))))).unwrap();
        assert!(may(name, &[holder("1", "p")]) && may(name, &[holder("2", "q")]));

        // Once anybody could pull it, anybody may have it.
        records().end(name, Some(("sha256:1", None))).unwrap();
        assert!(may(name, &[]) && !may(other, &[]));

        // A record that says nothing lets nobody in.
        fs::write(records().pulled("sha256:1"), "{").unwrap();
        assert!(!may(name, &[holder("1", "p")]));
    }
}
