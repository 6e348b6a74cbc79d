//! RunPodSandbox: files, shim, namespaces, then network and pause container side by side.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::v1::{
    ContainerEventType, NamespaceMode, PodSandboxConfig, Protocol as CriProtocol, RunPodSandboxRequest,
    RunPodSandboxResponse,
};
use cri::{Error, Result};

use super::{namespace_options, on_host_network};
use crate::client::{ShimClient, ShimError};
use crate::record::{Proto, SandboxRecord};
use crate::runtime::{Inner, Sandbox, new_id, now};
use crate::shim::protocol::{Answer, Confinement, Namespaces, Request, Stage, Staged, Staging, Start, Users};
use crate::{HostPort, PodLink, Protocol, host, pod_files, spec, users};

/// The pause program, see `pause/pause.rs`.
const PAUSE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// What a RuntimeClass can name here: the one runtime that there is, as others call their default.
pub(crate) const HANDLERS: [&str; 2] = ["", "runc"];

/// The cgroup of pods whose kubelet names none.
const DEFAULT_PARENT: &str = "/podium";

impl Inner {
    pub(crate) async fn run_pod_sandbox(
        self: &Arc<Self>,
        request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse> {
        let config = request
            .config
            .ok_or_else(|| Error::invalid_argument("config: Required value"))?;
        if !HANDLERS.contains(&request.runtime_handler.as_str()) {
            return Err(Error::unknown(format!(
                "failed to get sandbox runtime: no runtime for {:?} is configured",
                request.runtime_handler
            )));
        }
        let cgroup_parent = cgroup_parent(&config)?;
        if users::of_pod(&config)?.is_some() && !self.host.user_namespaces {
            return Err(Error::failed_precondition("the node's kernel has no user namespaces"));
        }
        let id = new_id();
        let dir = self.layout.sandbox(&id);
        let sandbox = Arc::new(Sandbox::new(
            SandboxRecord {
                id: id.clone(),
                config: Proto(config.clone()),
                runtime_handler: request.runtime_handler,
                created_at: now(),
                ready: true,
                ips: Vec::new(),
                shim_pid: 0,
                pause_pid: 0,
                cgroup_parent,
            },
            dir,
        ));
        match self.bring_up(&sandbox, &config).await {
            Ok(()) => {
                sandbox.save();
                self.sandboxes.write().insert(id.clone(), sandbox.clone());
                self.announce_sandbox(&sandbox, ContainerEventType::ContainerCreatedEvent);
                self.announce_sandbox(&sandbox, ContainerEventType::ContainerStartedEvent);
                Ok(RunPodSandboxResponse { pod_sandbox_id: id })
            }
            Err(err) => {
                self.tear_down(&sandbox).await;
                Err(err)
            }
        }
    }

    async fn bring_up(self: &Arc<Self>, sandbox: &Arc<Sandbox>, config: &PodSandboxConfig) -> Result<()> {
        let options = namespace_options(config);
        let users = users::of_pod(config)?;
        fs::create_dir_all(&sandbox.dir).map_err(|err| failed("create", &sandbox.dir, &err))?;
        pod_files::write(&sandbox.dir, config, options.ipc() == NamespaceMode::Node, users)
            .map_err(|err| failed("write the pod's files in", &sandbox.dir, &err))?;
        self.zygote.fork(&sandbox.id, &sandbox.dir).map_err(shim_failure)?;
        let shim = self.connect(sandbox).map_err(shim_failure)?;
        let own_network = !on_host_network(config);
        let namespaces = Namespaces {
            network: own_network,
            ipc: options.ipc() != NamespaceMode::Node,
            uts: own_network,
            hostname: config.hostname.clone(),
            sysctls: config
                .linux
                .as_ref()
                .map(|linux| linux.sysctls.clone().into_iter().collect())
                .unwrap_or_default(),
            users,
        };
        let (shim_pid, users_at) = match shim.call(Request::Open(namespaces), Vec::new()).await {
            Ok((Answer::Opened { pid, users }, _)) => (pid, users),
            Ok((other, _)) => return Err(Error::internal(format!("unexpected answer {other:?} of the shim"))),
            Err(err) => return Err(shim_failure(err)),
        };
        sandbox.record.lock().shim_pid = shim_pid;
        let users = users.zip(users_at.map(|fd| PathBuf::from(format!("/proc/{shim_pid}/fd/{fd}"))));
        let (pause, network) = tokio::join!(
            self.start_pause(&shim, sandbox, options.pid() == NamespaceMode::Node, users),
            self.attach(sandbox, config, own_network),
        );
        let (pause_pid, ips) = (pause?, network?);
        let mut record = sandbox.record.lock();
        record.pause_pid = pause_pid;
        record.ips = ips.iter().map(ToString::to_string).collect();
        Ok(())
    }

    async fn start_pause(
        &self,
        shim: &ShimClient,
        sandbox: &Sandbox,
        host_pid: bool,
        users: Option<(Users, PathBuf)>,
    ) -> Result<i32> {
        let rootfs = self
            .pause_root()
            .map_err(|err| failed("prepare", &self.layout.pause(), &err))?;
        let cgroup = PathBuf::from(sandbox.cgroup());
        // A pod's own users find the root in the bundle, as they need not be able to reach it elsewhere.
        let staging = users.as_ref().map(|_| Staging {
            layers: None,
            mounts: vec![Staged {
                what: Stage::Tree {
                    source: rootfs.clone(),
                    mapped: false,
                    spread: None,
                },
                target: "rootfs".into(),
            }],
        });
        let rootfs = match staging {
            Some(_) => sandbox.dir.join("rootfs"),
            None => rootfs,
        };
        let users = users.as_ref().map(|(users, path)| (path.as_path(), *users));
        let spec = spec::pause(&rootfs, &cgroup, &self.host, host_pid, users)
            .map_err(|err| Error::internal(err.to_string()))?;
        let path = sandbox.dir.join("config.json");
        spec.save(&path)
            .map_err(|err| Error::unknown(format!("write {}: {err}", path.display())))?;
        let start = Start {
            id: sandbox.id.clone(),
            bundle: sandbox.dir.clone(),
            root: sandbox.dir.join("state"),
            cgroup,
            log: None,
            tty: false,
            stdin: false,
            stdin_once: false,
            uid: 0,
            // The pause program does nothing that a filter could refuse, and has no capability.
            confinement: Confinement::default(),
            staging,
        };
        match shim.call(Request::Start(Box::new(start)), Vec::new()).await {
            Ok((Answer::Started { pid, .. }, _)) => Ok(pid),
            Ok((other, _)) => Err(Error::internal(format!("unexpected answer {other:?} of the shim"))),
            Err(err) => Err(Error::unknown(format!(
                "failed to start sandbox {:?}: failed to create containerd task: failed to create shim task: \
                 OCI runtime create failed: {err}",
                sandbox.id
            ))),
        }
    }

    async fn attach(&self, sandbox: &Sandbox, config: &PodSandboxConfig, own_network: bool) -> Result<Vec<IpAddr>> {
        if !own_network {
            return Ok(Vec::new());
        }
        let metadata = config.metadata.clone().unwrap_or_default();
        let link = PodLink {
            sandbox_id: sandbox.id.clone(),
            pod_name: metadata.name,
            pod_namespace: metadata.namespace,
            netns: sandbox.netns(),
            host_ports: host_ports(config)?,
        };
        self.network
            .attach(&link)
            .await
            .map_err(|err| Error::unknown(format!("failed to setup network for sandbox {:?}: {err}", sandbox.id)))
    }

    /// The root of pause containers, made when it is first needed.
    fn pause_root(&self) -> io::Result<PathBuf> {
        let root = self.layout.pause();
        let program = root.join("pause");
        if !program.exists() {
            for dir in ["dev", "proc", "sys"] {
                fs::create_dir_all(root.join(dir))?;
            }
            let next = root.join(format!(".{}", new_id()));
            fs::write(&next, PAUSE)?;
            fs::set_permissions(&next, fs::Permissions::from_mode(0o755))?;
            fs::rename(&next, &program)?;
        }
        Ok(root)
    }

    /// Takes away everything of a sandbox that the machine has; goes on past what fails.
    pub(crate) async fn tear_down(&self, sandbox: &Sandbox) {
        let shim = sandbox.shim.lock().take();
        if let Some(shim) = shim
            && let Err(err) = shim.close().await
        {
            tracing::error!(sandbox = sandbox.id, %err, "end a pod");
        }
        if !on_host_network(&sandbox.record.lock().config.0)
            && let Err(err) = self.network.detach(&sandbox.id).await
        {
            tracing::error!(sandbox = sandbox.id, %err, "detach a sandbox from the network");
        }
        pod_files::unmount(&sandbox.dir);
        if let Err(err) = fs::remove_dir_all(&sandbox.dir)
            && err.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(dir = %sandbox.dir.display(), %err, "remove the directory of a sandbox");
        }
        host::remove_cgroup(Path::new(&sandbox.cgroup()));
        host::remove_empty_cgroup(Path::new(&sandbox.cgroup_parent()));
    }
}

