//! The volumes of a pod: a few lines for each, by what it is made of.

use serde_json::Value;

use super::text::{items, plain, string};

/// All volumes.
pub fn describe(spec: &Value) -> String {
    let mut volumes = items(spec, "volumes").peekable();
    if volumes.peek().is_none() {
        return "Volumes:\t<none>\n".to_owned();
    }
    let mut text = "Volumes:\n".to_owned();
    for volume in volumes {
        text += &format!("  {}:\n", string(volume, "name"));
        for line in one(volume).lines() {
            text += &format!("    {line}\n");
        }
    }
    text
}

fn one(volume: &Value) -> String {
    let source = |name: &str| volume.get(name).filter(|source| source.is_object());
    let or = |value: &Value, default: &str| match plain(value) {
        text if text.is_empty() => default.to_owned(),
        text => text,
    };
    let flag = |value: &Value| value.as_bool().unwrap_or(false);
    if let Some(dir) = source("emptyDir") {
        return format!(
            "Type:\tEmptyDir (a temporary directory that shares a pod's lifetime)\nMedium:\t{}\nSizeLimit:\t{}\n",
            string(dir, "medium"),
            match plain(&dir["sizeLimit"]).as_str() {
                "" | "0" => "<unset>",
                limit => limit,
            }
        );
    }
    if let Some(path) = source("hostPath") {
        let kind = path.get("type").map_or("<none>".to_owned(), plain);
        return format!(
            "Type:\tHostPath (bare host directory volume)\nPath:\t{}\nHostPathType:\t{kind}\n",
            string(path, "path"),
        );
    }
    if let Some(secret) = source("secret") {
        return format!(
            "Type:\tSecret (a volume populated by a Secret)\nSecretName:\t{}\nOptional:\t{}\n",
            string(secret, "secretName"),
            flag(&secret["optional"]),
        );
    }
    if let Some(map) = source("configMap") {
        return format!(
            "Type:\tConfigMap (a volume populated by a ConfigMap)\nName:\t{}\nOptional:\t{}\n",
            string(map, "name"),
            flag(&map["optional"]),
        );
    }
    if let Some(projected) = source("projected") {
        return self::projected(projected);
    }
    if let Some(downward) = source("downwardAPI") {
        let mut text = "Type:\tDownwardAPI (a volume populated by information about the pod)\nItems:\n".to_owned();
        for item in items(downward, "items") {
            let from = match item.get("fieldRef") {
                Some(field) => string(field, "fieldPath"),
                None => string(&item["resourceFieldRef"], "resource"),
            };
            text += &format!("  {from} -> {}\n", string(item, "path"));
        }
        return text;
    }
    if let Some(claim) = source("persistentVolumeClaim") {
        return format!(
            "Type:\tPersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)\nClaimName:\t{}\nReadOnly:\t{}\n",
            string(claim, "claimName"),
            flag(&claim["readOnly"]),
        );
    }
    if let Some(nfs) = source("nfs") {
        return format!(
            "Type:\tNFS (an NFS mount that lasts the lifetime of a pod)\nServer:\t{}\nPath:\t{}\nReadOnly:\t{}\n",
            string(nfs, "server"),
            string(nfs, "path"),
            flag(&nfs["readOnly"]),
        );
    }
    if let Some(image) = source("image") {
        return format!(
            "Type:\tImage (a container image or OCI artifact)\nReference:\t{}\nPullPolicy:\t{}\n",
            string(image, "reference"),
            string(image, "pullPolicy"),
        );
    }
    if let Some(csi) = source("csi") {
        return format!(
            "Type:\tCSI (a Container Storage Interface (CSI) volume source)\nDriver:\t{}\nFSType:\t{}\nReadOnly:\t{}\n",
            string(csi, "driver"),
            string(csi, "fsType"),
            or(&csi["readOnly"], "false"),
        );
    }
    "Type:\t<unknown>\n".to_owned()
}

fn projected(projected: &Value) -> String {
    let mut text = "Type:\tProjected (a volume that contains injected data from multiple sources)\n".to_owned();
    for source in items(projected, "sources") {
        let optional = |source: &Value| source["optional"].as_bool().unwrap_or(false);
        if let Some(secret) = source.get("secret") {
            text += &format!(
                "SecretName:\t{}\nOptional:\t{}\n",
                string(secret, "name"),
                optional(secret)
            );
        } else if source.get("downwardAPI").is_some() {
            text += "DownwardAPI:\ttrue\n";
        } else if let Some(map) = source.get("configMap") {
            text += &format!(
                "ConfigMapName:\t{}\nOptional:\t{}\n",
                string(map, "name"),
                optional(map)
            );
        } else if let Some(token) = source.get("serviceAccountToken") {
            text += &format!("TokenExpirationSeconds:\t{}\n", plain(&token["expirationSeconds"]));
        }
    }
    text
}
