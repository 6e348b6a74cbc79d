//! Writes statuses of one pod, off the path of its containers: the latest status wins, one write at a time, nothing when nothing changed.

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use client::kube::{self, Api};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::conditions;
use super::pod::PodExt;

const PAUSE: Duration = Duration::from_secs(1);
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);

/// What the API server should come to say of a pod.
#[derive(Clone)]
pub struct Wanted {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// The status it should have.
    pub status: PodStatus,
    /// Whether it should then be forgotten.
    pub forget: bool,
}

/// The hand that writes; dropping it ends the writer after its last write.
pub struct Writer {
    wanted: watch::Sender<Option<Wanted>>,
}

impl Writer {
    /// Starts writing for one pod.
    pub fn start(client: Client) -> Self {
        let (wanted, receiver) = watch::channel(None);
        tokio::spawn(write_all(client, receiver));
        Self { wanted }
    }

    /// Has this written, in place of what was not written yet.
    pub fn write(&self, wanted: Wanted) {
        self.wanted.send_replace(Some(wanted));
    }
}

async fn write_all(client: Client, mut wanted: watch::Receiver<Option<Wanted>>) {
    // The server's answer to the last write, which may be newer than what the informer brought.
    let mut answered: Option<Pod> = None;
    while wanted.changed().await.is_ok() {
        loop {
            let Some(next) = wanted.borrow_and_update().clone() else {
                break;
            };
            match write(&client, &next, &mut answered).await {
                Ok(()) => break,
                // Gone; of a static pod, another mirror will come.
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    if is_another(&client, &next.pod).await {
                        break;
                    }
                    // Too many wrote at once.
                    debug!(pod = %next.pod.full_name(), %status, "status not written yet");
                    answered = None;
                    tokio::time::sleep(CONFLICT_PAUSE).await;
                }
                Err(error) => {
                    warn!(pod = %next.pod.full_name(), %error, "status not written yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether the pod was made anew under the same name, and is none of this writer's business.
async fn is_another(client: &Client, pod: &Pod) -> bool {
    let api = Api::<Pod>::namespaced(client.clone(), pod.namespace());
    let there = api.get_metadata_opt(pod.name()).await;
    there.is_ok_and(|there| there.is_none_or(|there| there.metadata.uid.as_deref() != Some(pod.uid())))
}

fn version(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

async fn write(client: &Client, wanted: &Wanted, answered: &mut Option<Pod>) -> Result<(), kube::Error> {
    let pod = &wanted.pod;
    let api = Api::<Pod>::namespaced(client.clone(), pod.namespace());
    let base = answered
        .as_ref()
        .filter(|answered| version(answered) > version(pod))
        .unwrap_or(pod);
    let old = base
        .status
        .as_ref()
        .map(|status| serde_json::to_value(status).unwrap_or_default())
        .unwrap_or_default();
    let new = serde_json::to_value(&wanted.status).unwrap_or_default();
    if let Some(changes) = changes(&old, &new) {
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": changes});
        *answered = Some(
            api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch))
                .await?,
        );
    }
    if wanted.forget {
        let preconditions = Preconditions {
            uid: Some(pod.uid().to_owned()),
            resource_version: None,
        };
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        api.delete(pod.name(), &now).await?;
    }
    Ok(())
}

/// A strategic merge patch from one status to the other. Conditions are merged by type, addresses by themselves; other lists are whole.
fn changes(old: &Value, new: &Value) -> Option<Map<String, Value>> {
    let nothing = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&nothing), new.as_object().unwrap_or(&nothing));
    let mut changes = Map::new();
    for (field, value) in new {
        let before = old.get(field);
        if before == Some(value) {
            continue;
        }
        match (field.as_str(), before.and_then(Value::as_array), value.as_array()) {
            ("conditions", before, Some(after)) => {
                let before = before.map(Vec::as_slice).unwrap_or_default();
                let kind = |condition: &Value| condition["type"].as_str().unwrap_or_default().to_owned();
                let kept = |known: &&Value| after.iter().any(|condition| condition["type"] == known["type"]);
                let dropped = before
                    .iter()
                    .filter(|known| !kept(known))
                    .map(kind)
                    // What others say is theirs to take back.
                    .filter(|kind| conditions::is_own(kind))
                    .map(|kind| json!({"$patch": "delete", "type": kind}));
                let changed: Vec<Value> = after
                    .iter()
                    .filter(|condition| !before.contains(condition))
                    .cloned()
                    .map(cleared)
                    .chain(dropped)
                    .collect();
                if !changed.is_empty() {
                    changes.insert(field.clone(), changed.into());
                }
            }
            ("podIPs" | "hostIPs", Some(before), Some(after)) if !before.is_empty() => {
                let replace = std::iter::once(json!({"$patch": "replace"}));
                changes.insert(field.clone(), replace.chain(after.iter().cloned()).collect());
            }
            _ => {
                changes.insert(field.clone(), value.clone());
            }
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        changes.insert(field.clone(), Value::Null);
    }
    (!changes.is_empty()).then_some(changes)
}

/// Merging keeps what a patch does not name, so that a condition names what it no longer says.
fn cleared(mut condition: Value) -> Value {
    if let Some(fields) = condition.as_object_mut() {
        for field in ["reason", "message"] {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    condition
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_only_what_changed() {
        let cases = [
            (json!({"phase": "Running"}), json!({"phase": "Running"}), Value::Null),
            (
                Value::Null,
                json!({"phase": "Pending", "podIPs": [{"ip": "a"}]}),
                json!({"phase": "Pending", "podIPs": [{"ip": "a"}]}),
            ),
            (
                json!({"reason": "x", "phase": "Pending"}),
                json!({"phase": "Running"}),
                json!({"reason": null, "phase": "Running"}),
            ),
            (
                json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False", "reason": "r"}]}),
                json!({"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}),
                json!({"conditions": [{"type": "B", "status": "True", "reason": null, "message": null}]}),
            ),
            (
                json!({"conditions": [{"type": "PodResizePending", "status": "True"}, {"type": "example.com/ok", "status": "True"}]}),
                json!({"conditions": []}),
                json!({"conditions": [{"$patch": "delete", "type": "PodResizePending"}]}),
            ),
            (
                json!({"podIPs": [{"ip": "a"}]}),
                json!({"podIPs": [{"ip": "b"}]}),
                json!({"podIPs": [{"$patch": "replace"}, {"ip": "b"}]}),
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(
                changes(&old, &new).map_or(Value::Null, Value::Object),
                expected,
                "{old} {new}"
            );
        }
    }
}
