//! What a pod asks for and does not get here, because this kubelet does not do it or the node's kernel cannot, so that nobody finds out by
//! waiting.

use k8s_openapi::api::core::v1::Pod;

use super::admission::{self, Kernel};
use super::pod::PodExt;
use crate::cri_config::resources;

/// What is told of each such field.
pub fn messages(pod: &Pod, kernel: Kernel) -> Vec<String> {
    let unserved = fields(pod)
        .into_iter()
        .map(|field| format!("{field} is not served by this build and has no effect"));
    let mut messages: Vec<String> = unserved.collect();
    if !kernel.app_armor && admission::app_armor(pod).any(|profile| profile.type_ == "RuntimeDefault") {
        messages.push("appArmorProfile has no effect: AppArmor is not enabled on the host".into());
    }
    if !kernel.selinux && asks_for_selinux(pod) {
        messages.push("seLinuxOptions has no effect: SELinux is not enabled on the host".into());
    }
    if !kernel.huge_pages && !resources::pod_hugepages(pod).is_empty() {
        messages.push("limits of huge pages have no effect: the host has no hugetlb cgroup controller".into());
    }
    messages
}

fn asks_for_selinux(pod: &Pod) -> bool {
    let of_pod = pod.spec().and_then(|spec| spec.security_context.as_ref());
    let mut own = pod
        .containers()
        .filter_map(|(_, container)| container.security_context.as_ref());
    of_pod.is_some_and(|context| context.se_linux_options.is_some())
        || own.any(|context| context.se_linux_options.is_some())
}

/// The paths of fields that are not served.
fn fields(pod: &Pod) -> Vec<String> {
    let mut fields = Vec::new();
    let Some(spec) = pod.spec() else { return fields };
    let lists = [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", spec.containers.as_slice()),
    ];
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            let resources = container.resources.as_ref();
            if resources.is_some_and(|resources| resources.claims.is_some()) {
                fields.push(format!("spec.{list}[{index}].resources.claims"));
            }
        }
    }
    if spec.scheduling_group.is_some() {
        fields.push("spec.schedulingGroup".into());
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        fields.push("spec.resourceClaims".into());
    }
    fields
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_is_named() {
        let pod = serde_json::from_value(json!({"spec": {"resourceClaims": [{"name": "r"}], "schedulingGroup": {"podGroupName": "g"}, "containers": [
            {"name": "a", "securityContext": {"seLinuxOptions": {"level": "s0"}}}, {"name": "b", "resources": {"claims": [], "limits": {"hugepages-2Mi": "2Mi"}}},
        ], "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}}))
        .unwrap();
        let unserved = |field: &str| format!("{field} is not served by this build and has no effect");
        assert_eq!(
            messages(&pod, Kernel::default()),
            [
                unserved("spec.containers[1].resources.claims"),
                unserved("spec.schedulingGroup"),
                unserved("spec.resourceClaims"),
                "appArmorProfile has no effect: AppArmor is not enabled on the host".into(),
                "seLinuxOptions has no effect: SELinux is not enabled on the host".into(),
                "limits of huge pages have no effect: the host has no hugetlb cgroup controller".into(),
            ]
        );
        let confining = Kernel {
            app_armor: true,
            selinux: true,
            huge_pages: true,
        };
        assert_eq!(messages(&pod, confining).len(), 3);
    }
}
