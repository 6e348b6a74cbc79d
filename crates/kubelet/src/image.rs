//! The image of a container, before it starts: present, to be pulled, or not to be had.
//!
//! [`decide`] is the policy. A pull runs beside the worker of its pod, one at a time for an image and any number across images, and its
//! outcome comes back to the worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cri::ImageService;
use cri::v1::{AuthConfig, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cri_config::security::ImageUser;
use crate::image_access::{Holder, Records, Who};
use crate::words;

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its bytes.
    pub size: u64,
    /// Who it runs as.
    pub user: ImageUser,
    /// It was brought in with the node's own images, and is everybody's.
    pub pinned: bool,
}

/// What the pull policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Take the one that is there.
    Use,
    /// Fetch it.
    Pull,
    /// It is not there and must not be fetched.
    Never,
}

/// By the policy and whether the image is there.
pub fn decide(policy: &str, present: bool) -> Decision {
    match (policy, present) {
        ("Always", _) | ("IfNotPresent", false) => Decision::Pull,
        (_, true) => Decision::Use,
        (_, false) => Decision::Never,
    }
}

/// Checks the name of an image and completes it with the default tag.
pub fn reference(image: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        Err(format!(
            "couldn't parse image name {image:?}: invalid reference format{why}"
        ))
    };
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    let (repository, tag) = match last.rsplit_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let mut parts: Vec<&str> = repository.split('/').collect();
    if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") {
        let host = parts.remove(0);
        if !plain(host, ".:-[]") {
            return wrong("");
        }
    }
    let bounded = |part: &&str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if !parts.iter().all(|part| plain(part, "._-") && bounded(part)) {
        return wrong("");
    }
    let path = parts.join("/");
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        let full = if parts.len() == 1 {
            format!("library/{path}")
        } else {
            path
        };
        return wrong(&format!(": repository name ({full}) must be lowercase"));
    }
    let tag_is_good = tag.is_none_or(|tag| plain(tag, "._-") && tag.len() <= 128 && !tag.starts_with(['.', '-']));
    let digest_is_good = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(kind, hex)| {
            plain(kind, "+._-") && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    });
    if !tag_is_good || !digest_is_good {
        return wrong("");
    }
    Ok(if tag.is_none() && digest.is_none() {
        format!("{image}:latest")
    } else {
        image.to_owned()
    })
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image, or what the registry said.
    pub outcome: Result<Image, String>,
    /// How long the pull itself took.
    pub took: Duration,
    /// How long with waiting for others.
    pub waited: Duration,
}

impl Pulled {
    /// The text of the event.
    pub fn message(&self, image: &str) -> String {
        match &self.outcome {
            Ok(found) => format!(
                "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                words::duration(self.took),
                words::duration(self.waited),
                found.size
            ),
            Err(error) => format!("Failed to pull image {image:?}: {error}"),
        }
    }
}

type Turns = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// A login to a registry, and the Secret that it is from.
#[derive(Debug, Clone)]
pub struct Login {
    /// What the runtime is given.
    pub auth: AuthConfig,
    /// Who holds it.
    pub holder: Holder,
}

/// The images of the node, for all workers.
#[derive(Clone)]
pub struct Images {
    service: Arc<dyn ImageService>,
    records: Arc<Records>,
    /// Whose turn it is to pull an image.
    turns: Arc<Mutex<Turns>>,
}

impl Images {
    /// On the runtime's service.
    pub fn new(service: Arc<dyn ImageService>, records: Records) -> Self {
        Self {
            service,
            records: Arc::new(records),
            turns: Arc::default(),
        }
    }

    /// The image of that reference, if it is on the node.
    pub async fn find(&self, reference: &str) -> cri::Result<Option<Image>> {
        let spec = ImageSpec {
            image: reference.to_owned(),
            ..Default::default()
        };
        let found = self
            .service
            .image_status(ImageStatusRequest {
                image: Some(spec),
                verbose: false,
            })
            .await?
            .image;
        Ok(found.map(|image| Image {
            user: ImageUser {
                uid: image.uid.map(|uid| uid.value),
                name: image.username,
            },
            id: image.id,
            size: image.size,
            pinned: image.pinned,
        }))
    }

