//! What a pod, and what holds a template of pods, looks like in protobuf: upstream's field numbers.
//!
//! Statuses are left out: who writes one writes it in JSON.

use super::Type::{Flag, Inline, IntOrString, Message, Number, Quantity, QuantityMap, Text, TextMap};
use super::{Field, META, many, one};

const VOLUME: &[Field] = &[one(1, "name", Text)];

const CONTAINER_PORT: &[Field] = &[
    one(1, "name", Text),
    one(2, "hostPort", Number),
    one(3, "containerPort", Number),
    one(4, "protocol", Text),
];

const CONFIG_MAP_ENV_SOURCE: &[Field] = &[];

const ENV_FROM_SOURCE: &[Field] = &[
    one(1, "prefix", Text),
    one(2, "configMapRef", Message(CONFIG_MAP_ENV_SOURCE)),
];

const ENV_VAR: &[Field] = &[one(1, "name", Text), one(2, "value", Text)];

const RESOURCE_REQUIREMENTS: &[Field] = &[];

const CONTAINER_RESIZE_POLICY: &[Field] = &[one(1, "resourceName", Text)];

const CONTAINER_RESTART_RULE: &[Field] = &[one(1, "action", Text)];

const VOLUME_MOUNT: &[Field] = &[
    one(1, "name", Text),
    one(2, "readOnly", Flag),
    one(7, "recursiveReadOnly", Text),
    one(3, "mountPath", Text),
    one(4, "subPath", Text),
    one(5, "mountPropagation", Text),
];

const VOLUME_DEVICE: &[Field] = &[one(1, "name", Text)];

const PROBE: &[Field] = &[
    one(2, "initialDelaySeconds", Number),
    one(3, "timeoutSeconds", Number),
    one(4, "periodSeconds", Number),
    one(5, "successThreshold", Number),
    one(6, "failureThreshold", Number),
];

const EXEC_ACTION: &[Field] = &[];

const HTTP_GET_ACTION: &[Field] = &[
    one(1, "path", Text),
    one(2, "port", IntOrString),
    one(3, "host", Text),
    one(4, "scheme", Text),
];

const TCP_SOCKET_ACTION: &[Field] = &[one(1, "port", IntOrString)];

const LIFECYCLE_HANDLER: &[Field] = &[
    one(1, "exec", Message(EXEC_ACTION)),
    one(2, "httpGet", Message(HTTP_GET_ACTION)),
    one(3, "tcpSocket", Message(TCP_SOCKET_ACTION)),
];

const LIFECYCLE: &[Field] = &[
    one(1, "postStart", Message(LIFECYCLE_HANDLER)),
    one(2, "preStop", Message(LIFECYCLE_HANDLER)),
];

const CAPABILITIES: &[Field] = &[many(1, "add", Text)];

const SE_LINUX_OPTIONS: &[Field] = &[one(1, "user", Text), one(2, "role", Text), one(3, "type", Text)];

const WINDOWS_SECURITY_CONTEXT_OPTIONS: &[Field] = &[
    one(1, "gmsaCredentialSpecName", Text),
    one(2, "gmsaCredentialSpec", Text),
    one(3, "runAsUserName", Text),
];

const SECCOMP_PROFILE: &[Field] = &[one(1, "type", Text)];

const SECURITY_CONTEXT: &[Field] = &[
    one(1, "capabilities", Message(CAPABILITIES)),
    one(2, "privileged", Flag),
    one(3, "seLinuxOptions", Message(SE_LINUX_OPTIONS)),
    one(10, "windowsOptions", Message(WINDOWS_SECURITY_CONTEXT_OPTIONS)),
    one(4, "runAsUser", Number),
    one(8, "runAsGroup", Number),
    one(5, "runAsNonRoot", Flag),
    one(6, "readOnlyRootFilesystem", Flag),
    one(7, "allowPrivilegeEscalation", Flag),
    one(9, "procMount", Text),
    one(11, "seccompProfile", Message(SECCOMP_PROFILE)),
];

