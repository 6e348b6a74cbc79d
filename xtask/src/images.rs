//! Composes images from Debian packages and the workspace's own programs: no registry is needed. Each becomes an OCI archive in
//! `target/images`, made anew only when what it is made of has changed.
//!
//! An image has two layers: its packages, which images of the same packages share, and what is laid over them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::system::{self, command, output, run};

/// One image: the packages it is made of, what is laid over them, and its configuration.
#[derive(Debug)]
struct Recipe {
    /// The file's name, without `.tar`.
    name: &'static str,
    /// The reference it is imported under.
    reference: &'static str,
    packages: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    /// What PyPI has, laid out for the packages' Python.
    wheels: &'static [&'static str],
    /// The workspace's own programs, by their path in the image.
    programs: &'static [(&'static str, Program)],
    command: &'static [&'static str],
    /// Variables beside PATH.
    env: &'static [&'static str],
    /// Whether busybox is linked under the names of its applets, where no other program has them.
    busybox: bool,
}

/// How one of the workspace's own programs is built.
#[derive(Debug, Clone, Copy)]
enum Program {
    /// A package by itself.
    Package(&'static str),
    /// A package beside `podium`, so that what both need is compiled once.
    BesidePodium(&'static str),
    /// A file of C, linked with musl, which this machine need not have.
    Musl(&'static str),
}

const PASSWD: (&str, &str) = (
    "etc/passwd",
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
);
const GROUP: (&str, &str) = ("etc/group", "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n");

const NGINX_CONF: &str = "\
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log /dev/stdout;
    server {
        listen 80 default_server;
        root /usr/share/nginx/html;
        location / { index index.html; }
        location /cache/ { root /; }
    }
}
";

const NGINX_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n";

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "nginx",
        reference: "localhost/nginx:1",
        packages: &["nginx", "nginx-common"],
        files: &[
            PASSWD,
            GROUP,
            ("etc/nginx/nginx.conf", NGINX_CONF),
            ("usr/share/nginx/html/index.html", NGINX_PAGE),
        ],
        wheels: &[],
        programs: &[],
        command: &["nginx", "-g", "daemon off;"],
        env: &[],
        busybox: false,
    },
    Recipe {
        name: "busybox",
        reference: "localhost/busybox:1",
        packages: &["busybox-static"],
        files: &[PASSWD, GROUP],
        wheels: &[],
        programs: &[],
        command: &["sh"],
        env: &[],
        busybox: true,
    },
    Recipe {
        name: "web",
        reference: "localhost/web:1",
        env: &["WEB_VERSION=1"],
        ..WEB
    },
    Recipe {
        name: "web-2",
        reference: "localhost/web:2",
        env: &["WEB_VERSION=2"],
        ..WEB
    },
    // What users bring to ask the API and DNS with.
    Recipe {
        name: "clients",
        reference: "localhost/clients:1",
        packages: &[
            "python3-minimal",
            "libpython3-stdlib",
            "busybox-static",
            "libc6",
            "libc-bin",
        ],
        files: &[PASSWD, GROUP],
        wheels: &["kubernetes==36.0.3"],
        programs: &[
            ("usr/local/bin/kube-client", Program::BesidePodium("in-cluster")),
            (
                "usr/local/bin/look-up-musl",
                Program::Musl("tests/in-cluster/src/look_up.c"),
            ),
        ],
        command: &["sh"],
        env: &[],
        busybox: true,
    },
];

/// The tests' own web program (`tests/web`) among the tools that one looks around with.
const WEB: Recipe = Recipe {
    name: "",
    reference: "",
    packages: &["bash", "coreutils", "procps", "busybox-static", "libc6"],
    files: &[PASSWD, GROUP, ("srv/web/login.html", LOGIN_PAGE)],
    wheels: &[],
    programs: &[("usr/local/bin/web", Program::Package("web"))],
    command: &["web"],
    env: &[],
    busybox: true,
};