    /// Who may have an image that is there under a name.
    pub fn who(&self, image: &Image, reference: &str) -> Who {
        match image.pinned {
            true => Who::Anyone,
            false => self.records.who(&image.id, reference),
        }
    }

    /// Fetches an image, trying each login in turn.
    pub async fn pull(&self, reference: &str, logins: &[Login], sandbox: &PodSandboxConfig) -> Pulled {
        let asked = Instant::now();
        let turn = self.turns.lock().entry(reference.to_owned()).or_default().clone();
        let guard = turn.lock().await;
        let began = Instant::now();
        let outcome = self.record_pull(reference, logins, sandbox).await;
        let done = Instant::now();
        drop(guard);
        // Two hold it when nobody else waits: the map and this.
        self.turns.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        Pulled {
            outcome,
            took: done - began,
            waited: done - asked,
        }
    }

    /// Fetches an image, and notes with which login.
    async fn record_pull(
        &self,
        reference: &str,
        logins: &[Login],
        sandbox: &PodSandboxConfig,
    ) -> Result<Image, String> {
        let unnoted = |error: std::io::Error| format!("note the pull of {reference:?}: {error}");
        self.records.begin(reference).map_err(unnoted)?;
        let pulled = self.try_pull(reference, logins, sandbox).await;
        let noted = pulled.as_ref().ok().map(|(image, by)| (image.id.as_str(), by.clone()));
        self.records.end(reference, noted).map_err(unnoted)?;
        pulled.map(|(image, _)| image)
    }

    async fn try_pull(
        &self,
        reference: &str,
        logins: &[Login],
        sandbox: &PodSandboxConfig,
    ) -> Result<(Image, Option<Holder>), String> {
        let anonymous = [None];
        let logins: Vec<Option<&Login>> = logins.iter().map(Some).collect();
        let logins = if logins.is_empty() { &anonymous[..] } else { &logins };
        let mut said = Vec::new();
        for login in logins {
            let spec = ImageSpec {
                image: reference.to_owned(),
                ..Default::default()
            };
            let request = PullImageRequest {
                image: Some(spec),
                auth: login.map(|login| login.auth.clone()),
                sandbox_config: Some(sandbox.clone()),
            };
            match self.service.pull_image(request).await {
                Ok(_) => {
                    let found = self
                        .find(reference)
                        .await
                        .map_err(|error| words::runtime_error(&error))?;
                    let found = found.ok_or_else(|| format!("image {reference:?} is not there after it was pulled"))?;
                    return Ok((found, login.map(|login| login.holder.clone())));
                }
                Err(error) => said.push(words::runtime_error(&error)),
            }
        }
        said.dedup();
        Err(said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_get_their_tag_or_are_refused() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for (image, expected) in [
            ("nginx", Ok("nginx:latest")),
            ("nginx:1.27", Ok("nginx:1.27")),
            ("localhost:5000/a", Ok("localhost:5000/a:latest")),
            (
                "registry.example:5000/a/b-c_d:v1",
                Ok("registry.example:5000/a/b-c_d:v1"),
            ),
            (digest.as_str(), Ok(digest.as_str())),
            ("", Err("")),
            ("a b", Err("")),
            ("a:", Err("")),
            ("a//b", Err("")),
            ("a@sha256:12", Err("")),
            ("Nginx", Err(": repository name (library/Nginx) must be lowercase")),
        ] {
            let expected = match expected {
                Ok(reference) => Ok(reference.to_owned()),
                Err(why) => Err(format!(
                    "couldn't parse image name {image:?}: invalid reference format{why}"
                )),
            };
            assert_eq!(reference(image), expected);
        }
    }

    #[test]
    fn policies() {
        use Decision::{Never, Pull, Use};
        let cases = [
            ("Always", true, Pull),
            ("IfNotPresent", true, Use),
            ("IfNotPresent", false, Pull),
            ("Never", true, Use),
            ("Never", false, Never),
        ];
        for (policy, present, decision) in cases {
            assert_eq!(decide(policy, present), decision);
        }
    }
}
