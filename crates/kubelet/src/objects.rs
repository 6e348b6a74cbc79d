//! ConfigMaps and Secrets that pods refer to, and what is missing, in upstream's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Client;
use client::kube::Api;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

/// The data of a ConfigMap or Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Which kind of object is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Reads the objects of one namespace, each at most once.
pub struct Objects<'a> {
    client: &'a Client,
    namespace: &'a str,
    read: Vec<(Kind, String, Option<Arc<Data>>)>,
}

impl<'a> Objects<'a> {
    /// Nothing is read yet.
    pub fn new(client: &'a Client, namespace: &'a str) -> Self {
        Self {
            client,
            namespace,
            read: Vec::new(),
        }
    }

    /// The data of an object; none if there is no such object.
    pub async fn find(&mut self, kind: Kind, name: &str) -> Result<Option<Arc<Data>>, String> {
        if let Some((_, _, data)) = self
            .read
            .iter()
            .find(|(known, known_name, _)| *known == kind && known_name == name)
        {
            return Ok(data.clone());
        }
        let said = |error: client::kube::Error| error.to_string();
        let data = match kind {
            Kind::ConfigMap => {
                let object = Api::<ConfigMap>::namespaced(self.client.clone(), self.namespace)
                    .get_opt(name)
                    .await
                    .map_err(said)?;
                object.map(|object| {
                    let text = object
                        .data
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| (key, value.into_bytes()));
                    text.chain(
                        object
                            .binary_data
                            .into_iter()
                            .flatten()
                            .map(|(key, value)| (key, value.0)),
                    )
                    .collect::<Data>()
                })
            }
            Kind::Secret => {
                let object = Api::<Secret>::namespaced(self.client.clone(), self.namespace)
                    .get_opt(name)
                    .await
                    .map_err(said)?;
                object.map(|object| {
                    object
                        .data
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| (key, value.0))
                        .collect::<Data>()
                })
            }
        };
        let data = data.map(Arc::new);
        self.read.push((kind, name.to_owned(), data.clone()));
        Ok(data)
    }

    /// The data of an object that must be there, or may be missing if it is optional.
    pub async fn get(&mut self, kind: Kind, name: &str, optional: bool) -> Result<Option<Arc<Data>>, String> {
        match self.find(kind, name).await? {
            None if !optional => Err(format!("{} {name:?} not found", kind.resource())),
            found => Ok(found),
        }
    }
}
