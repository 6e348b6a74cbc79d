//! The command line and the configuration file. A flag given on the command line wins over the file, the file over the
//! default. The file is YAML whose keys are the flags' names.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use kubelet::KubeletConfiguration;
use serde::Deserialize;

/// A Kubernetes cluster in one binary.
#[derive(Parser)]
#[command(name = "podium", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can be asked to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the whole cluster on this machine.
    Server(Box<ServerFlags>),
    /// The command line for the API; also when started under the name kubectl.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// kubectl's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The node's images.
    Image {
        #[command(flatten)]
        dirs: RunDir,
        /// What to do with them.
        #[command(subcommand)]
        action: ImageAction,
    },
    /// The node's containers, pause containers included.
    Ps {
        /// Those that have ended too.
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        dirs: RunDir,
    },
    /// What this machine has and lacks, with what to do about it.
    Check,
    /// End every pod and take away all that Podium put on the machine.
    Reset {
        /// Where the cluster keeps its data.
        #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
        data_dir: PathBuf,
        #[command(flatten)]
        dirs: RunDir,
    },
    /// What this is.
    Version,
}

/// Where a cluster keeps its data unless it is told otherwise.
pub const DATA_DIR: &str = "/var/lib/podium";
const RUN_DIR: &str = "/run/podium";
/// Pods' addresses unless told otherwise.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// Services' addresses unless told otherwise.
pub const SERVICE_CIDR: &str = "10.96.0.0/12";

/// Where a running node is found.
#[derive(Args)]
pub struct RunDir {
    /// Where the node keeps its sockets and state.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR, global = true)]
    pub run_dir: PathBuf,
}

/// `podium image …`
#[derive(Subcommand)]
pub enum ImageAction {
    /// List images.
    Ls,
    /// Pull an image from its registry.
    Pull {
        /// The image's reference, such as docker.io/library/busybox:1.36.
        reference: String,
    },
    /// Import OCI or docker archives.
    Import {
        /// The archives.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Remove an image.
    Rm {
        /// The image's reference or id.
        reference: String,
    },
}

/// `podium server`'s flags, as given; also the configuration file's keys.
#[derive(Args, Deserialize, Default, Debug)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServerFlags {
    /// Take flags from this YAML file; its keys are the flags' names.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where the cluster keeps its data [default: /var/lib/podium]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the node keeps its sockets and state [default: /run/podium]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The node's address [default: the address of the default route's interface]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// The API server's port [default: 6443]
    #[arg(long, value_name = "PORT")]
    pub https_listen_port: Option<u16>,
    /// Write the administrator's kubeconfig here too.
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Pods' addresses [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<String>,
    /// Services' addresses [default: 10.96.0.0/12]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// The cluster DNS server's address [default: 10.96.0.10]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,
    /// The cluster's domain [default: cluster.local]
    #[arg(long, value_name = "NAME")]
    pub cluster_domain: Option<String>,
    /// Where pods' logs are written [default: /var/log/pods]
    #[arg(long, value_name = "DIR")]
    pub pod_logs_dir: Option<PathBuf>,
    /// Tune the kubelet by this KubeletConfiguration (kubelet.config.k8s.io/v1beta1).
    #[arg(long, value_name = "FILE")]
    pub kubelet_config: Option<PathBuf>,
    /// How many processes a pod may have; -1 is no limit [default: -1]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pod_max_pids: Option<i64>,
    /// Sysctls that pods may set beside the safe ones, with commas between them; NAME* is all that begin so.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Run the pods of the manifests in this directory [default: /etc/kubernetes/manifests]
    #[arg(long, value_name = "DIR")]
    pub pod_manifest_path: Option<PathBuf>,
    /// Run the pods of the manifest that this URL gives.
    #[arg(long, value_name = "URL")]
    pub manifest_url: Option<String>,
    /// A header of the request for --manifest-url, as name:value; may be given several times.
    #[arg(long, value_name = "HEADER")]
    pub manifest_url_header: Vec<String>,
    /// Seconds between two looks at --manifest-url [default: 20]
    #[arg(long, value_name = "SECONDS")]
    pub http_check_frequency: Option<u64>,
    /// Use this CRI runtime instead of the built-in one.
    #[arg(long, value_name = "SOCK")]
    pub container_runtime_endpoint: Option<String>,
    /// Run no node here: no kubelet, no runtime, no network.
    #[arg(long)]
    pub disable_agent: bool,
}

