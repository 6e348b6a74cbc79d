//! Static pods: those that a node has from files and from a web server, and runs with or without an API server.
//!
//! ```text
//! files (inotify) ─┐                    ┌─> Pods: a worker each, as for any other pod
//! a URL (interval) ┴─> wanted ─> plan ──┤
//! a worker ended ──────────────────^    └─> mirrors in the API, which only show them
//! ```
//!
//! A pod whose manifest changes is another pod: its uid is the hash of what it is. It starts when the one before it has ended.

mod directory;
mod manifest;
mod mirror;
mod url;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::EventType::Warning;
use client::{Change, Informer, RetryDelay, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::pods::pod::PodExt;
use crate::pods::{Context, Pods};
use mirror::Step;

/// A mirror that could not be written is tried again after so long, doubled with each failure.
const RETRY: RetryDelay = RetryDelay {
    base: Duration::from_millis(100),
    most: Duration::from_secs(10),
};

/// A static pod that has a worker.
struct Running {
    /// As it was read.
    manifest: Pod,
    /// As its worker has it.
    pod: Arc<Pod>,
    ending: bool,
}

/// Where wanted pods come from; of two with one name, that of the first wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Files,
    Url,
}

#[derive(Default)]
struct State {
    /// What each source has; a source that has not answered is not there.
    wanted: BTreeMap<Source, Vec<Pod>>,
    /// By full name.
    running: HashMap<String, Running>,
    /// By full name.
    mirrors: HashMap<String, Arc<Pod>>,
}

/// What is to be done about one name.
#[derive(Debug, PartialEq)]
enum Action {
    Start(Box<Pod>),
    /// The same pod, said otherwise.
    Change(Box<Pod>),
    End(String),
    /// Its worker is done.
    Forget(String),
}

/// Decides; `at_work` says whether a pod of that uid still has a worker.
fn plan(
    wanted: &BTreeMap<String, &Pod>,
    running: &HashMap<String, Running>,
    at_work: impl Fn(&str) -> bool,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut free: Vec<&String> = wanted.keys().filter(|name| !running.contains_key(*name)).collect();
    for (name, runs) in running {
        let next = wanted.get(name);
        if !at_work(runs.pod.uid()) {
            actions.push(Action::Forget(name.clone()));
            free.extend(next.map(|_| name));
        } else if next.is_none_or(|next| next.uid() != runs.pod.uid()) {
            if !runs.ending {
                actions.push(Action::End(name.clone()));
            }
        } else if let Some(next) = next.filter(|next| **next != &runs.manifest) {
            actions.push(Action::Change(Box::new(Pod::clone(next))));
        }
    }
    for name in free {
        actions.extend(wanted.get(name).map(|pod| Action::Start(Box::new(Pod::clone(pod)))));
    }
    actions
}

/// The static pods of a node.
pub struct StaticPods {
    context: Arc<Context>,
    pods: Pods,
    state: Mutex<State>,
    /// Names whose mirror may not be what it should.
    shown: WorkQueue<String>,
    /// Whether every source has said what it has.
    complete: watch::Sender<bool>,
}

impl StaticPods {
    /// None yet.
    pub fn new(context: Arc<Context>, pods: Pods) -> Self {
        let config = &context.config;
        let complete = config.pod_manifest_path.is_none() && config.manifest_url.is_none();
        Self {
            context,
            pods,
            state: Mutex::default(),
            shown: WorkQueue::new(RETRY),
            complete: watch::Sender::new(complete),
        }
    }

    /// Resolves when it is known which pods there are: before, nobody can say that a pod is nobody's.
    pub fn complete(&self) -> impl Future<Output = ()> + use<> {
        let mut complete = self.complete.subscribe();
        async move {
            // The sender is gone only when the kubelet is.
            let _ = complete.wait_for(|complete| *complete).await;
        }
    }

