//! New pods.

use serde_json::{Value, json};

use super::super::create;
use super::{one, pod, shown, with};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

fn check(cases: Vec<(Value, Vec<&str>)>) {
    for (spec, want) in cases {
        assert_eq!(shown(&create(&pod(spec.clone()))), want, "{spec}");
    }
}

#[test]
fn good_pods() {
    check(vec![
        (with(json!({})), vec![]),
        (
            json!({
                "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "64Mi"}}],
                "containers": [
                    {"name": "web", "image": "nginx:1", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}], "ports": [{"containerPort": 80, "name": "http"}]},
                    {"name": "sh", "image": "busybox", "command": ["sleep", "12h"], "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]},
                ],
                "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}}],
            }),
            vec![],
        ),
    ]);
}

#[test]
fn containers() {
    let bad_name = format!(r#"spec.containers[0].name: Invalid value: "Web_1": {LABEL}"#);
    check(vec![
        (json!({}), vec!["spec.containers: Required value"]),
        (
            json!({"containers": [{}]}),
            vec![
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Required value",
            ],
        ),
        (one(json!({"name": "Web_1"})), vec![&bad_name]),
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
            vec![r#"spec.containers[1].name: Duplicate value: "a""#],
        ),
        (
            with(json!({"initContainers": [{"name": "c", "image": "i"}]})),
            vec![r#"spec.initContainers[0].name: Duplicate value: "c""#],
        ),
        (
            one(json!({"image": " i"})),
            vec![r#"spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace"#],
        ),
        (
            one(json!({"imagePullPolicy": "Sometimes"})),
            vec![
                r#"spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never""#,
            ],
        ),
        (
            one(
                json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}),
            ),
            vec![
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            ],
        ),
        (
            with(json!({"ephemeralContainers": [{"name": "e", "image": "i"}]})),
            vec!["spec.ephemeralContainers: Forbidden: cannot be set on create"],
        ),
    ]);
}

#[test]
fn ports() {
    check(vec![
        (
            one(json!({"ports": [{"containerPort": 0}, {"containerPort": 70000, "protocol": "tcp"}]})),
            vec![
                "spec.containers[0].ports[0].containerPort: Required value",
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                r#"spec.containers[0].ports[1].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP""#,
            ],
        ),
        (
            one(json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]})),
            vec![r#"spec.containers[0].ports[1].name: Duplicate value: "a""#],
        ),
        (
            one(json!({"ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}]})),
            vec![r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80""#],
        ),
        (
            json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}]}),
            vec![
                "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
            ],
        ),
    ]);
}

#[test]
fn environment() {
    let from = |source: Value| one(json!({"env": [{"name": "A", "valueFrom": source}]}));
    check(vec![
        (
            one(json!({"env": [{"name": ""}, {"name": "a=b"}, {"name": "with space.dot-1"}]})),
            vec![
                "spec.containers[0].env[0].name: Required value",
                r#"spec.containers[0].env[1].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
            ],
        ),
        (
            from(json!({})),
            vec![
                r#"spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"#,
            ],
        ),
        (
            one(
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            vec![
                r#"spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#,
            ],
        ),
        (
            from(json!({"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "s", "key": "k"}})),
            vec![
                r#"spec.containers[0].env[0].valueFrom: Invalid value: "": may not have more than one field specified at a time"#,
            ],
        ),
        (
            from(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})),
            vec![],
        ),
        (
            from(json!({"fieldRef": {"fieldPath": "metadata.whoops"}})),
            vec![
                r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.whoops": error converting fieldPath: field label not supported: metadata.whoops"#,
            ],
        ),
        (
            from(json!({"fieldRef": {"fieldPath": "status.phase"}})),
            vec![
                r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs""#,
            ],
        ),
        (
            from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "3m"}})),
            vec![
                r#"spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource"#,
            ],
        ),
        (
            from(json!({"configMapKeyRef": {"name": "m"}})),
            vec!["spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Required value"],
        ),
        (
            one(json!({"envFrom": [{}]})),
            vec![
                r#"spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#,
            ],
        ),
    ]);
}

#[test]
fn mounts() {
    check(vec![
        (
            one(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]})),
            vec![r#"spec.containers[0].volumeMounts[0].name: Not found: "x""#],
        ),
        (
            json!({"volumes": [{"name": "v"}], "containers": [{"name": "c", "image": "i", "volumeMounts": [
                {"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "", "subPath": "../y"},
            ]}]}),
            vec![
                r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/x": must be unique"#,
                "spec.containers[0].volumeMounts[2].mountPath: Required value",
                r#"spec.containers[0].volumeMounts.subPath: Invalid value: "../y": must not contain '..'"#,
            ],
        ),
        (
            json!({"volumes": [{"name": "v"}], "containers": [{"name": "c", "image": "i", "volumeMounts": [
                {"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"},
            ]}]}),
            vec![
                "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            ],
        ),
    ]);
}