/// `podium server`'s settings, decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the cluster keeps its data.
    pub data_dir: PathBuf,
    /// Where the node keeps its sockets and state.
    pub run_dir: PathBuf,
    /// The node's name.
    pub node_name: String,
    /// The node's address, unless it is to be found.
    pub node_ip: Option<IpAddr>,
    /// The API server's port.
    pub https_listen_port: u16,
    /// Where the administrator's kubeconfig goes too.
    pub write_kubeconfig: Option<PathBuf>,
    /// Pods' addresses.
    pub cluster_cidr: String,
    /// Services' addresses.
    pub service_cidr: String,
    /// The cluster DNS server's address.
    pub cluster_dns: IpAddr,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Where pods' logs are written.
    pub pod_logs_dir: PathBuf,
    /// What a file tunes of the kubelet.
    pub kubelet: KubeletConfiguration,
    /// Sysctls that pods may set beside the safe ones.
    pub allowed_unsafe_sysctls: kubelet::UnsafeSysctls,
    /// Manifests of static pods.
    pub pod_manifest_path: PathBuf,
    /// Where more of them are.
    pub manifest_url: Option<String>,
    /// Headers for asking there.
    pub manifest_url_headers: Vec<(String, String)>,
    /// How often to ask there.
    pub http_check_frequency: Duration,
    /// A CRI runtime's socket in place of the built-in one.
    pub container_runtime_endpoint: Option<String>,
    /// Whether a node runs here.
    pub agent: bool,
}

