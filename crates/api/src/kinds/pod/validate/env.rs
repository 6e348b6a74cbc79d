//! Environment variables and where their values come from.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec, ResourceFieldSelector,
};

use super::spec::{config_key, variable_name};
use super::{Errors, qualified_name, refuse, required, subdomain, unreserved_path};
use crate::field::{FieldError, Path};
use crate::quantity::Quantity;

/// The fields that a variable can take its value from, beside single labels and annotations.
const VARIABLE_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields of a pod that have a name in the downward API at all.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const ONE_SOURCE: &str = "may not have more than one field specified at a time";

pub(super) fn env(container: &Container, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    for (i, variable) in container.env.iter().flatten().enumerate() {
        let list = path.child("env");
        let path = list.index(i);
        if variable.name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            refuse(
                errors,
                &path.child("name"),
                &variable.name,
                variable_name(&variable.name),
            );
        }
        if let Some(source) = &variable.value_from {
            value_from(variable, source, spec, &path.child("valueFrom"), errors);
        }
    }
    env_from(
        container.env_from.as_deref().unwrap_or_default(),
        &path.child("envFrom"),
        errors,
    );
}

fn value_from(variable: &EnvVar, source: &EnvVarSource, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_selector(field, VARIABLE_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_selector(resource, false, &path.child("resourceFieldRef"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        let path = path.child("configMapKeyRef");
        subdomain(&key.name, &path.child("name"), errors);
        config_key(&key.key, &path.child("key"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        let path = path.child("secretKeyRef");
        subdomain(&key.name, &path.child("name"), errors);
        config_key(&key.key, &path.child("key"), errors);
    }
    if let Some(key) = &source.file_key_ref {
        sources += 1;
        let path = path.child("fileKeyRef");
        if key.key.is_empty() {
            errors.push(FieldError::required(&path.child("key"), ""));
        } else {
            refuse(errors, &path.child("key"), &key.key, variable_name(&key.key));
        }
        required(&key.volume_name, &path.child("volumeName"), errors);
        let volume = spec
            .volumes
            .iter()
            .flatten()
            .find(|volume| volume.name == key.volume_name);
        match volume {
            _ if key.volume_name.is_empty() => {}
            None => errors.push(FieldError::not_found(&path.child("volumeName"), &key.volume_name)),
            Some(volume) if volume.empty_dir.is_none() => errors.push(FieldError::invalid(
                &path.child("volumeName"),
                &key.volume_name,
                "referenced volume must be of type emptyDir",
            )),
            Some(_) => {}
        }
        required(&key.path, &path.child("path"), errors);
        unreserved_path(&key.path, &path.child("path"), errors);
    }
    let has_value = variable.value.as_deref().is_some_and(|value| !value.is_empty());
    let detail = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => ONE_SOURCE,
    };
    errors.push(FieldError::invalid(path, "", detail));
}

fn env_from(sources: &[EnvFromSource], path: &Path<'_>, errors: &mut Errors) {
    for (i, source) in sources.iter().enumerate() {
        let list = path;
        let path = list.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
            refuse(errors, &path.child("prefix"), prefix, variable_name(prefix));
        }
        let names = [
            (
                "configMapRef",
                source.config_map_ref.as_ref().map(|map| map.name.as_str()),
            ),
            (
                "secretRef",
                source.secret_ref.as_ref().map(|secret| secret.name.as_str()),
            ),
        ];
        for (field, name) in names {
            let Some(name) = name else { continue };
            let path = path.child(field);
            if name.is_empty() {
                errors.push(FieldError::required(&path.child("name"), ""));
            } else {
                subdomain(name, &path.child("name"), errors);
            }
        }
        // Upstream names the whole list here.
        match names.iter().filter(|(_, name)| name.is_some()).count() {
            0 => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(FieldError::invalid(list, "", detail));
            }
            1 => {}
            _ => errors.push(FieldError::invalid(list, "", ONE_SOURCE)),
        }
    }
}

/// Checks a reference to one of the pod's own fields, of which `allowed` can be had here.
pub(super) fn field_selector(field: &ObjectFieldSelector, allowed: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let version = field.api_version.as_deref().unwrap_or_default();
    if version.is_empty() {
        errors.push(FieldError::required(&path.child("apiVersion"), ""));
        return;
    }
    let wanted = field.field_path.as_str();
    if wanted.is_empty() {
        errors.push(FieldError::required(&path.child("fieldPath"), ""));
        return;
    }
    let subscripted = wanted.strip_suffix(']').and_then(|rest| rest.split_once("['"));
    let subscripted = subscripted.and_then(|(name, key)| key.strip_suffix('\'').map(|key| (name, key)));
    let problem = if version != "v1" {
        Some(format!("unsupported pod version: {version}"))
    } else {
        match subscripted {
            Some(("metadata.annotations" | "metadata.labels", _)) => None,
            Some((name, _)) => Some(format!("field label does not support subscript: {name}")),
            None if KNOWN_FIELDS.contains(&wanted) || wanted == "spec.host" => None,
            None => Some(format!("field label not supported: {wanted}")),
        }
    };
    if let Some(problem) = problem {
        let detail = format!("error converting fieldPath: {problem}");
        errors.push(FieldError::invalid(&path.child("fieldPath"), wanted, detail));
        return;
    }
    let canonical = if wanted == "spec.host" { "spec.nodeName" } else { wanted };
    match subscripted {
        Some(("metadata.annotations", key)) => qualified_name(&key.to_lowercase(), path, errors),
        Some((_, key)) => qualified_name(key, path, errors),
        None if !allowed.contains(&canonical) => {
            errors.push(FieldError::not_supported(&path.child("fieldPath"), canonical, allowed));
        }
        None => {}
    }
}

/// Checks a reference to a container's resources; in a volume it has to say which container.
pub(super) fn resource_selector(field: &ResourceFieldSelector, in_volume: bool, path: &Path<'_>, errors: &mut Errors) {
    let resource = field.resource.as_str();
    let huge_pages = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && field.container_name.as_deref().is_none_or(str::is_empty) {
        errors.push(FieldError::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.push(FieldError::not_supported(&path.child("resource"), resource, RESOURCES));
    }
    let Some(written) = &field.divisor else { return };
    let Ok(divisor) = Quantity::of(written) else {
        let detail = "must be a quantity";
        errors.push(FieldError::invalid(&path.child("divisor"), &written.0, detail));
        return;
    };
    if divisor.is_zero() {
        return;
    }
    let divisor = divisor.to_string();
    const BYTES: &[&str] = &[
        "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
    ];
    let kind = resource.split_once('.').map_or("", |(_, kind)| kind);
    let (supported, of) = match kind {
        "cpu" => (&["1m", "1"][..], "cpu"),
        "memory" => (BYTES, "memory"),
        "ephemeral-storage" => (BYTES, "local ephemeral storage"),
        _ if huge_pages => (BYTES, "hugepages"),
        _ => return,
    };
    if !supported.contains(&divisor.as_str()) {
        let listed = if kind == "cpu" {
            "1m and 1".to_owned()
        } else {
            supported.join(", ")
        };
        let detail = format!("only divisor's values {listed} are supported with the {of} resource");
        errors.push(FieldError::invalid(&path.child("divisor"), resource, detail));
    }
}
