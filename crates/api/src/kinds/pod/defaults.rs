//! What a pod gets that its author left out.
//!
//! [`pod_spec`] is for pods and for the templates of workloads alike; [`pod`] adds what only a pod gets.

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HTTPGetAction, LifecycleHandler, Pod, PodSpec, Probe, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::volume_defaults;
use crate::pod::aggregate_container_requests;

/// How long a pod's containers have to end, when the pod does not say.
const GRACE_SECONDS: i64 = 30;

/// Fills in a pod.
pub(crate) fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    pod_spec(spec);
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        if let Some(resources) = &mut container.resources {
            requests_from_limits(resources);
        }
    }
    pod_level_huge_pages(spec);
    pod_level_requests(spec);
    set(&mut spec.enable_service_links, true);
    if spec.host_network == Some(true) {
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or(0) == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
}

/// Fills in the spec of a pod or of a template of pods.
pub(crate) fn pod_spec(spec: &mut PodSpec) {
    set_text(&mut spec.dns_policy, "ClusterFirst");
    set_text(&mut spec.restart_policy, "Always");
    set_text(&mut spec.scheduler_name, "default-scheduler");
    set(&mut spec.termination_grace_period_seconds, GRACE_SECONDS);
    spec.security_context.get_or_insert_default();
    // Two names for one field: the old one follows the new one, and stands in where that is missing.
    if is_empty(&spec.service_account_name) {
        spec.service_account_name = spec.service_account.clone().filter(|name| !name.is_empty());
    }
    spec.service_account.clone_from(&spec.service_account_name);
    for flag in [&mut spec.host_network, &mut spec.host_pid, &mut spec.host_ipc] {
        drop_false(flag);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volume_defaults::volume(volume);
    }
    for container_in_spec in spec.init_containers.iter_mut().flatten() {
        container(container_in_spec);
    }
    for container_in_spec in &mut spec.containers {
        container(container_in_spec);
    }
    for ephemeral in spec.ephemeral_containers.iter_mut().flatten() {
        set_text(&mut ephemeral.termination_message_path, "/dev/termination-log");
        set_text(&mut ephemeral.termination_message_policy, "File");
        let policy = pull_policy(ephemeral.image.as_deref().unwrap_or_default());
        set_text(&mut ephemeral.image_pull_policy, policy);
        for variable in ephemeral.env.iter_mut().flatten() {
            env(variable);
        }
        for flag in [&mut ephemeral.stdin, &mut ephemeral.stdin_once, &mut ephemeral.tty] {
            drop_false(flag);
        }
        ephemeral.resources.get_or_insert_default();
    }
}

fn container(container: &mut Container) {
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    set_text(&mut container.image_pull_policy, policy);
    set_text(&mut container.termination_message_path, "/dev/termination-log");
    set_text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        set_text(&mut port.protocol, "TCP");
        if port.host_port == Some(0) {
            port.host_port = None;
        }
    }
    for variable in container.env.iter_mut().flatten() {
        env(variable);
    }
    for flag in [&mut container.stdin, &mut container.stdin_once, &mut container.tty] {
        drop_false(flag);
    }
    for mount in container.volume_mounts.iter_mut().flatten() {
        drop_false(&mut mount.read_only);
    }
    // Shown as `resources: {}` even where nothing is asked for.
    container.resources.get_or_insert_default();
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop] {
            if let Some(LifecycleHandler {
                http_get: Some(http), ..
            }) = hook
            {
                http_get(http);
            }
        }
    }
}

fn env(variable: &mut k8s_openapi::api::core::v1::EnvVar) {
    if let Some(source) = &mut variable.value_from {
        if let Some(field) = &mut source.field_ref {
            set_text(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut source.resource_field_ref {
            divisor(&mut resource.divisor);
        }
        if let Some(file) = &mut source.file_key_ref {
            set(&mut file.optional, false);
        }
    }
}

/// Fills in a file of a downward API volume.
pub(super) fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        set_text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        divisor(&mut resource.divisor);
    }
}

/// No divisor is written as zero, and means one.
fn divisor(divisor: &mut Option<Written>) {
    divisor.get_or_insert_with(|| Written("0".into()));
}

