//! Each kind of volume source.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::*;

use super::env::{field_selector, resource_selector};
use super::selectors::label_selector;
use super::{
    Errors, containers, descending_path, file_mode, label, no_backsteps, required, subdomain, unreserved_path, within,
};
use crate::field::{FieldError, Path};
use crate::meta::{validate_annotations, validate_labels};

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// The fields that a file of a downward API volume can hold, beside single labels and annotations.
const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

pub(crate) fn host_path(source: &HostPathVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if source.path.is_empty() {
        errors.push(FieldError::required(&path.child("path"), ""));
        return;
    }
    no_backsteps(&source.path, &path.child("path"), errors);
    if let Some(kind) = source.type_.as_deref().filter(|kind| !HOST_PATH_TYPES.contains(kind)) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, HOST_PATH_TYPES));
    }
}

pub(super) fn git_repo(source: &GitRepoVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.repository, &path.child("repository"), errors);
    descending_path(
        source.directory.as_deref().unwrap_or_default(),
        &path.child("directory"),
        errors,
    );
}

fn partition(partition: Option<i32>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(partition) = partition.filter(|partition| !(0..=255).contains(partition)) {
        let detail = "must be between 1 and 255, inclusive";
        errors.push(FieldError::invalid(&path.child("partition"), partition, detail));
    }
}

pub(super) fn gce_persistent_disk(source: &GCEPersistentDiskVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.pd_name, &path.child("pdName"), errors);
    partition(source.partition, path, errors);
}

pub(super) fn aws_elastic_block_store(source: &AWSElasticBlockStoreVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.volume_id, &path.child("volumeID"), errors);
    partition(source.partition, path, errors);
}

fn items(items: Option<&Vec<KeyToPath>>, path: &Path<'_>, errors: &mut Errors) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let path = path.child("items");
        key_to_path(item, &path.index(i), errors);
    }
}

fn key_to_path(item: &KeyToPath, path: &Path<'_>, errors: &mut Errors) {
    required(&item.key, &path.child("key"), errors);
    required(&item.path, &path.child("path"), errors);
    unreserved_path(&item.path, &path.child("path"), errors);
    file_mode(item.mode, &path.child("mode"), errors);
}

pub(super) fn secret(source: &SecretVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(
        source.secret_name.as_deref().unwrap_or_default(),
        &path.child("secretName"),
        errors,
    );
    file_mode(source.default_mode, &path.child("defaultMode"), errors);
    items(source.items.as_ref(), path, errors);
}

pub(super) fn config_map(source: &ConfigMapVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.name, &path.child("name"), errors);
    file_mode(source.default_mode, &path.child("defaultMode"), errors);
    items(source.items.as_ref(), path, errors);
}

pub(crate) fn nfs(source: &NFSVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.server, &path.child("server"), errors);
    required(&source.path, &path.child("path"), errors);
    if !source.path.starts_with('/') {
        errors.push(FieldError::invalid(
            &path.child("path"),
            &source.path,
            "must be an absolute path",
        ));
    }
}

/// A name in one of the three ways in which iSCSI names its ends.
fn iscsi_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let hex = |s: &str, lengths: &[usize]| lengths.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit());
    let valid = if let Some(rest) = name.strip_prefix("iqn") {
        iqn(rest)
    } else if let Some(rest) = name.strip_prefix("eui") {
        rest.strip_prefix('.').is_some_and(|rest| hex(rest, &[16]))
    } else if let Some(rest) = name.strip_prefix("naa") {
        rest.strip_prefix('.').is_some_and(|rest| hex(rest, &[16, 32]))
    } else {
        errors.push(FieldError::invalid(
            path,
            name,
            "must be valid format starting with iqn, eui, or naa",
        ));
        return;
    };
    if !valid {
        errors.push(FieldError::invalid(path, name, "must be valid format"));
    }
}

