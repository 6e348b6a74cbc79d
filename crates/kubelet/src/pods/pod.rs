//! What the kubelet asks of a Pod object again and again.

use api::pod::ContainerKind;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, ObjectReference, Pod, PodSpec};

/// What a container of a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that is always restarted and runs beside the app containers.
    Sidecar,
    /// One of the pod's own containers.
    App,
    /// Put into the pod while it runs, to look at it; never restarted, and no part of how the pod fares.
    Ephemeral,
}

impl Role {
    /// The list of the spec that it is in.
    pub fn kind(self) -> ContainerKind {
        match self {
            Role::Init | Role::Sidecar => ContainerKind::Init,
            Role::App => ContainerKind::Main,
            Role::Ephemeral => ContainerKind::Ephemeral,
        }
    }
}

/// The parts of a pod that are always there on a node, without the options of the type.
pub trait PodExt {
    /// `metadata.uid`.
    fn uid(&self) -> &str;
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `metadata.namespace`.
    fn namespace(&self) -> &str;
    /// `name_namespace(uid)`, as messages name a pod.
    fn full_name(&self) -> String;
    /// Init containers in their order, then app containers in theirs.
    fn containers(&self) -> impl Iterator<Item = (Role, &Container)>;
    /// The container of that name, and what it is.
    fn container(&self, name: &str) -> Option<(Role, &Container)>;
    /// The ephemeral containers, with the type of the others.
    fn ephemeral(&self) -> impl Iterator<Item = Container>;
    /// What the container of that name is, be it ephemeral or not.
    fn role(&self, name: &str) -> Option<Role>;
    /// What the pod's object says of a container.
    fn container_status(&self, role: Role, name: &str) -> Option<&ContainerStatus>;
    /// What a container does after it exited with that code.
    fn restarts(&self, role: Role, container: &Container, exit_code: i32) -> bool;
    /// Seconds that its containers have to end, as of now.
    fn grace(&self) -> i64;
    /// Whether it uses the node's network.
    fn host_network(&self) -> bool;
    /// When the API server was asked to delete it.
    fn deletion(&self) -> Option<Timestamp>;
    /// How events refer to the pod.
    fn reference(&self) -> ObjectReference;
    /// How events refer to one of its containers.
    fn container_reference(&self, role: Role, name: &str) -> ObjectReference;
    /// The spec, if there is one.
    fn spec(&self) -> Option<&PodSpec>;
}

impl PodExt for Pod {
    fn uid(&self) -> &str {
        api::pod::uid(self)
    }

    fn name(&self) -> &str {
        api::pod::name(self)
    }

    fn namespace(&self) -> &str {
        api::pod::namespace(self)
    }

    fn full_name(&self) -> String {
        format!("{}({})", api::pod::full_name(self), self.uid())
    }

    fn containers(&self) -> impl Iterator<Item = (Role, &Container)> {
        let init = self
            .spec
            .iter()
            .flat_map(|spec| spec.init_containers.iter().flatten())
            .map(|container| {
                let always = api::pod::is_sidecar(container);
                (if always { Role::Sidecar } else { Role::Init }, container)
            });
        init.chain(
            self.spec
                .iter()
                .flat_map(|spec| spec.containers.iter())
                .map(|container| (Role::App, container)),
        )
    }

    fn container(&self, name: &str) -> Option<(Role, &Container)> {
        self.containers().find(|(_, container)| container.name == name)
    }

    fn ephemeral(&self) -> impl Iterator<Item = Container> {
        let spec = self.spec.iter();
        spec.flat_map(|spec| spec.ephemeral_containers.iter().flatten())
            .map(api::pod::as_container)
    }

    fn role(&self, name: &str) -> Option<Role> {
        let ephemeral = || self.ephemeral().any(|container| container.name == name);
        self.container(name)
            .map(|(role, _)| role)
            .or_else(|| ephemeral().then_some(Role::Ephemeral))
    }

    fn container_status(&self, role: Role, name: &str) -> Option<&ContainerStatus> {
        let statuses = role.kind().statuses(self.status.as_ref()?);
        statuses.iter().find(|status| status.name == name)
    }

    fn restarts(&self, role: Role, container: &Container, exit_code: i32) -> bool {
        let spec = self.spec.as_ref();
        spec.is_some_and(|spec| api::pod::is_restartable(spec, role.kind(), container, exit_code))
    }

    fn grace(&self) -> i64 {
        let asked = self
            .metadata
            .deletion_timestamp
            .is_some()
            .then_some(self.metadata.deletion_grace_period_seconds)
            .flatten();
        asked
            .or_else(|| self.spec.as_ref()?.termination_grace_period_seconds)
            .unwrap_or(30)
    }

    fn host_network(&self) -> bool {
        api::pod::is_host_network(self)
    }

    fn deletion(&self) -> Option<Timestamp> {
        self.metadata.deletion_timestamp.as_ref().map(|time| time.0)
    }

    fn reference(&self) -> ObjectReference {
        client::events::reference(self)
    }

    fn container_reference(&self, role: Role, name: &str) -> ObjectReference {
        ObjectReference {
            field_path: Some(role.kind().event_path(name)),
            ..self.reference()
        }
    }

    fn spec(&self) -> Option<&PodSpec> {
        self.spec.as_ref()
    }
}
