//! ConfigMaps and Secrets that pods refer to, and what is missing, in upstream's words.
//!
//! An object is watched by its name for as long as a pod of this node refers to it, under one watch for all such pods, and a change wakes
//! their workers. What is immutable is read once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Informers};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::pods::Mailbox;

/// How long the API server has to say what it has of an object.
const PATIENCE: Duration = Duration::from_secs(10);

/// The data of a ConfigMap or Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data {
    entries: BTreeMap<String, Vec<u8>>,
    /// Keys of what a ConfigMap has as `binaryData`: good for files, and not for variables.
    binary: Vec<String>,
}

impl Deref for Data {
    type Target = BTreeMap<String, Vec<u8>>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}

impl Data {
    /// What can be a variable.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.entries.iter().filter(|(key, _)| !self.binary.contains(key))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(String, Vec<u8>); N]> for Data {
    fn from(entries: [(String, Vec<u8>); N]) -> Self {
        Self {
            entries: entries.into(),
            binary: Vec::new(),
        }
    }
}

/// Which kind of object is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Kind {
    /// As the API server names it in messages.
    pub fn resource(self) -> &'static str {
        match self {
            Kind::ConfigMap => "configmap",
            Kind::Secret => "secret",
        }
    }

    /// As the kubelet names it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        }
    }
}

/// What one pod refers to, known since it was first asked for.
pub struct Objects {
    informers: Informers,
    namespace: String,
    mailbox: Arc<Mailbox>,
    known: Mutex<HashMap<(Kind, String), Known>>,
}

enum Known {
    /// It cannot change.
    Fixed(Arc<Data>),
    Watched(Watched),
}

struct Watched {
    source: Source,
    /// What was last read of it.
    read: Arc<Mutex<Read>>,
    follower: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// What the pod knows of an object: a change that it knows does not wake it.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Never,
    Missing,
    Version(Option<String>),
}

impl Read {
    fn of(meta: Option<&ObjectMeta>) -> Self {
        meta.map_or(Self::Missing, |meta| Self::Version(meta.resource_version.clone()))
    }
}

#[derive(Clone)]
enum Source {
    ConfigMap(Informer<ConfigMap>),
    Secret(Informer<Secret>),
}

/// What there is of an object now.
struct Found {
    read: Read,
    data: Option<Arc<Data>>,
    immutable: bool,
}

impl Source {
    async fn synced(&self) {
        match self {
            Source::ConfigMap(informer) => informer.synced().await,
            Source::Secret(informer) => informer.synced().await,
        }
    }

    fn find(&self, namespace: &str, name: &str) -> Found {
        match self {
            Source::ConfigMap(informer) => {
                let found = informer.get(Some(namespace), name);
                Found {
                    read: Read::of(found.as_ref().map(|object| &object.metadata)),
                    immutable: found.as_ref().is_some_and(|object| object.immutable == Some(true)),
                    data: found.map(|object| Arc::new(of_config_map(&object))),
                }
            }
            Source::Secret(informer) => {
                let found = informer.get(Some(namespace), name);
                Found {
                    read: Read::of(found.as_ref().map(|object| &object.metadata)),
                    immutable: found.as_ref().is_some_and(|object| object.immutable == Some(true)),
                    data: found.map(|object| Arc::new(of_secret(&object))),
                }
            }
        }
    }
}

fn of_config_map(object: &ConfigMap) -> Data {
    let text = object.data.iter().flatten();
    let text = text.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = object.binary_data.iter().flatten();
    Data {
        entries: text
            .chain(binary.clone().map(|(key, value)| (key.clone(), value.0.clone())))
            .collect(),
        binary: binary.map(|(key, _)| key.clone()).collect(),
    }
}

fn of_secret(object: &Secret) -> Data {
    let data = object.data.iter().flatten();
    Data {
        entries: data.map(|(key, value)| (key.clone(), value.0.clone())).collect(),
        binary: Vec::new(),
    }
}

