//! Carries out what a plan says: each action is a few calls of the runtime and the kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::EventType::{Normal, Warning};
use client::kube::Api;
use cri::v1::{
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, RuntimeHandlerFeatures, StatusRequest,
    StopContainerRequest, StopPodSandboxRequest, UserNamespace,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::node::v1::RuntimeClass;
use tracing::{debug, warn};

use super::hooks;
use super::memory::End;
use super::observed::State;
use super::plan::{Action, Plan};
use super::pod::PodExt;
use super::worker::{RETRY, Worker, later};
use super::writer::Wanted;
use crate::cri_config::sandbox;
use crate::handler::Target;
use crate::volumes;

/// The longest pause between tries before the sandbox.
const RETRY_LONGEST: SignedDuration = SignedDuration::from_secs(122);

impl Worker {
    pub(super) async fn act(&mut self, plan: &Plan) {
        for action in &plan.actions {
            let takes_away = matches!(
                action,
                Action::RemoveInstance { .. } | Action::RemoveSandbox { .. } | Action::CleanUp
            );
            self.memory.cleaning |= takes_away && plan.removes;
            let done = match action {
                Action::CreateSandbox { attempt } => self.create_sandbox(*attempt).await,
                Action::Resize => self.resize().await,
                Action::Start { name, restarts, failed } => self.start(name, *restarts, *failed).await,
                Action::End {
                    id,
                    name,
                    grace,
                    why,
                    hook,
                } => {
                    self.end(id, name, *grace, why.as_deref(), *hook);
                    true
                }
                Action::Stop { id, grace } => {
                    self.stop(id, *grace);
                    true
                }
                Action::StopSandbox { id } => {
                    let request = StopPodSandboxRequest {
                        pod_sandbox_id: id.clone(),
                    };
                    self.asked(
                        "stop sandbox",
                        self.context.runtime.stop_pod_sandbox(request).await.map(drop),
                    )
                    .await
                }
                Action::RemoveInstance { id } => self.remove_instance(id).await,
                Action::RemoveSandbox { id } => {
                    let request = RemovePodSandboxRequest {
                        pod_sandbox_id: id.clone(),
                    };
                    self.asked(
                        "remove sandbox",
                        self.context.runtime.remove_pod_sandbox(request).await.map(drop),
                    )
                    .await
                }
                Action::Release => self.release().await,
                Action::CleanUp => self.clean_up().await,
                Action::Forget => {
                    self.forget();
                    true
                }
            };
            if !done {
                break;
            }
        }
    }

    /// Whether it went well; a failure is said and not tried again at once.
    async fn asked(&self, what: &str, answer: cri::Result<()>) -> bool {
        match answer {
            Err(error) if !error.is_not_found() => {
                warn!(pod = %self.pod.full_name(), %error, "the runtime could not {what}");
                tokio::time::sleep(RETRY.unsigned_abs()).await;
                false
            }
            _ => true,
        }
    }

    async fn create_sandbox(&mut self, attempt: u32) -> bool {
        match self.try_create_sandbox(attempt).await {
            Ok(()) => {
                self.memory.sandbox_failures = 0;
                self.memory.retry_at.remove("");
                true
            }
            // The pod was told to end while it waited for a volume.
            Err(_) if self.mailbox.has_ended() => false,
            Err((reason, message)) => {
                self.context
                    .events
                    .record(&self.pod.reference(), Warning, reason, message);
                self.memory.sandbox_failures += 1;
                let delay = RETRY * 2i32.saturating_pow(self.memory.sandbox_failures.min(16) - 1);
                self.memory
                    .retry_at
                    .insert(String::new(), later(Timestamp::now(), delay.min(RETRY_LONGEST)));
                false
            }
        }
    }

    /// The error is the reason and message of its event.
    async fn try_create_sandbox(&mut self, attempt: u32) -> Result<(), (&'static str, String)> {
        if attempt > 0 && self.memory.sandbox_failures == 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context
                .events
                .record(&self.pod.reference(), Normal, "SandboxChanged", message);
        }
        let sandboxed = |error: String| {
            (
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {error}"),
            )
        };
        let directory = self.pod_dir();
        std::fs::create_dir_all(&directory)
            .map_err(|error| sandboxed(format!("mkdir {}: {error}", directory.display())))?;
        self.set_up_volumes()
            .await
            .map_err(|failure| (failure.reason(), failure.to_string()))?;
        let burstable = *self.context.ledger.burstable().borrow();
        self.context.cgroups.create(&self.pod, burstable).map_err(|error| {
            (
                "FailedCreatePodContainer",
                format!("unable to ensure pod container exists: {error}"),
            )
        })?;
        self.sandbox_has_resources();
        let users = self.users().await.map_err(sandboxed)?;
        let (own, dns) = (&self.context.config, &self.context.node_dns);
        let config = sandbox::config(&self.pod, attempt, users.as_ref(), own, dns);
        let logs = PathBuf::from(&config.log_directory);
        std::fs::create_dir_all(&logs).map_err(|error| sandboxed(format!("mkdir {}: {error}", logs.display())))?;
        let runtime_handler = self.runtime_handler().await.map_err(sandboxed)?;
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler,
        };
        self.context
            .runtime
            .run_pod_sandbox(request)
            .await
            .map_err(|error| sandboxed(error.to_string()))?;
        Ok(())
    }

    /// The pod's own users, if it is to have some.
    pub(super) async fn users(&self) -> Result<Option<UserNamespace>, String> {
        if self.pod.spec().and_then(|spec| spec.host_users) != Some(false) {
            return Ok(None);
        }
        let handler = self.runtime_handler().await?;
        if !self.features(&handler).await?.user_namespaces {
            let what = match handler.is_empty() {
                true => "runtime".to_owned(),
                false => format!("RuntimeClass handler {handler:?}"),
            };
            return Err(format!(
                "can't set `spec.hostUsers: false`, {what} does not support user namespaces"
            ));
        }
        let config = &self.context.config;
        let pods = config.root_dir.join("pods");
        let users = self
            .context
            .users
            .of(&pods, &self.pod_dir(), config.configuration.max_pods)?;
        Ok(Some(users))
    }

    /// What the runtime can do under a handler.
    pub(super) async fn features(&self, handler: &str) -> Result<RuntimeHandlerFeatures, String> {
        let status = self.context.runtime.status(StatusRequest { verbose: false }).await;
        let handlers = status.map_err(|error| error.to_string())?.runtime_handlers;
        let own = handlers.into_iter().find(|known| known.name == handler);
        Ok(own.and_then(|own| own.features).unwrap_or_default())
    }

    pub(super) async fn runtime_handler(&self) -> Result<String, String> {
        let Some(name) = self
            .pod
            .spec()
            .and_then(|spec| spec.runtime_class_name.as_deref())
            .filter(|name| !name.is_empty())
        else {
            return Ok(String::new());
        };
        let api = Api::<RuntimeClass>::all(self.context.client.clone());
        let found = api.get_opt(name).await.map_err(|error| error.to_string())?;
        found
            .map(|class| class.handler)
            .ok_or_else(|| format!("failed to get sandbox runtime: RuntimeClass {name:?} not found"))
    }

    /// Says that a container ends; its hook runs beside the worker.
    fn end(&mut self, id: &str, name: &str, grace: i64, why: Option<&str>, hook: bool) {
        let deadline = later(Timestamp::now(), SignedDuration::from_secs(grace));
        self.note_end_for_resize(id, name);
        let message = why.map_or_else(|| format!("Stopping container {name}"), str::to_owned);
        self.tell(name, Normal, "Killing", message);
        let hooked = self.pod.container(name).filter(|_| hook).and_then(|(role, container)| {
            let hook = container.lifecycle.as_ref()?.pre_stop.clone()?;
            Some((hook, container.clone(), self.pod.container_reference(role, name)))
        });
        let hooking = hooked.is_some();
        self.memory.ends.insert(id.to_owned(), End { deadline, hooking });
        let Some((hook, container, about)) = hooked else { return };
        let (context, mailbox, pod) = (self.context.clone(), self.mailbox.clone(), self.pod.clone());
        let (id, ip) = (id.to_owned(), self.ip());
        tokio::spawn(async move {
            let target = Target {
                id: &id,
                container: &container,
                ip: &ip,
            };
            let within = Duration::from_secs(grace.unsigned_abs());
            if let Err(error) = hooks::run(&hook, &*context.runtime, &target, &pod, Some(within)).await {
                // The details may hold secrets, and events are read by many.
                debug!(pod = %pod.full_name(), %error, "a hook failed");
                let message = "PreStopHook failed";
                context.events.record(&about, Warning, "FailedPreStopHook", message);
            }
            mailbox.pre_stopped(id);
        });
    }

    /// The stop goes on beside the worker: its grace period may be long, and may be shortened.
    fn stop(&mut self, id: &str, grace: i64) {
        let deadline = later(Timestamp::now(), SignedDuration::from_secs(grace));
        self.memory.stopping.insert(id.to_owned(), deadline);
        let (runtime, mailbox, id) = (self.context.runtime.clone(), self.mailbox.clone(), id.to_owned());
        tokio::spawn(async move {
            let request = StopContainerRequest {
                container_id: id.clone(),
                timeout: grace,
            };
            match runtime.stop_container(request).await {
                Err(error) if !error.is_not_found() => {
                    warn!(container = %id, %error, "the runtime could not stop a container");
                    tokio::time::sleep(RETRY.unsigned_abs()).await;
                    mailbox.not_stopped(id);
                }
                _ => mailbox.wake(),
            }
        });
    }

    async fn remove_instance(&mut self, id: &str) -> bool {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        if !self
            .asked(
                "remove container",
                self.context.runtime.remove_container(request).await.map(drop),
            )
            .await
        {
            return false;
        }
        if let Some(instance) = self.observed.instances.iter().find(|instance| instance.id == id) {
            remove_logs(&instance.log_path);
            let last = self.observed.latest(&instance.name).is_some_and(|last| last.id == id);
            if last && instance.state == State::Exited {
                self.memory.reset.insert(instance.name.clone(), instance.finished());
            }
        }
        true
    }

    async fn release(&mut self) -> bool {
        let directory = self.pod_dir();
        let both = move || {
            let parts = ["volume-subpaths", "volumes"].map(|part| directory.join(part));
            parts.iter().try_for_each(|part| volumes::tear_down(part))
        };
        let released = tokio::task::spawn_blocking(both).await;
        match released.map_err(std::io::Error::other).and_then(|released| released) {
            Ok(()) => {
                self.memory.released = true;
                self.volumes = None;
                true
            }
            Err(error) => {
                warn!(pod = %self.pod.full_name(), %error, "a pod's volumes could not be taken away yet");
                tokio::time::sleep(RETRY.unsigned_abs()).await;
                false
            }
        }
    }

    async fn clean_up(&mut self) -> bool {
        let cgroups = self.context.cgroups.clone();
        let (directory, uid) = (self.pod_dir(), self.pod.uid().to_owned());
        // An orphan of which only the directory is left has no name, and no logs that could be told apart.
        let named = !self.pod.name().is_empty();
        let logs = named.then(|| self.context.config.pod_logs_dir.join(sandbox::log_directory(&self.pod)));
        let all = move || {
            cgroups.remove(&uid).map_err(|error| error.to_string())?;
            if let Some(logs) = logs.filter(|logs| logs.exists()) {
                std::fs::remove_dir_all(&logs).map_err(|error| format!("remove {}: {error}", logs.display()))?;
            }
            // Last of all: by its directory a pod is found again, should this be cut short.
            volumes::tear_down(&directory).map_err(|error| error.to_string())
        };
        let cleaned = match tokio::task::spawn_blocking(all).await {
            Ok(cleaned) => cleaned,
            Err(error) => Err(error.to_string()),
        };
        match cleaned {
            Ok(()) => {
                self.memory.cleaned = true;
                true
            }
            Err(error) => {
                warn!(pod = %self.pod.full_name(), %error, "a pod's things could not be taken away yet");
                tokio::time::sleep(RETRY.unsigned_abs()).await;
                false
            }
        }
    }

    fn forget(&mut self) {
        self.memory.forgotten = true;
        if let Some(status) = self.pod.status.clone() {
            debug!(pod = %self.pod.full_name(), "nothing of the pod is left");
            self.writer.write(Wanted {
                pod: self.seen.clone(),
                status,
                forget: true,
            });
        }
    }
}

/// The log and its rotated predecessors.
fn remove_logs(path: &str) {
    let path = Path::new(path);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|entry| entry.starts_with(name)) {
            // The whole directory goes with the pod.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
