//! A Podium to measure, in a network namespace of its own.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::{Options, pods};

/// A server that can be started from nothing again and again.
pub struct Podium {
    binary: PathBuf,
    images: PathBuf,
    dir: TempDir,
    server: RefCell<Option<Child>>,
}

impl Podium {
    /// Moves this process into a new network namespace with an uplink that leads nowhere, and into a mount namespace, so that no mount is
    /// left whenever it ends.
    pub fn prepare(options: &Options) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("new namespaces; are you root?")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_SLAVE | MsFlags::MS_REC, nothing)
            .context("leave the host's mounts")?;
        for line in [
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            "address add 192.0.2.10/24 dev eth0",
            "link set eth0 up",
            "link set peer0 up",
        ] {
            ensure!(
                Command::new("ip").args(line.split(' ')).status()?.success(),
                "ip {line}"
            );
        }
        let dir = tempfile::Builder::new().prefix("podium-bench-").tempdir()?;
        // As /run is.
        let run = dir.path().join("run");
        fs::create_dir(&run)?;
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &run, tmpfs, MsFlags::empty(), Some("mode=755")).context("a tmpfs for the run directory")?;
        Ok(Self {
            binary: fs::canonicalize(&options.podium)?,
            images: options.images.clone(),
            dir,
            server: RefCell::default(),
        })
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run/podium")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Starts a server on an empty data directory; gives the time until its node is Ready.
    pub async fn start_afresh(&self) -> Result<Duration> {
        let (data, run) = (self.data_dir(), self.run_dir());
        let images = data.join("images");
        fs::create_dir_all(&images)?;
        fs::copy(self.images.join("busybox.tar"), images.join("busybox.tar")).context("the busybox image")?;
        let _ = fs::remove_file(self.kubeconfig());
        let log = File::create(self.dir.path().join("log"))?;
        let mut command = Command::new(&self.binary);
        command
            .arg("server")
            .arg("--data-dir")
            .arg(&data)
            .arg("--run-dir")
            .arg(&run);
        command
            .args(["--node-name", "node", "--node-ip", "192.0.2.10"])
            .arg("--write-kubeconfig")
            .arg(self.kubeconfig());
        command.arg("--pod-logs-dir").arg(self.dir.path().join("pods"));
        let start = Instant::now();
        let server = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        *self.server.borrow_mut() = Some(server);
        loop {
            if let Some(status) = self
                .server
                .borrow_mut()
                .as_mut()
                .and_then(|server| server.try_wait().ok().flatten())
            {
                bail!(
                    "podium server ended with {status}:\n{}",
                    fs::read_to_string(self.dir.path().join("log"))?
                );
            }
            if self.kubeconfig().exists()
                && let Ok(client) = pods::client(&self.kubeconfig()).await
                && pods::wait_for_node(&client).await.is_ok()
            {
                return Ok(start.elapsed());
            }
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "the node was not Ready within a minute"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Imports a further image, which only some rows need.
    pub fn import(&self, name: &str) -> Result<()> {
        let mut import = Command::new(&self.binary);
        import.args(["image", "import"]).arg(self.images.join(name));
        import.arg("--run-dir").arg(self.run_dir());
        ensure!(
            import.stdout(Stdio::null()).status()?.success(),
            "podium image import {name}"
        );
        Ok(())
    }

    /// Ends the server and takes everything it made away.
    pub fn stop(&self) -> Result<()> {
        if let Some(mut server) = self.server.borrow_mut().take() {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(server.id().try_into()?),
                nix::sys::signal::Signal::SIGTERM,
            )?;
            server.wait()?;
        }
        let mut reset = Command::new(&self.binary);
        reset
            .arg("reset")
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--run-dir")
            .arg(self.run_dir());
        ensure!(reset.stdout(Stdio::null()).status()?.success(), "podium reset failed");
        Ok(())
    }

    /// The server and all that it started: every process of this binary.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let executable = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if executable == self.binary || command.starts_with(b"/pause") {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

impl Drop for Podium {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
        // What is mounted there could not be removed with the rest.
        let _ = umount(&self.dir.path().join("run"));
    }
}
