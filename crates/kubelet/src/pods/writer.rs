//! Writes statuses of one pod, off the path of its containers: the latest status wins, one write at a time, nothing when nothing changed.
//!
//! A server that is away, or busy, is asked again soon. One that refuses a status would refuse it again: it is asked with longer and longer
//! pauses, or as soon as there is another status.

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
/// The longest pause after a refusal; the first is [`PAUSE`], and each is twice the one before.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

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
        let mut refused = PAUSE;
        loop {
            let Some(next) = wanted.borrow_and_update().clone() else {
                break;
            };
            let Err(error) = write(&client, &next, &mut answered).await else {
                break;
            };
            match Trouble::of(&error) {
                // Gone; of a static pod, another mirror will come.
                Trouble::NotFound => break,
                Trouble::Conflict => {
                    if is_another(&client, &next.pod).await {
                        break;
                    }
                    // Too many wrote at once.
                    debug!(pod = %next.pod.full_name(), %error, "status not written yet");
                    answered = None;
                    tokio::time::sleep(CONFLICT_PAUSE).await;
                }
                Trouble::Refused => {
                    warn!(pod = %next.pod.full_name(), %error, again_in = ?refused, "the API server refuses a status");
                    answered = None;
                    match tokio::time::timeout(refused, wanted.changed()).await {
                        // Nobody is left who could want another.
                        Ok(Err(_)) => return,
                        Ok(Ok(())) => {}
                        Err(_) => refused = (refused * 2).min(LONGEST_PAUSE),
                    }
                }
                Trouble::Passing => {
                    warn!(pod = %next.pod.full_name(), %error, "status not written yet");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Why a write did not succeed.
#[derive(Debug, PartialEq)]
enum Trouble {
    /// There is no such object.
    NotFound,
    /// It changed meanwhile, or is another.
    Conflict,
    /// The server does not take this.
    Refused,
    /// The server is away, or has too much to do.
    Passing,
}

impl Trouble {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::NotFound,
                409 => Self::Conflict,
                408 | 429 => Self::Passing,
                400..500 => Self::Refused,
                _ => Self::Passing,
            },
            _ => Self::Passing,
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
        match api
            .patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch))
            .await
        {
            Ok(written) => *answered = Some(written),
            // What cannot be said of a pod does not keep it from going.
            Err(error) if wanted.forget && Trouble::of(&error) == Trouble::Refused => {
                warn!(pod = %pod.full_name(), %error, "the API server refuses the last status");
            }
            Err(error) => return Err(error),
        }
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
    use client::kube::client::Body;
    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::pods::fixtures;

    /// What was asked of an API server, and when.
    type Asked = Arc<Mutex<Vec<(http::Method, Instant)>>>;

    /// An API server that refuses every status.
    fn refusing() -> (Client, Asked) {
        let asked = Asked::default();
        let notes = asked.clone();
        let client = client::in_process(tower::service_fn(move |request: http::Request<Body>| {
            notes.lock().push((request.method().clone(), Instant::now()));
            let status =
                json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "Invalid", "code": 422});
            let (code, body) = match *request.method() {
                http::Method::PATCH => (422, status),
                _ => (200, json!({"kind": "Status", "status": "Success"})),
            };
            let response = http::Response::builder()
                .status(code)
                .body(Body::from(body.to_string().into_bytes()));
            async { response }
        }));
        (client, asked)
    }

    fn wanted(phase: &str, forget: bool) -> Wanted {
        Wanted {
            pod: Arc::new(fixtures::pod("Always", "c")),
            status: PodStatus {
                phase: Some(phase.into()),
                ..PodStatus::default()
            },
            forget,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_status_is_not_written_again_and_again() {
        let (client, asked) = refusing();
        let writer = Writer::start(client);
        writer.write(wanted("Odd", false));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let tries = asked.lock().len();
        assert!((10..25).contains(&tries), "{tries} in an hour");

        // Another status need not wait; the last one does not keep the pod from going.
        let before = Instant::now();
        writer.write(wanted("Odder", false));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(asked.lock().get(tries).is_some_and(|(_, at)| *at - before < PAUSE));
        writer.write(wanted("Odd", true));
        drop(writer);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let methods: Vec<_> = asked
            .lock()
            .iter()
            .skip(tries + 1)
            .map(|(method, _)| method.clone())
            .collect();
        assert_eq!(methods, [http::Method::PATCH, http::Method::DELETE]);
    }

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
