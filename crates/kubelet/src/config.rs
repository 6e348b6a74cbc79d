//! What a kubelet is told when it starts.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::configuration::KubeletConfiguration;
use crate::cri_config::security::Seccomp;
use crate::pods::admission::UnsafeSysctls;

/// The settings of one node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the Node object.
    pub node_name: String,
    /// The node's addresses, the first one being its InternalIP.
    pub node_ips: Vec<IpAddr>,
    /// Where volumes and the files of pods are kept: `<root>/pods/<uid>`.
    pub root_dir: PathBuf,
    /// Where the logs of pods are kept, usually `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// The cluster's DNS servers.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The port on which the node answers the API server.
    pub port: u16,
    /// What a file tunes.
    pub configuration: KubeletConfiguration,
    /// Sysctls that pods may set beside the safe ones.
    pub allowed_unsafe_sysctls: UnsafeSysctls,
    /// A directory of manifests, or one of them, whose pods the node runs by itself.
    pub pod_manifest_path: Option<PathBuf>,
    /// A web server with such manifests.
    pub manifest_url: Option<ManifestUrl>,
}

/// A web server that is asked for manifests of static pods.
#[derive(Debug, Clone)]
pub struct ManifestUrl {
    /// What is asked for.
    pub url: String,
    /// Headers of the request.
    pub headers: Vec<(String, String)>,
    /// How often it is asked.
    pub interval: Duration,
}

impl Config {
    /// Everything of one pod on this node.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// What the node has of seccomp.
    pub fn seccomp(&self) -> Seccomp {
        Seccomp {
            profiles: self.root_dir.join("seccomp"),
            default: self.configuration.seccomp_default,
        }
    }
}
