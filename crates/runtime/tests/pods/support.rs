//! A node to test: directories, an image made of the machine's busybox, and a network that has loopback only.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cri::RuntimeService;
use cri::v1::*;
use runtime::{Config, NetworkError, PodLink, PodNetwork, Runtime};
use sha2::{Digest, Sha256};

pub const IMAGE: &str = "podium.test/busybox:1";

/// Gives every pod the same address, and brings its loopback up.
#[derive(Default)]
pub struct Loopback {
    pub attached: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl PodNetwork for Loopback {
    async fn set_pod_cidr(&self, _: &str) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn attach(&self, link: &PodLink) -> Result<Vec<IpAddr>, NetworkError> {
        let output = Program::new("nsenter")
            .arg(format!("--net={}", link.netns.display()))
            .args(["ip", "link", "set", "lo", "up"])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        self.attached.lock().unwrap().insert(link.sandbox_id.clone());
        Ok(vec!["10.244.0.9".parse()?])
    }

    async fn detach(&self, sandbox_id: &str) -> Result<(), NetworkError> {
        self.attached.lock().unwrap().remove(sandbox_id);
        Ok(())
    }

    async fn reconcile(&self, live: &[String]) -> Result<(), NetworkError> {
        self.attached.lock().unwrap().retain(|id| live.contains(id));
        Ok(())
    }
}

pub struct Node {
    pub runtime: Runtime,
    pub network: Arc<Loopback>,
    pub cgroup: String,
    dir: Place,
}

/// The node's directory; what a failed test leaves in it is ended before it goes.
struct Place(tempfile::TempDir);

impl std::ops::Deref for Place {
    type Target = tempfile::TempDir;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let config = config(self.path());
        let reset = std::thread::spawn(move || {
            let reactor = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            reactor.block_on(runtime::reset(&config))
        });
        if let Ok(Err(err)) = reset.join() {
            eprintln!("what the test has left is not taken away: {err}");
        }
    }
}

impl Node {
    pub async fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("node")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let archive = dir.path().join("busybox.tar");
        write_image(&archive);
        let network = Arc::new(Loopback::default());
        let runtime = Runtime::open(config(dir.path()), network.clone()).await.unwrap();
        runtime.images().import(&archive).await.unwrap();
        let name = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        Self {
            runtime,
            network,
            cgroup: format!("/podium-test-{name}"),
            dir: Place(dir),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Another server on the same directories, after the old one has gone.
    pub async fn restart(self) -> Self {
        self.without_server(async {}).await
    }

    /// Does something between two servers.
    pub async fn without_server(self, away: impl Future<Output = ()>) -> Self {
        let Self {
            runtime,
            network,
            cgroup,
            dir,
        } = self;
        drop(runtime);
        away.await;
        let runtime = Runtime::open(config(dir.path()), network.clone()).await.unwrap();
        Self {
            runtime,
            network,
            cgroup,
            dir,
        }
    }

    /// Imports an image whose lowest layer has a shell, and whose others have each a file and one that all have.
    pub async fn import_layers(&self, name: &str, count: usize) {
        let layers: Vec<Vec<u8>> = (1..=count)
            .map(|number| {
                let mut layer = Layer::default();
                if number == 1 {
                    layer.add("bin/", 0o755, b"");
                    layer.add("bin/busybox", 0o755, &fs::read("/usr/bin/busybox").unwrap());
                    for name in ["sh", "sleep", "ls", "wc", "cat"] {
                        layer.link(&format!("bin/{name}"), "busybox");
                    }
                    layer.add("tmp/", 0o1777, b"");
                }
                layer.add("layers/", 0o755, b"");
                layer.add(&format!("layers/{number}"), 0o644, b"");
                layer.add("top", 0o644, format!("{number}\n").as_bytes());
                layer.finish()
            })
            .collect();
        let archive = self.path().join("layers.tar");
        write_archive(&archive, name, &layers);
        self.runtime.images().import(&archive).await.unwrap();
    }

    pub fn shim_pid(&self, sandbox: &str) -> i32 {
        let record = self.path().join("run/sandboxes").join(sandbox).join("sandbox.json");
        let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
        i32::try_from(record["shim_pid"].as_i64().unwrap()).unwrap()
    }

    pub fn kill_shim(&self, sandbox: &str) {
        crate::restart::kill(self.shim_pid(sandbox));
    }

    /// The pod's own cgroup, when no record tells the runtime of it.
    pub fn remove_cgroup(&self, pod: &str) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = hierarchy
                .unwrap()
                .path()
                .join(self.cgroup.trim_start_matches('/'))
                .join(pod);
            let _ = fs::remove_dir(path);
        }
    }

    pub fn sandbox_config(&self, name: &str) -> PodSandboxConfig {
        let logs = self.path().join("logs").join(name);
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                namespace: "default".into(),
                uid: format!("uid-{name}"),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: logs.display().to_string(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".into()],
                ..Default::default()
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.cgroup),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub fn container_config(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.into(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: IMAGE.into(),
                ..Default::default()
            }),
            command: command.iter().map(ToString::to_string).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    cpu_shares: 2,
                    oom_score_adj: 1000,
                    ..Default::default()
                }),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    seccomp: Some(SecurityProfile {
                        profile_type: security_profile::ProfileType::RuntimeDefault.into(),
                        ..Default::default()
                    }),
                    masked_paths: vec!["/proc/kcore".into(), "/proc/keys".into(), "/sys/firmware".into()],
                    readonly_paths: vec!["/proc/bus".into(), "/proc/sys".into()],
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }

    pub async fn run(&self, config: &PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        self.runtime.run_pod_sandbox(request).await.unwrap().pod_sandbox_id
    }

    pub async fn create(&self, sandbox: &str, pod: &PodSandboxConfig, config: ContainerConfig) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        self.runtime.create_container(request).await.unwrap().container_id
    }

    pub async fn start(&self, container: &str) -> cri::Result<()> {
        let request = StartContainerRequest {
            container_id: container.into(),
        };
        self.runtime.start_container(request).await.map(drop)
    }

    /// Creates and starts.
    pub async fn launch(&self, sandbox: &str, pod: &PodSandboxConfig, config: ContainerConfig) -> String {
        let id = self.create(sandbox, pod, config).await;
        self.start(&id).await.unwrap();
        id
    }

    pub async fn status(&self, container: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: container.into(),
            verbose: false,
        };
        self.runtime.container_status(request).await.unwrap().status.unwrap()
    }

    pub async fn exec(&self, container: &str, command: &[&str]) -> cri::Result<(i32, String, String)> {
        let request = ExecSyncRequest {
            container_id: container.into(),
            cmd: command.iter().map(ToString::to_string).collect(),
            timeout: 20,
        };
        let answer = self.runtime.exec_sync(request).await?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((answer.exit_code, text(answer.stdout), text(answer.stderr)))
    }

    pub async fn stop(&self, container: &str, timeout: i64) {
        let request = StopContainerRequest {
            container_id: container.into(),
            timeout,
        };
        self.runtime.stop_container(request).await.unwrap();
    }

    /// Waits for the end of a container by its events, as a kubelet does.
    pub async fn ended(&self, container: &str) -> ContainerStatus {
        use futures::StreamExt;
        let mut events = self.runtime.get_container_events(GetEventsRequest {}).await.unwrap();
        let wait = async {
            loop {
                let status = self.status(container).await;
                if status.state() == ContainerState::ContainerExited {
                    return status;
                }
                events.next().await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("the container ends")
    }

    pub async fn stop_sandbox(&self, sandbox: &str) {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: sandbox.into(),
        };
        self.runtime.stop_pod_sandbox(request).await.unwrap();
    }

    pub async fn remove_sandbox(&self, sandbox: &str) {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.into(),
        };
        self.runtime.remove_pod_sandbox(request).await.unwrap();
    }

    pub fn log(&self, pod: &str, container: &str) -> String {
        fs::read_to_string(self.path().join("logs").join(pod).join(format!("{container}.log"))).unwrap()
    }

    /// Proves that nothing of the node is left but its directories.
    pub fn assert_clean(self) {
        let Self {
            runtime,
            cgroup,
            dir,
            network,
        } = self;
        drop(runtime);
        assert_eq!(*network.attached.lock().unwrap(), BTreeSet::new(), "networks are left");
        let place = dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(&place)).collect();
        assert!(left.is_empty(), "mounts are left: {left:#?}");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let pods = hierarchy.unwrap().path().join(cgroup.trim_start_matches('/'));
            let left: Vec<_> = fs::read_dir(&pods)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir())
                .collect();
            assert!(left.is_empty(), "cgroups are left: {left:?}");
            let _ = fs::remove_dir(&pods);
        }
        for dir in ["run/sandboxes", "run/containers", "data/containers"] {
            let left: Vec<_> = fs::read_dir(Path::new(&place).join(dir))
                .into_iter()
                .flatten()
                .collect();
            assert!(left.is_empty(), "directories are left: {left:?}");
        }
    }
}

