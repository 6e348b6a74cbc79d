//! Image names: from what people write to the one full form, `registry/repository:tag` or `@digest`.
//!
//! The grammar is that of the distribution project's references. It is read here by hand, because the regular
//! expression that `oci-spec` has for it takes 17 MiB to compile and 8 MiB to keep.

use oci_client::Reference;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

/// What any name may have at most before its tag, without the registry.
const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;
const SHORTEST_DIGEST: usize = 32;

const INVALID_FORMAT: &str = "invalid reference format";

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
    parse(name).map_err(|reason| InvalidReference {
        reference: name.to_owned(),
        reason,
    })
}

fn parse(name: &str) -> Result<Reference, String> {
    if name.len() == 64 && name.bytes().all(is_lower_hex) {
        return Err(format!(
            "invalid repository name ({name}), cannot specify 64-byte hexadecimal strings"
        ));
    }
    let (named, digest) = match name.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (name, None),
    };
    let (registry, rest) = split_registry(named);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let repository = match path.contains('/') || registry != DEFAULT_REGISTRY {
        true => path.to_owned(),
        false => format!("library/{path}"),
    };
    // The most common slip is the only one that has more words.
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) && is_path(&path.to_ascii_lowercase()) {
        return Err(format!(
            "{INVALID_FORMAT}: repository name ({repository}) must be lowercase"
        ));
    }
    if !is_registry(registry) || !is_path(path) || !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
        return Err(INVALID_FORMAT.into());
    }
    if repository.len() > LONGEST_REPOSITORY {
        return Err(format!(
            "repository name must not be more than {LONGEST_REPOSITORY} characters"
        ));
    }
    let registry = registry.to_owned();
    Ok(match digest {
        Some(digest) => {
            check_digest(digest)?;
            Reference::with_digest(registry, repository, digest.to_owned())
        }
        None => Reference::with_tag(registry, repository, tag.unwrap_or(DEFAULT_TAG).to_owned()),
    })
}

/// What stands before the first slash is a registry when it looks like a host, or can be no part of a repository.
fn split_registry(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((host, rest))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (host, rest)
        }
        _ => (DEFAULT_REGISTRY, named),
    }
}

/// A host's name or address, an IPv6 one in brackets, and a port.
fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => host.split('.').all(is_label),
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Components between slashes, each of lower-case letters and digits with separators between them.
fn is_path(path: &str) -> bool {
    let is_separator = |between: &str| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-');
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    path.split('/').all(|component| {
        let ends = [component.bytes().next(), component.bytes().next_back()];
        ends.iter().all(|end| end.as_ref().is_some_and(is_alphanumeric))
            && component
                .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
                .all(is_separator)
    })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// `algorithm:hexadecimal`, whatever the algorithm.
fn is_digest(digest: &str) -> bool {
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.split(['-', '_', '+', '.']).all(is_part)
            && hex.len() >= SHORTEST_DIGEST
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Whether a digest is one that content can be checked by.
fn check_digest(digest: &str) -> Result<(), String> {
    let (algorithm, hex) = digest.split_once(':').unwrap_or((digest, ""));
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".into()),
    };
    match hex.len() == length {
        true if hex.bytes().all(is_lower_hex) => Ok(()),
        true => Err("invalid checksum digest format".into()),
        false => Err("invalid checksum digest length".into()),
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// The repository of a name with its registry: `docker.io/library/busybox`.
pub(super) fn repository_of(name: &str) -> Option<String> {
    let reference = normalize(name).ok()?;
    Some(format!("{}/{}", reference.registry(), reference.repository()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use std::ops::Add;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The two readers part where `oci-spec` takes a first component with capitals for a part of the repository.
        #[test]
        fn names_are_read_as_oci_spec_reads_them(name in "[a-b0._/:@-]{0,12}|([a-c.]{0,4}[:/])?[a-c_./-]{1,8}(:[a-c.-]{0,3})?(@sha256:[0f]{64})?") {
            let theirs = name.parse::<Reference>().map(|theirs| match (theirs.tag(), theirs.digest()) {
                (Some(_), Some(digest)) => theirs.clone_with_digest(digest.to_owned()),
                _ => theirs,
            });
            prop_assert_eq!(normalize(&name).ok(), theirs.ok());
        }
    }

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
            ("Host/app", "Host/app:latest".into()),
            ("[fd00::1]:5000/app", "[fd00::1]:5000/app:latest".into()),
            ("r.io/a--b/c__d.e:V_1.2-x", "r.io/a--b/c__d.e:V_1.2-x".into()),
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
            ("/x", "invalid reference format"),
            ("x/", "invalid reference format"),
            ("x..y", "invalid reference format"),
            ("x___y", "invalid reference format"),
            ("-x", "invalid reference format"),
            ("r.io:port/x", "invalid reference format"),
            ("r_x.io/x", "invalid reference format"),
            ("x:.tag", "invalid reference format"),
            (&format!("x:{}", "t".repeat(129)), "invalid reference format"),
            (&"x/".repeat(128), "invalid reference format"),
            (
                &"y/".repeat(127).add("yy"),
                "repository name must not be more than 255 characters",
            ),
            (
                &format!("x@sha256:{}", "a".repeat(40)),
                "invalid checksum digest length",
            ),
            (
                &format!("x@sha256:{}", "A".repeat(64)),
                "invalid checksum digest format",
            ),
            (&format!("x@md5:{}", "a".repeat(32)), "unsupported digest algorithm"),
            (
                &hex,
                &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings"),
            ),
        ] {
            assert_eq!(normalize(name).unwrap_err().reason, reason, "{name}");
        }
    }
}