const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><h1>Log in</h1><p>Version {version} on {hostname}</p></body></html>\n";

/// Composes every image; gives the archives' paths.
pub fn all() -> Result<Vec<PathBuf>> {
    some(|_| true)
}

/// Composes the images of these names; gives the archives' paths.
pub fn named(names: &[&str]) -> Result<Vec<PathBuf>> {
    some(|name| names.contains(&name))
}

fn some(wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    system::refresh_package_lists()?;
    RECIPES
        .iter()
        .filter(|recipe| wanted(recipe.name))
        .map(|recipe| compose(recipe).with_context(|| format!("image {}", recipe.reference)))
        .collect()
}

fn compose(recipe: &Recipe) -> Result<PathBuf> {
    let dir = system::target().join("images");
    fs::create_dir_all(&dir)?;
    let archive = dir.join(format!("{}.tar", recipe.name));
    let packages = closure(recipe.packages)?;
    let programs = recipe
        .programs
        .iter()
        .map(|(_, program)| program.made_of())
        .collect::<Result<Vec<_>>>()?;
    // What the image is made of names it: same packages, same programs, same recipe, same image.
    let digests: Vec<String> = programs.iter().map(|program| digest(program)).collect();
    let made_of = format!("{recipe:?}{packages:?}{digests:?}");
    let stamp = dir.join(format!("{}.made-of", recipe.name));
    if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|old| old == made_of) {
        return Ok(archive);
    }
    let work = dir.join(format!("{}.work", recipe.name));
    let _ = fs::remove_dir_all(&work);
    let layers = [
        base(recipe, &packages, &work).and_then(|root| layer(&work, &root))?,
        own(recipe, programs, &work).and_then(|root| layer(&work, &root))?,
    ];
    write_oci_archive(recipe, &layers, &archive)?;
    fs::remove_dir_all(&work)?;
    fs::write(stamp, made_of)?;
    Ok(archive)
}

impl Program {
    /// What it is made of: the program itself where cargo knows whether it is up to date, else its source.
    fn made_of(self) -> Result<Vec<u8>> {
        let path = match self {
            Program::Package(name) => build(&[name])?.join(name),
            Program::BesidePodium(name) => build(&[name, "podium"])?.join(name),
            Program::Musl(source) => system::root().join(source),
        };
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// The program, given what it is made of. But for those of musl it runs in an image with this machine's C library.
    fn bytes(self, made_of: Vec<u8>, work: &Path) -> Result<Vec<u8>> {
        match self {
            Program::Package(_) | Program::BesidePodium(_) => Ok(made_of),
            Program::Musl(source) => build_with_musl(source, &work.join("musl")),
        }
    }
}

/// Builds packages of the workspace; gives the directory of their programs.
fn build(packages: &[&str]) -> Result<PathBuf> {
    let selected = packages.iter().flat_map(|package| ["--package", package]);
    run(command("cargo").args(["build", "--quiet", "--locked"]).args(selected))?;
    Ok(system::target().join("debug"))
}

/// Compiles a file of C with the headers and the library of Debian's musl, unpacked below `work` and not installed.
fn build_with_musl(source: &str, work: &Path) -> Result<Vec<u8>> {
    let root = work.join("root");
    fs::create_dir_all(&root)?;
    unpack(&["musl-dev".to_owned()], work, &root)?;
    let triple = format!("{}-linux-musl", std::env::consts::ARCH);
    let (headers, library) = (
        root.join("usr/include").join(&triple),
        root.join("usr/lib").join(&triple),
    );
    let program = work.join("program");
    let mut cc = command("cc");
    cc.args([
        "-O1",
        "-static",
        "-no-pie",
        "-fno-pie",
        "-nostdinc",
        "-nostdlib",
        "-isystem",
    ])
    .arg(headers)
    .arg("-o")
    .arg(&program)
    .args(["crt1.o", "crti.o"].map(|object| library.join(object)))
    .arg(source)
    .arg(library.join("libc.a"))
    .args(["-lgcc", "-lgcc_eh"])
    .arg(library.join("crtn.o"));
    run(&mut cc)?;
    Ok(fs::read(program)?)
}

/// Lays out packages of Python's for the Python that is in `root`.
fn install_wheels(wheels: &[&str], root: &Path) -> Result<()> {
    if wheels.is_empty() {
        return Ok(());
    }
    system::install(&["python3", "python3-pip"])?;
    let names = fs::read_dir(root.join("usr/bin"))?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<std::io::Result<Vec<_>>>()?;
    let mut versions = names
        .iter()
        .filter_map(|name| name.to_str()?.strip_prefix("python")?.strip_prefix("3."));
    let version = versions
        .next()
        .context("the packages did not bring usr/bin/python3.N")?;
    run(command("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"])
        // What is installed beside it on this machine, and for whom, is of no account.
        .args(["--no-warn-conflicts", "--root-user-action=ignore"])
        .arg(format!("--python-version=3.{version}"))
        .arg("--target")
        .arg(root.join("usr/lib/python3/dist-packages"))
        .args(wheels))
}

