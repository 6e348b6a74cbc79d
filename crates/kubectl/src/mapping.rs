//! From what people type (`po`, `pods`, `pod`, `deploy.apps`, a kind in a file) to a resource of the server.

use std::sync::Arc;

use api::Catalogue;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::connection::{Ask, Connection};
use crate::failure::{Failure, Result};

/// The discovery document that has everything in one answer.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A resource of the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    /// The version in the group.
    pub version: String,
    /// The kind of its objects.
    pub kind: String,
    /// The name in paths.
    pub plural: String,
    /// The name for one.
    pub singular: String,
    /// Other names.
    pub short_names: Vec<String>,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// The groups of resources it belongs to.
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`.
    pub fn group_resource(&self) -> String {
        self.qualified(&self.plural)
    }

    /// `pod` or `deployment.apps`, as it stands before an object's name.
    pub fn group_kind(&self) -> String {
        self.qualified(&self.kind.to_lowercase())
    }

    fn qualified(&self, name: &str) -> String {
        if self.group.is_empty() {
            name.to_owned()
        } else {
            format!("{name}.{}", self.group)
        }
    }

    /// The path of its objects, in a namespace or in all.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Whether people may call it so.
    fn is_called(&self, name: &str) -> bool {
        self.plural == name || self.singular == name || self.short_names.iter().any(|short| short == name)
    }
}

/// What the server has. Asked for once, and only when something is not a built-in resource.
#[derive(Clone, Default)]
pub struct Mapping {
    served: Arc<OnceCell<Vec<Kind>>>,
}

impl Mapping {
    /// Every resource of the server, core first.
    pub async fn served(&self, connection: &Connection) -> Result<&[Kind]> {
        let served = self.served.get_or_try_init(|| async {
            let ask = || Ask {
                accept: Some(AGGREGATED),
                ..Ask::default()
            };
            let core = connection.json(http::Method::GET, "/api", ask()).await?;
            let groups = connection.json(http::Method::GET, "/apis", ask()).await?;
            Ok::<_, Failure>([kinds(&core), kinds(&groups)].concat())
        });
        served.await.map(Vec::as_slice)
    }

    /// The resource that people call so: a name, or a name with a group or with version and group.
    pub async fn resource(&self, connection: &Connection, name: &str) -> Result<Kind> {
        let lowered = name.to_lowercase();
        if let Some(kind) = find(&builtin(), &lowered) {
            return Ok(kind);
        }
        find(self.served(connection).await?, &lowered).ok_or_else(|| {
            let resource = name.split('.').next().unwrap_or(name);
            Failure::message(format!("the server doesn't have a resource type {resource:?}"))
        })
    }

    /// The resources of a category such as `all`.
    pub async fn category(&self, connection: &Connection, name: &str) -> Result<Vec<Kind>> {
        let served = self.served(connection).await?;
        Ok(served
            .iter()
            .filter(|kind| kind.categories.iter().any(|category| category == name))
            .cloned()
            .collect())
    }

    /// The resource whose objects are of a kind, as a manifest names it.
    pub async fn of_kind(&self, connection: &Connection, api_version: &str, kind: &str) -> Result<Option<Kind>> {
        let matches = |known: &&Kind| known.kind == kind && known.api_version() == api_version;
        if let Some(known) = builtin().iter().find(matches) {
            return Ok(Some(known.clone()));
        }
        Ok(self.served(connection).await?.iter().find(matches).cloned())
    }
}

fn builtin() -> Vec<Kind> {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Catalogue::builtin()
        .resources()
        .iter()
        .map(|resource| Kind {
            group: resource.group.into(),
            version: resource.version.into(),
            kind: resource.kind.into(),
            plural: resource.plural.into(),
            singular: resource.singular.into(),
            short_names: owned(resource.short_names),
            verbs: Vec::new(),
            categories: owned(resource.categories),
            namespaced: resource.namespaced,
        })
        .collect()
}

/// By name alone, then by name and group, then by name, version and group.
fn find(kinds: &[Kind], name: &str) -> Option<Kind> {
    if let Some(kind) = kinds.iter().find(|kind| kind.is_called(name)) {
        return Some(kind.clone());
    }
    let (resource, rest) = name.split_once('.')?;
    let called = |kind: &&Kind| kind.is_called(resource);
    kinds
        .iter()
        .filter(called)
        .find(|kind| kind.group == rest)
        .or_else(|| {
            let (version, group) = rest.split_once('.').unwrap_or((rest, ""));
            kinds
                .iter()
                .filter(called)
                .find(|kind| kind.version == version && kind.group == group)
        })
        .cloned()
}

/// The resources in an aggregated discovery document.
fn kinds(document: &Value) -> Vec<Kind> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| {
        value
            .as_array()
            .map(|items| items.iter().map(text).collect())
            .unwrap_or_default()
    };
    let mut kinds = Vec::new();
    for group in document["items"].as_array().into_iter().flatten() {
        for version in group["versions"].as_array().into_iter().flatten() {
            for resource in version["resources"].as_array().into_iter().flatten() {
                kinds.push(Kind {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    short_names: list(&resource["shortNames"]),
                    verbs: list(&resource["verbs"]),
                    categories: list(&resource["categories"]),
                    namespaced: resource["scope"] == "Namespaced",
                });
            }
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type() {
        let known = builtin();
        for (name, plural) in [
            ("po", Some("pods")),
            ("pod", Some("pods")),
            ("pods", Some("pods")),
            ("pods.v1", Some("pods")),
            ("pods.v1.", Some("pods")),
            ("no", Some("nodes")),
            ("leases.coordination.k8s.io", Some("leases")),
            ("leases.v1.coordination.k8s.io", Some("leases")),
            ("leases.apps", None),
            ("foo", None),
        ] {
            let found = find(&known, name).map(|kind| kind.plural);
            assert_eq!(found.as_deref(), plural, "{name}");
        }
    }

    #[test]
    fn paths() {
        let known = builtin();
        let pods = find(&known, "pods").unwrap_or_default();
        assert_eq!(pods.path(Some("x")), "/api/v1/namespaces/x/pods");
        assert_eq!(pods.path(None), "/api/v1/pods");
        let leases = find(&known, "leases").unwrap_or_default();
        assert_eq!(
            leases.path(Some("x")),
            "/apis/coordination.k8s.io/v1/namespaces/x/leases"
        );
        assert_eq!(leases.group_kind(), "lease.coordination.k8s.io");
    }
}
