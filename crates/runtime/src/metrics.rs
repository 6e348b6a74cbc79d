//! The metrics of pods and containers as a scraper wants them: names and labels that cAdvisor has made usual, numbers of the control groups.

use cri::v1::{
    ContainerMetrics, ListMetricDescriptorsResponse, ListPodSandboxMetricsResponse, Metric, MetricDescriptor,
    MetricType, PodSandboxMetrics, UInt64Value,
};

use crate::record::Status;
use crate::runtime::{Container, Inner, Sandbox, now};
use crate::stats::{self, Usage};

/// What every metric says of whose it is. A pod's own metrics have no container, image and name.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

struct Kind {
    name: &'static str,
    help: &'static str,
    /// Labels beside the usual ones.
    more: &'static [&'static str],
    rises: bool,
}

const fn counter(name: &'static str, help: &'static str, more: &'static [&'static str]) -> Kind {
    Kind {
        name,
        help,
        more,
        rises: true,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Kind {
    Kind {
        name,
        help,
        more: &[],
        rises: false,
    }
}

const CPU: Kind = counter(
    "container_cpu_usage_seconds_total",
    "CPU time consumed, in seconds.",
    &[],
);
const MEMORY: Kind = gauge("container_memory_usage_bytes", "Memory in use, in bytes.");
const WORKING_SET: Kind = gauge(
    "container_memory_working_set_bytes",
    "Memory that cannot be reclaimed, in bytes.",
);
const RSS: Kind = gauge("container_memory_rss", "Anonymous memory, in bytes.");
const LIMIT: Kind = gauge(
    "container_spec_memory_limit_bytes",
    "Memory limit, in bytes; 0 when there is none.",
);
const FAULTS: Kind = counter(
    "container_memory_failures_total",
    "Page faults since the start.",
    &["failure_type", "scope"],
);
const PROCESSES: Kind = gauge("container_processes", "Processes.");
const STARTED: Kind = gauge(
    "container_start_time_seconds",
    "Time of the start, in seconds since the epoch.",
);
const RECEIVED: Kind = counter(
    "container_network_receive_bytes_total",
    "Bytes received.",
    &["interface"],
);
const RECEIVE_ERRORS: Kind = counter(
    "container_network_receive_errors_total",
    "Errors while receiving.",
    &["interface"],
);
const SENT: Kind = counter("container_network_transmit_bytes_total", "Bytes sent.", &["interface"]);
const SEND_ERRORS: Kind = counter(
    "container_network_transmit_errors_total",
    "Errors while sending.",
    &["interface"],
);

const ALL: [&Kind; 12] = [
    &CPU,
    &MEMORY,
    &WORKING_SET,
    &RSS,
    &LIMIT,
    &FAULTS,
    &PROCESSES,
    &STARTED,
    &RECEIVED,
    &RECEIVE_ERRORS,
    &SENT,
    &SEND_ERRORS,
];

pub(crate) fn descriptors() -> ListMetricDescriptorsResponse {
    let descriptor = |kind: &&Kind| MetricDescriptor {
        name: kind.name.into(),
        help: kind.help.into(),
        label_keys: LABELS.iter().chain(kind.more).map(ToString::to_string).collect(),
    };
    ListMetricDescriptorsResponse {
        descriptors: ALL.iter().map(descriptor).collect(),
    }
}

/// Metrics of one pod or container, being collected.
struct Collected {
    labels: Vec<String>,
    at: i64,
    metrics: Vec<Metric>,
}

impl Collected {
    fn new(labels: [String; 6]) -> Self {
        Self {
            labels: labels.into(),
            at: now(),
            metrics: Vec::new(),
        }
    }

    fn add(&mut self, kind: &Kind, more: &[&str], value: u64) {
        let labels = self.labels.iter().cloned();
        let metric_type = if kind.rises {
            MetricType::Counter
        } else {
            MetricType::Gauge
        };
        self.metrics.push(Metric {
            name: kind.name.into(),
            timestamp: self.at,
            metric_type: metric_type.into(),
            label_values: labels.chain(more.iter().map(ToString::to_string)).collect(),
            value: Some(UInt64Value { value }),
        });
    }

    fn usage(&mut self, usage: &Usage) {
        const NANOSECONDS: u64 = 1_000_000_000;
        self.add(&CPU, &[], usage.cpu_nanoseconds / NANOSECONDS);
        self.add(&MEMORY, &[], usage.memory);
        self.add(&WORKING_SET, &[], usage.working_set);
        self.add(&RSS, &[], usage.rss);
        self.add(&LIMIT, &[], usage.limit.unwrap_or(0));
        self.add(&FAULTS, &["pgfault", "container"], usage.faults);
        self.add(&FAULTS, &["pgmajfault", "container"], usage.major_faults);
        self.add(&PROCESSES, &[], usage.processes);
    }
}

impl Inner {
    pub(crate) fn metrics(&self) -> ListPodSandboxMetricsResponse {
        let sandboxes: Vec<_> = self.sandboxes.read().values().cloned().collect();
        let ready = sandboxes.iter().filter(|sandbox| sandbox.ready());
        ListPodSandboxMetricsResponse {
            pod_metrics: ready.map(|sandbox| self.metrics_of(sandbox)).collect(),
        }
    }

    fn metrics_of(&self, sandbox: &Sandbox) -> PodSandboxMetrics {
        let pod = sandbox.record.lock().config.0.metadata.clone().unwrap_or_default();
        let cgroup = sandbox.cgroup_parent();
        let nobody = String::new;
        let mut own = Collected::new([
            nobody(),
            cgroup.clone(),
            nobody(),
            nobody(),
            pod.namespace.clone(),
            pod.name.clone(),
        ]);
        own.usage(&stats::read(&cgroup));
        for link in stats::interfaces(sandbox) {
            let number = |value: &Option<UInt64Value>| value.as_ref().map_or(0, |value| value.value);
            let label = [link.name.as_str()];
            own.add(&RECEIVED, &label, number(&link.rx_bytes));
            own.add(&RECEIVE_ERRORS, &label, number(&link.rx_errors));
            own.add(&SENT, &label, number(&link.tx_bytes));
            own.add(&SEND_ERRORS, &label, number(&link.tx_errors));
        }
        let container_metrics = self
            .containers_of(&sandbox.id)
            .iter()
            .filter_map(|container| of_container(container, &pod.namespace, &pod.name))
            .collect();
        PodSandboxMetrics {
            pod_sandbox_id: sandbox.id.clone(),
            metrics: own.metrics,
            container_metrics,
        }
    }
}

/// None when it does not run.
fn of_container(container: &Container, namespace: &str, pod: &str) -> Option<ContainerMetrics> {
    let Status::Running { started_at, .. } = *container.status.borrow() else {
        return None;
    };
    let name = container.record.config.0.metadata.clone().unwrap_or_default().name;
    let cgroup = container.cgroup();
    let mut own = Collected::new([
        name,
        cgroup.clone(),
        container.record.image_ref.clone(),
        container.id.clone(),
        namespace.to_owned(),
        pod.to_owned(),
    ]);
    own.usage(&stats::read(&cgroup));
    own.add(&STARTED, &[], u64::try_from(started_at / 1_000_000_000).unwrap_or(0));
    Some(ContainerMetrics {
        container_id: container.id.clone(),
        metrics: own.metrics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_labels_that_are_announced() {
        let mut collected = Collected::new(Default::default());
        collected.usage(&Usage {
            cpu_nanoseconds: 2_500_000_000,
            ..Default::default()
        });
        let described = descriptors().descriptors;
        for metric in &collected.metrics {
            let found = described.iter().find(|described| described.name == metric.name);
            assert_eq!(
                found.map(|found| found.label_keys.len()),
                Some(metric.label_values.len()),
                "{}",
                metric.name
            );
        }
        assert_eq!(collected.metrics[0].value, Some(UInt64Value { value: 2 }));
    }
}
