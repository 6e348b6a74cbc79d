//! CephFS: the kernel's client where the kernel has one, `ceph-fuse` elsewhere.
//!
//! A cluster that does not answer is given up after a while and tried again by the worker, which waits alone. `ceph-fuse` outlives the
//! server as containers do, and ends when its mount is gone.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

/// How long a cluster has to answer, for its clients and for us, who would rather hear it from them.
const PATIENCE_SECONDS: u64 = 30;
const PATIENCE: Duration = Duration::from_secs(PATIENCE_SECONDS + 15);

/// The port of monitors that name none.
const MONITOR_PORT: u16 = 6789;

/// A part of a Ceph file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceph {
    /// Where the cluster is found: addresses or names, with or without a port.
    pub monitors: Vec<String>,
    /// What of the file system is the volume.
    pub path: String,
    /// The Ceph user, without `client.`.
    pub user: String,
    /// Its key.
    pub key: Key,
    /// Whether nobody writes it.
    pub read_only: bool,
}

/// A user's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// As a Secret has it.
    Text(String),
    /// In a keyring, or alone in a file of the node.
    File(PathBuf),
}

/// A user's key in a text that is a keyring, or a key and nothing else.
fn key_in<'a>(text: &'a str, user: &str) -> Option<&'a str> {
    let section = format!("[client.{user}]");
    let sectioned = text.lines().any(|line| line.trim_start().starts_with('['));
    let keyed = |line: &'a str| {
        let (name, key) = line.split_once('=')?;
        (name.trim() == "key").then(|| key.trim())
    };
    if sectioned {
        let own = text.lines().skip_while(|line| line.trim() != section).skip(1);
        return own
            .take_while(|line| !line.trim_start().starts_with('['))
            .find_map(keyed);
    }
    text.lines().find_map(keyed).or_else(|| {
        let mut words = text.split_whitespace();
        words.next().filter(|_| words.next().is_none())
    })
}

impl Ceph {
    fn key(&self) -> Result<String, String> {
        let (text, at) = match &self.key {
            Key::Text(text) => (text.clone(), "the secret".to_owned()),
            Key::File(path) => {
                let text = std::fs::read_to_string(path);
                let at = path.display().to_string();
                (text.map_err(|error| format!("read secretFile {at}: {error}"))?, at)
            }
        };
        key_in(&text, &self.user)
            .map(str::to_owned)
            .ok_or_else(|| format!("{at} holds no key of Ceph user {:?}", self.user))
    }

    /// The options of the kernel's client.
    fn kernel_options(&self, key: &str) -> String {
        format!("name={},secret={key},mount_timeout={PATIENCE_SECONDS}", self.user)
    }

    fn keyring(&self, key: &str) -> String {
        format!("[client.{}]\n\tkey = {key}\n", self.user)
    }

    /// What `ceph-fuse` is told.
    fn fuse_arguments(&self, keyring: &Path, at: &Path) -> Vec<String> {
        let mut arguments = vec![
            "-n".into(),
            format!("client.{}", self.user),
            "-m".into(),
            self.monitors.join(","),
            "-k".into(),
            keyring.display().to_string(),
            "-r".into(),
            self.path.clone(),
            format!("--client_mount_timeout={PATIENCE_SECONDS}"),
            // Logs and sockets of its own are nobody's to clear away.
            "--log_file=".into(),
            "--admin_socket=".into(),
        ];
        if self.read_only {
            arguments.extend(["-o".into(), "ro".into()]);
        }
        arguments.push(at.display().to_string());
        arguments
    }

    /// Mounts it at a directory; `keyring` is a file that it may use meanwhile.
    pub async fn mount(&self, at: &Path, keyring: &Path) -> Result<(), String> {
        let key = self.key()?;
        if kernel_has_client().await {
            return self.mount_by_kernel(&key, at).await;
        }
        let secret = self.keyring(&key);
        let written = std::fs::write(keyring, b"")
            .and_then(|()| std::fs::set_permissions(keyring, Permissions::from_mode(0o600)))
            .and_then(|()| std::fs::write(keyring, secret));
        written.map_err(|error| format!("write {}: {error}", keyring.display()))?;
        let mounted = self.mount_by_fuse(at, keyring).await;
        let _ = std::fs::remove_file(keyring);
        mounted
    }

