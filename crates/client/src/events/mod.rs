//! Events as users see them in `kubectl describe`: recorded without waiting, correlated as upstream does.
//!
//! [`Events::record`] puts an event on a bounded queue and returns; a task of its own counts repeats, joins similar ones, holds back
//! floods (all of that in [`correlator`], without I/O) and writes what is left in order. Events are news, not state: when the queue is
//! full, or the API server stays away, they are dropped.

pub mod correlator;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use correlator::{Correlator, Write};

/// As many as upstream's broadcaster holds.
const QUEUE: usize = 1000;
/// Attempts for one event while the API server is away, and the pause between them.
const ATTEMPTS: u32 = 12;
const PAUSE: Duration = Duration::from_secs(10);

/// The two types of event there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// All is as it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Records events in the name of one component. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    component: String,
    host: Option<String>,
    queue: mpsc::Sender<Event>,
}

impl Events {
    /// A recorder for `component` (such as `kubelet`), on `host` where events carry one. Must be called in a tokio runtime.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(client, events));
        Self {
            component: component.to_owned(),
            host: host.map(str::to_owned),
            queue,
        }
    }

    /// Records what happened to an object; never waits.
    pub fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let event = self.event(about, kind, reason, message.into(), Timestamp::now());
        if let Err(error) = self.queue.try_send(event) {
            debug!(reason, %error, "event dropped");
        }
    }

    fn event(&self, about: &ObjectReference, kind: EventType, reason: &str, message: String, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name(about, now)),
                // Events about cluster-wide objects live in the default namespace.
                namespace: Some(
                    about
                        .namespace
                        .clone()
                        .filter(|namespace| !namespace.is_empty())
                        .unwrap_or_else(|| "default".into()),
                ),
                ..Default::default()
            },
            involved_object: about.clone(),
            type_: Some(kind.as_str().into()),
            reason: Some(reason.into()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: self.host.clone(),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone().unwrap_or_default()),
            ..Default::default()
        }
    }
}

/// What an event says it is about.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        resource_version: object.meta().resource_version.clone(),
        ..object.object_ref(&())
    }
}

/// `NAME.HEX`, the hex being the nanoseconds of now. What has a name too long for that has events with names of their own.
fn name(about: &ObjectReference, now: Timestamp) -> String {
    let name = format!(
        "{}.{:x}",
        about.name.as_deref().unwrap_or_default(),
        now.as_nanosecond()
    );
    match api::meta::names::dns1123_subdomain(&name).is_empty() {
        true => name,
        false => api::meta::new_uid(),
    }
}

async fn write_all(client: Client, mut events: mpsc::Receiver<Event>) {
    let mut correlator = Correlator::default();
    while let Some(event) = events.recv().await {
        let Some((key, write)) = correlator.correlate(event, Timestamp::now()) else {
            continue;
        };
        if let Some(written) = write_one(&client, write).await {
            correlator.written(&key, &written);
        }
    }
}

/// Writes with patience for an API server that is away, and none for one that refuses.
async fn write_one(client: &Client, write: Write) -> Option<Event> {
    for attempt in 1..=ATTEMPTS {
        match try_write(client, &write).await {
            Ok(event) => return Some(event),
            Err(kube::Error::Api(status)) => {
                // A namespace that is being deleted takes no events; that is no news.
                debug!(%status, "the server rejected an event");
                return None;
            }
            Err(error) if attempt == ATTEMPTS => warn!(%error, "event not written"),
            Err(error) => {
                debug!(%error, "event not written yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    None
}

async fn try_write(client: &Client, write: &Write) -> Result<Event, kube::Error> {
    let event = match write {
        Write::Create(event) | Write::Patch { event, .. } => event,
    };
    let api = Api::<Event>::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
    if let Write::Patch { event, patch } = write {
        let name = event.metadata.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            // It has expired meanwhile: write it anew.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => return answer,
        }
    }
    let mut fresh = event.clone();
    fresh.metadata.resource_version = None;
    api.create(&PostParams::default(), &fresh).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_objects_and_the_nanoseconds_in_hex() {
        let about = ObjectReference {
            name: Some("web".into()),
            ..Default::default()
        };
        let now = Timestamp::from_nanosecond(0x1234_5678_9abc).unwrap_or_default();
        assert_eq!(name(&about, now), "web.123456789abc");
        // A name may be as long as an object's can be.
        let about = ObjectReference {
            name: Some("a".repeat(253)),
            ..Default::default()
        };
        assert_eq!(name(&about, now).len(), api::meta::new_uid().len());
        assert_ne!(name(&about, now), name(&about, now));
    }
}
