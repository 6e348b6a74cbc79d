//! Pods that cannot be: each is refused with the field's path and upstream's words, as kubectl shows them.

use tests::{Cluster, Options};

/// The fields of a container, which is the pod's only one.
fn app(more: &str) -> String {
    format!("containers: [{{name: c, image: i, {more}}}]")
}

#[test]
fn pods_that_cannot_be_are_refused_in_upstreams_words() {
    let cluster = Cluster::with(Options::default());
    let cases = [
        lifecycles_that_cannot_be(),
        combinations_that_cannot_be(),
        volumes_that_cannot_be(),
    ];
    for (spec, expected) in cases.concat() {
        let manifest = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: x}}, spec: {{{spec}}}}}");
        let refused = cluster.kubectl_with(&["create", "-f", "-"], &manifest).fails();
        let expected = format!("The Pod \"x\" is invalid: {expected}\n");
        // Where a value is a whole structure, what it is shown as is upstream's Go's.
        let fits = match expected.split_once("...") {
            Some((before, after)) => refused.starts_with(before) && refused.ends_with(after),
            None => refused == expected,
        };
        assert!(fits, "{spec}\n{refused}{expected}");
    }
}

/// Security contexts and resources whose parts contradict each other.
fn combinations_that_cannot_be() -> Vec<(String, String)> {
    let plain = || app("");
    let with = |context: &str| format!("securityContext: {{{context}}}, {}", plain());
    let own = |context: &str| app(&format!("securityContext: {{{context}}}"));
    let required = "Required value: must be set when";
    let sysctl = |name: &str| with(&format!("sysctls: [{{name: {name}, value: '1'}}]"));
    let no_sysctl = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    [
        (
            own("allowPrivilegeEscalation: false, privileged: true"),
            "spec.containers[0].securityContext: Invalid value: ...: cannot set `allowPrivilegeEscalation` to false and `privileged` to true".to_owned(),
        ),
        (
            sysctl("Kernel.Shm"),
            format!("spec.securityContext.sysctls[0].name: Invalid value: \"Kernel.Shm\": {no_sysctl}"),
        ),
        (
            format!("hostNetwork: true, {}", sysctl("net.ipv4.tcp_syncookies")),
            "spec.securityContext.sysctls[0].name: Invalid value: \"net.ipv4.tcp_syncookies\": may not be specified when 'hostNetwork' is true".into(),
        ),
        (
            format!("hostUsers: false, hostNetwork: true, {}", plain()),
            "spec.hostNetwork: Forbidden: when `hostUsers` is false".into(),
        ),
        (
            format!("shareProcessNamespace: true, hostPID: true, {}", plain()),
            "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled".into(),
        ),
        (
            app("resources: {requests: {cpu: 1, hugepages-2Mi: 2Mi}, limits: {cpu: 1, hugepages-2Mi: 4Mi}}"),
            "spec.containers[0].resources.requests: Invalid value: \"2Mi\": must be equal to hugepages-2Mi limit of 4Mi".into(),
        ),
        (
            with("seccompProfile: {type: Localhost}"),
            format!("spec.securityContext.seccompProfile.localhostProfile: {required} seccomp type is Localhost"),
        ),
        (
            own("seccompProfile: {type: Localhost, localhostProfile: ../outside.json}"),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"../outside.json\": must not contain '..'".into(),
        ),
        (
            own("seccompProfile: {type: Localhost, localhostProfile: /outside.json}"),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"/outside.json\": must be a relative path".into(),
        ),
        (
            own("appArmorProfile: {type: Localhost}"),
            format!("spec.containers[0].securityContext.appArmorProfile.localhostProfile: {required} AppArmor type is Localhost"),
        ),
    ]
    .into()
}

/// Volumes and mounts of them.
fn volumes_that_cannot_be() -> Vec<(String, String)> {
    let volume = |source: &str, more: &str| format!("volumes: [{{name: v, {source}}}], {}", app(more));
    let refused = "Invalid value:";
    [
        (
            volume("emptyDir: {}", "volumeMounts: [{name: v, mountPath: /a}, {name: v, mountPath: /a}]"),
            format!("spec.containers[0].volumeMounts[1].mountPath: {refused} \"/a\": must be unique"),
        ),
        (
            volume("emptyDir: {sizeLimit: -1Mi}", ""),
            "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity".into(),
        ),
        (
            volume("emptyDir: {}", "volumeDevices: [{name: v, devicePath: /dev/v}]"),
            format!(
                "spec.containers[0].volumeDevices[0].name: {refused} \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            ),
        ),
        (
            app("volumeMounts: [{name: nobody, mountPath: /a}]"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"nobody\"".into(),
        ),
        (
            volume("emptyDir: {}, hostPath: {path: /x}", ""),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type".into(),
        ),
    ]
    .into()
}

/// What the API says of lifecycles that cannot be.
fn lifecycles_that_cannot_be() -> Vec<(String, String)> {
    let init =
        |more: &str| format!("containers: [{{name: c, image: i}}], initContainers: [{{name: i, image: i, {more}}}]");
    let ordinary = "Forbidden: may not be set for init containers without restartPolicy=Always";
    let exec = "exec: {command: [x]}";
    let mut cases = vec![
        (
            init(&format!("lifecycle: {{preStop: {{{exec}}}}}")),
            format!("spec.initContainers[0].lifecycle: {ordinary}"),
        ),
        (
            app("lifecycle: {postStart: {}}"),
            "spec.containers[0].lifecycle.postStart: Required value: must specify a handler type".into(),
        ),
        (
            app(&format!("lifecycle: {{preStop: {{{exec}, httpGet: {{port: 80}}}}}}")),
            "spec.containers[0].lifecycle.preStop.httpGet: Forbidden: may not specify more than 1 handler type".into(),
        ),
        (
            app("lifecycle: {preStop: {exec: {command: []}}}"),
            "spec.containers[0].lifecycle.preStop.exec.command: Required value".into(),
        ),
        (
            app("lifecycle: {preStop: {sleep: {seconds: 31}}}"),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)".into(),
        ),
        (
            app("lifecycle: {stopSignal: SIGUSR1}"),
            "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`".into(),
        ),
        (
            app("restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]"),
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used".into(),
        ),
        (
            app("restartPolicy: Never, restartPolicyRules: [{action: Restart}]"),
            "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified".into(),
        ),
        (
            format!("restartPolicy: Sometimes, {}", app("")),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"".into(),
        ),
        (
            format!("activeDeadlineSeconds: 0, {}", app("")),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive".into(),
        ),
    ];
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        cases.push((
            init(&format!("{probe}: {{{exec}}}")),
            format!("spec.initContainers[0].{probe}: {ordinary}"),
        ));
    }
    cases
}
