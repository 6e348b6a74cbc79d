//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`): the file that tunes a kubelet, with upstream's names, defaults and refusals.
//!
//! Only what has an effect here is taken: a field that is not served is refused by its name, so that nobody relies on what does nothing.
//! `/configz` shows the whole of it.

use std::collections::BTreeMap;
use std::time::Duration;

use api::quantity::Quantity;
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::eviction::thresholds::{self, Threshold};
use crate::field::Capacity;
use crate::pods::admission::UnsafeSysctls;
use crate::words;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
/// Logs are not looked at more often.
const LEAST_LOG_INTERVAL: Duration = Duration::from_secs(3);

/// A duration as Go writes it: `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&words::duration(self.0))
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Reads a duration such as `1m30s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
}

/// Who those are that ask on the kubelet's port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    /// Those who say nothing of themselves.
    pub anonymous: Anonymous,
    /// Those with a bearer token.
    pub webhook: AuthenticationWebhook,
}

/// Requests without any credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Anonymous {
    /// Whether they are taken, as from `system:anonymous`.
    pub enabled: bool,
}

/// Bearer tokens, for which the API server is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthenticationWebhook {
    /// Whether they are taken.
    pub enabled: bool,
    /// How long an answer holds.
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

impl Default for AuthenticationWebhook {
    fn default() -> Self {
        Self {
            enabled: true,
            cache_ttl: GoDuration::seconds(120),
        }
    }
}

/// What those may who ask on the kubelet's port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authorization {
    /// Who decides.
    pub mode: AuthorizationMode,
    /// How the API server is asked.
    pub webhook: AuthorizationWebhook,
}

/// Who decides what may be asked of the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum AuthorizationMode {
    /// Nobody: all who are known may do all.
    AlwaysAllow,
    /// The API server.
    #[default]
    Webhook,
}

/// How long the API server's answers hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizationWebhook {
    /// That one may.
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    /// That one may not.
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

impl Default for AuthorizationWebhook {
    fn default() -> Self {
        Self {
            cache_authorized_ttl: GoDuration::seconds(300),
            cache_unauthorized_ttl: GoDuration::seconds(30),
        }
    }
}

/// The seconds that pods from a priority on have to end when the node shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShutdownPriority {
    /// The least priority of the group.
    pub priority: i32,
    /// How long the group has.
    pub shutdown_grace_period_seconds: u64,
}

/// All of it, with upstream's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeletConfiguration {
    api_version: String,
    kind: String,
    /// Sysctls that pods may set though they are not safe; `*` at the end stands for the rest of a name.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Who those are that ask on the port.
    pub authentication: Authentication,
    /// What they may.
    pub authorization: Authorization,
    /// A container's log is rotated when it has so much.
    pub container_log_max_size: String,
    /// So many files a container's log has at most.
    pub container_log_max_files: u32,
    /// How often logs are looked at.
    pub container_log_monitor_interval: GoDuration,
    /// Whether the port shows the node's own logs.
    pub enable_system_log_handler: bool,
    /// What must be left; below it pods are evicted at once.
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// What should be left; below it pods are evicted after a grace period.
    pub eviction_soft: BTreeMap<String, String>,
    /// The grace periods of the soft thresholds.
    pub eviction_soft_grace_period: BTreeMap<String, GoDuration>,
    /// How much more than the threshold an eviction brings back.
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    /// How long a condition of pressure stands after the pressure.
    pub eviction_pressure_transition_period: GoDuration,
    /// The seconds that a pod has which a soft threshold evicts.
    pub eviction_max_pod_grace_period: i64,
    /// Whether hard thresholds that are not given have their defaults though others are given.
    pub merge_default_eviction_settings: bool,
    /// How often the URL of static pods is asked.
    pub http_check_frequency: GoDuration,
    /// Above this part of the disk, unused images are removed.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: i64,
    /// Until this part is left.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: i64,
    /// An image is not removed before it is so old.
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    /// An image that nobody used for so long is removed in any case; 0 is never.
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    /// What of the node is Kubernetes' own, and not for pods: cpu, memory and ephemeral-storage.
    pub kube_reserved: BTreeMap<String, String>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How many processes a pod may have; -1 is no limit.
    pub pod_pids_limit: i64,
    /// The file that names the resolvers of what is not the cluster's; empty: there are none.
    pub resolv_conf: String,
    /// Whether containers that say nothing of seccomp have the runtime's profile.
    pub seccomp_default: bool,
    /// How long the node's shutdown waits for pods.
    pub shutdown_grace_period: GoDuration,
    /// The part of it that is critical pods' alone.
    pub shutdown_grace_period_critical_pods: GoDuration,
    /// The same by priority, in place of the two.
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownPriority>,
    /// Where manifests of static pods are; a flag goes before it.
    pub static_pod_path: String,
    /// A URL of more of them; a flag goes before it.
    #[serde(rename = "staticPodURL")]
    pub static_pod_url: String,
    /// Headers that it is asked with.
    #[serde(rename = "staticPodURLHeader")]
    pub static_pod_url_header: BTreeMap<String, Vec<String>>,
    /// What of the node is the rest of the system's: cpu, memory and ephemeral-storage.
    pub system_reserved: BTreeMap<String, String>,
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            allowed_unsafe_sysctls: Vec::new(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            container_log_monitor_interval: GoDuration::seconds(10),
            enable_system_log_handler: true,
            eviction_hard: None,
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_minimum_reclaim: BTreeMap::new(),
            eviction_pressure_transition_period: GoDuration::seconds(300),
            eviction_max_pod_grace_period: 0,
            merge_default_eviction_settings: false,
            http_check_frequency: GoDuration::seconds(20),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_minimum_gc_age: GoDuration::seconds(120),
            image_maximum_gc_age: GoDuration::default(),
            kube_reserved: BTreeMap::new(),
            max_pods: 110,
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".into(),
            seccomp_default: false,
            shutdown_grace_period: GoDuration::default(),
            shutdown_grace_period_critical_pods: GoDuration::default(),
            shutdown_grace_period_by_pod_priority: Vec::new(),
            static_pod_path: String::new(),
            static_pod_url: String::new(),
            static_pod_url_header: BTreeMap::new(),
            system_reserved: BTreeMap::new(),
        }
    }
}

impl KubeletConfiguration {
    /// Reads and checks a file's text; what is missing has its default. The error names the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut read: Self = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        for (field, found, expected) in [
            ("apiVersion", &read.api_version, API_VERSION),
            ("kind", &read.kind, KIND),
        ] {
            if found != expected {
                return Err(format!("{field}: {found:?} is not {expected:?}"));
            }
        }
        let hard = read.eviction_hard.take();
        let defaults = || thresholds::DEFAULTS.map(|(signal, value)| (signal.to_owned(), value.to_owned()));
        read.eviction_hard = Some(match hard {
            None => defaults().into(),
            Some(given) if read.merge_default_eviction_settings => {
                let mut merged = BTreeMap::from(defaults());
                merged.extend(given);
                merged
            }
            Some(given) => given,
        });
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), String> {
        let invalid = |what: String| Err(format!("invalid configuration: {what}"));
        let (high, low) = (
            self.image_gc_high_threshold_percent,
            self.image_gc_low_threshold_percent,
        );
        for (field, flag, value) in [
            ("imageGCHighThresholdPercent", "--image-gc-high-threshold", high),
            ("imageGCLowThresholdPercent", "--image-gc-low-threshold", low),
        ] {
            if !(0..=100).contains(&value) {
                return invalid(format!("{field} ({flag}) {value} must be between 0 and 100, inclusive"));
            }
        }
        if low >= high {
            return invalid(format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            ));
        }
        let (least, most) = (self.image_minimum_gc_age, self.image_maximum_gc_age);
        if most != GoDuration::default() && most <= least {
            return invalid(format!(
                "imageMaximumGCAge {most} must be greater than imageMinimumGCAge {least}"
            ));
        }
        if self.container_log_max_files <= 1 {
            return invalid("containerLogMaxFiles (--container-log-max-files) must be > 1".into());
        }
        self.log_size()?;
        if self.container_log_monitor_interval.0 < LEAST_LOG_INTERVAL {
            return invalid(
                "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s".into(),
            );
        }
        let (all, critical) = (self.shutdown_grace_period, self.shutdown_grace_period_critical_pods);
        if critical > all {
            return invalid(format!(
                "shutdownGracePeriodCriticalPods {critical} must be <= shutdownGracePeriod {all}"
            ));
        }
        for (field, value) in [
            ("shutdownGracePeriod", all),
            ("shutdownGracePeriodCriticalPods", critical),
        ] {
            if value != GoDuration::default() && value < GoDuration::seconds(1) {
                return invalid(format!("{field} {value} must be either zero or otherwise >= 1 sec"));
            }
        }
        if !self.shutdown_grace_period_by_pod_priority.is_empty() && all != GoDuration::default() {
            return invalid(
                "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time".into(),
            );
        }
        if self.http_check_frequency < GoDuration::seconds(1) {
            return invalid(format!(
                "httpCheckFrequency {} must be >= 1 sec",
                self.http_check_frequency
            ));
        }
        if self.eviction_max_pod_grace_period < 0 {
            return invalid(format!(
                "evictionMaxPodGracePeriod {} must not be negative",
                self.eviction_max_pod_grace_period
            ));
        }
        if self.pod_pids_limit == 0 || self.pod_pids_limit < -1 {
            return invalid(format!(
                "podPidsLimit (--pod-max-pids) {} is neither a number of processes from 1 on nor -1",
                self.pod_pids_limit
            ));
        }
        self.reserved()?;
        let sysctls = self.allowed_unsafe_sysctls.iter().cloned();
        UnsafeSysctls::new(sysctls).map_err(|error| format!("allowedUnsafeSysctls: {error}"))?;
        self.thresholds().map(drop)
    }

    /// The bytes at which a log is rotated.
    pub fn log_size(&self) -> Result<u64, String> {
        let size = &self.container_log_max_size;
        let parsed: Quantity = size
            .parse()
            .map_err(|error| format!("containerLogMaxSize: {size:?}: {error}"))?;
        u64::try_from(parsed.value())
            .ok()
            .filter(|size| *size > 0)
            .ok_or_else(|| format!("containerLogMaxSize: {size:?} must be more than nothing"))
    }

    /// What of the node is not for pods.
    pub fn reserved(&self) -> Result<Capacity, String> {
        let mut all = Capacity::default();
        for (field, list) in [
            ("kubeReserved", &self.kube_reserved),
            ("systemReserved", &self.system_reserved),
        ] {
            for (resource, text) in list {
                let quantity: Quantity = text.parse().map_err(|error| {
                    format!("{field}: failed to parse quantity {text:?} for {resource:?} resource: {error}")
                })?;
                if quantity < Quantity::ZERO {
                    return Err(format!(
                        "{field}: resource quantity for {resource:?} cannot be negative: {text}"
                    ));
                }
                let (sum, amount) = match resource.as_str() {
                    "cpu" => (&mut all.cpu_millis, quantity.millis()),
                    "memory" => (&mut all.memory, quantity.value()),
                    "ephemeral-storage" => (&mut all.ephemeral_storage, quantity.value()),
                    _ => return Err(format!("{field}: cannot reserve {resource:?} resource")),
                };
                *sum = sum.saturating_add(amount);
            }
        }
        Ok(all)
    }

    /// All eviction thresholds.
    pub fn thresholds(&self) -> Result<Vec<Threshold>, String> {
        let hard = self.eviction_hard.clone();
        let hard = hard.unwrap_or_else(|| {
            thresholds::DEFAULTS
                .map(|(signal, value)| (signal.to_owned(), value.to_owned()))
                .into()
        });
        thresholds::parse(
            &hard,
            &self.eviction_soft,
            &self.eviction_soft_grace_period,
            &self.eviction_minimum_reclaim,
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn parse(fields: &str) -> Result<KubeletConfiguration, String> {
        KubeletConfiguration::parse(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{fields}"))
    }

    #[test]
    fn what_is_missing_has_upstreams_default() {
        let read =
            parse("evictionSoftGracePeriod: {memory.available: 1m30s}\nevictionSoft: {memory.available: 1Gi}").unwrap();
        assert_eq!(read.thresholds().unwrap().len(), thresholds::DEFAULTS.len() + 1);
        assert_eq!(read.log_size().unwrap(), 10 << 20);
        let shown = serde_json::to_value(&read).unwrap();
        for (field, value) in [
            ("imageGCHighThresholdPercent", serde_json::json!(85)),
            ("evictionPressureTransitionPeriod", serde_json::json!("5m0s")),
            (
                "evictionSoftGracePeriod",
                serde_json::json!({"memory.available": "1m30s"}),
            ),
            ("imageMaximumGCAge", serde_json::json!("0s")),
            (
                "authorization",
                serde_json::json!({"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"}}),
            ),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
    }

    #[test]
    fn given_thresholds_replace_the_defaults_or_join_them() {
        let of = |fields: &str| parse(fields).unwrap().thresholds().unwrap().len();
        assert_eq!(of("evictionHard: {memory.available: 1Gi}"), 1);
        assert_eq!(
            of("evictionHard: {memory.available: 1Gi}\nmergeDefaultEvictionSettings: true"),
            thresholds::DEFAULTS.len()
        );
        assert_eq!(of("evictionHard: {}"), 0);
    }

    #[test]
    fn what_is_reserved_adds_up() {
        let read = parse("kubeReserved: {cpu: 100m, memory: 64Mi}\nsystemReserved: {cpu: '1', ephemeral-storage: 1Gi}");
        let expected = Capacity {
            cpu_millis: 1100,
            memory: 64 << 20,
            ephemeral_storage: 1 << 30,
        };
        assert_eq!(read.unwrap().reserved(), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (fields, said) in [
            ("cgroupDriver: systemd", "unknown field `cgroupDriver`"),
            (
                "imageGCHighThresholdPercent: 101",
                "imageGCHighThresholdPercent (--image-gc-high-threshold) 101 must be between 0 and 100, inclusive",
            ),
            (
                "imageGCLowThresholdPercent: 85",
                "must be less than imageGCHighThresholdPercent",
            ),
            ("imageMinimumGCAge: soon", "\"soon\" is not a duration"),
            (
                "imageMaximumGCAge: 1m",
                "imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s",
            ),
            ("containerLogMaxFiles: 1", "must be > 1"),
            ("containerLogMaxSize: 10X", "containerLogMaxSize: \"10X\""),
            ("containerLogMonitorInterval: 1s", "greater than or equal to 3s"),
            (
                "shutdownGracePeriodCriticalPods: 5s",
                "shutdownGracePeriodCriticalPods 5s must be <= shutdownGracePeriod 0s",
            ),
            (
                "shutdownGracePeriod: 5s\nshutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 5}]",
                "Cannot specify both",
            ),
            (
                "evictionHard: {memory.free: 1Gi}",
                "unknown eviction signal \"memory.free\"",
            ),
            (
                "evictionSoft: {memory.available: 1Gi}",
                "grace period must be specified for the soft eviction threshold memory.available",
            ),
            ("podPidsLimit: 0", "podPidsLimit"),
            (
                "kubeReserved: {pid: '100'}",
                "kubeReserved: cannot reserve \"pid\" resource",
            ),
            (
                "systemReserved: {cpu: -1m}",
                "systemReserved: resource quantity for \"cpu\" cannot be negative: -1m",
            ),
            (
                "systemReserved: {memory: much}",
                "systemReserved: failed to parse quantity \"much\" for \"memory\" resource",
            ),
            (
                "allowedUnsafeSysctls: [vm.swappiness]",
                "allowedUnsafeSysctls: the sysctls \"vm.swappiness\" are not known to be namespaced",
            ),
            ("httpCheckFrequency: 1ms", "httpCheckFrequency 1ms must be >= 1 sec"),
        ] {
            let error = parse(fields).unwrap_err();
            assert!(error.contains(said), "{fields}: {error}");
        }
        assert_eq!(
            KubeletConfiguration::parse("kind: Pod").unwrap_err(),
            "kind: \"Pod\" is not \"KubeletConfiguration\""
        );
    }
}
