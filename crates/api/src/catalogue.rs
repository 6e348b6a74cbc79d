//! The list of everything that is served.

use std::sync::LazyLock;

use crate::kinds;
use crate::strategy::Strategy;

/// What can be done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the verbs are the API's own words")]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// The verb as discovery and authorization write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

/// The verbs of a resource that is kept in the store, in discovery's order.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// A path below an object.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// The last segment of its path.
    pub name: &'static str,
    /// The group of the kind it takes and returns.
    pub group: &'static str,
    /// The version of that kind.
    pub version: &'static str,
    /// The kind it takes and returns.
    pub kind: &'static str,
    /// What can be done with it.
    pub verbs: &'static [Verb],
}

impl Subresource {
    /// `status`: the same object, of which only the status is written.
    pub const fn status(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Subresource {
            name: "status",
            group,
            version,
            kind,
            verbs: &[Verb::Get, Verb::Patch, Verb::Update],
        }
    }
}

/// One served resource: its names, what can be done with it, and the rules of its kind.
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version in the group.
    pub version: &'static str,
    /// The kind of its objects.
    pub kind: &'static str,
    /// The kind of its lists.
    pub list_kind: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The name for one.
    pub singular: &'static str,
    /// What kubectl users may type instead.
    pub short_names: &'static [&'static str],
    /// The groups of resources it belongs to, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it; only `create` for a review, which is answered and not stored.
    pub verbs: &'static [Verb],
    /// The paths below its objects.
    pub subresources: &'static [Subresource],
    /// The first part of its keys in the store, without slashes. Two resources that show the same objects
    /// in two versions share it.
    pub storage: &'static str,
    /// The kind's name in OpenAPI, such as `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// The rules of the kind.
    pub strategy: &'static dyn Strategy,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether the resource has the verb.
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}

/// Every resource that is served.
pub struct Catalogue {
    resources: Vec<&'static Resource>,
}

impl Catalogue {
    /// The built-in resources.
    pub fn builtin() -> &'static Catalogue {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(|| Catalogue {
            resources: kinds::all(),
        });
        &BUILTIN
    }

    /// Every resource, ordered as discovery lists them: by group, version and plural.
    pub fn resources(&self) -> &[&'static Resource] {
        &self.resources
    }

    /// The resource served at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        self.resources
            .iter()
            .copied()
            .find(|resource| resource.plural == plural && resource.group == group && resource.version == version)
    }

    /// The resource whose objects are of a kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
        self.resources
            .iter()
            .copied()
            .find(|resource| resource.kind == kind && resource.group == group && resource.version == version)
    }

    /// The groups and, for each, its versions, in the order of preference: core first.
    pub fn groups(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for resource in &self.resources {
            match groups.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) if versions.contains(&resource.version) => {}
                Some((_, versions)) => versions.push(resource.version),
                None => groups.push((resource.group, vec![resource.version])),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::HashSet;

    use jiff::Timestamp;

    use super::*;
    use crate::schema::{Type, Types};
    use crate::{FieldValidation, Format};

    #[test]
    fn every_entry_is_whole() {
        let catalogue = Catalogue::builtin();
        let mut seen = HashSet::new();
        for resource in catalogue.resources() {
            let name = format!("{resource:?}");
            assert!(seen.insert(name.clone()), "{name} is there twice");
            assert_eq!(resource.singular, resource.kind.to_lowercase(), "{name}");
            assert!(
                matches!(Types::builtin().find(resource.schema), Type::Struct(_)),
                "{name}: {}",
                resource.schema
            );
            assert_eq!(resource.strategy.merge_schema().root(), resource.schema, "{name}");
            assert_eq!(resource.storage.is_empty(), resource.list_kind.is_empty(), "{name}");
            let found = catalogue
                .find(resource.group, resource.version, resource.plural)
                .unwrap();
            assert!(std::ptr::eq(found, *resource), "{name}");
            let found = catalogue
                .find_kind(resource.group, resource.version, resource.kind)
                .unwrap();
            assert!(std::ptr::eq(found, *resource), "{name}");
        }
    }

    /// From nothing but a name to stored bytes and back, for every kind: nothing panics, the encoding has its
    /// stamp, and rows have a cell for each column.
    #[test]
    fn an_empty_object_of_every_kind_makes_the_round() {
        for resource in Catalogue::builtin().resources() {
            let strategy = resource.strategy;
            let body = br#"{"metadata":{"name":"a","namespace":"b"}}"#;
            let mut object = strategy
                .decode(body, Format::Json, FieldValidation::Strict)
                .unwrap()
                .object;
            strategy.default(&mut *object);
            strategy.prepare_create(&mut *object);
            strategy.validate_create(&*object);
            let old = object.clone_object();
            assert!(object.equals(&*old));
            for subresource in [None, Some("status")] {
                strategy.prepare_update(subresource, &mut *object, &*old);
                strategy.validate_update(subresource, &*object, &*old);
            }
            object.metadata_mut().resource_version = Some("1".into());
            let encoded = object.encode().unwrap();
            assert_eq!(object.metadata().resource_version.as_deref(), Some("1"));
            let bytes = encoded.stamped(42);
            let loaded = strategy.load(&bytes).unwrap();
            assert_eq!(
                loaded.metadata().resource_version.as_deref(),
                Some("42"),
                "{resource:?}"
            );
            let wire: serde_json::Value = serde_json::from_slice(&strategy.wire(&bytes).unwrap()).unwrap();
            assert_eq!(wire["kind"], resource.kind);
            assert_eq!(wire["apiVersion"], resource.api_version());
            assert_eq!(wire["metadata"]["resourceVersion"], "42");
            let row = strategy.row(&*loaded, Timestamp::UNIX_EPOCH);
            assert_eq!(row.len(), strategy.columns().len(), "{resource:?}");
            for field in strategy.fields() {
                assert!(strategy.field(&*loaded, field).is_some(), "{resource:?} {field}");
            }
            assert_eq!(strategy.field(&*loaded, "metadata.name").as_deref(), Some("a"));
        }
    }
}
