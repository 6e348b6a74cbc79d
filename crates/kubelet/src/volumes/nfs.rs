//! NFS, through mount(8) and the helper that the distribution's NFS client brings with it.

use std::path::Path;
use std::process::Stdio;

use k8s_openapi::api::core::v1::NFSVolumeSource;
use tokio::process::Command;

use super::ceph::Group;

/// A directory that a server exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nfs {
    /// A name or an address.
    pub server: String,
    /// What it exports.
    pub path: String,
    /// Options for mount(8), as a PersistentVolume may name them.
    pub options: Vec<String>,
    /// Whether nobody writes it.
    pub read_only: bool,
}

impl Nfs {
    /// That of a volume, with the options of its PersistentVolume.
    pub fn of(source: NFSVolumeSource, options: Vec<String>) -> Self {
        Self {
            server: source.server,
            path: source.path,
            options,
            read_only: source.read_only.unwrap_or(false),
        }
    }

    fn arguments(&self, at: &Path) -> Vec<String> {
        // An IPv6 address has colons of its own.
        let source = match self.server.contains(':') && !self.server.starts_with('[') {
            true => format!("[{}]:{}", self.server, self.path),
            false => format!("{}:{}", self.server, self.path),
        };
        let own = self.read_only.then(|| "ro".to_owned());
        let options: Vec<String> = own.into_iter().chain(self.options.iter().cloned()).collect();
        let mut arguments = vec!["-t".to_owned(), "nfs".to_owned()];
        if !options.is_empty() {
            arguments.extend(["-o".to_owned(), options.join(",")]);
        }
        arguments.extend([source, at.display().to_string()]);
        arguments
    }

    /// Mounts it at a directory. A server that does not answer keeps the worker of its pod, and no other, waiting.
    pub async fn mount(&self, at: &Path) -> Result<(), String> {
        let arguments = self.arguments(at);
        let mut command = Command::new("mount");
        command
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| failed(&error.to_string(), &arguments, ""))?;
        let mut group = Group::of(&child);
        let output = child
            .wait_with_output()
            .await
            .map_err(|error| failed(&error.to_string(), &arguments, ""))?;
        group.forget();
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let status = match output.status.code() {
            Some(code) => format!("exit status {code}"),
            None => output.status.to_string(),
        };
        Err(failed(&status, &arguments, &String::from_utf8_lossy(&said)))
    }
}

/// As upstream words the failure of any mount(8).
fn failed(what: &str, arguments: &[String], said: &str) -> String {
    let arguments = arguments.join(" ");
    format!("mount failed: {what}\nMounting command: mount\nMounting arguments: {arguments}\nOutput: {said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_is_told_what_the_volume_says() {
        let nfs = |server: &str, options: &[&str], read_only| Nfs {
            server: server.into(),
            path: "/exports/a".into(),
            options: options.iter().map(ToString::to_string).collect(),
            read_only,
        };
        let at = Path::new("/at");
        for (nfs, arguments) in [
            (nfs("files", &[], false), "-t nfs files:/exports/a /at"),
            (nfs("fd00::1", &[], true), "-t nfs -o ro [fd00::1]:/exports/a /at"),
            (
                nfs("10.0.0.1", &["nfsvers=4.1", "hard"], true),
                "-t nfs -o ro,nfsvers=4.1,hard 10.0.0.1:/exports/a /at",
            ),
        ] {
            assert_eq!(nfs.arguments(at).join(" "), arguments);
        }
    }
}
