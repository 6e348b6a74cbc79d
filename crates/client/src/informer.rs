//! Informers: one shared list-and-watch a kind, a typed cache, and subscriptions.
//!
//! The cache and its subscribers change together under one lock, so a subscription starts with everything cached and then brings every
//! later change in order, with no gap and no repeat. A relist (after `410 Gone`) is compared with the cache and reaches subscribers as the
//! changes that it found. An informer runs as long as one handle or subscription of it lives.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use futures::StreamExt;
use kube::core::NamespaceResourceScope;
use kube::runtime::utils::WatchStreamExt;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

/// Which objects of a kind an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// A field selector, such as `spec.nodeName=node-1`.
    pub fields: Option<String>,
    /// A label selector.
    pub labels: Option<String>,
    /// The one namespace that is asked; set by [`Informers::named`] alone.
    namespace: Option<String>,
}

impl Selection {
    /// The objects that a field selector selects.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self {
            fields: Some(selector.into()),
            ..Self::default()
        }
    }

    /// The objects that a label selector selects.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self {
            labels: Some(selector.into()),
            ..Self::default()
        }
    }
}

/// What happened to one object.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// It was there at subscription, or was created or changed.
    Applied {
        /// As it is now.
        object: Arc<K>,
        /// As it was before, if it was known.
        previous: Option<Arc<K>>,
    },
    /// It is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object as it is now, or as it was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Applied { object, .. } | Change::Deleted(object) => object,
        }
    }
}

struct Cache<K> {
    objects: HashMap<String, Arc<K>>,
    subscribers: Vec<mpsc::UnboundedSender<Change<K>>>,
    /// What a list in progress has brought so far; it takes the place of `objects` when it is whole.
    listing: Option<HashMap<String, Arc<K>>>,
}

struct Shared<K> {
    cache: Mutex<Cache<K>>,
    synced: watch::Sender<bool>,
    task: Mutex<Option<AbortHandle>>,
}

impl<K> Drop for Shared<K> {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

/// A typed, always current view of the objects of one kind. Cheap to clone.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts watching; must be called in a tokio runtime.
    pub fn start(client: Client, selection: Selection) -> Self {
        Self::start_at(Api::all(client), selection)
    }

    fn start_at(api: Api<K>, selection: Selection) -> Self {
        let shared = Arc::new(Shared {
            cache: Mutex::new(Cache {
                objects: HashMap::new(),
                subscribers: Vec::new(),
                listing: None,
            }),
            synced: watch::Sender::new(false),
            task: Mutex::new(None),
        });
        let task = tokio::spawn(keep_current(api, selection, Arc::downgrade(&shared)));
        *shared.task.lock() = Some(task.abort_handle());
        Self { shared }
    }

    /// The object of that name (and namespace, where the kind has them), as last seen.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.shared.cache.lock().objects.get(&key(namespace, name)).cloned()
    }

    /// Every object, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.cache.lock().objects.values().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.cache.lock().objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every object there is now as an [`Change::Applied`] without predecessor, then each change in order.
    pub fn subscribe(&self) -> Subscription<K> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut cache = self.shared.cache.lock();
        for object in cache.objects.values() {
            // The receiver is at hand, so that sending cannot fail.
            let _ = sender.send(Change::Applied {
                object: object.clone(),
                previous: None,
            });
        }
        cache.subscribers.push(sender);
        Subscription {
            receiver,
            _informer: self.clone(),
        }
    }

    /// Waits until the first list is in the cache.
    pub async fn synced(&self) {
        // The sender lives in `shared`, which `self` holds, so that waiting cannot fail.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first list is in the cache.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }
}

/// The changes of one informer, for one subscriber.
pub struct Subscription<K> {
    receiver: mpsc::UnboundedReceiver<Change<K>>,
    _informer: Informer<K>,
}