    /// Looks after them until the future is dropped; the pods run on.
    pub async fn run(&self, informer: Informer<Pod>) {
        let config = &self.context.config;
        let files = async {
            if let Some(path) = &config.pod_manifest_path {
                directory::follow(path, &config.node_name, |files, broken| {
                    for it in broken {
                        self.refuse(&format!(
                            "could not process manifest file {}: {}",
                            it.file.display(),
                            it.error
                        ));
                    }
                    self.want(Source::Files, files.pods().cloned().collect());
                })
                .await;
            }
        };
        let url = async {
            if let Some(source) = &config.manifest_url {
                url::follow(source, &config.node_name, |answer| match answer {
                    Ok(pods) => self.want(Source::Url, pods),
                    Err(error) => self.refuse(&format!("could not read pods from {error}")),
                })
                .await;
            }
        };
        let ends = async {
            loop {
                self.pods.ended().await;
                self.reconcile();
            }
        };
        tokio::join!(files, url, ends, self.follow_mirrors(&informer), self.show(&informer));
    }

    /// What is wrong with a manifest has no pod to be told about; it is told about the node.
    fn refuse(&self, message: &str) {
        warn!("{message}");
        let node = &self.context.config.node_name;
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.clone()),
            uid: Some(node.clone()),
            ..Default::default()
        };
        self.context.events.record(&about, Warning, "InvalidStaticPod", message);
    }

    fn want(&self, source: Source, pods: Vec<Pod>) {
        let config = &self.context.config;
        let complete = {
            let mut state = self.state.lock();
            state.wanted.insert(source, pods);
            (config.pod_manifest_path.is_none() || state.wanted.contains_key(&Source::Files))
                && (config.manifest_url.is_none() || state.wanted.contains_key(&Source::Url))
        };
        self.reconcile();
        if complete && !self.complete.send_replace(true) {
            let names: Vec<String> = self.state.lock().mirrors.keys().cloned().collect();
            names.into_iter().for_each(|name| self.shown.add(name));
        }
    }

    fn reconcile(&self) {
        let mut state = self.state.lock();
        let mut wanted = BTreeMap::new();
        let mut twice = Vec::new();
        for pod in state.wanted.values().flatten() {
            let name = api::pod::full_name(pod);
            match wanted.entry(name) {
                Entry::Occupied(_) => twice.push(pod.name().to_owned()),
                Entry::Vacant(free) => drop(free.insert(pod)),
            }
        }
        let actions = plan(&wanted, &state.running, |uid| self.pods.is_at_work(uid));
        for action in actions {
            let name = match action {
                Action::Start(pod) => self.start(&mut state, *pod),
                Action::Change(manifest) => {
                    let name = api::pod::full_name(&manifest);
                    if let Some(running) = state.running.get_mut(&name) {
                        let seen = running.pod.metadata.annotations.clone();
                        let seen = seen.and_then(|mut all| all.remove(api::pod::CONFIG_SEEN_ANNOTATION));
                        running.pod = Arc::new(with_seen(&manifest, seen));
                        running.manifest = *manifest;
                        self.pods.apply(running.pod.clone());
                    }
                    name
                }
                Action::End(name) => {
                    if let Some(running) = state.running.get_mut(&name) {
                        info!(pod = %running.pod.full_name(), "a static pod is no longer wanted");
                        running.ending = true;
                        self.pods.end(&running.pod);
                    }
                    name
                }
                Action::Forget(name) => {
                    state.running.remove(&name);
                    name
                }
            };
            self.shown.add(name);
        }
        drop(state);
        for name in twice {
            self.refuse(&format!("static pod {name} is there twice; the first is taken"));
        }
    }

    fn start(&self, state: &mut State, manifest: Pod) -> String {
        let name = api::pod::full_name(&manifest);
        let pod = Arc::new(with_seen(&manifest, Some(Timestamp::now().to_string())));
        info!(pod = %pod.full_name(), "a static pod begins");
        self.pods.apply(pod.clone());
        if let Some(mirror) = state.mirrors.get(&name).filter(|mirror| mirror::is_of(mirror, &pod)) {
            self.pods.show_on(&pod, mirror.clone());
        }
        let running = Running {
            manifest,
            pod,
            ending: false,
        };
        state.running.insert(name.clone(), running);
        name
    }

    async fn follow_mirrors(&self, informer: &Informer<Pod>) {
        let mut changes = informer.subscribe();
        loop {
            let change = changes.next().await;
            if !api::pod::is_mirror(change.object()) {
                continue;
            }
            let name = api::pod::full_name(change.object());
            let mut state = self.state.lock();
            match change {
                Change::Applied { object, .. } => {
                    if let Some(running) = state
                        .running
                        .get(&name)
                        .filter(|running| mirror::is_of(&object, &running.pod))
                    {
                        self.pods.show_on(&running.pod, object.clone());
                    }
                    state.mirrors.insert(name.clone(), object);
                }
                Change::Deleted(_) => drop(state.mirrors.remove(&name)),
            }
            drop(state);
            self.shown.add(name);
        }
    }

    /// Writes mirrors, once it is known which there are.
    async fn show(&self, informer: &Informer<Pod>) {
        informer.synced().await;
        loop {
            let claim = self.shown.next().await;
            let (pod, mirror) = {
                let state = self.state.lock();
                let running = state.running.get(claim.key()).map(|running| running.pod.clone());
                (running, state.mirrors.get(claim.key()).cloned())
            };
            let client = &self.context.client;
            let done = match (mirror::step(pod.as_deref(), mirror.as_deref()), &pod, &mirror) {
                (Step::Create, Some(pod), _) => mirror::create(client, pod, &self.context.config.node_name).await,
                // It may be of a pod that a source has yet to name.
                (Step::Delete, None, _) if !*self.complete.borrow() => Ok(()),
                (Step::Delete, _, Some(mirror)) => mirror::delete(client, mirror).await,
                _ => Ok(()),
            };
            if let Err(error) = done {
                warn!(pod = claim.key(), %error, "the mirror of a static pod is not as it should be yet");
                claim.retry();
            }
        }
    }
}

