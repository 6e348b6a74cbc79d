//! Prometheus' text format, and what the node's port tells in it.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::summary::{CpuStats, MemoryStats, PodStats, Summary};

/// The content type of answers.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

/// A text in the making.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a metric.
    pub fn metric(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value of it, at a time where that is not now.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at: Option<&Time>) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            self.0.push(if n == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at {
            let _ = write!(self.0, " {}", at.0.as_millisecond());
        }
        self.0.push('\n');
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn since(time: &Time) -> f64 {
    time.0.as_nanosecond() as f64 / 1e9
}

/// Values of a metric: labels, value, and when it was looked.
type Values<'a> = Vec<(Vec<(&'a str, String)>, f64, Option<Time>)>;

/// `/metrics/resource`: what autoscalers and `kubectl top` ask for; none where the runtime did not answer.
pub fn resource(summary: Option<&Summary>) -> String {
    let mut text = Text::default();
    let containers = || {
        let pods = summary.iter().flat_map(|summary| &summary.pods);
        pods.flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
    };
    let labels = |pod: &'_ PodStats| {
        [
            ("namespace", pod.pod_ref.namespace.clone()),
            ("pod", pod.pod_ref.name.clone()),
        ]
    };
    let mut family = |name: &str, kind, help: &str, values: Values<'_>| {
        if values.is_empty() {
            return;
        }
        text.metric(name, kind, help);
        for (labels, value, at) in values {
            let labels: Vec<_> = labels.iter().map(|(label, text)| (*label, text.as_str())).collect();
            text.value(name, &labels, value, at.as_ref());
        }
    };
    let used = |cpu: &CpuStats| (seconds(cpu.usage_core_nano_seconds), Some(cpu.time.clone()));
    let holds = |memory: &MemoryStats| (memory.working_set_bytes as f64, Some(memory.time.clone()));
    let of_container = |pod: &PodStats, name: &str| {
        let mut all = vec![("container", name.to_owned())];
        all.extend(labels(pod));
        all
    };
    family(
        "container_cpu_usage_seconds_total",
        Kind::Counter,
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        containers()
            .filter_map(|(pod, container)| {
                let (value, at) = used(container.cpu.as_ref()?);
                Some((of_container(pod, &container.name), value, at))
            })
            .collect(),
    );
    family(
        "container_memory_working_set_bytes",
        Kind::Gauge,
        "[STABLE] Current working set of the container in bytes",
        containers()
            .filter_map(|(pod, container)| {
                let (value, at) = holds(container.memory.as_ref()?);
                Some((of_container(pod, &container.name), value, at))
            })
            .collect(),
    );
    family(
        "container_start_time_seconds",
        Kind::Gauge,
        "[STABLE] Start time of the container since unix epoch in seconds",
        containers()
            .map(|(pod, container)| (of_container(pod, &container.name), since(&container.start_time), None))
            .collect(),
    );
    if let Some(summary) = summary {
        let (value, at) = used(&summary.node.cpu);
        family(
            "node_cpu_usage_seconds_total",
            Kind::Counter,
            "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
            vec![(vec![], value, at)],
        );
        let (value, at) = holds(&summary.node.memory);
        family(
            "node_memory_working_set_bytes",
            Kind::Gauge,
            "[STABLE] Current working set of the node in bytes",
            vec![(vec![], value, at)],
        );
        let pods = || summary.pods.iter();
        family(
            "pod_cpu_usage_seconds_total",
            Kind::Counter,
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            pods()
                .filter_map(|pod| {
                    let (value, at) = used(pod.cpu.as_ref()?);
                    Some((labels(pod).into(), value, at))
                })
                .collect(),
        );
        family(
            "pod_memory_working_set_bytes",
            Kind::Gauge,
            "[STABLE] Current working set of the pod in bytes",
            pods()
                .filter_map(|pod| {
                    let (value, at) = holds(pod.memory.as_ref()?);
                    Some((labels(pod).into(), value, at))
                })
                .collect(),
        );
    }
    family(
        "resource_scrape_error",
        Kind::Gauge,
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        vec![(vec![], f64::from(u8::from(summary.is_none())), None)],
    );
    text.finish()
}

/// What cAdvisor's metrics say of a container besides what it uses.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// Its cgroup.
    pub id: String,
    /// Its image.
    pub image: String,
    /// The runtime's id of it.
    pub name: String,
    /// The weight and quota of its CPU, and the limit of its memory, in the kernel's numbers.
    pub limits: [i64; 3],
}

/// Reads a value of a pod or of one of its containers, and when it was looked.
type Read = Box<dyn Fn(&PodStats, Option<usize>, &Described) -> Option<(f64, Option<Time>)>>;

fn cpu_of(pod: &PodStats, at: Option<usize>) -> Option<&CpuStats> {
    at.map_or(&pod.cpu, |at| &pod.containers[at].cpu).as_ref()
}

fn of_memory(read: fn(&MemoryStats) -> u64) -> Read {
    Box::new(move |pod, at, _| {
        let memory = at.map_or(&pod.memory, |at| &pod.containers[at].memory).as_ref()?;
        Some((read(memory) as f64, Some(memory.time.clone())))
    })
}

fn limit(at: usize) -> Read {
    Box::new(move |_, _, described| Some((described.limits[at] as f64, None)).filter(|(value, _)| *value > 0.0))
}