fn cgroup_parent(config: &PodSandboxConfig) -> Result<String> {
    let parent = config
        .linux
        .as_ref()
        .map(|linux| linux.cgroup_parent.as_str())
        .unwrap_or_default();
    if parent.is_empty() {
        return Ok(DEFAULT_PARENT.to_owned());
    }
    if !parent.starts_with('/') || parent.split('/').any(|part| part == "..") {
        return Err(Error::invalid_argument(format!(
            "config.linux.cgroup_parent: Invalid value: {parent:?}: must be an absolute path without \"..\" (cgroup driver cgroupfs)"
        )));
    }
    Ok(parent.trim_end_matches('/').to_owned())
}

fn host_ports(config: &PodSandboxConfig) -> Result<Vec<HostPort>> {
    let port = |number: i32| {
        u16::try_from(number).map_err(|_| Error::invalid_argument(format!("config.port_mappings: {number} is no port")))
    };
    config
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port > 0)
        .map(|mapping| {
            let host_ip = match mapping.host_ip.as_str() {
                "" => None,
                ip => Some(ip.parse().map_err(|_| {
                    Error::invalid_argument(format!("config.port_mappings.host_ip: {ip:?} is no IP address"))
                })?),
            };
            Ok(HostPort {
                protocol: match mapping.protocol() {
                    CriProtocol::Tcp => Protocol::Tcp,
                    CriProtocol::Udp => Protocol::Udp,
                    CriProtocol::Sctp => Protocol::Sctp,
                },
                container_port: port(mapping.container_port)?,
                host_port: port(mapping.host_port)?,
                host_ip,
            })
        })
        .collect()
}