/// `.2017-04.com.example` with an optional `:` and more.
fn iqn(rest: &str) -> bool {
    let Some((date, name)) = rest.strip_prefix('.').and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let name = name.split_once(':').map_or(name, |(domain, _)| domain);
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    date.split_once('-')
        .is_some_and(|(year, month)| digits(year, 4) && digits(month, 2))
        && !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

pub(super) fn iscsi(source: &ISCSIVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.target_portal, &path.child("targetPortal"), errors);
    if source.iqn.is_empty() {
        errors.push(FieldError::required(&path.child("iqn"), ""));
    } else {
        iscsi_name(&source.iqn, &path.child("iqn"), errors);
    }
    within(source.lun.into(), 0, 255, &path.child("lun"), errors);
    let authenticates = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    if authenticates && source.secret_ref.is_none() {
        errors.push(FieldError::required(&path.child("secretRef"), ""));
    }
    if let Some(name) = &source.initiator_name {
        iscsi_name(name, &path.child("initiatorname"), errors);
    }
}

pub(super) fn glusterfs(source: &GlusterfsVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.endpoints, &path.child("endpoints"), errors);
    required(&source.path, &path.child("path"), errors);
}

pub(super) fn flocker(source: &FlockerVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let name = source.dataset_name.as_deref().unwrap_or_default();
    let uuid = source.dataset_uuid.as_deref().unwrap_or_default();
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(
            path,
            "one of datasetName and datasetUUID is required",
        ));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", detail));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(
            &path.child("datasetName"),
            name,
            "must not contain '/'",
        ));
    }
}

pub(super) fn persistent_volume_claim(
    source: &PersistentVolumeClaimVolumeSource,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    required(&source.claim_name, &path.child("claimName"), errors);
}

pub(super) fn rbd(source: &RBDVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if source.monitors.is_empty() {
        errors.push(FieldError::required(&path.child("monitors"), ""));
    }
    required(&source.image, &path.child("image"), errors);
}

pub(super) fn cinder(source: &CinderVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.volume_id, &path.child("volumeID"), errors);
    if let Some(secret) = &source.secret_ref {
        required(&secret.name, &path.child("secretRef").child("name"), errors);
    }
}

pub(super) fn cephfs(source: &CephFSVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    if source.monitors.is_empty() {
        errors.push(FieldError::required(&path.child("monitors"), ""));
    }
}

pub(super) fn quobyte(source: &QuobyteVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    if source.registry.is_empty() {
        errors.push(FieldError::required(&path.child("registry"), PAIRS));
    } else if source.tenant.as_deref().is_some_and(|tenant| tenant.len() > 64) {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&path.child("tenant"), detail));
    } else {
        for _ in source.registry.split(',').filter(|pair| !pair.contains(':')) {
            errors.push(FieldError::invalid(&path.child("registry"), &source.registry, PAIRS));
        }
    }
    required(&source.volume, &path.child("volume"), errors);
}

pub(super) fn downward_api(source: &DownwardAPIVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    file_mode(source.default_mode, &path.child("defaultMode"), errors);
    for file in source.items.iter().flatten() {
        downward_file(file, path, errors);
    }
}

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path<'_>, errors: &mut Errors) {
    required(&file.path, &path.child("path"), errors);
    unreserved_path(&file.path, &path.child("path"), errors);
    if let Some(field) = &file.field_ref {
        field_selector(field, FILE_FIELDS, &path.child("fieldRef"), errors);
        if file.resource_field_ref.is_some() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(path, "resource", detail));
        }
    } else if let Some(resource) = &file.resource_field_ref {
        resource_selector(resource, true, &path.child("resourceFieldRef"), errors);
    } else {
        errors.push(FieldError::required(
            path,
            "one of fieldRef and resourceFieldRef is required",
        ));
    }
    file_mode(file.mode, &path.child("mode"), errors);
}

pub(super) fn fc(source: &FCVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let targets = source.target_wwns.as_deref().unwrap_or_default();
    let ids = source.wwids.as_deref().unwrap_or_default();
    let path_of_targets = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        let detail = "must specify either targetWWNs or wwids, but not both";
        errors.push(FieldError::required(&path_of_targets, detail));
    }
    if !targets.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(&path_of_targets, targets, detail));
    }
    if !targets.is_empty() {
        match source.lun {
            None => errors.push(FieldError::required(
                &path.child("lun"),
                "lun is required if targetWWNs is specified",
            )),
            Some(lun) => within(lun.into(), 0, 255, &path.child("lun"), errors),
        }
    }
}

