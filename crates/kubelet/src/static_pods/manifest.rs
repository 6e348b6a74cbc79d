//! From the text of a manifest to the pods that it asks for, with upstream's defaults for static pods and its words for what is wrong.

use api::{Catalogue, FieldValidation, Format, Path, decode, meta};
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::pods::pod::PodExt;

/// Where a manifest comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A file of the node.
    File(&'a str),
    /// A web server.
    Url(&'a str),
}

impl Origin<'_> {
    fn annotation(self) -> &'static str {
        match self {
            Origin::File(_) => "file",
            Origin::Url(_) => "http",
        }
    }
}

/// The pods of a manifest: one or several documents, each a Pod or a list of them. An empty manifest has none.
pub fn parse(text: &[u8], origin: Origin<'_>, node: &str) -> Result<Vec<Pod>, String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("not text: {error}"))?;
    let mut pods = Vec::new();
    for document in documents(text) {
        let format = if document.trim_start().starts_with('{') {
            Format::Json
        } else {
            Format::Yaml
        };
        match decode::raw(document.as_bytes(), format)? {
            Value::Null => {}
            value => {
                for item in items(value)? {
                    pods.push(pod(item, origin, node)?);
                }
            }
        }
    }
    Ok(pods)
}

/// YAML's documents; JSON is one.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        let separates = line.strip_prefix("---").is_some_and(|rest| {
            let rest = rest.trim();
            rest.is_empty() || rest.starts_with('#')
        });
        if separates {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

/// The items of a list, or the one object.
fn items(value: Value) -> Result<Vec<Value>, String> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    match (kind, value.get("items")) {
        ("PodList" | "List", Some(Value::Array(items))) => Ok(items.clone()),
        ("PodList" | "List", _) => Err(format!("{kind} without items")),
        _ => Ok(vec![value]),
    }
}

fn pod(value: Value, origin: Origin<'_>, node: &str) -> Result<Pod, String> {
    let said = |status: api::Status| status.message().to_owned();
    let (mut pod, _) = decode::value_as::<Pod>(value, FieldValidation::Ignore, decode::Origin::Whole).map_err(said)?;
    let resource = Catalogue::builtin()
        .find("", "v1", "pods")
        .ok_or_else(|| "pods are not served".to_owned())?;
    if pod.name().is_empty() {
        return Err("invalid pod: name is needed for the pod".into());
    }
    resource.strategy.default(&mut pod);
    give_identity(&mut pod, origin, node);
    let rule = resource.strategy.name_rule();
    let mut errors = meta::validate_create(&pod.metadata, true, rule, &Path::new("metadata"));
    errors.extend(resource.strategy.validate_create(&pod));
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(format!("invalid pod: [{}]", errors.join(", ")));
    }
    match reference(&pod) {
        Some(kind) => Err(format!("static pods may not reference {kind}")),
        None => Ok(pod),
    }
}

/// What a static pod has beside its manifest: a uid that is the hash of all that it is, the node's name as part of its own, and an
/// annotation for where it is from.
fn give_identity(pod: &mut Pod, origin: Origin<'_>, node: &str) {
    if pod.uid().is_empty() {
        let mut hash = Sha256::new();
        match origin {
            Origin::File(path) => hash.update(format!("host:{node}file:{path}")),
            Origin::Url(url) => hash.update(format!("url:{url}")),
        }
        // A pod that was read from JSON can be written as such.
        hash.update(serde_json::to_vec(&*pod).unwrap_or_default());
        let digits = hash
            .finalize()
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        pod.metadata.uid = Some(digits);
    }
    pod.metadata.name = Some(format!("{}-{}", pod.name(), node.to_lowercase()));
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    let uid = pod.uid().to_owned();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(api::pod::CONFIG_HASH_ANNOTATION.into(), uid);
    annotations.insert(api::pod::CONFIG_SOURCE_ANNOTATION.into(), origin.annotation().into());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    if matches!(origin, Origin::File(_)) {
        // What comes with the machine is not evicted when there are problems with the node.
        let always = Toleration {
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            ..Default::default()
        };
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(&always) {
            tolerations.push(always);
        }
    }
    pod.status = Some(PodStatus {
        phase: Some("Pending".into()),
        ..Default::default()
    });
}