#[test]
fn volumes() {
    let volume = |volume: Value| with(json!({"volumes": [volume]}));
    check(vec![
        (
            volume(json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}})),
            vec!["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            volume(json!({"name": "v", "hostPath": {"path": "/a/../b", "type": "Dir"}})),
            vec![
                r#"spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'"#,
                r#"spec.volumes[0].hostPath.type: Unsupported value: "Dir": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket""#,
            ],
        ),
        (
            with(json!({"volumes": [{"name": "v"}, {"name": "v"}]})),
            vec![r#"spec.volumes[1].name: Duplicate value: "v""#],
        ),
        (
            volume(json!({"name": "v", "secret": {"defaultMode": 1000, "items": [{"key": "k", "path": "/abs"}]}})),
            vec![
                "spec.volumes[0].secret.secretName: Required value",
                "spec.volumes[0].secret.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
                r#"spec.volumes[0].secret.items[0].path: Invalid value: "/abs": must be a relative path"#,
            ],
        ),
        (
            volume(json!({"name": "v", "configMap": {}})),
            vec!["spec.volumes[0].configMap.name: Required value"],
        ),
        (
            volume(json!({"name": "v", "persistentVolumeClaim": {}})),
            vec!["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
        ),
        (
            with(
                json!({"serviceAccountName": "a", "volumes": [{"name": "v", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 1}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                    {"configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}},
                ]}}]}),
            ),
            vec![
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                r#"spec.volumes[0].projected: Invalid value: "m": conflicting duplicate paths"#,
            ],
        ),
        (
            volume(json!({"name": "v", "downwardAPI": {"items": [{"path": "p"}]}})),
            vec!["spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"],
        ),
        (
            volume(json!({"name": "v", "iscsi": {"targetPortal": "p", "iqn": "iqn.2017", "lun": 256}})),
            vec![
                r#"spec.volumes[0].iscsi.iqn: Invalid value: "iqn.2017": must be valid format"#,
                "spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
            ],
        ),
        (
            volume(json!({"name": "v", "csi": {"driver": ""}})).clone(),
            vec![
                "spec.volumes[0].csi.driver: Required value",
                r#"spec.volumes[0].csi.driver: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
            ],
        ),
    ]);
}

#[test]
fn resources() {
    let resources = |resources: Value| one(json!({"resources": resources}));
    check(vec![
        (
            resources(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
            vec![
                r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
            ],
        ),
        (
            resources(json!({"limits": {"gold": "1"}})),
            vec![
                r#"spec.containers[0].resources.limits[gold]: Invalid value: "gold": must be a standard resource type or fully qualified"#,
                r#"spec.containers[0].resources.limits[gold]: Invalid value: "gold": must be a standard resource for containers"#,
                r#"spec.containers[0].resources.requests[gold]: Invalid value: "gold": must be a standard resource type or fully qualified"#,
                r#"spec.containers[0].resources.requests[gold]: Invalid value: "gold": must be a standard resource for containers"#,
            ],
        ),
        (
            resources(json!({"requests": {"memory": "-1"}})),
            vec![
                r#"spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0"#,
            ],
        ),
        (
            resources(json!({"requests": {"example.com/gpu": "1"}})),
            vec![
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            ],
        ),
        (
            resources(json!({"limits": {"example.com/gpu": "2"}, "requests": {"example.com/gpu": "1"}})),
            vec![
                r#"spec.containers[0].resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2"#,
            ],
        ),
        (
            resources(json!({"limits": {"hugepages-2Mi": "4Mi"}})),
            vec!["spec.containers[0].resources: Forbidden: HugePages require cpu or memory"],
        ),
        (
            with(
                json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}, "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}]}),
            ),
            vec![
                r#"spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2"#,
                r#"spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1"#,
            ],
        ),
    ]);
}

