//! What a pod, and what holds a template of pods, looks like in protobuf: upstream's field numbers.
//!
//! Statuses are left out: who writes one writes it in JSON.

use super::Type::{Flag, Inline, IntOrString, Message, Number, Quantity, QuantityMap, Text, TextMap};
use super::{Field, META, many, one};

const HOST_PATH_VOLUME_SOURCE: &[Field] = &[one(1, "path", Text), one(2, "type", Text)];

const EMPTY_DIR_VOLUME_SOURCE: &[Field] = &[one(1, "medium", Text), one(2, "sizeLimit", Quantity)];

const GCE_PERSISTENT_DISK_VOLUME_SOURCE: &[Field] = &[
    one(1, "pdName", Text),
    one(2, "fsType", Text),
    one(3, "partition", Number),
    one(4, "readOnly", Flag),
];

const AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE: &[Field] = &[
    one(1, "volumeID", Text),
    one(2, "fsType", Text),
    one(3, "partition", Number),
    one(4, "readOnly", Flag),
];

const GIT_REPO_VOLUME_SOURCE: &[Field] = &[
    one(1, "repository", Text),
    one(2, "revision", Text),
    one(3, "directory", Text),
];

const KEY_TO_PATH: &[Field] = &[one(1, "key", Text), one(2, "path", Text), one(3, "mode", Number)];

const SECRET_VOLUME_SOURCE: &[Field] = &[
    one(1, "secretName", Text),
    many(2, "items", Message(KEY_TO_PATH)),
    one(3, "defaultMode", Number),
    one(4, "optional", Flag),
];

const NFS_VOLUME_SOURCE: &[Field] = &[one(1, "server", Text), one(2, "path", Text), one(3, "readOnly", Flag)];

const LOCAL_OBJECT_REFERENCE: &[Field] = &[one(1, "name", Text)];