impl ServerFlags {
    /// Decides every setting from the flags, the file they name, and the defaults. `hostname` is the machine's.
    pub fn settings(self, hostname: &str) -> Result<Settings> {
        let file = match &self.config {
            Some(path) => from_file(path)?,
            None => Self::default(),
        };
        let node_name = self
            .node_name
            .or(file.node_name)
            .unwrap_or_else(|| hostname.to_lowercase());
        if !is_subdomain(&node_name) {
            bail!(
                "--node-name: {node_name:?} is not a DNS subdomain: lower case letters, digits, '-' and '.', beginning and ending with a letter or digit"
            );
        }
        let cidr = |flag: &str, value: String| match is_cidr(&value) {
            true => Ok(value),
            false => bail!("--{flag}: {value:?} is not an address range such as 10.244.0.0/16"),
        };
        let mut kubelet = match self.kubelet_config.or(file.kubelet_config) {
            Some(path) => kubelet_configuration(&path)?,
            None => KubeletConfiguration::default(),
        };
        match self.pod_max_pids.or(file.pod_max_pids) {
            None => {}
            Some(limit @ (-1 | 1..)) => kubelet.pod_pids_limit = limit,
            Some(other) => bail!("--pod-max-pids: {other} is neither a number of processes from 1 on nor -1"),
        }
        let unsafe_sysctls = [
            self.allowed_unsafe_sysctls,
            file.allowed_unsafe_sysctls,
            kubelet.allowed_unsafe_sysctls.clone(),
        ]
        .into_iter()
        .find(|patterns| !patterns.is_empty())
        .unwrap_or_default();
        let allowed_unsafe_sysctls = kubelet::UnsafeSysctls::new(unsafe_sysctls)
            .map_err(|error| anyhow!("--allowed-unsafe-sysctls: {error}"))?;
        let configured = |value: &String| Some(value.clone()).filter(|value| !value.is_empty());
        let static_pod_path = configured(&kubelet.static_pod_path).map(PathBuf::from);
        let static_pod_url = configured(&kubelet.static_pod_url);
        let given_headers = [self.manifest_url_header, file.manifest_url_header]
            .into_iter()
            .find(|headers| !headers.is_empty());
        let manifest_url_headers = match given_headers {
            Some(headers) => headers
                .iter()
                .map(|header| self::header("manifest-url-header", header))
                .collect::<Result<_>>()?,
            None => configured_headers(&kubelet),
        };
        let http_check_frequency = match self.http_check_frequency.or(file.http_check_frequency) {
            Some(seconds) => Duration::from_secs(seconds.max(1)),
            None => kubelet.http_check_frequency.0,
        };
        Ok(Settings {
            data_dir: absolute(self.data_dir.or(file.data_dir).unwrap_or_else(|| DATA_DIR.into()))?,
            run_dir: absolute(self.run_dir.or(file.run_dir).unwrap_or_else(|| RUN_DIR.into()))?,
            node_name,
            node_ip: self.node_ip.or(file.node_ip),
            https_listen_port: self.https_listen_port.or(file.https_listen_port).unwrap_or(6443),
            write_kubeconfig: self.write_kubeconfig.or(file.write_kubeconfig),
            cluster_cidr: cidr(
                "cluster-cidr",
                self.cluster_cidr
                    .or(file.cluster_cidr)
                    .unwrap_or_else(|| CLUSTER_CIDR.into()),
            )?,
            service_cidr: cidr(
                "service-cidr",
                self.service_cidr
                    .or(file.service_cidr)
                    .unwrap_or_else(|| SERVICE_CIDR.into()),
            )?,
            cluster_dns: self
                .cluster_dns
                .or(file.cluster_dns)
                .unwrap_or(IpAddr::from([10, 96, 0, 10])),
            cluster_domain: self
                .cluster_domain
                .or(file.cluster_domain)
                .unwrap_or_else(|| "cluster.local".into()),
            pod_logs_dir: absolute(
                self.pod_logs_dir
                    .or(file.pod_logs_dir)
                    .unwrap_or_else(|| "/var/log/pods".into()),
            )?,
            kubelet,
            allowed_unsafe_sysctls,
            pod_manifest_path: absolute(
                self.pod_manifest_path
                    .or(file.pod_manifest_path)
                    .or(static_pod_path)
                    .unwrap_or_else(|| "/etc/kubernetes/manifests".into()),
            )?,
            manifest_url: match self.manifest_url.or(file.manifest_url) {
                Some(given) => Some(url("--manifest-url", given)?),
                None => static_pod_url
                    .map(|configured| url("--kubelet-config: staticPodURL", configured))
                    .transpose()?,
            },
            manifest_url_headers,
            http_check_frequency,
            container_runtime_endpoint: self.container_runtime_endpoint.or(file.container_runtime_endpoint),
            agent: !(self.disable_agent || file.disable_agent),
        })
    }
}

fn from_file(path: &Path) -> Result<ServerFlags> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read --config {}", path.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("--config {}", path.display()))
}

fn kubelet_configuration(path: &Path) -> Result<KubeletConfiguration> {
    let place = || format!("--kubelet-config {}", path.display());
    let text = std::fs::read_to_string(path).with_context(place)?;
    KubeletConfiguration::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", place()))
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("cannot make {} absolute", path.display()))
}

/// `place` is where the value was given.
fn url(place: &str, value: String) -> Result<String> {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    match rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        true => Ok(value),
        false => bail!("{place}: {value:?} is not a URL such as https://host/pods.yaml"),
    }
}

fn header(flag: &str, value: &str) -> Result<(String, String)> {
    match value.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => bail!("--{flag}: {value:?} is not a header such as name:value"),
    }
}

fn configured_headers(kubelet: &KubeletConfiguration) -> Vec<(String, String)> {
    let headers = kubelet.static_pod_url_header.iter();
    headers
        .flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())))
        .collect()
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let Ok(address) = address.parse::<IpAddr>() else {
            return false;
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    })
}

fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    fn flags(args: &[&str]) -> ServerFlags {
        let cli = Cli::try_parse_from(["podium", "server"].iter().chain(args)).unwrap();
        match cli.command {
            Command::Server(flags) => *flags,
            _ => panic!("not the server"),
        }
    }

    #[test]
    fn defaults_are_the_house_plans() {
        let settings = flags(&[]).settings("Edge-1").unwrap();
        assert_eq!(settings.data_dir, Path::new("/var/lib/podium"));
        assert_eq!(settings.node_name, "edge-1");
        assert_eq!(settings.https_listen_port, 6443);
        assert_eq!(settings.cluster_cidr, "10.244.0.0/16");
        assert!(settings.agent);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("podium.yaml");
        std::fs::write(
            &file,
            "node-name: from-file\nhttps-listen-port: 7443\ncluster-dns: 10.96.0.53\n",
        )
        .unwrap();
        let settings = flags(&["--config", file.to_str().unwrap(), "--node-name", "from-flag"])
            .settings("host")
            .unwrap();
        assert_eq!(settings.node_name, "from-flag");
        assert_eq!(settings.https_listen_port, 7443);
        assert_eq!(settings.cluster_dns, IpAddr::from([10, 96, 0, 53]));
    }

    #[test]
    fn a_flag_wins_over_the_kubelets_configuration_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubelet.yaml");
        std::fs::write(
            &file,
            "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /pods
staticPodURL: http://host/pods
staticPodURLHeader: {A: [b, c]}
httpCheckFrequency: 1m
allowedUnsafeSysctls: [net.core.*]
",
        )
        .unwrap();
        let of = |more: &[&str]| {
            let args = [&["--kubelet-config", file.to_str().unwrap()], more].concat();
            flags(&args).settings("host").unwrap()
        };
        let settings = of(&[]);
        assert_eq!(settings.pod_manifest_path, Path::new("/pods"));
        assert_eq!(settings.manifest_url.as_deref(), Some("http://host/pods"));
        let pair = |value: &str| ("A".to_owned(), value.to_owned());
        assert_eq!(settings.manifest_url_headers, [pair("b"), pair("c")]);
        assert_eq!(settings.http_check_frequency, Duration::from_secs(60));
        let sysctls = kubelet::UnsafeSysctls::new(["net.core.*".to_owned()]).unwrap();
        assert_eq!(settings.allowed_unsafe_sysctls, sysctls);
        let settings = of(&[
            "--pod-manifest-path",
            "/flag",
            "--manifest-url-header",
            "A:d",
            "--http-check-frequency",
            "3",
        ]);
        assert_eq!(settings.pod_manifest_path, Path::new("/flag"));
        assert_eq!(settings.manifest_url_headers, [pair("d")]);
        assert_eq!(settings.http_check_frequency, Duration::from_secs(3));

        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("http://host/pods", "host/pods")).unwrap();
        let refused = flags(&["--kubelet-config", file.to_str().unwrap()]).settings("host");
        assert_eq!(
            refused.unwrap_err().to_string(),
            "--kubelet-config: staticPodURL: \"host/pods\" is not a URL such as https://host/pods.yaml"
        );
    }

    #[test]
    fn bad_settings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("podium.yaml");
        std::fs::write(&file, "node-nmae: x\n").unwrap();
        let error = format!(
            "{:#}",
            flags(&["--config", file.to_str().unwrap()])
                .settings("host")
                .unwrap_err()
        );
        assert!(error.contains("podium.yaml") && error.contains("node-nmae"), "{error}");
        let error = flags(&["--manifest-url", "host/pods"])
            .settings("host")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "--manifest-url: \"host/pods\" is not a URL such as https://host/pods.yaml"
        );
        let error = flags(&["--cluster-cidr", "10.244.0.0"])
            .settings("host")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "--cluster-cidr: \"10.244.0.0\" is not an address range such as 10.244.0.0/16"
        );
        assert!(
            flags(&["--node-name", "Über"])
                .settings("host")
                .unwrap_err()
                .to_string()
                .starts_with("--node-name")
        );
    }
}
