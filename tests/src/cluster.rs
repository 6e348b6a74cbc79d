//! A cluster under test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::command::{Output, eventually, run};
use crate::{Netns, image, podium, target};

/// The node's address in its namespace.
pub const NODE_IP: &str = "192.0.2.10";

/// A server, its node and its pods in a network namespace and directories of their own.
pub struct Cluster {
    /// The namespace the node lives in.
    pub netns: Netns,
    outside: Netns,
    dir: TempDir,
    server: Option<Child>,
    options: Options,
}

/// What a test wants of its cluster.
#[derive(Default)]
pub struct Options {
    /// Images of `cargo xtask images` that are in the images directory before the server starts.
    pub images: &'static [&'static str],
    /// Further flags of `podium server`.
    pub flags: Vec<String>,
    /// Variables of the server's environment.
    pub env: Vec<(&'static str, String)>,
    /// What the server logs, where that is not the usual.
    pub log: Option<&'static str>,
    /// Fields of the kubelet's configuration, as YAML. `None`: there is no such file.
    pub kubelet: Option<&'static str>,
}

impl Cluster {
    /// A cluster whose node is Ready, with the images nginx and busybox.
    pub fn start() -> Self {
        Self::with(Options {
            images: &["nginx", "busybox"],
            ..Options::default()
        })
    }

    /// A cluster whose node is Ready.
    pub fn with(options: Options) -> Self {
        let mut cluster = Self::prepare(options);
        cluster.start_server();
        cluster
    }

    /// Everything but the server.
    pub fn prepare(options: Options) -> Self {
        let (netns, outside) = (Netns::new("node"), Netns::new("out"));
        netns.join(&format!("{NODE_IP}/24"), &outside, "192.0.2.1/24");
        let dir = tempfile::Builder::new()
            .prefix("podium-")
            .tempdir()
            .expect("a directory for the test");
        let images = dir.path().join("data/images");
        fs::create_dir_all(&images).expect("the images directory");
        for name in options.images {
            fs::copy(image(name), images.join(format!("{name}.tar")))
                .unwrap_or_else(|error| panic!("image {name}: {error}"));
        }
        let cluster = Self {
            netns,
            outside,
            dir,
            server: None,
            options,
        };
        if let Some(fields) = cluster.options.kubelet {
            cluster.configure_kubelet(fields);
        }
        cluster
    }

    /// Changes the kubelet's configuration, for the next start of a server that has one.
    pub fn configure_kubelet(&self, fields: &str) {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        fs::write(self.kubelet_config(), format!("{head}{fields}\n")).expect("the kubelet's configuration");
    }

    /// Starts the server and waits until its node is Ready.
    ///
    /// # Panics
    /// With the server's log, when it ends or never gets there.
    #[track_caller]
    pub fn start_server(&mut self) {
        self.start_api();
        let _ = self.kubectl(&["wait", "--for=create", "node/node", "--timeout=30s"]);
        let ready = self.kubectl(&["wait", "--for=condition=Ready", "node/node", "--timeout=60s"]);
        assert_eq!(ready.code, 0, "{ready}\n{}", self.log());
    }

    /// Starts the server and waits until its API answers.
    ///
    /// # Panics
    /// With the server's log, when it ends or never gets there.
    #[track_caller]
    pub fn start_api(&mut self) {
        let mut command = self.server_command();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the server's log");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's handle"))
            .stderr(log);
        self.server = Some(command.spawn().expect("podium server starts"));
        let path = self.kubeconfig();
        eventually("the server writes its kubeconfig and answers", || {
            self.assert_server_runs();
            (path.exists() && self.kubectl(&["get", "--raw", "/readyz"]).code == 0).then_some(())
        });
    }

    /// `podium server` with this cluster's directories and flags, inside its namespace.
    pub fn server_command(&self) -> Command {
        let mut command = self.netns.command(podium());
        command
            .arg("server")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--run-dir")
            .arg(self.run_dir());
        command
            .args(["--node-name", "node", "--node-ip", NODE_IP])
            .arg("--write-kubeconfig")
            .arg(self.kubeconfig());
        command
            .arg("--pod-logs-dir")
            .arg(self.pod_logs_dir())
            .args(&self.options.flags);
        if self.options.kubelet.is_some() {
            command.arg("--kubelet-config").arg(self.kubelet_config());
        }
        command.envs(self.options.env.iter().cloned());
        command.env("NO_COLOR", "1").env_remove("RUST_LOG");
        let log = std::env::var("PODIUM_TEST_LOG").ok();
        if let Some(log) = log.or_else(|| self.options.log.map(str::to_owned)) {
            command.env("RUST_LOG", log);
        }
        command
    }