const ISCSI_VOLUME_SOURCE: &[Field] = &[
    one(1, "targetPortal", Text),
    one(2, "iqn", Text),
    one(3, "lun", Number),
    one(4, "iscsiInterface", Text),
    one(5, "fsType", Text),
    one(6, "readOnly", Flag),
    many(7, "portals", Text),
    one(8, "chapAuthDiscovery", Flag),
    one(11, "chapAuthSession", Flag),
    one(10, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    one(12, "initiatorName", Text),
];

const GLUSTERFS_VOLUME_SOURCE: &[Field] = &[
    one(1, "endpoints", Text),
    one(2, "path", Text),
    one(3, "readOnly", Flag),
];

const PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE: &[Field] = &[one(1, "claimName", Text), one(2, "readOnly", Flag)];

const RBD_VOLUME_SOURCE: &[Field] = &[
    many(1, "monitors", Text),
    one(2, "image", Text),
    one(3, "fsType", Text),
    one(4, "pool", Text),
    one(5, "user", Text),
    one(6, "keyring", Text),
    one(7, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    one(8, "readOnly", Flag),
];

const FLEX_VOLUME_SOURCE: &[Field] = &[
    one(1, "driver", Text),
    one(2, "fsType", Text),
    one(3, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    one(4, "readOnly", Flag),
    one(5, "options", TextMap),
];

const CINDER_VOLUME_SOURCE: &[Field] = &[
    one(1, "volumeID", Text),
    one(2, "fsType", Text),
    one(3, "readOnly", Flag),
    one(4, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
];

const CEPH_FS_VOLUME_SOURCE: &[Field] = &[
    many(1, "monitors", Text),
    one(2, "path", Text),
    one(3, "user", Text),
    one(4, "secretFile", Text),
    one(5, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    one(6, "readOnly", Flag),
];

const FLOCKER_VOLUME_SOURCE: &[Field] = &[one(1, "datasetName", Text), one(2, "datasetUUID", Text)];

const OBJECT_FIELD_SELECTOR: &[Field] = &[one(1, "apiVersion", Text), one(2, "fieldPath", Text)];

const RESOURCE_FIELD_SELECTOR: &[Field] = &[
    one(1, "containerName", Text),
    one(2, "resource", Text),
    one(3, "divisor", Quantity),
];

const DOWNWARD_APIVOLUME_FILE: &[Field] = &[
    one(1, "path", Text),
    one(2, "fieldRef", Message(OBJECT_FIELD_SELECTOR)),
    one(3, "resourceFieldRef", Message(RESOURCE_FIELD_SELECTOR)),
    one(4, "mode", Number),
];

const DOWNWARD_APIVOLUME_SOURCE: &[Field] = &[
    many(1, "items", Message(DOWNWARD_APIVOLUME_FILE)),
    one(2, "defaultMode", Number),
];

const FC_VOLUME_SOURCE: &[Field] = &[
    many(1, "targetWWNs", Text),
    one(2, "lun", Number),
    one(3, "fsType", Text),
    one(4, "readOnly", Flag),
    many(5, "wwids", Text),
];

const AZURE_FILE_VOLUME_SOURCE: &[Field] = &[
    one(1, "secretName", Text),
    one(2, "shareName", Text),
    one(3, "readOnly", Flag),
];

const CONFIG_MAP_VOLUME_SOURCE: &[Field] = &[
    one(1, "", Inline(LOCAL_OBJECT_REFERENCE)),
    many(2, "items", Message(KEY_TO_PATH)),
    one(3, "defaultMode", Number),
    one(4, "optional", Flag),
];

const VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE: &[Field] = &[
    one(1, "volumePath", Text),
    one(2, "fsType", Text),
    one(3, "storagePolicyName", Text),
    one(4, "storagePolicyID", Text),
];

const QUOBYTE_VOLUME_SOURCE: &[Field] = &[
    one(1, "registry", Text),
    one(2, "volume", Text),
    one(3, "readOnly", Flag),
    one(4, "user", Text),
    one(5, "group", Text),
    one(6, "tenant", Text),
];

const AZURE_DISK_VOLUME_SOURCE: &[Field] = &[
    one(1, "diskName", Text),
    one(2, "diskURI", Text),
    one(3, "cachingMode", Text),
    one(4, "fsType", Text),
    one(5, "readOnly", Flag),
    one(6, "kind", Text),
];

const PHOTON_PERSISTENT_DISK_VOLUME_SOURCE: &[Field] = &[one(1, "pdID", Text), one(2, "fsType", Text)];

const SECRET_PROJECTION: &[Field] = &[
    one(1, "", Inline(LOCAL_OBJECT_REFERENCE)),
    many(2, "items", Message(KEY_TO_PATH)),
    one(4, "optional", Flag),
];

const DOWNWARD_APIPROJECTION: &[Field] = &[many(1, "items", Message(DOWNWARD_APIVOLUME_FILE))];

const CONFIG_MAP_PROJECTION: &[Field] = &[
    one(1, "", Inline(LOCAL_OBJECT_REFERENCE)),
    many(2, "items", Message(KEY_TO_PATH)),
    one(4, "optional", Flag),
];

const SERVICE_ACCOUNT_TOKEN_PROJECTION: &[Field] = &[
    one(1, "audience", Text),
    one(2, "expirationSeconds", Number),
    one(3, "path", Text),
];

const LABEL_SELECTOR_REQUIREMENT: &[Field] = &[one(1, "key", Text), one(2, "operator", Text), many(3, "values", Text)];

const LABEL_SELECTOR: &[Field] = &[
    one(1, "matchLabels", TextMap),
    many(2, "matchExpressions", Message(LABEL_SELECTOR_REQUIREMENT)),
];

const CLUSTER_TRUST_BUNDLE_PROJECTION: &[Field] = &[
    one(1, "name", Text),
    one(2, "signerName", Text),
    one(3, "labelSelector", Message(LABEL_SELECTOR)),
    one(5, "optional", Flag),
    one(4, "path", Text),
];

const POD_CERTIFICATE_PROJECTION: &[Field] = &[
    one(1, "signerName", Text),
    one(2, "keyType", Text),
    one(3, "maxExpirationSeconds", Number),
    one(4, "credentialBundlePath", Text),
    one(5, "keyPath", Text),
    one(6, "certificateChainPath", Text),
    one(7, "userAnnotations", TextMap),
];

const VOLUME_PROJECTION: &[Field] = &[
    one(1, "secret", Message(SECRET_PROJECTION)),
    one(2, "downwardAPI", Message(DOWNWARD_APIPROJECTION)),
    one(3, "configMap", Message(CONFIG_MAP_PROJECTION)),
    one(4, "serviceAccountToken", Message(SERVICE_ACCOUNT_TOKEN_PROJECTION)),
    one(5, "clusterTrustBundle", Message(CLUSTER_TRUST_BUNDLE_PROJECTION)),
    one(6, "podCertificate", Message(POD_CERTIFICATE_PROJECTION)),
];

const PROJECTED_VOLUME_SOURCE: &[Field] = &[
    many(1, "sources", Message(VOLUME_PROJECTION)),
    one(2, "defaultMode", Number),
];

const PORTWORX_VOLUME_SOURCE: &[Field] = &[
    one(1, "volumeID", Text),
    one(2, "fsType", Text),
    one(3, "readOnly", Flag),
];

const SCALE_IO_VOLUME_SOURCE: &[Field] = &[
    one(1, "gateway", Text),
    one(2, "system", Text),
    one(3, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
    one(4, "sslEnabled", Flag),
    one(5, "protectionDomain", Text),
    one(6, "storagePool", Text),
    one(7, "storageMode", Text),
    one(8, "volumeName", Text),
    one(9, "fsType", Text),
    one(10, "readOnly", Flag),
];

const STORAGE_OS_VOLUME_SOURCE: &[Field] = &[
    one(1, "volumeName", Text),
    one(2, "volumeNamespace", Text),
    one(3, "fsType", Text),
    one(4, "readOnly", Flag),
    one(5, "secretRef", Message(LOCAL_OBJECT_REFERENCE)),
];

const CSIVOLUME_SOURCE: &[Field] = &[
    one(1, "driver", Text),
    one(2, "readOnly", Flag),
    one(3, "fsType", Text),
    one(4, "volumeAttributes", TextMap),
    one(5, "nodePublishSecretRef", Message(LOCAL_OBJECT_REFERENCE)),
];

const VOLUME_RESOURCE_REQUIREMENTS: &[Field] = &[one(1, "limits", QuantityMap), one(2, "requests", QuantityMap)];

const TYPED_LOCAL_OBJECT_REFERENCE: &[Field] = &[one(1, "apiGroup", Text), one(2, "kind", Text), one(3, "name", Text)];

const TYPED_OBJECT_REFERENCE: &[Field] = &[
    one(1, "apiGroup", Text),
    one(2, "kind", Text),
    one(3, "name", Text),
    one(4, "namespace", Text),
];

const PERSISTENT_VOLUME_CLAIM_SPEC: &[Field] = &[
    many(1, "accessModes", Text),
    one(4, "selector", Message(LABEL_SELECTOR)),
    one(2, "resources", Message(VOLUME_RESOURCE_REQUIREMENTS)),
    one(3, "volumeName", Text),
    one(5, "storageClassName", Text),
    one(6, "volumeMode", Text),
    one(7, "dataSource", Message(TYPED_LOCAL_OBJECT_REFERENCE)),
    one(8, "dataSourceRef", Message(TYPED_OBJECT_REFERENCE)),
    one(9, "volumeAttributesClassName", Text),
];

const PERSISTENT_VOLUME_CLAIM_TEMPLATE: &[Field] = &[META, one(2, "spec", Message(PERSISTENT_VOLUME_CLAIM_SPEC))];

const EPHEMERAL_VOLUME_SOURCE: &[Field] = &[one(1, "volumeClaimTemplate", Message(PERSISTENT_VOLUME_CLAIM_TEMPLATE))];

const IMAGE_VOLUME_SOURCE: &[Field] = &[one(1, "reference", Text), one(2, "pullPolicy", Text)];

const VOLUME_SOURCE: &[Field] = &[
    one(1, "hostPath", Message(HOST_PATH_VOLUME_SOURCE)),
    one(2, "emptyDir", Message(EMPTY_DIR_VOLUME_SOURCE)),
    one(3, "gcePersistentDisk", Message(GCE_PERSISTENT_DISK_VOLUME_SOURCE)),
    one(
        4,
        "awsElasticBlockStore",
        Message(AWS_ELASTIC_BLOCK_STORE_VOLUME_SOURCE),
    ),
    one(5, "gitRepo", Message(GIT_REPO_VOLUME_SOURCE)),
    one(6, "secret", Message(SECRET_VOLUME_SOURCE)),
    one(7, "nfs", Message(NFS_VOLUME_SOURCE)),
    one(8, "iscsi", Message(ISCSI_VOLUME_SOURCE)),
    one(9, "glusterfs", Message(GLUSTERFS_VOLUME_SOURCE)),
    one(
        10,
        "persistentVolumeClaim",
        Message(PERSISTENT_VOLUME_CLAIM_VOLUME_SOURCE),
    ),
    one(11, "rbd", Message(RBD_VOLUME_SOURCE)),
    one(12, "flexVolume", Message(FLEX_VOLUME_SOURCE)),
    one(13, "cinder", Message(CINDER_VOLUME_SOURCE)),
    one(14, "cephfs", Message(CEPH_FS_VOLUME_SOURCE)),
    one(15, "flocker", Message(FLOCKER_VOLUME_SOURCE)),
    one(16, "downwardAPI", Message(DOWNWARD_APIVOLUME_SOURCE)),
    one(17, "fc", Message(FC_VOLUME_SOURCE)),
    one(18, "azureFile", Message(AZURE_FILE_VOLUME_SOURCE)),
    one(19, "configMap", Message(CONFIG_MAP_VOLUME_SOURCE)),
    one(20, "vsphereVolume", Message(VSPHERE_VIRTUAL_DISK_VOLUME_SOURCE)),
    one(21, "quobyte", Message(QUOBYTE_VOLUME_SOURCE)),
    one(22, "azureDisk", Message(AZURE_DISK_VOLUME_SOURCE)),
    one(
        23,
        "photonPersistentDisk",
        Message(PHOTON_PERSISTENT_DISK_VOLUME_SOURCE),
    ),
    one(26, "projected", Message(PROJECTED_VOLUME_SOURCE)),
    one(24, "portworxVolume", Message(PORTWORX_VOLUME_SOURCE)),
    one(25, "scaleIO", Message(SCALE_IO_VOLUME_SOURCE)),
    one(27, "storageos", Message(STORAGE_OS_VOLUME_SOURCE)),
    one(28, "csi", Message(CSIVOLUME_SOURCE)),
    one(29, "ephemeral", Message(EPHEMERAL_VOLUME_SOURCE)),
    one(30, "image", Message(IMAGE_VOLUME_SOURCE)),
];

const VOLUME: &[Field] = &[one(1, "name", Text), one(2, "", Inline(VOLUME_SOURCE))];

const CONTAINER_PORT: &[Field] = &[
    one(1, "name", Text),
    one(2, "hostPort", Number),
    one(3, "containerPort", Number),
    one(4, "protocol", Text),
    one(5, "hostIP", Text),
];

const CONFIG_MAP_ENV_SOURCE: &[Field] = &[one(1, "", Inline(LOCAL_OBJECT_REFERENCE)), one(2, "optional", Flag)];

const SECRET_ENV_SOURCE: &[Field] = &[one(1, "", Inline(LOCAL_OBJECT_REFERENCE)), one(2, "optional", Flag)];

const ENV_FROM_SOURCE: &[Field] = &[
    one(1, "prefix", Text),
    one(2, "configMapRef", Message(CONFIG_MAP_ENV_SOURCE)),
    one(3, "secretRef", Message(SECRET_ENV_SOURCE)),
];

const CONFIG_MAP_KEY_SELECTOR: &[Field] = &[
    one(1, "", Inline(LOCAL_OBJECT_REFERENCE)),
    one(2, "key", Text),
    one(3, "optional", Flag),
];

const SECRET_KEY_SELECTOR: &[Field] = &[
    one(1, "", Inline(LOCAL_OBJECT_REFERENCE)),
    one(2, "key", Text),
    one(3, "optional", Flag),
];

const FILE_KEY_SELECTOR: &[Field] = &[
    one(1, "volumeName", Text),
    one(2, "path", Text),
    one(3, "key", Text),
    one(4, "optional", Flag),
];

const ENV_VAR_SOURCE: &[Field] = &[
    one(1, "fieldRef", Message(OBJECT_FIELD_SELECTOR)),
    one(2, "resourceFieldRef", Message(RESOURCE_FIELD_SELECTOR)),
    one(3, "configMapKeyRef", Message(CONFIG_MAP_KEY_SELECTOR)),
    one(4, "secretKeyRef", Message(SECRET_KEY_SELECTOR)),
    one(5, "fileKeyRef", Message(FILE_KEY_SELECTOR)),
];

const ENV_VAR: &[Field] = &[
    one(1, "name", Text),
    one(2, "value", Text),
    one(3, "valueFrom", Message(ENV_VAR_SOURCE)),
];

const RESOURCE_CLAIM: &[Field] = &[one(1, "name", Text), one(2, "request", Text)];

const RESOURCE_REQUIREMENTS: &[Field] = &[
    one(1, "limits", QuantityMap),
    one(2, "requests", QuantityMap),
    many(3, "claims", Message(RESOURCE_CLAIM)),
];

const CONTAINER_RESIZE_POLICY: &[Field] = &[one(1, "resourceName", Text), one(2, "restartPolicy", Text)];

const CONTAINER_RESTART_RULE_ON_EXIT_CODES: &[Field] = &[one(1, "operator", Text), many(2, "values", Number)];

const CONTAINER_RESTART_RULE: &[Field] = &[
    one(1, "action", Text),
    one(2, "exitCodes", Message(CONTAINER_RESTART_RULE_ON_EXIT_CODES)),
];

const VOLUME_MOUNT: &[Field] = &[
    one(1, "name", Text),
    one(2, "readOnly", Flag),
    one(7, "recursiveReadOnly", Text),
    one(3, "mountPath", Text),
    one(4, "subPath", Text),
    one(5, "mountPropagation", Text),
    one(6, "subPathExpr", Text),
];

const VOLUME_DEVICE: &[Field] = &[one(1, "name", Text), one(2, "devicePath", Text)];

const EXEC_ACTION: &[Field] = &[many(1, "command", Text)];

const HTTP_HEADER: &[Field] = &[one(1, "name", Text), one(2, "value", Text)];

const HTTP_GET_ACTION: &[Field] = &[
    one(1, "path", Text),
    one(2, "port", IntOrString),
    one(3, "host", Text),
    one(4, "scheme", Text),
    many(5, "httpHeaders", Message(HTTP_HEADER)),
];

const TCP_SOCKET_ACTION: &[Field] = &[one(1, "port", IntOrString), one(2, "host", Text)];

const GRPC_ACTION: &[Field] = &[one(1, "port", Number), one(2, "service", Text)];

const PROBE_HANDLER: &[Field] = &[
    one(1, "exec", Message(EXEC_ACTION)),
    one(2, "httpGet", Message(HTTP_GET_ACTION)),
    one(3, "tcpSocket", Message(TCP_SOCKET_ACTION)),
    one(4, "grpc", Message(GRPC_ACTION)),
];

const PROBE: &[Field] = &[
    one(1, "", Inline(PROBE_HANDLER)),
    one(2, "initialDelaySeconds", Number),
    one(3, "timeoutSeconds", Number),
    one(4, "periodSeconds", Number),
    one(5, "successThreshold", Number),
    one(6, "failureThreshold", Number),
    one(7, "terminationGracePeriodSeconds", Number),
];

const SLEEP_ACTION: &[Field] = &[one(1, "seconds", Number)];

const LIFECYCLE_HANDLER: &[Field] = &[
    one(1, "exec", Message(EXEC_ACTION)),
    one(2, "httpGet", Message(HTTP_GET_ACTION)),
    one(3, "tcpSocket", Message(TCP_SOCKET_ACTION)),
    one(4, "sleep", Message(SLEEP_ACTION)),
];

const LIFECYCLE: &[Field] = &[
    one(1, "postStart", Message(LIFECYCLE_HANDLER)),
    one(2, "preStop", Message(LIFECYCLE_HANDLER)),
    one(3, "stopSignal", Text),
];

const CAPABILITIES: &[Field] = &[many(1, "add", Text), many(2, "drop", Text)];

const SE_LINUX_OPTIONS: &[Field] = &[
    one(1, "user", Text),
    one(2, "role", Text),
    one(3, "type", Text),
    one(4, "level", Text),
];

const WINDOWS_SECURITY_CONTEXT_OPTIONS: &[Field] = &[
    one(1, "gmsaCredentialSpecName", Text),
    one(2, "gmsaCredentialSpec", Text),
    one(3, "runAsUserName", Text),
    one(4, "hostProcess", Flag),
];

const SECCOMP_PROFILE: &[Field] = &[one(1, "type", Text), one(2, "localhostProfile", Text)];

const APP_ARMOR_PROFILE: &[Field] = &[one(1, "type", Text), one(2, "localhostProfile", Text)];

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
    one(12, "appArmorProfile", Message(APP_ARMOR_PROFILE)),
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
    one(18, "tty", Flag),
];

// What it has in common with other containers has the same numbers there.
const EPHEMERAL_CONTAINER: &[Field] = &[one(1, "", Inline(CONTAINER)), one(2, "targetContainerName", Text)];

const SYSCTL: &[Field] = &[one(1, "name", Text), one(2, "value", Text)];

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
    one(13, "seLinuxChangePolicy", Text),
];

const NODE_SELECTOR_REQUIREMENT: &[Field] = &[one(1, "key", Text), one(2, "operator", Text), many(3, "values", Text)];

const NODE_SELECTOR_TERM: &[Field] = &[
    many(1, "matchExpressions", Message(NODE_SELECTOR_REQUIREMENT)),
    many(2, "matchFields", Message(NODE_SELECTOR_REQUIREMENT)),
];

const NODE_SELECTOR: &[Field] = &[many(1, "nodeSelectorTerms", Message(NODE_SELECTOR_TERM))];

const PREFERRED_SCHEDULING_TERM: &[Field] = &[
    one(1, "weight", Number),
    one(2, "preference", Message(NODE_SELECTOR_TERM)),
];

const NODE_AFFINITY: &[Field] = &[
    one(
        1,
        "requiredDuringSchedulingIgnoredDuringExecution",
        Message(NODE_SELECTOR),
    ),
    many(
        2,
        "preferredDuringSchedulingIgnoredDuringExecution",
        Message(PREFERRED_SCHEDULING_TERM),
    ),
];

const POD_AFFINITY_TERM: &[Field] = &[
    one(1, "labelSelector", Message(LABEL_SELECTOR)),
    many(2, "namespaces", Text),
    one(3, "topologyKey", Text),
    one(4, "namespaceSelector", Message(LABEL_SELECTOR)),
    many(5, "matchLabelKeys", Text),
    many(6, "mismatchLabelKeys", Text),
];

const WEIGHTED_POD_AFFINITY_TERM: &[Field] = &[
    one(1, "weight", Number),
    one(2, "podAffinityTerm", Message(POD_AFFINITY_TERM)),
];

const POD_AFFINITY: &[Field] = &[
    many(
        1,
        "requiredDuringSchedulingIgnoredDuringExecution",
        Message(POD_AFFINITY_TERM),
    ),
    many(
        2,
        "preferredDuringSchedulingIgnoredDuringExecution",
        Message(WEIGHTED_POD_AFFINITY_TERM),
    ),
];

const POD_ANTI_AFFINITY: &[Field] = &[
    many(
        1,
        "requiredDuringSchedulingIgnoredDuringExecution",
        Message(POD_AFFINITY_TERM),
    ),
    many(
        2,
        "preferredDuringSchedulingIgnoredDuringExecution",
        Message(WEIGHTED_POD_AFFINITY_TERM),
    ),
];

const AFFINITY: &[Field] = &[
    one(1, "nodeAffinity", Message(NODE_AFFINITY)),
    one(2, "podAffinity", Message(POD_AFFINITY)),
    one(3, "podAntiAffinity", Message(POD_ANTI_AFFINITY)),
];

const TOLERATION: &[Field] = &[
    one(1, "key", Text),
    one(2, "operator", Text),
    one(3, "value", Text),
    one(4, "effect", Text),
    one(5, "tolerationSeconds", Number),
];

const HOST_ALIAS: &[Field] = &[one(1, "ip", Text), many(2, "hostnames", Text)];

const POD_DNS_CONFIG_OPTION: &[Field] = &[one(1, "name", Text), one(2, "value", Text)];

const POD_DNS_CONFIG: &[Field] = &[
    many(1, "nameservers", Text),
    many(2, "searches", Text),
    many(3, "options", Message(POD_DNS_CONFIG_OPTION)),
];

const POD_READINESS_GATE: &[Field] = &[one(1, "conditionType", Text)];

const TOPOLOGY_SPREAD_CONSTRAINT: &[Field] = &[
    one(1, "maxSkew", Number),
    one(2, "topologyKey", Text),
    one(3, "whenUnsatisfiable", Text),
    one(4, "labelSelector", Message(LABEL_SELECTOR)),
    one(5, "minDomains", Number),
    one(6, "nodeAffinityPolicy", Text),
    one(7, "nodeTaintsPolicy", Text),
    many(8, "matchLabelKeys", Text),
];

const POD_OS: &[Field] = &[one(1, "name", Text)];

const POD_SCHEDULING_GATE: &[Field] = &[one(1, "name", Text)];

const POD_RESOURCE_CLAIM: &[Field] = &[
    one(1, "name", Text),
    one(3, "resourceClaimName", Text),
    one(4, "resourceClaimTemplateName", Text),
];

const WORKLOAD_REFERENCE: &[Field] = &[one(1, "name", Text)];

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
    one(32, "overhead", QuantityMap),
    many(33, "topologySpreadConstraints", Message(TOPOLOGY_SPREAD_CONSTRAINT)),
    one(35, "setHostnameAsFQDN", Flag),
    one(36, "os", Message(POD_OS)),
    one(37, "hostUsers", Flag),
    many(38, "schedulingGates", Message(POD_SCHEDULING_GATE)),
    many(39, "resourceClaims", Message(POD_RESOURCE_CLAIM)),
    one(40, "resources", Message(RESOURCE_REQUIREMENTS)),
    one(41, "hostnameOverride", Text),
    one(42, "", Inline(WORKLOAD_REFERENCE)),
];

pub(super) const POD: &[Field] = &[META, one(2, "spec", Message(POD_SPEC))];

const POD_TEMPLATE_SPEC: &[Field] = &[META, one(2, "spec", Message(POD_SPEC))];

const ROLLING_UPDATE_DEPLOYMENT: &[Field] = &[one(1, "maxUnavailable", IntOrString), one(2, "maxSurge", IntOrString)];

const DEPLOYMENT_STRATEGY: &[Field] = &[
    one(1, "type", Text),
    one(2, "rollingUpdate", Message(ROLLING_UPDATE_DEPLOYMENT)),
];

const DEPLOYMENT_SPEC: &[Field] = &[
    one(1, "replicas", Number),
    one(2, "selector", Message(LABEL_SELECTOR)),
    one(3, "template", Message(POD_TEMPLATE_SPEC)),
    one(4, "strategy", Message(DEPLOYMENT_STRATEGY)),
    one(5, "minReadySeconds", Number),
    one(6, "revisionHistoryLimit", Number),
    one(7, "paused", Flag),
    one(9, "progressDeadlineSeconds", Number),
];

pub(super) const DEPLOYMENT: &[Field] = &[META, one(2, "spec", Message(DEPLOYMENT_SPEC))];

const REPLICA_SET_SPEC: &[Field] = &[
    one(1, "replicas", Number),
    one(4, "minReadySeconds", Number),
    one(2, "selector", Message(LABEL_SELECTOR)),
    one(3, "template", Message(POD_TEMPLATE_SPEC)),
];

pub(super) const REPLICA_SET: &[Field] = &[META, one(2, "spec", Message(REPLICA_SET_SPEC))];

const SCALE_SPEC: &[Field] = &[one(1, "replicas", Number)];

pub(super) const SCALE: &[Field] = &[META, one(2, "spec", Message(SCALE_SPEC))];