impl<K> Subscription<K> {
    /// The next change; waits for it. Can be cancelled without losing one.
    pub async fn next(&mut self) -> Change<K> {
        match self.receiver.recv().await {
            Some(change) => change,
            // The sender lives in the informer that this subscription holds.
            None => std::future::pending().await,
        }
    }

    /// The next change, if it is already there.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.receiver.try_recv().ok()
    }
}

fn key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

fn key_of<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    key(meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default())
}

impl<K: Resource> Cache<K> {
    fn publish(&mut self, change: Change<K>) {
        self.subscribers
            .retain(|subscriber| subscriber.send(change.clone_change()).is_ok());
    }

    fn apply(&mut self, object: Arc<K>) {
        let previous = self.objects.insert(key_of(&*object), object.clone());
        let unchanged = previous.as_ref().is_some_and(|previous| {
            previous.meta().resource_version.is_some()
                && previous.meta().resource_version == object.meta().resource_version
        });
        if !unchanged {
            self.publish(Change::Applied { object, previous });
        }
    }

    fn delete(&mut self, object: K) {
        if self.objects.remove(&key_of(&object)).is_some() {
            self.publish(Change::Deleted(Arc::new(object)));
        }
    }

    /// Takes a whole new list in place of the cache, and tells the difference.
    fn replace(&mut self, listed: HashMap<String, Arc<K>>) {
        let gone: Vec<String> = self
            .objects
            .keys()
            .filter(|key| !listed.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(object) = self.objects.remove(&key) {
                self.publish(Change::Deleted(object));
            }
        }
        for object in listed.into_values() {
            // An object deleted and created again under its name during the gap is two changes.
            let recreated = self
                .objects
                .get(&key_of(&*object))
                .filter(|known| known.meta().uid != object.meta().uid)
                .cloned();
            if let Some(known) = recreated {
                self.objects.remove(&key_of(&*object));
                self.publish(Change::Deleted(known));
            }
            self.apply(object);
        }
    }

    fn handle(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => self.listing = Some(HashMap::new()),
            Event::InitApply(object) => {
                let key = key_of(&object);
                self.listing.get_or_insert_default().insert(key, Arc::new(object));
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                self.replace(listed);
                return true;
            }
            Event::Apply(object) => self.apply(Arc::new(object)),
            Event::Delete(object) => self.delete(object),
        }
        false
    }
}

impl<K> Change<K> {
    // Not `Clone`, which would ask `K: Clone` for two reference counts.
    fn clone_change(&self) -> Self {
        match self {
            Change::Applied { object, previous } => Change::Applied {
                object: object.clone(),
                previous: previous.clone(),
            },
            Change::Deleted(object) => Change::Deleted(object.clone()),
        }
    }
}

async fn keep_current<K>(api: Api<K>, selection: Selection, shared: Weak<Shared<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = watcher::Config {
        field_selector: selection.fields,
        label_selector: selection.labels,
        ..Default::default()
    };
    let mut streaming = true;
    loop {
        let config = if streaming {
            config.clone().streaming_lists()
        } else {
            config.clone()
        };
        let mut events = std::pin::pin!(watcher::watcher(api.clone(), config).backoff(DefaultBackoff::default()));
        while let Some(event) = events.next().await {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            match event {
                Ok(event) => {
                    if shared.cache.lock().handle(event) {
                        shared.synced.send_replace(true);
                    }
                }
                Err(error) if streaming && refuses_streaming(&error) => {
                    debug!(kind = %K::kind(&()), "the server serves no streaming lists; listing first");
                    streaming = false;
                    break;
                }
                Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted"),
            }
        }
    }
}

/// A server that knows no streaming lists says that `sendInitialEvents` is invalid (422) or a bad request (400).
fn refuses_streaming(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            matches!(status.code, 400 | 422)
        }
        watcher::Error::WatchError(status) => matches!(status.code, 400 | 422),
        _ => false,
    }
}