/// `/metrics/cadvisor`: the metrics that dashboards of containers are made from. `described` is by namespace, pod and container; the
/// container `""` is the pod itself.
pub fn cadvisor(summary: &Summary, processors: i64, described: &BTreeMap<[String; 3], Described>) -> String {
    let mut text = Text::default();
    text.metric(
        "cadvisor_version_info",
        Kind::Gauge,
        "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
    );
    let version = [("cadvisorRevision", ""), ("cadvisorVersion", ""), ("dockerVersion", "")];
    text.value("cadvisor_version_info", &version, 1.0, None);
    let memory = summary.node.memory.working_set_bytes + summary.node.memory.available_bytes.unwrap_or(0);
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", processors as f64),
        (
            "machine_memory_bytes",
            "Amount of memory installed on the machine.",
            memory as f64,
        ),
    ] {
        text.metric(name, Kind::Gauge, help);
        text.value(name, &[], value, None);
    }
    let families: Vec<(&str, Kind, &str, Read)> = vec![
        (
            "container_cpu_usage_seconds_total",
            Kind::Counter,
            "Cumulative cpu time consumed in seconds.",
            Box::new(|pod, at, _| {
                let cpu = cpu_of(pod, at)?;
                Some((seconds(cpu.usage_core_nano_seconds), Some(cpu.time.clone())))
            }),
        ),
        (
            "container_last_seen",
            Kind::Gauge,
            "Last time a container was seen by the exporter",
            Box::new(|pod, at, _| Some((since(&cpu_of(pod, at)?.time).trunc(), None))),
        ),
        (
            "container_memory_cache",
            Kind::Gauge,
            "Number of bytes of page cache memory.",
            of_memory(|memory| memory.usage_bytes.saturating_sub(memory.rss_bytes)),
        ),
        (
            "container_memory_rss",
            Kind::Gauge,
            "Size of RSS in bytes.",
            of_memory(|memory| memory.rss_bytes),
        ),
        (
            "container_memory_usage_bytes",
            Kind::Gauge,
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            of_memory(|memory| memory.usage_bytes),
        ),
        (
            "container_memory_working_set_bytes",
            Kind::Gauge,
            "Current working set in bytes.",
            of_memory(|memory| memory.working_set_bytes),
        ),
        (
            "container_processes",
            Kind::Gauge,
            "Number of processes running inside the container.",
            Box::new(|pod, at, _| match (at, &pod.process_stats) {
                (None, Some(processes)) => Some((processes.process_count as f64, None)),
                _ => None,
            }),
        ),
        (
            "container_spec_cpu_shares",
            Kind::Gauge,
            "CPU share of the container.",
            limit(0),
        ),
        (
            "container_spec_cpu_quota",
            Kind::Gauge,
            "CPU quota of the container.",
            limit(1),
        ),
        (
            "container_spec_memory_limit_bytes",
            Kind::Gauge,
            "Memory limit for the container.",
            limit(2),
        ),
        (
            "container_start_time_seconds",
            Kind::Gauge,
            "Start time of the container since unix epoch in seconds.",
            Box::new(|pod, at, _| {
                let start = at.map_or(&pod.start_time, |at| &pod.containers[at].start_time);
                Some((since(start), None))
            }),
        ),
    ];
    let unknown = Described::default();
    for (name, kind, help, read) in &families {
        text.metric(name, *kind, help);
        for pod in &summary.pods {
            for at in std::iter::once(None).chain((0..pod.containers.len()).map(Some)) {
                let container = at.map_or("", |at| pod.containers[at].name.as_str());
                let key = [
                    pod.pod_ref.namespace.clone(),
                    pod.pod_ref.name.clone(),
                    container.to_owned(),
                ];
                let found = described.get(&key).unwrap_or(&unknown);
                let Some((value, time)) = read(pod, at, found) else {
                    continue;
                };
                let labels = [
                    ("container", container),
                    ("id", found.id.as_str()),
                    ("image", found.image.as_str()),
                    ("name", found.name.as_str()),
                    ("namespace", pod.pod_ref.namespace.as_str()),
                    ("pod", pod.pod_ref.name.as_str()),
                ];
                text.value(name, &labels, value, time.as_ref());
            }
        }
    }
    network(&mut text, summary, described);
    text.finish()
}

fn network(text: &mut Text, summary: &Summary, described: &BTreeMap<[String; 3], Described>) {
    for (name, help, at) in [
        (
            "container_network_receive_bytes_total",
            "Cumulative count of bytes received",
            0,
        ),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            1,
        ),
        (
            "container_network_transmit_bytes_total",
            "Cumulative count of bytes transmitted",
            2,
        ),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            3,
        ),
    ] {
        text.metric(name, Kind::Counter, help);
        for pod in &summary.pods {
            let key = [pod.pod_ref.namespace.clone(), pod.pod_ref.name.clone(), String::new()];
            let id = described.get(&key).map_or("", |found| found.id.as_str());
            for link in pod.network.iter().flat_map(|network| &network.interfaces) {
                let value = [link.rx_bytes, link.rx_errors, link.tx_bytes, link.tx_errors][at];
                let labels = [
                    ("container", ""),
                    ("id", id),
                    ("image", ""),
                    ("interface", link.name.as_str()),
                    ("name", ""),
                    ("namespace", pod.pod_ref.namespace.as_str()),
                    ("pod", pod.pod_ref.name.as_str()),
                ];
                text.value(name, &labels, value as f64, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_and_times_are_milliseconds() {
        let mut text = Text::default();
        text.metric("m", Kind::Gauge, "help");
        text.value("m", &[], 1.5, None);
        let at = Time(jiff::Timestamp::from_millisecond(1234).unwrap_or_default());
        text.value("m", &[("a", "x\"y\\z\n"), ("b", "")], 2.0, Some(&at));
        assert_eq!(
            text.finish(),
            "# HELP m help\n# TYPE m gauge\nm 1.5\nm{a=\"x\\\"y\\\\z\\n\",b=\"\"} 2 1234\n"
        );
        assert!(resource(None).ends_with("\nresource_scrape_error 1\n"));
    }
}