    #[track_caller]
    fn assert_server_runs(&mut self) {
        if let Some(status) = self.server.as_mut().and_then(|server| server.try_wait().ok().flatten()) {
            panic!("podium server ended with {status}:\n{}", self.log());
        }
    }

    /// Kills the server with SIGKILL: no goodbye to anything.
    pub fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("kill the server");
            server.wait().expect("reap the server");
        }
    }

    /// upstream's kubectl, inside the namespace.
    pub fn kubectl_command(&self) -> Command {
        let mut command = self.netns.command(target().join("tools/kubectl"));
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path())
            .env("TERM", "xterm");
        command
    }

    /// Runs kubectl to its end.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> Output {
        run(self.kubectl_command().args(args), "")
    }

    /// Runs kubectl with a manifest on its standard input.
    #[track_caller]
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Output {
        run(self.kubectl_command().args(args), input)
    }

    /// Creates what a manifest says.
    #[track_caller]
    pub fn create(&self, manifest: &str) -> String {
        self.kubectl_with(&["create", "-f", "-"], manifest).ok()
    }

    /// Waits until a pod is Ready.
    #[track_caller]
    pub fn wait_ready(&self, pod: &str) {
        let output = self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
        if output.code != 0 {
            let described = self.kubectl(&["describe", "pod", pod]);
            panic!("{output}\n{described}\n{}", self.log());
        }
    }

    /// One field of a pod.
    #[track_caller]
    pub fn field(&self, pod: &str, jsonpath: &str) -> String {
        self.kubectl(&["get", "pod", pod, "-o", &format!("jsonpath={jsonpath}")])
            .ok()
    }

    /// What a script says that a pod's shell runs.
    #[track_caller]
    pub fn exec(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script]).ok()
    }

    /// Waits until a field of a pod is this.
    #[track_caller]
    pub fn until(&self, pod: &str, jsonpath: &str, expected: &str) {
        eventually(&format!("{jsonpath} of {pod} is {expected:?}"), || {
            (self.field(pod, jsonpath) == expected).then_some(())
        });
    }

    /// The events about objects of that name: type, reason and message.
    #[track_caller]
    pub fn events(&self, name: &str) -> String {
        let selector = format!("involvedObject.name={name}");
        let columns = "custom-columns=T:.type,R:.reason,M:.message";
        self.kubectl(&["get", "events", "--field-selector", &selector, "-o", columns])
            .ok()
    }

    /// Waits until an event about an object of that name has these words in it.
    #[track_caller]
    pub fn until_event(&self, name: &str, words: &str) {
        eventually(&format!("an event {words:?} of {name}"), || {
            self.events(name).contains(words).then_some(())
        });
    }

    /// Waits until an event about an object of that name is of this type and reason and has these words in its message.
    #[track_caller]
    pub fn until_told(&self, name: &str, kind: &str, reason: &str, words: &str) {
        let told = |line: &str| {
            let message = line.strip_prefix(kind)?.trim_start().strip_prefix(reason)?;
            (message.starts_with(' ') && message.contains(words)).then_some(())
        };
        eventually(&format!("{kind} {reason} {words:?} of {name}"), || {
            self.events(name).lines().find_map(told)
        });
    }

    /// Waits until a Warning event says this.
    #[track_caller]
    pub fn until_warning(&self, name: &str, reason: &str, words: &str) {
        self.until_told(name, "Warning", reason, words);
    }

    /// The binary itself, inside the namespace, with this cluster's run directory.
    #[track_caller]
    pub fn podium(&self, args: &[&str]) -> Output {
        run(
            self.netns
                .command(podium())
                .args(args)
                .arg("--run-dir")
                .arg(self.run_dir()),
            "",
        )
    }

    /// `podium reset` for this cluster.
    #[track_caller]
    pub fn reset(&self) -> Output {
        let mut command = self.netns.command(podium());
        command
            .arg("reset")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--run-dir")
            .arg(self.run_dir());
        run(&mut command, "")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The namespace at the other end of the node's uplink.
    pub fn outside(&self) -> &Netns {
        &self.outside
    }

    fn kubelet_config(&self) -> PathBuf {
        self.dir.path().join("kubelet.yaml")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The test's own directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The node's run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Where pods' logs are.
    pub fn pod_logs_dir(&self) -> PathBuf {
        self.dir.path().join("pods")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}", self.log());
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let reset = run(
            self.netns
                .command(podium())
                .arg("reset")
                .arg("--data-dir")
                .arg(self.data_dir())
                .arg("--run-dir")
                .arg(self.run_dir()),
            "",
        );
        if reset.code != 0 {
            eprintln!("--- podium reset\n{reset}");
        }
    }
}
