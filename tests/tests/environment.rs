//! The environment of containers: where values come from, their order, what is missing, and what is refused.

use tests::{Cluster, Options};

/// What `env` prints in a pod that runs nothing else, in its order.
#[track_caller]
fn printed(cluster: &Cluster, pod: &str) -> Vec<(String, String)> {
    cluster.until(pod, "{.status.phase}", "Succeeded");
    let log = cluster.kubectl(&["logs", pod, "-c", "c"]).ok();
    let lines = log.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A pod whose container prints its environment.
fn printer(name: &str, metadata: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}{metadata}}}
spec:
  restartPolicy: Never
  {spec}
  containers:
  - name: c
    image: localhost/busybox:1
    command: [env]
    {container}
"
    )
}

const WAITING: &str = "{.status.containerStatuses[0].state.waiting";

#[test]
fn variables_come_from_everywhere() {
    let cluster = Cluster::with(Options {
        images: &["busybox"],
        ..Options::default()
    });
    for manifest in [
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {color: red, 'app.mode': fast, 1st: one}, binaryData: {blob: aGlkZGVu}}",
        "{apiVersion: v1, kind: Secret, metadata: {name: login}, stringData: {user: jane, password: 'a b$(X)'}}",
        "{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}}",
        "{apiVersion: v1, kind: Service, metadata: {name: my-db}, spec: {ports: [{name: sql, port: 5432}, {name: admin-ui, port: 81, protocol: UDP}]}}",
    ] {
        cluster.create(manifest);
    }
    let ip = cluster
        .kubectl(&["get", "service", "my-db", "-o", "jsonpath={.spec.clusterIP}"])
        .ok();
    let api = cluster
        .kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"])
        .ok();
    cluster.create(&printer(
        "all",
        ", labels: {app: web, 'example.com/tier': front}, annotations: {note: 'say \"hi\"'}",
        "serviceAccountName: robot",
        "envFrom:
    - {configMapRef: {name: settings}}
    - {prefix: S_, secretRef: {name: login}}
    - {configMapRef: {name: absent, optional: true}}
    - {secretRef: {name: absent, optional: true}}
    env:
    - {name: FIRST, value: one}
    - {name: SECOND, value: '$(FIRST) $(FIRST)two'}
    - {name: ESCAPED, value: '$$(FIRST) $(LATER) $(NONE) $FIRST'}
    - {name: LATER, value: last}
    - {name: color, value: blue}
    - {name: OF_SERVICE, value: '$(MY_DB_SERVICE_HOST):$(MY_DB_SERVICE_PORT_SQL)'}
    - {name: OF_SECRET, value: '$(S_user)'}
    - {name: EMPTY}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['example.com/tier']\"}}}
    - {name: NO_LABEL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['none']\"}}}
    - {name: ANNOTATION, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['note']\"}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: POD_IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
    - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: HOST_IPS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: requests.cpu}}}
    - {name: CPU_MILLIS, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: MEMORY_MI, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: OTHER_MEMORY, valueFrom: {resourceFieldRef: {containerName: other, resource: requests.memory, divisor: 1k}}}
    - {name: NODE_CPU_MILLIS, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: NODE_MEMORY, valueFrom: {resourceFieldRef: {containerName: other, resource: limits.memory, divisor: 1Ki}}}
    - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: app.mode}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
    - {name: NO_KEY, valueFrom: {configMapKeyRef: {name: settings, key: none, optional: true}}}
    - {name: NO_SECRET, valueFrom: {secretKeyRef: {name: absent, key: none, optional: true}}}
    resources: {requests: {cpu: 125m, memory: 32Mi}, limits: {memory: 64Mi}}
  - {name: other, image: 'localhost/busybox:1', command: ['true'], resources: {requests: {memory: 1500}}}",
    ));
    cluster.create(&printer(
        "unlinked",
        "",
        "enableServiceLinks: false\n  hostname: named",
        "",
    ));
    // An init container writes a file of variables for the one after it.
    cluster.create(&printer(
        "from-file",
        "",
        "initContainers:
  - {name: init, image: 'localhost/busybox:1', command: [sh, -c, \"printf \\\"# made\\\\nHOST='db 1'\\\\nMOTD='two\\\\nlines'\\\\n\\\" > /v/app.env\"], volumeMounts: [{name: v, mountPath: /v}]}
  volumes: [{name: v, emptyDir: {}}]",
        "env:
    - {name: HOST, valueFrom: {fileKeyRef: {volumeName: v, path: app.env, key: HOST}}}
    - {name: NONE, valueFrom: {fileKeyRef: {volumeName: v, path: app.env, key: NONE, optional: true}}}
    - {name: AFTER, value: 'to $(HOST)'}",
    ));
    cluster.create(&printer(
        "no-key-in-file",
        "",
        "volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: init, image: 'localhost/busybox:1', command: [sh, -c, \"echo \\\"A='b'\\\" > /v/app.env\"], volumeMounts: [{name: v, mountPath: /v}]}",
        "env: [{name: HOST, valueFrom: {fileKeyRef: {volumeName: v, path: app.env, key: HOST}}}]",
    ));
    // What is missing keeps a container waiting and nothing else.
    let missing = [
        (
            "no-map",
            "env: [{name: X, valueFrom: {configMapKeyRef: {name: late, key: x}}}]",
            "configmap \"late\" not found",
        ),
        (
            "no-map-key",
            "env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: x}}}]",
            "couldn't find key x in ConfigMap default/settings",
        ),
        (
            "binary-key",
            "env: [{name: X, valueFrom: {configMapKeyRef: {name: settings, key: blob}}}]",
            "couldn't find key blob in ConfigMap default/settings",
        ),
        (
            "no-secret",
            "envFrom: [{secretRef: {name: late}}]",
            "secret \"late\" not found",
        ),
        (
            "no-secret-key",
            "env: [{name: X, valueFrom: {secretKeyRef: {name: login, key: x}}}]",
            "couldn't find key x in Secret default/login",
        ),
    ];
    for (name, container, _) in missing {
        cluster.create(&printer(name, "", "", container));
    }
    for (name, _, message) in missing {
        cluster.until(name, &format!("{WAITING}.reason}}"), "CreateContainerConfigError");
        assert_eq!(cluster.field(name, &format!("{WAITING}.message}}")), message);
        let described = cluster.kubectl(&["describe", "pod", name]).ok();
        assert!(described.contains(&format!("Error: {message}")), "{described}");
    }

    let all = printed(&cluster, "all");
    let value = |name: &str| {
        all.iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let field = |path: &str| cluster.field("all", path);
    let allocatable = |resource: &str| {
        cluster
            .kubectl(&[
                "get",
                "node",
                "node",
                "-o",
                &format!("jsonpath={{.status.allocatable.{resource}}}"),
            ])
            .ok()
    };
    let cpu = allocatable("cpu");
    let cpu = match cpu.strip_suffix('m') {
        Some(millis) => millis.to_owned(),
        None => format!("{cpu}000"),
    };
    let (uid, pod_ip) = (field("{.metadata.uid}"), field("{.status.podIP}"));
    let of_service = format!("{ip}:5432");
    let memory = allocatable("memory");
    for (name, expected) in [
        ("1st", Some("one")),
        ("app.mode", Some("fast")),
        ("blob", None),
        ("S_user", Some("jane")),
        ("S_password", Some("a b$(X)")),
        ("FIRST", Some("one")),
        ("SECOND", Some("one onetwo")),
        ("ESCAPED", Some("$(FIRST) $(LATER) $(NONE) $FIRST")),
        ("color", Some("blue")),
        ("OF_SERVICE", Some(of_service.as_str())),
        ("OF_SECRET", Some("jane")),
        ("EMPTY", Some("")),
        ("NAME", Some("all")),
        ("NAMESPACE", Some("default")),
        ("POD_UID", Some(uid.as_str())),
        ("LABEL", Some("front")),
        ("NO_LABEL", Some("")),
        ("ANNOTATION", Some("say \"hi\"")),
        ("NODE", Some("node")),
        ("ACCOUNT", Some("robot")),
        ("POD_IP", Some(pod_ip.as_str())),
        ("POD_IPS", Some(pod_ip.as_str())),
        ("HOST_IP", Some("192.0.2.10")),
        ("HOST_IPS", Some("192.0.2.10")),
        ("CPU", Some("1")),
        ("CPU_MILLIS", Some("125")),
        ("MEMORY", Some("67108864")),
        ("MEMORY_MI", Some("64")),
        ("OTHER_MEMORY", Some("2")),
        ("NODE_CPU_MILLIS", Some(cpu.as_str())),
        ("NODE_MEMORY", memory.strip_suffix("Ki")),
        ("MODE", Some("fast")),
        ("PASSWORD", Some("a b$(X)")),
        ("NO_KEY", None),
        ("NO_SECRET", None),
        ("HOSTNAME", Some("all")),
        (
            "PATH",
            Some("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ),
        ("KUBERNETES_SERVICE_HOST", Some(api.as_str())),
        ("KUBERNETES_SERVICE_PORT", Some("443")),
        ("KUBERNETES_SERVICE_PORT_HTTPS", Some("443")),
        ("MY_DB_SERVICE_HOST", Some(ip.as_str())),
        ("MY_DB_SERVICE_PORT", Some("5432")),
        ("MY_DB_SERVICE_PORT_ADMIN_UI", Some("81")),
        ("MY_DB_PORT_81_UDP_PROTO", Some("udp")),
        ("MY_DB_PORT_5432_TCP_PORT", Some("5432")),
        ("MY_DB_PORT_5432_TCP_ADDR", Some(ip.as_str())),
    ] {
        assert_eq!(value(name), expected, "{name} in {all:#?}");
    }
    assert_eq!(value("MY_DB_PORT"), Some(format!("tcp://{ip}:5432").as_str()));
    assert_eq!(value("KUBERNETES_PORT"), Some(format!("tcp://{api}:443").as_str()));
    let position = |name: &str| all.iter().position(|(known, _)| known == name);
    let order = [
        "FIRST", "SECOND", "ESCAPED", "LATER", "EMPTY", "NAME", "POD_UID", "CPU", "PASSWORD",
    ];
    assert!(order.iter().map(|name| position(name)).is_sorted(), "{all:#?}");

    let unlinked = printed(&cluster, "unlinked");
    let has = |name: &str, value: &str| unlinked.iter().any(|(known, its)| known == name && its == value);
    assert!(
        has("KUBERNETES_SERVICE_HOST", &api) && has("HOSTNAME", "named"),
        "{unlinked:#?}"
    );
    assert!(
        !unlinked.iter().any(|(name, _)| name.starts_with("MY_DB")),
        "{unlinked:#?}"
    );

    let from_file = printed(&cluster, "from-file");
    for (name, value) in [("HOST", "db 1"), ("AFTER", "to db 1")] {
        assert!(
            from_file.iter().any(|(known, its)| known == name && its == value),
            "{from_file:#?}"
        );
    }
    assert!(!from_file.iter().any(|(name, _)| name == "NONE"), "{from_file:#?}");
    cluster.until(
        "no-key-in-file",
        &format!("{WAITING}.reason}}"),
        "CreateContainerConfigError",
    );
    let message = cluster.field("no-key-in-file", &format!("{WAITING}.message}}"));
    assert!(
        message.starts_with("environment variable key \"HOST\" not found in file \"")
            && message.ends_with("/app.env\""),
        "{message}"
    );

    // What was missing comes, and the pods run without being made anew.
    cluster.create("{apiVersion: v1, kind: ConfigMap, metadata: {name: late}, data: {x: at-last}}");
    cluster.create("{apiVersion: v1, kind: Secret, metadata: {name: late}, stringData: {SECRET: at-last}}");
    cluster
        .kubectl(&[
            "patch",
            "configmap",
            "settings",
            "--type=merge",
            "-p",
            r#"{"data": {"x": "at-last"}}"#,
        ])
        .ok();
    for (pod, name) in [("no-map", "X"), ("no-secret", "SECRET"), ("no-map-key", "X")] {
        let printed = printed(&cluster, pod);
        assert!(
            printed.iter().any(|(known, its)| known == name && its == "at-last"),
            "{printed:#?}"
        );
    }

    variables_are_validated(&cluster);
}

/// Wrong variables are refused with upstream's words.
fn variables_are_validated(cluster: &Cluster) {
    for (container, said) in [
        ("env: [{value: a}]", "env[0].name: Required value"),
        (
            "env: [{name: 'a=b', value: a}]",
            "env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ),
        (
            "env: [{name: A, valueFrom: {}}]",
            "env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        (
            "env: [{name: A, value: a, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
            "env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}, secretKeyRef: {name: a, key: b}}}]",
            "env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
        ),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]",
            "env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nothing}}}]",
            "env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nothing\": error converting fieldPath: field label not supported: spec.nothing",
        ),
        (
            "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.disk}}}]",
            "env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.disk\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
        ),
        (
            "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 2}}}]",
            "env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        (
            "env: [{name: A, valueFrom: {configMapKeyRef: {name: a}}}]",
            "env[0].valueFrom.configMapKeyRef.key: Required value",
        ),
        (
            "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: a, key: B}}}]",
            "env[0].valueFrom.fileKeyRef.volumeName: Not found: \"v\"",
        ),
        (
            "envFrom: [{prefix: a}]",
            "envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            "envFrom: [{configMapRef: {}}]",
            "envFrom[0].configMapRef.name: Required value",
        ),
        (
            "envFrom: [{prefix: 'a=', configMapRef: {name: a}}]",
            "envFrom[0].prefix: Invalid value: \"a=\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ),
    ] {
        let manifest = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: wrong}}, spec: {{containers: [{{name: c, image: x, {container}}}]}}}}"
        );
        let refused = cluster.kubectl_with(&["create", "-f", "-"], &manifest).fails();
        assert_eq!(
            refused,
            format!("The Pod \"wrong\" is invalid: spec.containers[0].{said}\n"),
            "for {container}"
        );
    }
}