pub(super) fn flex_volume(source: &FlexVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.driver, &path.child("driver"), errors);
    for key in source.options.iter().flatten().map(|(key, _)| key) {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(&path.child("options").key(key), key, detail));
        }
    }
}

pub(super) fn azure_file(source: &AzureFileVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.secret_name, &path.child("secretName"), errors);
    required(&source.share_name, &path.child("shareName"), errors);
}

pub(super) fn vsphere(source: &VsphereVirtualDiskVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.volume_path, &path.child("volumePath"), errors);
}

pub(super) fn photon(source: &PhotonPersistentDiskVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.pd_id, &path.child("pdID"), errors);
}

pub(super) fn portworx(source: &PortworxVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.volume_id, &path.child("volumeID"), errors);
}

pub(super) fn azure_disk(source: &AzureDiskVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.disk_name, &path.child("diskName"), errors);
    required(&source.disk_uri, &path.child("diskURI"), errors);
    let caching = &["None", "ReadOnly", "ReadWrite"];
    if let Some(mode) = source.caching_mode.as_deref().filter(|mode| !caching.contains(mode)) {
        errors.push(FieldError::not_supported(&path.child("cachingMode"), mode, caching));
    }
    let Some(kind) = source.kind.as_deref() else { return };
    let kinds = &["Dedicated", "Managed", "Shared"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, kinds));
    }
    let (prefix, pattern) = if kind == "Managed" {
        (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        )
    } else {
        (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        )
    };
    if !source.disk_uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(
            &path.child("diskURI"),
            &source.disk_uri,
            &[pattern],
        ));
    }
}

pub(super) fn storage_os(source: &StorageOSVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    match source.volume_name.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&path.child("volumeName"), "")),
        name => label(name, &path.child("volumeName"), errors),
    }
    if let Some(namespace) = source
        .volume_namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
    {
        label(namespace, &path.child("volumeNamespace"), errors);
    }
    if let Some(secret) = &source.secret_ref {
        required(&secret.name, &path.child("secretRef").child("name"), errors);
    }
}

pub(super) fn projected(source: &ProjectedVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    file_mode(source.default_mode, &path.child("defaultMode"), errors);
    let mut taken: HashSet<&str> = HashSet::new();
    for (i, projection) in source.sources.iter().flatten().enumerate() {
        let sources = path.child("sources");
        projection_source(projection, path, &sources.index(i), &mut taken, errors);
    }
}

