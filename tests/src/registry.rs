//! A real registry on a namespace's loopback.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::command::{eventually, run};
use crate::{Netns, target};

/// docker-registry, ended when dropped.
pub struct Registry {
    server: Child,
    dir: TempDir,
    /// Its address, as references name it.
    pub address: String,
}

/// The password `secret` of the user `user`, as htpasswd writes it with bcrypt.
const HTPASSWD: &str = "user:$2y$04$yKTpZWIoN7sxYPovFs.ZYepOE8SauoguFsu/FvzeNbfM444/n2yrS\n";

impl Registry {
    /// Starts a registry that anyone may use, or only the user `user` with the password `secret`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(netns: &Netns, port: u16, with_password: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("podium-registry-")
            .tempdir()
            .expect("a directory for the registry");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.path().join("data").display()
        );
        if with_password {
            let htpasswd = dir.path().join("htpasswd");
            fs::write(&htpasswd, HTPASSWD).expect("the password file");
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", htpasswd.display());
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, config).expect("the registry's configuration");
        let mut command = netns.command(target().join("tools/docker-registry"));
        let server = command
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let address = format!("127.0.0.1:{port}");
        eventually("the registry answers", || {
            let code = run(
                netns
                    .command("curl")
                    .args(["-s", "-o", "/dev/null", &format!("http://{address}/v2/")]),
                "",
            )
            .code;
            (code == 0).then_some(())
        });
        Self { server, dir, address }
    }

    /// Puts an archive of `cargo xtask images` into the registry under `name:tag`.
    ///
    /// # Panics
    /// When the registry refuses it.
    pub fn push(&self, netns: &Netns, archive: &Path, name: &str, tag: &str) {
        let work = tempfile::tempdir().expect("a directory for the archive");
        run(
            Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(work.path()),
            "",
        )
        .ok();
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(work.path().join("index.json")).expect("index.json")).expect("an index");
        let manifest = index["manifests"][0]["digest"].as_str().expect("a manifest").to_owned();
        let blobs = work.path().join("blobs/sha256");
        let curl = |args: &[&str]| {
            let mut command = netns.command("curl");
            run(command.args(["-s", "-S", "--fail", "-u", "user:secret"]).args(args), "").ok()
        };
        for blob in fs::read_dir(&blobs).expect("blobs") {
            let blob = blob.expect("a blob").path();
            let digest = format!("sha256:{}", blob.file_name().expect("a name").to_string_lossy());
            if digest == manifest {
                continue;
            }
            let started = curl(&[
                "-i",
                "-X",
                "POST",
                &format!("http://{}/v2/{name}/blobs/uploads/", self.address),
            ]);
            let location = started
                .lines()
                .find_map(|line| {
                    line.strip_prefix("Location: ")
                        .or_else(|| line.strip_prefix("location: "))
                })
                .expect("an upload's location")
                .trim()
                .to_owned();
            let separator = if location.contains('?') { '&' } else { '?' };
            curl(&[
                "-X",
                "PUT",
                "-H",
                "Content-Type: application/octet-stream",
                "--data-binary",
                &format!("@{}", blob.display()),
                &format!("{location}{separator}digest={digest}"),
            ]);
        }
        let file = blobs.join(manifest.trim_start_matches("sha256:"));
        curl(&[
            "-X",
            "PUT",
            "-H",
            "Content-Type: application/vnd.oci.image.manifest.v1+json",
            "--data-binary",
            &format!("@{}", file.display()),
            &format!("http://{}/v2/{name}/manifests/{tag}", self.address),
        ]);
    }

    /// Changes a byte of every layer the registry holds, so that no digest fits any more.
    ///
    /// # Panics
    /// When its files cannot be changed.
    pub fn tamper(&self) {
        let find = format!(
            "find {} -path '*/blobs/*' -name data -size +100k -exec sh -c 'printf X | dd of=\"$1\" bs=1 seek=5000 conv=notrunc status=none' sh {{}} \\;",
            self.dir.path().join("data").display()
        );
        run(Command::new("sh").args(["-c", &find]), "").ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
