//! A docker-registry process on loopback, in a network namespace of the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};

use crate::compose::{Image, digest};

pub const HOST: &str = "127.0.0.1:5000";

/// `ada` with the password `secret`, in bcrypt.
const HTPASSWD: &str = "ada:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Runs a test on threads that are alone in a network namespace.
pub fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.unwrap().success());
        // Its threads are made by this one, so they are in the namespace too.
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        threads.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub struct Registry {
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
    auth: RegistryAuth,
}

impl Registry {
    pub fn start(with_password: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let mut config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '{HOST}'}}\n"
        );
        if with_password {
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {at}/htpasswd}}}}\n");
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().any(|line| line.unwrap().contains("listening on"));
        assert!(ready, "docker-registry did not start");
        std::thread::spawn(move || lines.for_each(drop));
        let log = Arc::new(Mutex::new(Vec::new()));
        let access = BufReader::new(process.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn({
            let log = log.clone();
            move || access.for_each(|line| log.lock().unwrap().push(line.unwrap()))
        });
        let auth = if with_password {
            RegistryAuth::Basic("ada".into(), "secret".into())
        } else {
            RegistryAuth::Anonymous
        };
        Self {
            process,
            log,
            reader: Some(reader),
            dir,
            auth,
        }
    }

    fn client() -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(ClientConfig {
            protocol: ClientProtocol::Http,
            ..Default::default()
        })
    }

    /// Pushes an image and returns the digest of its manifest.
    pub async fn push(&self, name: &str, image: &Image) -> String {
        let reference: Reference = format!("{HOST}/{name}").parse().unwrap();
        let client = self.client_for(&reference).await;
        for bytes in image.layers.iter().map(|layer| &layer.blob).chain([&image.config]) {
            client
                .push_blob(&reference, bytes.clone(), &digest(bytes))
                .await
                .unwrap();
        }
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        client
            .push_manifest_raw(&reference, image.manifest.clone(), media_type.parse().unwrap())
            .await
            .unwrap();
        digest(&image.manifest)
    }

    /// Pushes a document as a manifest of the given type.
    pub async fn push_manifest(&self, name: &str, manifest: &[u8], media_type: &str) -> String {
        let reference: Reference = format!("{HOST}/{name}").parse().unwrap();
        let client = self.client_for(&reference).await;
        client
            .push_manifest_raw(&reference, manifest.to_vec(), media_type.parse().unwrap())
            .await
            .unwrap();
        digest(manifest)
    }

    async fn client_for(&self, reference: &Reference) -> Client {
        let client = Self::client();
        client
            .auth(reference, &self.auth, RegistryOperation::Push)
            .await
            .unwrap();
        client
    }

    /// Where the registry keeps a blob.
    pub fn blob_file(&self, bytes: &[u8]) -> PathBuf {
        let hex = &digest(bytes)[7..];
        self.dir
            .path()
            .join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// Ends the registry and counts the requests it answered whose line has all the words.
    pub fn requests(mut self, words: &[&str]) -> usize {
        self.stop();
        let log = self.log.lock().unwrap();
        log.iter()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