pub fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir.join("data"), dir.join("run"));
    config.shim = vec![env!("CARGO_BIN_EXE_shim").into()];
    config
}

/// What is mounted where into a container.
pub fn mount(host_path: PathBuf, container_path: &str) -> Mount {
    Mount {
        host_path: host_path.display().to_string(),
        container_path: container_path.into(),
        ..Default::default()
    }
}

/// An archive of an image: busybox, and the accounts of two users.
fn write_image(path: &Path) {
    let mut layer = Layer::default();
    for dir in ["bin/", "etc/", "home/", "home/user/"] {
        layer.add(dir, 0o755, b"");
    }
    layer.add("tmp/", 0o1777, b"");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .expect("busybox-static is installed");
    layer.add("bin/busybox", 0o755, &busybox);
    layer.add(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    );
    layer.add("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n");
    layer.add("etc/notes", 0o644, b"not a program\n");
    for name in [
        "cat", "dd", "echo", "env", "grep", "head", "hostname", "id", "kill", "ls", "mount", "nc", "ps", "pwd", "seq",
        "sh", "sleep", "stty", "tail", "test", "touch", "true", "unshare", "wc", "yes",
    ] {
        layer.link(&format!("bin/{name}"), "busybox");
    }
    write_archive(path, IMAGE, &[layer.finish()]);
}

/// A layer on its way into an archive.
struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        let mut header = header(mode, content.len());
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        self.0.append_data(&mut header, name, content).unwrap();
    }

    fn link(&mut self, name: &str, target: &str) {
        let mut header = header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        self.0.append_link(&mut header, name, target).unwrap();
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write_archive(path: &Path, name: &str, layers: &[Vec<u8>]) {
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
            "Entrypoint": ["/bin/sh"],
            "Cmd": ["-c", "echo from the image"],
            "WorkingDir": "/tmp",
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let names: Vec<_> = (0..layers.len()).map(|number| format!("layer-{number}.tar")).collect();
    let config_name = format!("{}.json", digest(config.as_bytes()));
    let manifest = serde_json::json!([{ "Config": config_name, "RepoTags": [name], "Layers": names }]).to_string();
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: &str, content: &[u8]| {
        archive
            .append_data(&mut header(0o644, content.len()), name, content)
            .unwrap()
    };
    add(&config_name, config.as_bytes());
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    add("manifest.json", manifest.as_bytes());
    archive.finish().unwrap();
}