    async fn mount_by_kernel(&self, key: &str, at: &Path) -> Result<(), String> {
        let mut addresses = Vec::new();
        for monitor in &self.monitors {
            let named = if monitor
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
            {
                monitor.clone()
            } else {
                format!("{monitor}:{MONITOR_PORT}")
            };
            // The kernel knows addresses and no names.
            let found = tokio::net::lookup_host(&named).await;
            let found = found.map_err(|error| format!("CephFS: monitor {monitor}: {error}"))?;
            addresses.extend(found.map(|address| address.to_string()));
        }
        let source = format!("{}:{}", addresses.join(","), self.path);
        let options = self.kernel_options(key);
        let flags = if self.read_only {
            MsFlags::MS_RDONLY
        } else {
            MsFlags::empty()
        };
        let target = at.to_owned();
        let call = move || {
            mount(
                Some(source.as_str()),
                &target,
                Some("ceph"),
                flags,
                Some(options.as_str()),
            )
        };
        match tokio::task::spawn_blocking(call).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("CephFS: mount of {} failed: {error}", self.monitors.join(","))),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn mount_by_fuse(&self, at: &Path, keyring: &Path) -> Result<(), String> {
        let failed = |said: &str| format!("CephFS: ceph-fuse of {} failed: {said}", self.monitors.join(","));
        let mut command = Command::new("ceph-fuse");
        command
            .args(self.fuse_arguments(keyring, at))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                "CephFS: this kernel has no client, and ceph-fuse is not installed on the node".to_owned()
            }
            _ => failed(&error.to_string()),
        })?;
        let mut group = Group::of(&child);
        // It stays behind with the error output in its hands, so that is read only once the first process ended.
        let stderr = child.stderr.take();
        let status = match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(failed(&error.to_string())),
            Err(_) => return Err(failed("the cluster does not answer")),
        };
        if status.success() {
            group.forget();
            return Ok(());
        }
        let said = match stderr {
            Some(stderr) => last_words(stderr).await,
            None => String::new(),
        };
        Err(failed(&match (status.code(), said.is_empty()) {
            (Some(code), true) => format!("exit status {code}"),
            (Some(code), false) => format!("exit status {code}: {said}"),
            (None, _) => said,
        }))
    }
}

/// The processes of a client that is not to stay.
pub(super) struct Group(Option<u32>);

impl Group {
    /// Those of a child that leads a group of its own.
    pub fn of(child: &tokio::process::Child) -> Self {
        Self(child.id())
    }

    /// They are done, or may stay.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // They may have ended by themselves.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// What a client that ended said, for an event.
async fn last_words(mut from: tokio::process::ChildStderr) -> String {
    let mut text = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut from, &mut text);
    // A process that it left behind may hold the pipe open.
    let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
    why(&String::from_utf8_lossy(&text))
}

/// The lines that are no log and no progress.
fn why(said: &str) -> String {
    let progress = ["starting ", "did not load config file"];
    let lines = said.lines().map(|line| match line.split_once("]: ") {
        Some((program, rest)) if program.starts_with("ceph-fuse[") => rest.trim(),
        _ => line.trim(),
    });
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(|first: char| first.is_ascii_digit()));
    let lines: Vec<&str> = lines
        .filter(|line| !progress.iter().any(|word| line.starts_with(word)))
        .collect();
    lines.join("; ")
}

async fn kernel_has_client() -> bool {
    let has = || {
        std::fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .lines()
            .any(|line| line.trim_start_matches("nodev").trim() == "ceph")
    };
    if has() {
        return true;
    }
    // It may be a module that nobody has asked for yet.
    let mut modprobe = Command::new("modprobe");
    modprobe
        .args(["-q", "ceph"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    modprobe.status().await.is_ok_and(|status| status.success()) && has()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn ceph(key: Key) -> Ceph {
        Ceph {
            monitors: vec!["10.0.0.1:6789".into(), "mon.example".into()],
            path: "/shared".into(),
            user: "web".into(),
            key,
            read_only: true,
        }
    }

    #[test]
    fn keys_are_found() {
        let keyring = "[mon.]\n\tkey = BQ==\n[client.web]\n\tkey = AQ==\n\tcaps mon = \"allow r\"\n[client.other]\n\tkey = CQ==\n";
        for (text, key) in [
            ("AQ==\n", Some("AQ==")),
            ("key = AQ==\n", Some("AQ==")),
            (keyring, Some("AQ==")),
            ("[client.other]\n\tkey = CQ==\n", None),
            ("no key here", None),
            ("", None),
        ] {
            assert_eq!(key_in(text, "web"), key, "{text}");
        }
        let missing = ceph(Key::File("/nowhere/keyring".into())).key().unwrap_err();
        assert!(missing.starts_with("read secretFile /nowhere/keyring: "), "{missing}");
        let nothing = ceph(Key::Text("a b".into())).key().unwrap_err();
        assert_eq!(nothing, "the secret holds no key of Ceph user \"web\"");
    }

    #[test]
    fn what_a_client_says_is_told_without_its_log() {
        let said = "did not load config file, using default settings.\n2026-11-24T23:34:04.676+0000 7f1f -1 Errors while parsing config file!\n\
                    ceph-fuse[1]: starting ceph client\nceph-fuse[1]: probably no MDS server is up?\n\
                    ceph-fuse[1]: ceph mount failed with (65536) Unknown error 65536\n";
        assert_eq!(
            why(said),
            "probably no MDS server is up?; ceph mount failed with (65536) Unknown error 65536"
        );
        assert_eq!(
            why("failed to fetch mon config (--no-mon-config to skip)\n"),
            "failed to fetch mon config (--no-mon-config to skip)"
        );
    }

    #[test]
    fn clients_are_told_what_the_volume_says() {
        let ceph = ceph(Key::Text("AQ==".into()));
        assert_eq!(ceph.kernel_options("AQ=="), "name=web,secret=AQ==,mount_timeout=30");
        let arguments = ceph.fuse_arguments(Path::new("/k"), Path::new("/at")).join(" ");
        assert!(
            arguments.starts_with("-n client.web -m 10.0.0.1:6789,mon.example -k /k -r /shared "),
            "{arguments}"
        );
        assert!(arguments.ends_with(" -o ro /at"), "{arguments}");
        assert!(!arguments.contains("AQ=="), "a key is in no command line");
    }
}
