//! Labels and annotations by which the kubelet finds its sandboxes and containers again, and what upstream's tools look for.

use k8s_openapi::api::core::v1::Container;

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: identifies the container's spec.
pub const HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how many instances there were before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where in the container its last words are.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: what to do when it leaves none.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the container's ports, as JSON.
pub const PORTS: &str = "io.kubernetes.container.ports";
/// Annotation: the pod's grace period, for when the pod's object is gone.
pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation of sandboxes: where the pod comes from.
pub const SOURCE: &str = "kubernetes.io/config.source";

/// Identifies what of a container's spec makes a new instance necessary: its name and image (FNV-1a, in hex).
pub fn hash(container: &Container) -> String {
    let bytes = container
        .name
        .bytes()
        .chain([0])
        .chain(container.image.as_deref().unwrap_or_default().bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:x}")
}