/// Makes the directories that every Linux has, so that packages find them.
pub fn skeleton(root: &Path) -> Result<()> {
    for directory in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "tmp",
        "run",
        "root",
        "proc",
        "sys",
        "dev",
        "var/log",
        "var/lib",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for merged in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{merged}"), root.join(merged))?;
    }
    Ok(())
}

/// The directory of what an image's packages bring.
fn base(recipe: &Recipe, packages: &[String], work: &Path) -> Result<PathBuf> {
    let root = work.join("base");
    skeleton(&root)?;
    for directory in ["var/log/nginx", "var/lib/nginx"] {
        fs::create_dir_all(root.join(directory))?;
    }
    unpack(packages, work, &root)?;
    install_wheels(recipe.wheels, &root)?;
    if recipe.busybox {
        link_applets(&root)?;
    }
    Ok(root)
}

/// The directory of what is laid over them.
fn own(recipe: &Recipe, programs: Vec<Vec<u8>>, work: &Path) -> Result<PathBuf> {
    let root = work.join("own");
    let add = |path: &str, bytes: &[u8], mode| {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    for (path, text) in recipe.files {
        add(path, text.as_bytes(), 0o644)?;
    }
    for ((path, program), made_of) in recipe.programs.iter().zip(programs) {
        add(path, &program.bytes(made_of, work)?, 0o755)?;
    }
    Ok(root)
}

/// The packages and the libraries they need, each as `name=version`.
pub fn closure(seeds: &[&str]) -> Result<Vec<String>> {
    let mut names: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    let mut asked = 0;
    // All that one round has found is asked about at once: each start of apt-cache costs as much as a hundred answers.
    while asked < names.len() {
        let depends = output(
            command("apt-cache")
                .args([
                    "depends",
                    "--important",
                    "--no-conflicts",
                    "--no-breaks",
                    "--no-replaces",
                    "--no-enhances",
                ])
                .args(&names[asked..]),
        )?;
        asked = names.len();
        for line in depends.lines() {
            let line = line.trim();
            let Some(on) = line
                .strip_prefix("Depends: ")
                .or_else(|| line.strip_prefix("PreDepends: "))
            else {
                continue;
            };
            // Only what is linked: no scripts' interpreters, no configuration tools, no other programs. What Python is
            // made of bears its version.
            let library = (on.starts_with("lib") && !on.contains("mod-") && !on.contains("perl"))
                || on.starts_with("python3.")
                || on == "zlib1g";
            if library && !names.iter().any(|name| name == on) {
                names.push(on.to_owned());
            }
        }
    }
    let policy = output(command("apt-cache").arg("policy").args(&names))?;
    let mut versions = HashMap::new();
    let mut package = "";
    for line in policy.lines() {
        match line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            Some(name) => package = name,
            None => {
                if let Some(version) = line.trim().strip_prefix("Candidate: ") {
                    versions.insert(package, version);
                }
            }
        }
    }
    names
        .iter()
        .map(|name| {
            let version = versions.get(name.as_str());
            let version = version.with_context(|| format!("package {name} is not to be had; apt-get update?"))?;
            Ok(format!("{name}={version}"))
        })
        .collect()
}

