//! What a pod asks for and this kubelet does not do, so that nobody finds out by waiting.

use k8s_openapi::api::core::v1::Pod;

use super::pod::PodExt;

/// The paths of such fields.
pub fn fields(pod: &Pod) -> Vec<String> {
    let mut fields = Vec::new();
    let Some(spec) = pod.spec() else { return fields };
    let lists = [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", spec.containers.as_slice()),
    ];
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            let asked = [(
                "resources.claims",
                container
                    .resources
                    .as_ref()
                    .is_some_and(|resources| resources.claims.is_some()),
            )];
            fields.extend(
                asked
                    .iter()
                    .filter(|(_, asked)| *asked)
                    .map(|(field, _)| format!("spec.{list}[{index}].{field}")),
            );
        }
    }
    let asked = [
        ("spec.hostUsers", spec.host_users == Some(false)),
        ("spec.schedulingGroup", spec.scheduling_group.is_some()),
        (
            "spec.resourceClaims",
            spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()),
        ),
    ];
    fields.extend(
        asked
            .iter()
            .filter(|(_, asked)| *asked)
            .map(|(field, _)| (*field).to_owned()),
    );
    fields
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_is_named() {
        let pod = serde_json::from_value(
            json!({"spec": {"hostUsers": false, "schedulingGroup": {"podGroupName": "g"}, "containers": [
                {"name": "a"}, {"name": "b", "resources": {"claims": []}},
            ]}}),
        )
        .unwrap();
        assert_eq!(
            fields(&pod),
            [
                "spec.containers[1].resources.claims",
                "spec.hostUsers",
                "spec.schedulingGroup"
            ]
        );
    }
}