const CONTAINER: &[Field] = &[
    one(1, "name", Text),
    one(2, "image", Text),
    many(3, "command", Text),
    many(4, "args", Text),
    one(5, "workingDir", Text),
    many(6, "ports", Message(CONTAINER_PORT)),
    many(19, "envFrom", Message(ENV_FROM_SOURCE)),
    many(7, "env", Message(ENV_VAR)),
    one(8, "resources", Message(RESOURCE_REQUIREMENTS)),
    many(23, "resizePolicy", Message(CONTAINER_RESIZE_POLICY)),
    one(24, "restartPolicy", Text),
    many(25, "restartPolicyRules", Message(CONTAINER_RESTART_RULE)),
    many(9, "volumeMounts", Message(VOLUME_MOUNT)),
    many(21, "volumeDevices", Message(VOLUME_DEVICE)),
    one(10, "livenessProbe", Message(PROBE)),
    one(11, "readinessProbe", Message(PROBE)),
    one(22, "startupProbe", Message(PROBE)),
    one(12, "lifecycle", Message(LIFECYCLE)),
    one(13, "terminationMessagePath", Text),
    one(20, "terminationMessagePolicy", Text),
    one(14, "imagePullPolicy", Text),
    one(15, "securityContext", Message(SECURITY_CONTEXT)),
    one(16, "stdin", Flag),
    one(17, "stdinOnce", Flag),
];

const EPHEMERAL_CONTAINER: &[Field] = &[];

const SYSCTL: &[Field] = &[one(1, "name", Text)];

const APP_ARMOR_PROFILE: &[Field] = &[one(1, "type", Text)];

const POD_SECURITY_CONTEXT: &[Field] = &[
    one(1, "seLinuxOptions", Message(SE_LINUX_OPTIONS)),
    one(8, "windowsOptions", Message(WINDOWS_SECURITY_CONTEXT_OPTIONS)),
    one(2, "runAsUser", Number),
    one(6, "runAsGroup", Number),
    one(3, "runAsNonRoot", Flag),
    many(4, "supplementalGroups", Number),
    one(12, "supplementalGroupsPolicy", Text),
    one(5, "fsGroup", Number),
    many(7, "sysctls", Message(SYSCTL)),
    one(9, "fsGroupChangePolicy", Text),
    one(10, "seccompProfile", Message(SECCOMP_PROFILE)),
    one(11, "appArmorProfile", Message(APP_ARMOR_PROFILE)),
];

const LOCAL_OBJECT_REFERENCE: &[Field] = &[];

const NODE_SELECTOR: &[Field] = &[];

const NODE_AFFINITY: &[Field] = &[one(
    1,
    "requiredDuringSchedulingIgnoredDuringExecution",
    Message(NODE_SELECTOR),
)];

const LABEL_SELECTOR: &[Field] = &[one(1, "matchLabels", TextMap)];

const POD_AFFINITY_TERM: &[Field] = &[
    one(1, "labelSelector", Message(LABEL_SELECTOR)),
    many(2, "namespaces", Text),
    one(3, "topologyKey", Text),
    one(4, "namespaceSelector", Message(LABEL_SELECTOR)),
    many(5, "matchLabelKeys", Text),
];

const POD_AFFINITY: &[Field] = &[many(
    1,
    "requiredDuringSchedulingIgnoredDuringExecution",
    Message(POD_AFFINITY_TERM),
)];

const AFFINITY: &[Field] = &[
    one(1, "nodeAffinity", Message(NODE_AFFINITY)),
    one(2, "podAffinity", Message(POD_AFFINITY)),
];

const TOLERATION: &[Field] = &[
    one(1, "key", Text),
    one(2, "operator", Text),
    one(3, "value", Text),
    one(4, "effect", Text),
];

const HOST_ALIAS: &[Field] = &[one(1, "ip", Text)];

const POD_DNS_CONFIG: &[Field] = &[many(1, "nameservers", Text), many(2, "searches", Text)];

const POD_READINESS_GATE: &[Field] = &[];

const TOPOLOGY_SPREAD_CONSTRAINT: &[Field] = &[
    one(1, "maxSkew", Number),
    one(2, "topologyKey", Text),
    one(3, "whenUnsatisfiable", Text),
    one(4, "labelSelector", Message(LABEL_SELECTOR)),
    one(5, "minDomains", Number),
    one(6, "nodeAffinityPolicy", Text),
    one(7, "nodeTaintsPolicy", Text),
];