/// Downloads packages below `work` and lays their files out in `root`.
pub fn unpack(packages: &[String], work: &Path, root: &Path) -> Result<()> {
    let debs = work.join("debs");
    let _ = fs::remove_dir_all(&debs);
    fs::create_dir_all(&debs)?;
    let mut apt = command("apt-get");
    // apt's unprivileged download user may not write below a root-owned checkout.
    apt.args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .args(packages)
        .current_dir(&debs);
    run(&mut apt)?;
    for deb in fs::read_dir(&debs)? {
        let deb = deb?.path();
        let script = r#"dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale -C "$2""#;
        run(command("sh").args(["-c", script, "sh"]).arg(&deb).arg(root))?;
    }
    Ok(())
}

/// Links busybox under the names of all it can do, where no other program has them.
pub fn link_applets(root: &Path) -> Result<()> {
    let busybox = root.join("usr/bin/busybox");
    ensure!(busybox.exists(), "the package did not bring usr/bin/busybox");
    for applet in output(command(&busybox).arg("--list"))?.lines() {
        let path = root.join("usr/bin").join(applet);
        if !path.exists() {
            std::os::unix::fs::symlink("busybox", path)?;
        }
    }
    Ok(())
}

struct Layer {
    gzip: Vec<u8>,
    /// The digest of what is compressed in it.
    diff_id: String,
}

/// A directory as a layer. Order, times and owners are fixed, so that the same files always make the same digests.
fn layer(work: &Path, root: &Path) -> Result<Layer> {
    let file = work.join("layer.tar");
    let mut tar = command("tar");
    tar.args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-cf",
    ]);
    run(tar.arg(&file).arg("-C").arg(root).arg("."))?;
    let tar = fs::read(&file)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar)?;
    Ok(Layer {
        gzip: gzip.finish()?,
        diff_id: digest(&tar),
    })
}

/// Writes an image as an OCI image layout in a tar file.
fn write_oci_archive(recipe: &Recipe, layers: &[Layer], archive: &Path) -> Result<()> {
    let env = [
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"].as_slice(),
        recipe.env,
    ]
    .concat();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let created_by = format!("cargo xtask images: {}", recipe.packages.join(" "));
    let config = to_bytes(&json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Env": env, "Cmd": recipe.command},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| json!({"created_by": created_by})).collect::<Vec<_>>(),
    }))?;
    let descriptor =
        |media_type: &str, blob: &[u8]| json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()});
    let manifest = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer.gzip))
            .collect::<Vec<_>>(),
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] =
        json!({"org.opencontainers.image.ref.name": recipe.reference, "io.containerd.image.name": recipe.reference});
    let index = to_bytes(
        &json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}),
    )?;

    let temporary = archive.with_extension("tar.part");
    let mut tar = tar::Builder::new(File::create(&temporary)?);
    let mut add = |path: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes)
    };
    add("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add("index.json".into(), &index)?;
    let blobs = [&manifest, &config]
        .into_iter()
        .chain(layers.iter().map(|layer| &layer.gzip));
    for blob in blobs {
        add(
            format!("blobs/sha256/{}", digest(blob).trim_start_matches("sha256:")),
            blob,
        )?;
    }
    tar.into_inner()?.sync_all()?;
    fs::rename(temporary, archive)?;
    Ok(())
}

fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Go's name of this machine's architecture, as images carry it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