#[test]
fn probes() {
    let init = |more: Value| {
        let mut container = json!({"name": "i", "image": "i"});
        for (key, value) in more.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        with(json!({"initContainers": [container]}))
    };
    check(vec![
        (
            one(json!({"livenessProbe": {}})),
            vec!["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
        (
            one(json!({"livenessProbe": {"exec": {}, "tcpSocket": {"port": 1}, "successThreshold": 2}})),
            vec![
                "spec.containers[0].livenessProbe.exec.command: Required value",
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            one(
                json!({"readinessProbe": {"httpGet": {"port": 0, "scheme": "FTP"}, "periodSeconds": -1, "terminationGracePeriodSeconds": 5}}),
            ),
            vec![
                "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                r#"spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS""#,
                "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
            ],
        ),
        (
            init(json!({"livenessProbe": {"tcpSocket": {"port": 1}}})),
            vec![
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ],
        ),
        (
            init(json!({"restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 1}}})),
            vec![],
        ),
        (
            one(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}})),
            vec![
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ],
        ),
        (
            one(json!({"lifecycle": {"stopSignal": "SIGUSR1"}})),
            vec![
                "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
            ],
        ),
    ]);
}

#[test]
fn the_whole_spec() {
    let bad_host = format!(r#"spec.hostname: Invalid value: "A": {LABEL}"#);
    check(vec![
        (
            with(json!({"restartPolicy": "Sometimes"})),
            vec![
                r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
            ],
        ),
        (
            with(json!({"dnsPolicy": "None"})),
            vec!["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            with(json!({"dnsConfig": {"nameservers": ["x"], "options": [{}]}})),
            vec![
                r#"spec.dnsConfig.nameservers[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                "spec.dnsConfig.options[0]: Required value: must not be empty",
            ],
        ),
        (with(json!({"hostname": "A"})), vec![&bad_host]),
        (
            with(json!({"activeDeadlineSeconds": 0})),
            vec!["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
        (
            with(json!({"hostAliases": [{"ip": "1.2.3"}]})),
            vec![
                r#"spec.hostAliases[0].ip: Invalid value: "1.2.3": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
            ],
        ),
        (
            with(json!({"securityContext": {"runAsUser": -1, "sysctls": [{"name": "Net", "value": "1"}]}})),
            vec![
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                r#"spec.securityContext.sysctls[0].name: Invalid value: "Net": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"#,
            ],
        ),
        (
            with(
                json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}}),
            ),
            vec![
                r#"spec.securityContext.sysctls[0].name: Invalid value: "net.ipv4.ip_forward": may not be specified when 'hostNetwork' is true"#,
            ],
        ),
        (
            one(json!({"securityContext": {"allowPrivilegeEscalation": false, "privileged": true}})),
            vec![
                r#"spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#,
            ],
        ),
        (
            one(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}, "procMount": "Unmasked"}})),
            vec![
                r#"spec.containers[0].securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`"#,
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ],
        ),
        (
            with(json!({"hostUsers": false, "hostNetwork": true})),
            vec!["spec.hostNetwork: Forbidden: when `hostUsers` is false"],
        ),
        (
            with(json!({"schedulingGates": [{"name": "g"}, {"name": "g"}], "nodeName": "n"})),
            vec![
                r#"spec.schedulingGates[1]: Duplicate value: "g""#,
                "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
            ],
        ),
        (
            with(json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {"runAsUserName": "u"}}})),
            vec!["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
        ),
        (
            with(json!({"os": {"name": "plan9"}})),
            vec![r#"spec.os.name: Unsupported value: "plan9": supported values: "linux", "windows""#],
        ),
        (
            with(json!({"resourceClaims": [{"name": "a"}]})),
            vec![
                r#"spec.resourceClaims[0]: Invalid value: {"name":"a"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"#,
            ],
        ),
        (
            with(json!({"preemptionPolicy": "Always"})),
            vec![
                r#"spec.preemptionPolicy: Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never""#,
            ],
        ),
    ]);
}

#[test]
fn where_to_run() {
    let tolerate = |toleration: Value| with(json!({"tolerations": [toleration]}));
    let node_term = |term: Value| {
        with(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}),
        )
    };
    check(vec![
        (
            tolerate(json!({"operator": "Equal", "value": "x"})),
            vec![
                r#"spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
            ],
        ),
        (
            tolerate(json!({"key": "a", "operator": "Exists", "value": "x"})),
            vec![
                r#"spec.tolerations[0].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'"#,
            ],
        ),
        (
            tolerate(json!({"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1})),
            vec![
                r#"spec.tolerations[0].effect: Invalid value: "NoSchedule": effect must be 'NoExecute' when `tolerationSeconds` is set"#,
            ],
        ),
        (
            node_term(
                json!({"matchExpressions": [{"key": "k", "operator": "In"}, {"key": "k", "operator": "Gt", "values": ["1", "2"]}, {"key": "k", "operator": "Like"}]}),
            ),
            vec![
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
                r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].operator: Invalid value: "Like": not a valid selector operator"#,
            ],
        ),
        (
            with(
                json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}}}),
            ),
            vec![
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
            ],
        ),
        (
            with(json!({"topologySpreadConstraints": [
                {"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Maybe"},
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "Maybe", "minDomains": 2, "matchLabelKeys": ["a"]},
            ]})),
            vec![
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                r#"spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Maybe": supported values: "DoNotSchedule", "ScheduleAnyway""#,
                r#"spec.topologySpreadConstraints[1].whenUnsatisfiable: Unsupported value: "Maybe": supported values: "DoNotSchedule", "ScheduleAnyway""#,
                r#"spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, Maybe}""#,
                "spec.topologySpreadConstraints[1].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not Maybe",
                "spec.topologySpreadConstraints[1].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ],
        ),
    ]);
}
