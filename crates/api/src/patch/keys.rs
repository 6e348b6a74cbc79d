//! How strategic merge patches treat the fields of the built-in types: upstream's patch tags.
//!
//! A list or map that is not named here is replaced as a whole (lists) or merged key by key (maps, types).

/// How one field is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListMerge {
    /// The name of the type that has the field, in OpenAPI.
    pub owner: &'static str,
    /// The field.
    pub field: &'static str,
    /// The key that tells a list's items apart; empty for a list of plain values.
    pub key: &'static str,
    /// The strategy as OpenAPI writes it: `merge`, `retainKeys` or `merge,retainKeys`.
    pub strategy: &'static str,
}

impl ListMerge {
    /// Whether a list is merged item by item.
    pub fn merges(&self) -> bool {
        self.strategy.starts_with("merge")
    }
}

const fn merge(owner: &'static str, field: &'static str, key: &'static str) -> ListMerge {
    ListMerge {
        owner,
        field,
        key,
        strategy: "merge",
    }
}

const fn retain(owner: &'static str, field: &'static str, key: &'static str) -> ListMerge {
    ListMerge {
        owner,
        field,
        key,
        strategy: "merge,retainKeys",
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const POD_STATUS: &str = "io.k8s.api.core.v1.PodStatus";
const CONTAINER: &str = "io.k8s.api.core.v1.Container";
const EPHEMERAL: &str = "io.k8s.api.core.v1.EphemeralContainer";

static TABLE: &[ListMerge] = &[
    merge(META, "finalizers", ""),
    merge(META, "ownerReferences", "uid"),
    merge(POD_SPEC, "containers", "name"),
    merge(POD_SPEC, "ephemeralContainers", "name"),
    merge(POD_SPEC, "hostAliases", "ip"),
    merge(POD_SPEC, "imagePullSecrets", "name"),
    merge(POD_SPEC, "initContainers", "name"),
    retain(POD_SPEC, "resourceClaims", "name"),
    merge(POD_SPEC, "schedulingGates", "name"),
    merge(POD_SPEC, "topologySpreadConstraints", "topologyKey"),
    retain(POD_SPEC, "volumes", "name"),
    merge(POD_STATUS, "conditions", "type"),
    merge(POD_STATUS, "hostIPs", "ip"),
    merge(POD_STATUS, "podIPs", "ip"),
    retain(POD_STATUS, "resourceClaimStatuses", "name"),
    merge(CONTAINER, "env", "name"),
    merge(CONTAINER, "ports", "containerPort"),
    merge(CONTAINER, "volumeDevices", "devicePath"),
    merge(CONTAINER, "volumeMounts", "mountPath"),
    merge(EPHEMERAL, "env", "name"),
    merge(EPHEMERAL, "ports", "containerPort"),
    merge(EPHEMERAL, "volumeDevices", "devicePath"),
    merge(EPHEMERAL, "volumeMounts", "mountPath"),
    merge("io.k8s.api.apps.v1.DeploymentStatus", "conditions", "type"),
    merge("io.k8s.api.apps.v1.ReplicaSetStatus", "conditions", "type"),
    merge("io.k8s.api.core.v1.NamespaceStatus", "conditions", "type"),
    merge("io.k8s.api.core.v1.NodeSpec", "podCIDRs", ""),
    merge("io.k8s.api.core.v1.NodeStatus", "addresses", "type"),
    merge("io.k8s.api.core.v1.NodeStatus", "conditions", "type"),
    merge("io.k8s.api.core.v1.ServiceAccount", "secrets", "name"),
    merge("io.k8s.api.core.v1.ServiceSpec", "ports", "port"),
    merge("io.k8s.api.core.v1.ServiceStatus", "conditions", "type"),
];

/// How the field of a type is merged; none for the default.
pub fn find(owner: &str, field: &str) -> Option<&'static ListMerge> {
    TABLE.iter().find(|entry| entry.field == field && entry.owner == owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Type, Types};

    #[test]
    fn every_entry_names_a_list_that_is_there() {
        let types = Types::builtin();
        for entry in TABLE {
            // A type of a kind that is not in the catalogue has no place in the graph.
            let Type::Struct(at) = types.find(entry.owner) else {
                continue;
            };
            let field = types.fields(at).field(entry.field);
            let field = field.unwrap_or_else(|| panic!("{} has no field {}", entry.owner, entry.field));
            let Type::List(item) = &field.ty else {
                panic!("{}.{} is no list", entry.owner, entry.field)
            };
            match **item {
                Type::Struct(at) => assert!(
                    types.fields(at).field(entry.key).is_some(),
                    "{}.{}",
                    entry.owner,
                    entry.field
                ),
                _ => assert_eq!(entry.key, "", "{}.{}", entry.owner, entry.field),
            }
        }
    }
}
