//! Image names: from what people write to the one full form, `registry/repository:tag` or `@digest`.

use oci_client::{ParseError, Reference};

/// A name that no image can have, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse image reference {reference:?}: {reason}")]
pub struct InvalidReference {
    /// The name as it was written.
    pub reference: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The full form of a name: the default registry and tag filled in, and no tag beside a digest, because
/// the digest alone says which image it is.
pub fn normalize(name: &str) -> Result<Reference, InvalidReference> {
    let invalid = |reason: String| InvalidReference {
        reference: name.to_owned(),
        reason,
    };
    if name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(invalid(format!(
            "invalid repository name ({name}), cannot specify 64-byte hexadecimal strings"
        )));
    }
    let reference = name
        .parse::<Reference>()
        .map_err(|error| invalid(explain(name, &error)))?;
    Ok(match (reference.tag(), reference.digest()) {
        (Some(_), Some(digest)) => reference.clone_with_digest(digest.to_owned()),
        _ => reference,
    })
}

/// Upstream says more than the parser about the most common slip, an upper-case letter.
fn explain(name: &str, error: &ParseError) -> String {
    let end = name.find('@').unwrap_or(name.len());
    let path = match name[..end].rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => &name[..end],
    };
    let repository = match path.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            rest.to_owned()
        }
        Some(_) => path.to_owned(),
        None => format!("library/{path}"),
    };
    let lowered = name.replace(path, &path.to_lowercase());
    if repository.bytes().any(|b| b.is_ascii_uppercase()) && lowered.parse::<Reference>().is_ok() {
        return format!("invalid reference format: repository name ({repository}) must be lowercase");
    }
    match error {
        ParseError::NameEmpty => "invalid reference format".into(),
        other => other.to_string(),
    }
}

/// The repository of a name with its registry: `docker.io/library/busybox`.
pub(super) fn repository_of(name: &str) -> Option<String> {
    let reference = normalize(name).ok()?;
    Some(format!("{}/{}", reference.registry(), reference.repository()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use super::*;

    #[test]
    fn full_names() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, full) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".into()),
            ("me/app", "docker.io/me/app:latest".into()),
            ("docker.io/busybox", "docker.io/library/busybox:latest".into()),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest".into()),
            ("localhost/app", "localhost/app:latest".into()),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1".into()),
            (
                &format!("busybox@{digest}"),
                format!("docker.io/library/busybox@{digest}"),
            ),
            (&format!("r.io/x:1@{digest}"), format!("r.io/x@{digest}")),
        ] {
            assert_eq!(normalize(name).unwrap().to_string(), full, "{name}");
        }
    }

    #[test]
    fn wrong_names() {
        let hex = "0123456789abcdef".repeat(4);
        for (name, reason) in [
            ("", "invalid reference format"),
            ("nginx:", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("nginx:latest:1", "invalid reference format"),
            ("https://r.io/x", "invalid reference format"),
            (
                "Busybox",
                "invalid reference format: repository name (library/Busybox) must be lowercase",
            ),
            (
                "r.io/My/App:V1",
                "invalid reference format: repository name (My/App) must be lowercase",
            ),
            ("x@sha256:abc", "invalid reference format"),
            (
                &hex,
                &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings"),
            ),
        ] {
            assert_eq!(normalize(name).unwrap_err().reason, reason, "{name}");
        }
    }
}
