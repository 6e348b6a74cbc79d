//! What the kubelet counts of its own work, for `/metrics` and `/metrics/probes`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;

use crate::eviction::thresholds::Signal;
use crate::stats::prometheus::{Kind, Text};

/// Upper bounds of a histogram's buckets, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Which probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Probe {
    container: String,
    namespace: String,
    pod: String,
    uid: String,
    kind: &'static str,
}

/// What a probe came to.
#[derive(Debug, Clone, Default)]
struct Probed {
    good: u64,
    bad: u64,
    /// By the bucket that they fall into; the last is that of all longer ones.
    took: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

/// All counts of a kubelet.
#[derive(Debug, Default)]
pub struct Metrics {
    evictions: Mutex<BTreeMap<Signal, u64>>,
    probes: Mutex<BTreeMap<Probe, Probed>>,
}

impl Metrics {
    /// A pod was evicted for this.
    pub fn evicted(&self, signal: Signal) {
        *self.evictions.lock().entry(signal).or_default() += 1;
    }

    /// A probe of a pod's container had an answer.
    pub fn probed(&self, pod: &ObjectReference, container: &str, kind: &'static str, good: bool, took: Duration) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let probe = Probe {
            container: container.to_owned(),
            namespace: text(&pod.namespace),
            pod: text(&pod.name),
            uid: text(&pod.uid),
            kind,
        };
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BUCKETS.len());
        let mut probes = self.probes.lock();
        let probed = probes.entry(probe).or_default();
        *(if good { &mut probed.good } else { &mut probed.bad }) += 1;
        probed.took[bucket] += 1;
        probed.seconds += seconds;
    }

    /// A pod is gone.
    pub fn forget(&self, uid: &str) {
        self.probes.lock().retain(|probe, _| probe.uid != uid);
    }

    /// Writes the evictions.
    pub fn write_evictions(&self, text: &mut Text) {
        const NAME: &str = "kubelet_evictions";
        text.metric(
            NAME,
            Kind::Counter,
            "[ALPHA] Cumulative number of pod evictions by eviction signal",
        );
        for (signal, count) in &*self.evictions.lock() {
            text.value(NAME, &[("eviction_signal", signal.name())], *count as f64, None);
        }
    }

    /// `/metrics/probes`.
    pub fn probes(&self) -> String {
        const TOTAL: &str = "prober_probe_total";
        const TOOK: &str = "prober_probe_duration_seconds";
        let mut text = Text::default();
        let probes = self.probes.lock();
        text.metric(
            TOOK,
            Kind::Histogram,
            "[ALPHA] Duration in seconds for a probe response.",
        );
        for (probe, probed) in &*probes {
            let labels = [
                ("container", probe.container.as_str()),
                ("namespace", probe.namespace.as_str()),
                ("pod", probe.pod.as_str()),
                ("probe_type", probe.kind),
            ];
            let mut count = 0;
            let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bound, in_bucket) in bounds.zip(probed.took) {
                count += in_bucket;
                let mut labels = labels.to_vec();
                labels.push(("le", bound.as_str()));
                text.value(&format!("{TOOK}_bucket"), &labels, count as f64, None);
            }
            text.value(&format!("{TOOK}_sum"), &labels, probed.seconds, None);
            text.value(&format!("{TOOK}_count"), &labels, count as f64, None);
        }
        let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
        text.metric(TOTAL, Kind::Counter, help);
        for (probe, probed) in &*probes {
            for (result, count) in [("failed", probed.bad), ("successful", probed.good)] {
                let labels = [
                    ("container", probe.container.as_str()),
                    ("namespace", probe.namespace.as_str()),
                    ("pod", probe.pod.as_str()),
                    ("pod_uid", probe.uid.as_str()),
                    ("probe_type", probe.kind),
                    ("result", result),
                ];
                if count > 0 {
                    text.value(TOTAL, &labels, count as f64, None);
                }
            }
        }
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_counted_until_their_pod_is_gone() {
        let metrics = Metrics::default();
        let pod = ObjectReference {
            namespace: Some("ns".into()),
            name: Some("p".into()),
            uid: Some("u".into()),
            ..Default::default()
        };
        for (good, millis) in [(true, 4), (true, 30), (false, 20_000)] {
            metrics.probed(&pod, "c", "Readiness", good, Duration::from_millis(millis));
        }
        let text = metrics.probes();
        for line in [
            r#"prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Readiness",result="successful"} 2"#,
            r#"prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Readiness",result="failed"} 1"#,
            r#"prober_probe_duration_seconds_bucket{container="c",namespace="ns",pod="p",probe_type="Readiness",le="0.05"} 2"#,
            r#"prober_probe_duration_seconds_bucket{container="c",namespace="ns",pod="p",probe_type="Readiness",le="+Inf"} 3"#,
            r#"prober_probe_duration_seconds_count{container="c",namespace="ns",pod="p",probe_type="Readiness"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        metrics.forget("u");
        assert!(!metrics.probes().contains("pod=\"p\""));
    }
}