fn failed(action: &str, path: &Path, err: &io::Error) -> Error {
    Error::unknown(format!("{action} {}: {err}", path.display()))
}

fn shim_failure(err: ShimError) -> Error {
    Error::unknown(format!("failed to create shim task: {err}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed call fails the test

    use cri::v1::{LinuxPodSandboxConfig, PortMapping};

    use super::*;

    #[test]
    fn cgroup_parents_are_checked() {
        let config = |parent: &str| PodSandboxConfig {
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: parent.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(cgroup_parent(&PodSandboxConfig::default()).unwrap(), "/podium");
        assert_eq!(cgroup_parent(&config("")).unwrap(), "/podium");
        assert_eq!(
            cgroup_parent(&config("/kubepods/burstable/pod1/")).unwrap(),
            "/kubepods/burstable/pod1"
        );
        for bad in ["kubepods.slice", "/kubepods/../x"] {
            let err = cgroup_parent(&config(bad)).unwrap_err();
            assert!(err.message.contains("cgroup_parent"), "{err}");
        }
    }

    #[test]
    fn only_ports_of_the_node_are_passed_on() {
        let mapping = |container_port, host_port, host_ip: &str| PortMapping {
            container_port,
            host_port,
            host_ip: host_ip.into(),
            ..Default::default()
        };
        let config = |mapping| PodSandboxConfig {
            port_mappings: vec![mapping],
            ..Default::default()
        };
        assert_eq!(host_ports(&config(mapping(80, 0, ""))).unwrap(), []);
        let port = &host_ports(&config(mapping(80, 8080, "127.0.0.1"))).unwrap()[0];
        assert_eq!((port.container_port, port.host_port), (80, 8080));
        assert_eq!(port.host_ip, Some("127.0.0.1".parse().unwrap()));
        assert!(host_ports(&config(mapping(80, 70000, ""))).is_err());
        assert!(host_ports(&config(mapping(80, 80, "here"))).is_err());
    }
}