/// Checks one source of a projected volume. Some errors name the volume as a whole, as upstream does.
fn projection_source<'a>(
    projection: &'a VolumeProjection,
    volume: &Path<'_>,
    path: &Path<'_>,
    taken: &mut HashSet<&'a str>,
    errors: &mut Errors,
) {
    const CONFLICT: &str = "conflicting duplicate paths";
    let mut take = |file: &'a str, shown: &str, errors: &mut Errors| {
        if !file.is_empty() && !taken.insert(file) {
            errors.push(FieldError::invalid(volume, shown, CONFLICT));
        }
    };
    let mut sources = 0;
    let of_keys = [
        (
            "secret",
            projection.secret.as_ref().map(|secret| (&secret.name, &secret.items)),
        ),
        (
            "configMap",
            projection.config_map.as_ref().map(|map| (&map.name, &map.items)),
        ),
    ];
    for (field, given) in of_keys {
        let Some((name, items)) = given else { continue };
        sources += 1;
        let path = path.child(field);
        required(name, &path.child("name"), errors);
        for (i, item) in items.iter().flatten().enumerate() {
            let list = path.child("items");
            key_to_path(item, &list.index(i), errors);
            take(&item.path, name, errors);
        }
    }
    if let Some(downward) = &projection.downward_api {
        sources += 1;
        for file in downward.items.iter().flatten() {
            downward_file(file, &path.child("downwardAPI"), errors);
            take(&file.path, &file.path, errors);
        }
    }
    if let Some(token) = &projection.service_account_token {
        sources += 1;
        let seconds = token.expiration_seconds.unwrap_or_default();
        let detail = match seconds {
            ..600 => Some("may not specify a duration less than 10 minutes"),
            600..=0x1_0000_0000 => None,
            _ => Some("may not specify a duration larger than 2^32 seconds"),
        };
        if let Some(detail) = detail {
            let path = path.child("serviceAccountToken");
            errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, detail));
        }
        required(&token.path, &volume.child("path"), errors);
        unreserved_path(&token.path, &volume.child("path"), errors);
    }
    if let Some(bundle) = &projection.cluster_trust_bundle {
        sources += 1;
        trust_bundle(bundle, volume, &path.child("clusterTrustBundle"), errors);
        take(&bundle.path, &bundle.path, errors);
    }
    if let Some(certificate) = &projection.pod_certificate {
        sources += 1;
        let path = path.child("podCertificate");
        required(&certificate.signer_name, &path.child("signerName"), errors);
        required(&certificate.key_type, &path.child("keyType"), errors);
        let files = [
            &certificate.credential_bundle_path,
            &certificate.key_path,
            &certificate.certificate_chain_path,
        ];
        if files.iter().all(|file| file.as_deref().is_none_or(str::is_empty)) {
            let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
            errors.push(FieldError::required(&path, detail));
        }
        for file in files.into_iter().flatten() {
            unreserved_path(file, &path, errors);
            take(file, file, errors);
        }
    }
    if sources > 1 {
        errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
    }
}

fn trust_bundle(source: &ClusterTrustBundleProjection, volume: &Path<'_>, path: &Path<'_>, errors: &mut Errors) {
    match (&source.name, &source.signer_name) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(
                path,
                source,
                "only one of name and signerName may be used",
            ));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(FieldError::required(&path.child("name"), "must be a valid object name"));
            }
            if let Some(selector) = &source.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(&path.child("labelSelector"), selector, detail));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(FieldError::required(
                    &path.child("signerName"),
                    "must be a valid signer name",
                ));
            }
            if let Some(selector) = &source.label_selector {
                label_selector(selector, &path.child("labelSelector"), errors);
            }
        }
        (None, None) => errors.push(FieldError::required(
            path,
            "either name or signerName must be specified",
        )),
    }
    required(&source.path, &volume.child("path"), errors);
    unreserved_path(&source.path, &volume.child("path"), errors);
}

pub(super) fn scale_io(source: &ScaleIOVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(&source.gateway, &path.child("gateway"), errors);
    required(&source.system, &path.child("system"), errors);
    required(
        source.volume_name.as_deref().unwrap_or_default(),
        &path.child("volumeName"),
        errors,
    );
}

pub(super) fn csi(source: &CSIVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let driver = path.child("driver");
    required(&source.driver, &driver, errors);
    if source.driver.len() > 63 {
        errors.push(FieldError::too_long(&driver, 63));
    }
    for message in crate::meta::names::dns1123_subdomain(&source.driver.to_lowercase()) {
        errors.push(FieldError::invalid(&driver, &source.driver, message));
    }
    if let Some(secret) = &source.node_publish_secret_ref {
        if secret.name.is_empty() {
            errors.push(FieldError::required(
                &path.child("nodePublishSecretRef").child("name"),
                "",
            ));
        } else {
            subdomain(&secret.name, &path.child("name"), errors);
        }
    }
}

pub(super) fn ephemeral(source: &EphemeralVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = &source.volume_claim_template else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    if let Some(meta) = &template.metadata {
        let path = path.child("metadata");
        validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), errors);
        validate_labels(meta.labels.as_ref(), &path.child("labels"), errors);
    }
    let path = path.child("spec");
    crate::kinds::storage::claim::validate_spec(&template.spec, &path, errors);
}

pub(super) fn image(source: &ImageVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    required(
        source.reference.as_deref().unwrap_or_default(),
        &path.child("reference"),
        errors,
    );
    containers::pull_policy(source.pull_policy.as_deref(), &path.child("pullPolicy"), errors);
}