/// The kind of objects of the API that a pod refers to, if it does: a static pod runs without one.
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec()?;
    if spec
        .service_account_name
        .as_deref()
        .is_some_and(|name| !name.is_empty())
    {
        return Some("serviceaccounts");
    }
    let env = || {
        pod.containers()
            .flat_map(|(_, container)| container.env.iter().flatten())
    };
    let env_from = || {
        pod.containers()
            .flat_map(|(_, container)| container.env_from.iter().flatten())
    };
    let sources = || env().filter_map(|variable| variable.value_from.as_ref());
    let volumes = || spec.volumes.iter().flatten();
    let projections = || {
        volumes()
            .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref())
            .flatten()
    };
    let secrets = spec
        .image_pull_secrets
        .as_ref()
        .is_some_and(|secrets| !secrets.is_empty())
        || env_from().any(|source| source.secret_ref.is_some())
        || sources().any(|source| source.secret_key_ref.is_some())
        || projections().any(|source| source.secret.is_some())
        || volumes().any(|volume| {
            volume.secret.is_some() || volume.cephfs.as_ref().is_some_and(|source| source.secret_ref.is_some())
        });
    let maps = env_from().any(|source| source.config_map_ref.is_some())
        || sources().any(|source| source.config_map_key_ref.is_some())
        || projections().any(|source| source.config_map.is_some())
        || volumes().any(|volume| volume.config_map.is_some());
    let claims = volumes().any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
    [
        (secrets, "secrets"),
        (maps, "configmaps"),
        (
            spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()),
            "resourceclaims",
        ),
        (claims, "persistentvolumeclaims"),
        (
            projections().any(|source| source.service_account_token.is_some()),
            "serviceaccounts",
        ),
        (
            projections().any(|source| source.cluster_trust_bundle.is_some()),
            "clustertrustbundles",
        ),
        (
            projections().any(|source| source.pod_certificate.is_some()),
            "podcertificates",
        ),
        (volumes().any(|volume| volume.csi.is_some()), "csidrivers"),
    ]
    .into_iter()
    .find_map(|(is, kind)| is.then_some(kind))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";

    fn read(text: &str) -> Result<Vec<Pod>, String> {
        parse(text.as_bytes(), Origin::File("/m/web.yaml"), "node-1")
    }

    #[test]
    fn a_static_pod_knows_where_it_is_and_where_it_is_from() {
        let pods = read(WEB).unwrap();
        let pod = &pods[0];
        assert_eq!((pod.name(), pod.namespace()), ("web-node-1", "default"));
        assert_eq!(pod.uid().len(), 32);
        let annotations = pod.metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations["kubernetes.io/config.hash"], pod.uid());
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        let spec = pod.spec().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("node-1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "defaults are there");
        assert!(
            spec.tolerations
                .as_ref()
                .unwrap()
                .iter()
                .any(|it| it.effect.as_deref() == Some("NoExecute"))
        );
    }

    #[test]
    fn its_uid_is_what_it_says_and_where() {
        let uid = |text: &str, origin| parse(text.as_bytes(), origin, "n").unwrap()[0].uid().to_owned();
        let (here, there) = (Origin::File("/m/a"), Origin::File("/m/b"));
        assert_eq!(uid(WEB, here), uid(&format!("# said otherwise\n{WEB}"), here));
        assert_ne!(uid(WEB, here), uid(WEB, there));
        assert_ne!(uid(WEB, here), uid(WEB, Origin::Url("/m/a")));
        assert_ne!(uid(WEB, here), uid(&WEB.replace("image: i", "image: j"), here));
        let given = WEB.replace("name: web", "name: web, uid: mine");
        assert_eq!(uid(&given, here), "mine");
    }

    #[test]
    fn documents_and_lists_and_json() {
        let other = WEB.replace("web", "other");
        let names = |text: &str| {
            let pods = read(text).unwrap();
            pods.iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&format!("---\n{WEB}--- # next\n{other}---\n")),
            ["web-node-1", "other-node-1"]
        );
        let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
        assert_eq!(names(json), ["j-node-1"]);
        let list = format!(r#"{{"apiVersion": "v1", "kind": "PodList", "items": [{json}]}}"#);
        assert_eq!(names(&list), ["j-node-1"]);
        assert!(names("# nothing\n").is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let volume =
            |volume: &str| WEB.replace("image: i}]", &format!("image: i}}], volumes: [{{name: v, {volume}}}]"));
        for (text, error) in [
            ("nonsense: [".to_owned(), "nonsense"),
            (WEB.replace("kind: Pod", "kind: Service"), "cannot be handled as a Pod"),
            (
                WEB.replace("{name: web}", "{}"),
                "invalid pod: name is needed for the pod",
            ),
            (
                WEB.replace(", image: i", ""),
                "invalid pod: [spec.containers[0].image: Required value]",
            ),
            (
                volume("configMap: {name: x}"),
                "static pods may not reference configmaps",
            ),
            (
                volume("secret: {secretName: x}"),
                "static pods may not reference secrets",
            ),
            (
                volume("persistentVolumeClaim: {claimName: x}"),
                "static pods may not reference persistentvolumeclaims",
            ),
            (
                WEB.replace("spec: {", "spec: {serviceAccountName: x, "),
                "static pods may not reference serviceaccounts",
            ),
        ] {
            let said = read(&text).unwrap_err();
            assert!(said.contains(error) || error == "nonsense", "{said}");
        }
    }
}