fn with_seen(manifest: &Pod, seen: Option<String>) -> Pod {
    let mut pod = manifest.clone();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.extend(seen.map(|seen| (api::pod::CONFIG_SEEN_ANNOTATION.to_owned(), seen)));
    pod
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, image: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": uid}, "spec": {"containers": [{"name": "c", "image": image}]},
        }))
        .unwrap()
    }

    fn said(action: &Action) -> String {
        match action {
            Action::Start(pod) => format!("start {}", pod.uid()),
            Action::Change(pod) => format!("change {}", pod.uid()),
            Action::End(name) => format!("end {name}"),
            Action::Forget(name) => format!("forget {name}"),
        }
    }

    #[test]
    fn a_pod_starts_when_the_one_before_it_has_ended() {
        let (old, new, same) = (pod("p", "1", "a"), pod("p", "2", "b"), pod("p", "1", "b"));
        let runs = |ending| {
            let running = Running {
                manifest: old.clone(),
                pod: Arc::new(old.clone()),
                ending,
            };
            HashMap::from([("p_n".to_owned(), running)])
        };
        let cases: [(Option<&Pod>, _, bool, &[&str]); 8] = [
            (Some(&old), HashMap::new(), false, &["start 1"]),
            (Some(&old), runs(false), true, &[]),
            (Some(&same), runs(false), true, &["change 1"]),
            (Some(&new), runs(false), true, &["end p_n"]),
            (Some(&new), runs(true), true, &[]),
            (Some(&new), runs(true), false, &["forget p_n", "start 2"]),
            (None, runs(false), true, &["end p_n"]),
            (None, runs(true), false, &["forget p_n"]),
        ];
        for (wanted, running, at_work, expected) in cases {
            let wanted: BTreeMap<String, &Pod> = wanted.iter().map(|pod| (api::pod::full_name(pod), *pod)).collect();
            let actions: Vec<String> = plan(&wanted, &running, |_| at_work).iter().map(said).collect();
            assert_eq!(actions, expected);
        }
    }
}