fn probe(probe: &mut Probe) {
    set_nonzero(&mut probe.timeout_seconds, 1);
    set_nonzero(&mut probe.period_seconds, 10);
    set_nonzero(&mut probe.success_threshold, 1);
    set_nonzero(&mut probe.failure_threshold, 3);
    if probe.initial_delay_seconds == Some(0) {
        probe.initial_delay_seconds = None;
    }
    if let Some(http) = &mut probe.http_get {
        http_get(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get(http: &mut HTTPGetAction) {
    set_text(&mut http.path, "/");
    set_text(&mut http.scheme, "HTTP");
}

/// An image named by a moving tag is pulled at every start, any other once.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

/// Huge pages of containers count for the whole pod, where it has resources of its own.
fn pod_level_huge_pages(spec: &mut PodSpec) {
    if !crate::pod::has_pod_level_resources(spec) {
        return;
    }
    let sums = aggregate_container_requests(spec);
    let Some(resources) = &mut spec.resources else { return };
    for (name, sum) in sums.into_iter().filter(|(name, _)| name.starts_with("hugepages-")) {
        // Requests of huge pages are their limits.
        let limits = resources.limits.get_or_insert_default();
        limits.entry(name).or_insert(Written(sum.to_string()));
    }
}

/// With limits for the whole pod, its requests are those of its containers, or else its limits.
fn pod_level_requests(spec: &mut PodSpec) {
    let Some(limits) = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.clone())
        .filter(|l| !l.is_empty())
    else {
        return;
    };
    let sums = aggregate_container_requests(spec);
    let Some(resources) = &mut spec.resources else { return };
    let requests = resources.requests.get_or_insert_default();
    let of_containers = sums.into_iter().map(|(name, sum)| (name, Written(sum.to_string())));
    for (name, quantity) in of_containers.chain(limits) {
        if crate::pod::is_pod_level(&name) {
            requests.entry(name).or_insert(quantity);
        }
    }
    if requests.is_empty() {
        resources.requests = None;
    }
}

pub(super) fn set<T>(field: &mut Option<T>, value: T) {
    if field.is_none() {
        *field = Some(value);
    }
}

fn set_nonzero(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(value);
    }
}

pub(super) fn is_empty(field: &Option<String>) -> bool {
    field.as_deref().is_none_or(str::is_empty)
}

pub(super) fn set_text(field: &mut Option<String>, value: &str) {
    if is_empty(field) {
        *field = Some(value.to_owned());
    }
}

/// A flag that is off is not written, as upstream's own types have it.
fn drop_false(flag: &mut Option<bool>) {
    if *flag == Some(false) {
        *flag = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the fixtures are constants")]
    use super::*;
    use serde_json::{Value, json};

    fn defaulted(spec: Value) -> Value {
        let mut object: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        pod(&mut object);
        serde_json::to_value(object.spec).unwrap()
    }

    #[test]
    fn a_small_pod_is_filled_in() {
        let got =
            defaulted(json!({"containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]}));
        assert_eq!(
            got,
            json!({
                "containers": [{
                    "name": "web",
                    "image": "nginx",
                    "imagePullPolicy": "Always",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
            })
        );
    }

    #[test]
    fn pull_policies() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }

    #[test]
    fn parts() {
        for (what, container, pointer, want) in [
            (
                "requests follow limits",
                json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}),
                "/resources",
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
            ),
            (
                "a probe",
                json!({"livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 3}}),
                "/livenessProbe",
                json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "periodSeconds": 3, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}),
            ),
            (
                "a gRPC probe",
                json!({"startupProbe": {"grpc": {"port": 80}}}),
                "/startupProbe/grpc",
                json!({"port": 80, "service": ""}),
            ),
            (
                "a hook",
                json!({"lifecycle": {"preStop": {"httpGet": {"port": "http"}}}}),
                "/lifecycle/preStop/httpGet",
                json!({"path": "/", "port": "http", "scheme": "HTTP"}),
            ),
            (
                "variables",
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}),
                "/env",
                json!([{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}, {"name": "B", "valueFrom": {"resourceFieldRef": {"divisor": "0", "resource": "limits.cpu"}}}]),
            ),
            ("a flag that is off", json!({"tty": false}), "/tty", Value::Null),
        ] {
            let got = defaulted(json!({"containers": [container]}));
            let got = got
                .pointer(&format!("/containers/0{pointer}"))
                .cloned()
                .unwrap_or(Value::Null);
            assert_eq!(got, want, "{what}");
        }
    }

    #[test]
    fn host_network_takes_the_ports_of_the_node() {
        let spec = json!({"hostNetwork": true, "containers": [{"name": "a", "ports": [{"containerPort": 80}]}]});
        assert_eq!(defaulted(spec)["containers"][0]["ports"][0]["hostPort"], 80);
    }

    #[test]
    fn the_old_name_of_the_service_account() {
        for given in [
            json!({"serviceAccount": "a"}),
            json!({"serviceAccountName": "a"}),
            json!({"serviceAccountName": "a", "serviceAccount": "b"}),
        ] {
            let got = defaulted(given);
            assert_eq!(
                (&got["serviceAccount"], &got["serviceAccountName"]),
                (&json!("a"), &json!("a"))
            );
        }
    }

    #[test]
    fn requests_of_the_whole_pod() {
        let got = defaulted(json!({
            "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}, {"name": "b", "resources": {"requests": {"cpu": "500m"}}}],
        }));
        assert_eq!(got["resources"]["requests"], json!({"cpu": "1", "memory": "1Gi"}));
        let got = defaulted(json!({
            "resources": {"requests": {"cpu": "1"}},
            "containers": [{"name": "a", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}],
        }));
        assert_eq!(
            got["resources"],
            json!({"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}})
        );
    }
}
