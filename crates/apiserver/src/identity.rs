//! Who asks.

use std::{collections::BTreeMap, sync::Arc};

/// A user with their groups, as authentication found them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name, such as `kubernetes-admin` or `system:node:one`.
    pub user: Arc<str>,
    /// The user's unique id, when the credential carries one.
    pub uid: Arc<str>,
    /// The groups that the user is in.
    pub groups: Arc<[Arc<str>]>,
    /// What else the credential says.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
}

/// Who has not proved who they are.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of everyone who has proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone who has not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of kubelets.
pub const NODES: &str = "system:nodes";

/// The groups of every ServiceAccount of a namespace.
pub(crate) fn service_account_groups(namespace: &str) -> [String; 2] {
    [
        "system:serviceaccounts".into(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}

impl Identity {
    /// A user who has proved who they are: `system:authenticated` is added to the groups.
    pub fn authenticated(user: &str, groups: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut groups: Vec<Arc<str>> = groups.into_iter().map(|group| Arc::from(group.as_ref())).collect();
        if !groups.iter().any(|group| &**group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self {
            user: user.into(),
            uid: "".into(),
            groups: groups.into(),
            extra: Arc::default(),
        }
    }

    /// Nobody known.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            user: ANONYMOUS.into(),
            uid: "".into(),
            groups: [Arc::from(UNAUTHENTICATED)].into(),
            extra: Arc::default(),
        }
    }

    /// The kubelet of a node.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self::authenticated(&format!("system:node:{name}"), [NODES])
    }

    /// A part of the control plane, such as `system:kube-scheduler`.
    #[must_use]
    pub fn component(user: &str) -> Self {
        Self::authenticated(user, [] as [&str; 0])
    }

    /// The API server itself, and the administrator's work in this process.
    #[must_use]
    pub fn master(user: &str) -> Self {
        Self::authenticated(user, [MASTERS])
    }

    /// Whether the user is in a group.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|found| &**found == group)
    }
}
