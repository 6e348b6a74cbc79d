//! What the node's port tells of the node: the configuration, what runs, and what is used and counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::configuration::KubeletConfiguration;
use crate::cri_config::resources;
use crate::node;
use crate::pods::observed::State;
use crate::pods::pod::PodExt;
use crate::pods::{Context, Pods, View};
use crate::server::{NodeReports, Report};
use crate::stats::machine;
use crate::stats::prometheus::{self, Described, Kind, Text};
use crate::stats::{Depth, Stats};

/// The kernel counts a process' time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// Tells it.
pub struct Reports {
    /// The node around the pods.
    pub context: Arc<Context>,
    /// The pods.
    pub pods: Pods,
    /// What they use.
    pub stats: Arc<Stats>,
    /// Processors of the machine.
    pub processors: i64,
}

#[async_trait]
impl NodeReports for Reports {
    fn configuration(&self) -> &KubeletConfiguration {
        &self.context.config.configuration
    }

    fn running_pods(&self) -> Vec<Pod> {
        self.pods.views().iter().filter_map(running).collect()
    }

    async fn summary(&self, only_cpu_and_memory: bool) -> Result<Value, String> {
        let depth = match only_cpu_and_memory {
            true => Depth::CpuAndMemory,
            false => Depth::Files,
        };
        let summary = self.stats.summary(depth).await.map_err(|error| error.to_string())?;
        serde_json::to_value(summary).map_err(|error| error.to_string())
    }

    async fn metrics(&self, report: Report) -> Result<String, String> {
        match report {
            Report::Kubelet => Ok(self.own()),
            Report::Probes => Ok(self.context.metrics.probes()),
            Report::Resources => Ok(prometheus::resource(
                self.stats.summary(Depth::CpuAndMemory).await.ok().as_ref(),
            )),
            Report::Containers => {
                let summary = self
                    .stats
                    .summary(Depth::Files)
                    .await
                    .map_err(|error| error.to_string())?;
                let described = self.pods.views().iter().flat_map(described).collect();
                Ok(prometheus::cadvisor(&summary, self.processors, &described))
            }
        }
    }
}

/// What runs of a pod, as far as the runtime knows.
fn running(view: &View) -> Option<Pod> {
    let running = view
        .observed
        .instances
        .iter()
        .filter(|instance| instance.state == State::Running);
    let containers: Vec<Container> = running
        .map(|instance| Container {
            name: instance.name.clone(),
            image: Some(instance.image.clone()),
            ..Default::default()
        })
        .collect();
    let sandboxed = view.observed.sandbox().is_some();
    (sandboxed || !containers.is_empty()).then(|| Pod {
        metadata: ObjectMeta {
            name: Some(view.pod.name().into()),
            namespace: Some(view.pod.namespace().into()),
            uid: Some(view.pod.uid().into()),
            ..Default::default()
        },
        spec: Some(PodSpec {
            containers,
            ..Default::default()
        }),
        status: None,
    })
}

/// What cAdvisor says of a pod and its containers, by their names.
fn described(view: &View) -> BTreeMap<[String; 3], Described> {
    let pod = &*view.pod;
    let cgroup = resources::pod_cgroup(api::pod::stored_qos_class(pod), pod.uid());
    let key = |container: &str| [pod.namespace().to_owned(), pod.name().to_owned(), container.to_owned()];
    let whole = resources::pod(pod);
    let mut all = BTreeMap::from([(
        key(""),
        Described {
            id: cgroup.clone(),
            limits: [whole.cpu_shares, whole.cpu_quota, whole.memory],
            ..Described::default()
        },
    )]);
    for instance in view
        .observed
        .instances
        .iter()
        .filter(|instance| instance.state == State::Running)
    {
        let enforced = instance.resources.clone().unwrap_or_default();
        let found = Described {
            id: format!("{cgroup}/{}", instance.id),
            image: instance.image.clone(),
            name: instance.id.clone(),
            limits: [enforced.cpu_shares, enforced.cpu_quota, enforced.memory_limit_in_bytes],
        };
        all.insert(key(&instance.name), found);
    }
    all
}

impl Reports {
    /// The kubelet's own metrics.
    fn own(&self) -> String {
        let mut text = Text::default();
        let views = self.pods.views();
        let mut states: BTreeMap<&str, f64> = BTreeMap::new();
        for instance in views.iter().flat_map(|view| &view.observed.instances) {
            let state = match instance.state {
                State::Created => "created",
                State::Running => "running",
                State::Exited => "exited",
                State::Unknown => "unknown",
            };
            *states.entry(state).or_default() += 1.0;
        }
        self.context.metrics.write_evictions(&mut text);
        text.metric(
            "kubelet_active_pods",
            Kind::Gauge,
            "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods.",
        );
        let active = self.pods.active();
        for of_files in [false, true] {
            let count = active.iter().filter(|pod| api::pod::is_static(pod) == of_files).count();
            let labels = [("static", if of_files { "true" } else { "" })];
            text.value("kubelet_active_pods", &labels, count as f64, None);
        }
        text.metric(
            "kubelet_node_name",
            Kind::Gauge,
            "[ALPHA] The node's name. The count is always 1.",
        );
        text.value(
            "kubelet_node_name",
            &[("node", self.context.config.node_name.as_str())],
            1.0,
            None,
        );
        text.metric(
            "kubelet_running_containers",
            Kind::Gauge,
            "[ALPHA] Number of containers currently running",
        );
        for (state, count) in &states {
            text.value(
                "kubelet_running_containers",
                &[("container_state", *state)],
                *count,
                None,
            );
        }
        text.metric(
            "kubelet_running_pods",
            Kind::Gauge,
            "[ALPHA] Number of pods that have a running pod sandbox",
        );
        let sandboxed = views.iter().filter(|view| view.observed.sandbox().is_some()).count();
        text.value("kubelet_running_pods", &[], sandboxed as f64, None);
        text.metric(
            "kubernetes_build_info",
            Kind::Gauge,
            "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        );
        let built = [("git_version", node::VERSION), ("major", "1"), ("minor", "36")];
        text.value("kubernetes_build_info", &built, 1.0, None);
        process(&mut text);
        text.finish()
    }
}

/// What every Prometheus client tells of its process.
fn process(text: &mut Text) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before may have blanks in it.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| {
            rest.split_whitespace()
                .skip(1)
                .filter_map(|field| field.parse().ok())
                .collect()
        })
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 4).copied().unwrap_or(0.0);
    let opened = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "Total user and system CPU time spent in seconds.",
            (field(14) + field(15)) / TICKS_PER_SECOND,
        ),
        (
            "process_open_fds",
            Kind::Gauge,
            "Number of open file descriptors.",
            opened as f64,
        ),
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Resident memory size in bytes.",
            field(24) * PAGE,
        ),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            machine::boot_seconds() as f64 + field(22) / TICKS_PER_SECOND,
        ),
        (
            "process_virtual_memory_bytes",
            Kind::Gauge,
            "Virtual memory size in bytes.",
            field(23),
        ),
    ] {
        text.metric(name, kind, help);
        text.value(name, &[], value, None);
    }
}