const POD_OS: &[Field] = &[];

const POD_SCHEDULING_GATE: &[Field] = &[];

const POD_RESOURCE_CLAIM: &[Field] = &[one(1, "name", Text), one(3, "resourceClaimName", Text)];

const POD_SPEC: &[Field] = &[
    many(1, "volumes", Message(VOLUME)),
    many(20, "initContainers", Message(CONTAINER)),
    many(2, "containers", Message(CONTAINER)),
    many(34, "ephemeralContainers", Message(EPHEMERAL_CONTAINER)),
    one(3, "restartPolicy", Text),
    one(4, "terminationGracePeriodSeconds", Number),
    one(5, "activeDeadlineSeconds", Number),
    one(6, "dnsPolicy", Text),
    one(7, "nodeSelector", TextMap),
    one(8, "serviceAccountName", Text),
    one(9, "serviceAccount", Text),
    one(21, "automountServiceAccountToken", Flag),
    one(10, "nodeName", Text),
    one(11, "hostNetwork", Flag),
    one(12, "hostPID", Flag),
    one(13, "hostIPC", Flag),
    one(27, "shareProcessNamespace", Flag),
    one(14, "securityContext", Message(POD_SECURITY_CONTEXT)),
    many(15, "imagePullSecrets", Message(LOCAL_OBJECT_REFERENCE)),
    one(16, "hostname", Text),
    one(17, "subdomain", Text),
    one(18, "affinity", Message(AFFINITY)),
    one(19, "schedulerName", Text),
    many(22, "tolerations", Message(TOLERATION)),
    many(23, "hostAliases", Message(HOST_ALIAS)),
    one(24, "priorityClassName", Text),
    one(25, "priority", Number),
    one(26, "dnsConfig", Message(POD_DNS_CONFIG)),
    many(28, "readinessGates", Message(POD_READINESS_GATE)),
    one(29, "runtimeClassName", Text),
    one(30, "enableServiceLinks", Flag),
    one(31, "preemptionPolicy", Text),
    many(33, "topologySpreadConstraints", Message(TOPOLOGY_SPREAD_CONSTRAINT)),
    one(35, "setHostnameAsFQDN", Flag),
    one(36, "os", Message(POD_OS)),
    one(37, "hostUsers", Flag),
    many(38, "schedulingGates", Message(POD_SCHEDULING_GATE)),
    many(39, "resourceClaims", Message(POD_RESOURCE_CLAIM)),
    one(40, "resources", Message(RESOURCE_REQUIREMENTS)),
    one(41, "hostnameOverride", Text),
];

pub(super) const POD: &[Field] = &[META, one(2, "spec", Message(POD_SPEC))];

const POD_TEMPLATE_SPEC: &[Field] = &[META];

const DEPLOYMENT_STRATEGY: &[Field] = &[one(1, "type", Text)];

const DEPLOYMENT_SPEC: &[Field] = &[
    one(1, "replicas", Number),
    one(2, "selector", Message(LABEL_SELECTOR)),
    one(3, "template", Message(POD_TEMPLATE_SPEC)),
    one(4, "strategy", Message(DEPLOYMENT_STRATEGY)),
    one(5, "minReadySeconds", Number),
    one(6, "revisionHistoryLimit", Number),
    one(7, "paused", Flag),
];

pub(super) const DEPLOYMENT: &[Field] = &[META, one(2, "spec", Message(DEPLOYMENT_SPEC))];

const REPLICA_SET_SPEC: &[Field] = &[
    one(1, "replicas", Number),
    one(4, "minReadySeconds", Number),
    one(2, "selector", Message(LABEL_SELECTOR)),
];

pub(super) const REPLICA_SET: &[Field] = &[META, one(2, "spec", Message(REPLICA_SET_SPEC))];

const SCALE_SPEC: &[Field] = &[];

pub(super) const SCALE: &[Field] = &[META, one(2, "spec", Message(SCALE_SPEC))];