/// Tells the worker of every change that it has not read.
async fn follow<K>(informer: Informer<K>, read: Arc<Mutex<Read>>, mailbox: Arc<Mailbox>)
where
    K: k8s_openapi::Metadata<Ty = ObjectMeta>
        + client::kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let mut changes = informer.subscribe();
    loop {
        let now = match changes.next().await {
            client::Change::Applied { object, .. } => Read::of(Some(k8s_openapi::Metadata::metadata(&*object))),
            client::Change::Deleted(_) => Read::Missing,
        };
        // What was never read is read when it is needed.
        let known = {
            let read = read.lock();
            *read == Read::Never || *read == now
        };
        if !known {
            mailbox.objects_changed();
        }
    }
}

impl Objects {
    /// Nothing is watched yet.
    pub fn new(informers: Informers, namespace: &str, mailbox: Arc<Mailbox>) -> Self {
        Self {
            informers,
            namespace: namespace.to_owned(),
            mailbox,
            known: Mutex::default(),
        }
    }

    /// The pod refers to nothing any more.
    pub fn forget(&self) {
        self.known.lock().clear();
    }

    fn watch(&self, kind: Kind, name: &str) -> Watched {
        let read = Arc::new(Mutex::new(Read::Never));
        let (source, follower) = match kind {
            Kind::ConfigMap => {
                let informer = self.informers.named::<ConfigMap>(&self.namespace, name);
                let task = follow(informer.clone(), read.clone(), self.mailbox.clone());
                (Source::ConfigMap(informer), tokio::spawn(task))
            }
            Kind::Secret => {
                let informer = self.informers.named::<Secret>(&self.namespace, name);
                let task = follow(informer.clone(), read.clone(), self.mailbox.clone());
                (Source::Secret(informer), tokio::spawn(task))
            }
        };
        Watched {
            source,
            read,
            follower: follower.abort_handle(),
        }
    }

    /// The data of an object; none if there is no such object.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<Arc<Data>>, String> {
        let slot = (kind, name.to_owned());
        let (source, read) = {
            let mut known = self.known.lock();
            match known
                .entry(slot.clone())
                .or_insert_with(|| Known::Watched(self.watch(kind, name)))
            {
                Known::Fixed(data) => return Ok(Some(data.clone())),
                Known::Watched(watched) => (watched.source.clone(), watched.read.clone()),
            }
        };
        if tokio::time::timeout(PATIENCE, source.synced()).await.is_err() {
            // Whatever comes is news.
            *read.lock() = Read::Missing;
            let resource = kind.resource();
            return Err(format!(
                "failed to sync {resource} cache: timed out waiting for the condition"
            ));
        }
        let found = {
            // Under the lock, so that a change comes either before the look or after its note.
            let mut read = read.lock();
            let mut found = source.find(&self.namespace, name);
            *read = std::mem::replace(&mut found.read, Read::Never);
            found
        };
        if let Some(data) = found.data.as_ref().filter(|_| found.immutable) {
            self.known.lock().insert(slot, Known::Fixed(data.clone()));
        }
        Ok(found.data)
    }

    /// The data of an object that must be there, or may be missing if it is optional.
    pub async fn get(&self, kind: Kind, name: &str, optional: bool) -> Result<Option<Arc<Data>>, String> {
        match self.find(kind, name).await? {
            None if !optional => Err(format!("{} {name:?} not found", kind.resource())),
            found => Ok(found),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_and_bytes_are_data_alike() {
        let map = serde_json::from_value(json!({"data": {"a": "1"}, "binaryData": {"b": "AAE="}})).unwrap();
        let data = of_config_map(&map);
        assert_eq!((data["a"].as_slice(), data["b"].as_slice()), (&b"1"[..], &[0, 1][..]));
        assert!(data.variables().map(|(key, _)| key).eq(["a"]));
        let secret = serde_json::from_value(json!({"data": {"s": "aGlkZGVu"}})).unwrap();
        assert_eq!(of_secret(&secret)["s"], b"hidden");
    }

    #[test]
    fn only_what_is_not_known_is_news() {
        let meta = ObjectMeta {
            resource_version: Some("7".into()),
            ..Default::default()
        };
        assert_eq!(Read::of(Some(&meta)), Read::Version(Some("7".into())));
        assert_eq!(Read::of(None), Read::Missing);
    }
}