/// A `Weak<Shared<K>>` for some kind: an informer ends with its last user.
trait Slot: Send {
    fn is_alive(&self) -> bool;
    fn as_any(&self) -> &dyn Any;
}

impl<K: Send + Sync + 'static> Slot for Weak<Shared<K>> {
    fn is_alive(&self) -> bool {
        self.strong_count() > 0
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

type Running = HashMap<(TypeId, Selection), Box<dyn Slot>>;

/// The informers of a process (or of one identity in it): asking twice for a kind and selection gives the same informer.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    running: Arc<Mutex<Running>>,
}

impl Informers {
    /// None runs until it is asked for.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            running: Arc::default(),
        }
    }

    /// The client under the informers.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of every object of a kind.
    pub fn all<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.selected(Selection::default())
    }

    /// The informer of the selected objects of a kind.
    pub fn selected<K>(&self, selection: Selection) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.shared(selection, Api::all)
    }

    /// The informer of one object, by its name. Its watch names the object, and so does the right that it needs.
    pub fn named<K>(&self, namespace: &str, name: &str) -> Informer<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let selection = Selection {
            namespace: Some(namespace.to_owned()),
            ..Selection::fields(format!("metadata.name={name}"))
        };
        self.shared(selection, |client| Api::namespaced(client, namespace))
    }

    fn shared<K>(&self, selection: Selection, api: impl FnOnce(Client) -> Api<K>) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let mut running = self.running.lock();
        let key = (TypeId::of::<K>(), selection);
        if let Some(shared) = running
            .get(&key)
            .and_then(|known| known.as_any().downcast_ref::<Weak<Shared<K>>>())
            .and_then(Weak::upgrade)
        {
            return Informer { shared };
        }
        running.retain(|_, slot| slot.is_alive());
        let informer = Informer::start_at(api(self.client.clone()), key.1.clone());
        running.insert(key, Box::new(Arc::downgrade(&informer.shared)));
        informer
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        serde_json::from_value(
            serde_json::json!({"metadata": {"namespace": "n", "name": name, "uid": uid, "resourceVersion": version}}),
        )
        .unwrap()
    }

    fn told(receiver: &mut mpsc::UnboundedReceiver<Change<ConfigMap>>) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(change) = receiver.try_recv() {
            let (verb, object) = match &change {
                Change::Applied { object, previous: None } => ("new", object),
                Change::Applied {
                    object,
                    previous: Some(_),
                } => ("changed", object),
                Change::Deleted(object) => ("deleted", object),
            };
            let meta = &object.metadata;
            told.push(format!(
                "{verb} {} {}",
                meta.name.as_deref().unwrap(),
                meta.resource_version.as_deref().unwrap()
            ));
        }
        told.sort();
        told
    }

    #[test]
    fn a_relist_tells_only_what_differs() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut cache = Cache {
            objects: HashMap::new(),
            subscribers: vec![sender],
            listing: None,
        };
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1", "1")),
            Event::InitApply(object("b", "2", "2")),
            Event::InitApply(object("c", "3", "3")),
        ] {
            assert!(!cache.handle(event));
        }
        assert!(
            told(&mut receiver).is_empty(),
            "nothing is told before the list is whole"
        );
        assert!(cache.handle(Event::InitDone));
        assert_eq!(told(&mut receiver), ["new a 1", "new b 2", "new c 3"]);

        cache.handle(Event::Apply(object("a", "1", "4")));
        cache.handle(Event::Delete(object("b", "2", "5")));
        cache.handle(Event::Delete(object("b", "2", "5")));
        assert_eq!(told(&mut receiver), ["changed a 4", "deleted b 5"]);

        for event in [
            Event::Init,
            Event::InitApply(object("a", "1", "4")),
            Event::InitApply(object("c", "9", "8")),
            Event::InitDone,
        ] {
            cache.handle(event);
        }
        assert_eq!(told(&mut receiver), ["deleted c 3", "new c 8"]);
    }
}
