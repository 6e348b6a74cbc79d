//! `cargo xtask demo`: from a fresh machine to a pod of two containers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{build, images, system};

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub struct Options {
    /// Take the demo's cluster and everything it put on the machine away again.
    #[arg(long)]
    clean: bool,
}

/// Where the demo keeps its cluster, apart from one the user may have.
struct Demo {
    podium: PathBuf,
    dir: PathBuf,
}

const RUN_DIR: &str = "/run/podium-demo";

/// Builds, starts, shows.
pub fn main(options: &Options) -> Result<()> {
    let demo = Demo {
        podium: system::target().join("release/podium"),
        dir: system::target().join("demo"),
    };
    if options.clean {
        return demo.clean();
    }
    say("Building Podium (release)");
    system::install(build::NODE_PACKAGES)?;
    build::release()?;
    say("Composing the images nginx and busybox from this machine's Debian packages");
    let archives = images::named(&["nginx", "busybox"])?;
    fs::create_dir_all(demo.dir.join("data/images"))?;
    for archive in archives {
        let name = archive.file_name().context("an archive without a name")?;
        fs::copy(&archive, demo.dir.join("data/images").join(name))?;
    }
    demo.start()?;
    demo.show()
}

impl Demo {
    /// Starts the server unless the one of an earlier run still answers.
    fn start(&self) -> Result<()> {
        if self
            .kubectl(&["get", "--raw", "/readyz"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?
            .success()
        {
            say("The cluster of an earlier run still answers; using it");
            return Ok(());
        }
        let log = self.dir.join("server.log");
        say(&format!("Starting the cluster: podium server (log: {})", log.display()));
        let start = Instant::now();
        // A session of its own: the cluster stays when this command ends.
        let mut server = self.as_root(Path::new("setsid"));
        server
            .arg(&self.podium)
            .arg("server")
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .args(["--run-dir", RUN_DIR]);
        server.arg("--write-kubeconfig").arg(self.kubeconfig());
        let out = File::create(&log)?;
        let mut server = server
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("cannot start podium server")?;
        fs::write(self.pid_file(), server.id().to_string())?;
        loop {
            if let Some(status) = server.try_wait()? {
                bail!("podium server ended with {status}:\n{}", fs::read_to_string(&log)?);
            }
            let nodes = self
                .kubectl(&["get", "nodes", "--no-headers"])
                .stderr(Stdio::null())
                .output()?;
            if String::from_utf8_lossy(&nodes.stdout).contains(" Ready ") {
                break;
            }
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "the node is not Ready after 60 s; see {}",
                log.display()
            );
            system::pause(Duration::from_millis(50));
        }
        println!("node Ready after {:.1} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    fn show(&self) -> Result<()> {
        let manifest = system::root().join("examples/two-containers.yaml");
        let manifest = manifest.to_string_lossy();
        self.step(&["get", "nodes", "-o", "wide"])?;
        system::run(
            self.kubectl(&["delete", "-f", &manifest, "--ignore-not-found", "--now"])
                .stdout(Stdio::null()),
        )?;
        self.step(&["create", "-f", &manifest])?;
        let start = Instant::now();
        loop {
            let pod = self
                .kubectl(&["get", "pod", "two-containers", "--no-headers"])
                .output()?;
            let pod = String::from_utf8_lossy(&pod.stdout).into_owned();
            if pod.contains("2/2") && pod.contains("Running") {
                break;
            }
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "the pod is not running after 60 s: {pod}"
            );
            system::pause(Duration::from_millis(20));
        }
        self.step(&["get", "pods", "-o", "wide"])?;
        say("Both containers share one network namespace: busybox fetches nginx's page from 127.0.0.1");
        self.step(&[
            "exec",
            "two-containers",
            "-c",
            "busybox",
            "--",
            "wget",
            "-qO-",
            "http://127.0.0.1",
        ])?;
        say("... and one folder: what busybox writes to /cache, nginx serves");
        self.step(&[
            "exec",
            "two-containers",
            "-c",
            "busybox",
            "--",
            "sh",
            "-c",
            "echo '<h1>hello</h1>' > /cache/hello.html",
        ])?;
        self.step(&[
            "exec",
            "two-containers",
            "-c",
            "busybox",
            "--",
            "wget",
            "-qO-",
            "http://127.0.0.1/cache/hello.html",
        ])?;
        self.step(&["logs", "two-containers", "-c", "nginx", "--tail", "3"])?;
        let kubeconfig = self.kubeconfig();
        let podium = self.podium.display();
        println!(
            "\nThe cluster goes on running. Try:\n\n  \
             export KUBECONFIG={}\n  \
             {podium} kubectl get pods -A          # or your own kubectl\n  \
             {podium} kubectl exec -it two-containers -c busybox -- sh\n  \
             {podium} kubectl describe pod two-containers\n  \
             {podium} ps -a --run-dir {RUN_DIR}\n\n\
             and take it all away again with: cargo xtask demo --clean",
            kubeconfig.display()
        );
        Ok(())
    }

    fn clean(&self) -> Result<()> {
        ensure!(self.podium.exists(), "no demo has been built here");
        self.stop()?;
        let mut reset = self.as_root(&self.podium);
        system::run(
            reset
                .arg("reset")
                .arg("--data-dir")
                .arg(self.dir.join("data"))
                .args(["--run-dir", RUN_DIR]),
        )
    }

    /// Ends the server that an earlier run left, if it still runs.
    fn stop(&self) -> Result<()> {
        let Ok(pid) = fs::read_to_string(self.pid_file()) else {
            return Ok(());
        };
        // The number may be another program's by now.
        let process = Path::new("/proc").join(&pid);
        let is_server = || fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.contains(RUN_DIR));
        if is_server() {
            system::run(self.as_root(Path::new("kill")).arg(&pid))?;
        }
        let start = Instant::now();
        while is_server() {
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "podium server, process {pid}, does not end"
            );
            system::pause(Duration::from_millis(20));
        }
        Ok(fs::remove_file(self.pid_file())?)
    }

    /// Prints a kubectl command as a user would type it, then runs it.
    fn step(&self, args: &[&str]) -> Result<()> {
        println!("\n$ kubectl {}", args.join(" "));
        system::run(&mut self.kubectl(args))
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = self.as_root(&self.podium);
        command
            .arg("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(args);
        command
    }

    fn as_root(&self, program: &Path) -> Command {
        if system::is_root() {
            return Command::new(program);
        }
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("server.pid")
    }
}

fn say(what: &str) {
    println!("\n==> {what}");
}
