//! The lane with control groups of version 2 alone: end-to-end tests in a virtual machine, emulated by qemu, with Debian's cloud kernel, which
//! also has a server and a client of NFS, and a client of CephFS.
//!
//! ```text
//! <target>/vm/
//!   kernel/        the kernel's package, unpacked; `name` says which
//!   root/          what the machine's disk holds: busybox, nft, ip, mount, the binary, kubectl, images, the tests' programs, /sbin/init
//!   initrd.gz      what finds the disk
//!   disk.img
//!   console.log    what the machine said
//! ```

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::system::{self, command, output, run};
use crate::test::SELECTED;
use crate::{images, tools};

/// What the host needs.
const PACKAGES: &[&str] = &["qemu-system-x86", "e2fsprogs", "cpio", "kmod", "binutils"];

/// What the machine's root is made of, beside the libraries that these need.
const ROOT_PACKAGES: &[&str] = &[
    "busybox-static",
    "curl",
    "nftables",
    "iproute2",
    "kmod",
    "libseccomp2",
    "libgcc-s1",
    "libc6",
    // mount(8), with the helper that NFS wants.
    "mount",
    "nfs-common",
    // What loads the profiles of containers.
    "apparmor",
    // The storage cluster that a test starts.
    "ceph-base",
    "ceph-common",
    "ceph-mds",
    "ceph-mon",
    "ceph-osd",
    "python3-minimal",
    "libpython3-stdlib",
    "python3-rados",
];

/// The package that depends on the newest kernel.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Modules that the disk needs; the others are loaded by the kernel when they are asked for.
const DISK_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];

/// The tests that run in there: the file, and the name's part that chooses.
const TESTS: &[(&str, &str)] = &[
    ("node_and_pod", "pod_of_two_containers"),
    ("cgroups", ""),
    ("pods", "volumes_probes_and_hooks"),
    ("security", "app_armor"),
    ("storage", "an_nfs_server"),
    ("storage", "a_ceph_file_system"),
];

const MINUTES: u32 = 25;

/// Runs the lane, unless this machine itself is such a one and has run the tests already.
pub fn run_tests() -> Result<()> {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("    this machine has cgroup v2 alone: the end-to-end tests were that lane");
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        eprintln!("    the virtual machine is an x86_64 one, which this machine is not: the lane is left out");
        return Ok(());
    }
    system::install(PACKAGES)?;
    let dir = system::target().join("vm");
    fs::create_dir_all(&dir)?;
    let kernel = Kernel::fetch(&dir).context("the kernel")?;
    let root = dir.join("root");
    compose(&dir, &root, &kernel).context("the machine's root")?;
    write_initrd(&dir, &root, &kernel).context("the initial file system")?;
    let disk = dir.join("disk.img");
    let _ = fs::remove_file(&disk);
    run(command("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(&root)
        .arg(&disk)
        .arg("4G")
        .stdout(Stdio::null()))?;
    let console = boot(&dir, &kernel, &disk)?;
    let said = fs::read_to_string(&console).unwrap_or_default();
    ensure!(
        said.lines().any(|line| line.trim_end() == "lane: passed"),
        "{said}\nthe tests in the virtual machine did not pass; the above is {}",
        console.display()
    );
    for line in said.lines().filter(|line| line.starts_with("test ")) {
        eprintln!("    {}", line.trim_end());
    }
    Ok(())
}

struct Kernel {
    image: PathBuf,
    /// The directory with the modules, by the kernel's release.
    modules: PathBuf,
    release: String,
}

impl Kernel {
    fn fetch(dir: &Path) -> Result<Self> {
        let depends = output(command("apt-cache").args(["depends", KERNEL]))?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .with_context(|| format!("package {KERNEL} is not to be had; apt-get update?"))?;
        let release = package
            .strip_prefix("linux-image-")
            .with_context(|| format!("package {package} is no kernel's"))?
            .to_owned();
        let kernel = dir.join("kernel");
        let name = kernel.join("name");
        if fs::read_to_string(&name).is_ok_and(|name| name == release) {
            return Ok(Self::at(&kernel, release));
        }
        let _ = fs::remove_dir_all(&kernel);
        fs::create_dir_all(&kernel)?;
        images::unpack(&[package.to_owned()], &kernel, &kernel)?;
        fs::write(name, &release)?;
        Ok(Self::at(&kernel, release))
    }

    fn at(dir: &Path, release: String) -> Self {
        Self {
            image: dir.join("boot").join(format!("vmlinuz-{release}")),
            modules: dir.join("lib/modules").join(&release),
            release,
        }
    }
}

/// Lays out what the disk holds.
fn compose(dir: &Path, root: &Path, kernel: &Kernel) -> Result<()> {
    let _ = fs::remove_dir_all(root);
    images::skeleton(root)?;
    images::unpack(&images::closure(ROOT_PACKAGES)?, &dir.join("packages"), root)?;
    images::link_applets(root)?;
    // The kernel asks for modules through this one, and busybox' is not kmod's.
    let modprobe = root.join("usr/sbin/modprobe");
    let _ = fs::remove_file(&modprobe);
    symlink("../bin/kmod", modprobe)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::copy("/etc/os-release", root.join("etc/os-release"))?;
    let modules = root.join("usr/lib/modules");
    fs::create_dir_all(&modules)?;
    run(command("cp").arg("-a").arg(&kernel.modules).arg(&modules))?;
    for unused in ["drivers/gpu", "drivers/media", "drivers/infiniband", "sound"] {
        let _ = fs::remove_dir_all(modules.join(&kernel.release).join("kernel").join(unused));
    }
    run(command("/sbin/depmod").arg("-b").arg(root).arg(&kernel.release))?;

    let target = root.join("target");
    for directory in ["debug", "tools", "images", "tests"] {
        fs::create_dir_all(target.join(directory))?;
    }
    copy_stripped(&system::target().join("debug/podium"), &target.join("debug/podium"))?;
    fs::copy(tools::all()?.join("kubectl"), target.join("tools/kubectl"))?;
    for archive in images::all()? {
        let name = archive.file_name().context("an archive without a name")?;
        fs::copy(&archive, target.join("images").join(name))?;
    }
    let mut script = String::from(INIT_HEAD);
    for (file, filter) in TESTS {
        copy_stripped(&test_program(file)?, &target.join("tests").join(file))?;
        script += &format!("/target/tests/{file} --test-threads 1 {filter} || failed=1\n");
    }
    script += "[ -z \"$failed\" ] && echo 'lane: passed'\npoweroff -f\n";
    write_program(&root.join("usr/sbin/init"), &script)
}

/// The first process: mounts what a machine has, and runs the tests, of which none may be left out for want of something in the kernel.
const INIT_HEAD: &str = "#!/bin/sh
export PATH=/usr/bin:/usr/sbin HOME=/root PODIUM_TARGET=/target PODIUM_TEST_PATIENCE=300 PODIUM_TEST_KERNEL=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
ip link set lo up
/target/debug/podium check
";

/// The program of an end-to-end test file.
fn test_program(file: &str) -> Result<PathBuf> {
    let mut cargo = command("cargo");
    cargo.arg("test").args(SELECTED);
    cargo.args(["--no-run", "--message-format=json", "--test", file]);
    let built = output(&mut cargo)?;
    built
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| {
            (message["target"]["name"] == file).then(|| message["executable"].as_str().map(PathBuf::from))?
        })
        .with_context(|| format!("cargo names no program of the tests in {file}"))
}

fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    run(command("strip").arg("-g").arg("-o").arg(to).arg(from))
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The smallest file system that can load the disk's modules and go on from the disk.
fn write_initrd(dir: &Path, root: &Path, kernel: &Kernel) -> Result<()> {
    let initrd = dir.join("initrd");
    let _ = fs::remove_dir_all(&initrd);
    for directory in ["bin", "proc", "dev", "new", "modules"] {
        fs::create_dir_all(initrd.join(directory))?;
    }
    fs::copy(root.join("usr/bin/busybox"), initrd.join("bin/busybox"))?;
    let mut script = String::from("#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n");
    let mut loaded: Vec<PathBuf> = Vec::new();
    for module in DISK_MODULES {
        let needs = output(command("/sbin/modprobe").arg("-d").arg(root).args([
            "-S",
            &kernel.release,
            "--show-depends",
            module,
        ]))?;
        // `insmod PATH`; what is built in is said as `builtin NAME`.
        for path in needs.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = PathBuf::from(path.trim());
            if loaded.contains(&path) {
                continue;
            }
            let name = path.file_name().context("a module without a name")?.to_owned();
            fs::copy(&path, initrd.join("modules").join(&name))?;
            script += &format!("/bin/busybox insmod /modules/{}\n", name.display());
            loaded.push(path);
        }
    }
    script += "/bin/busybox mount -t ext4 /dev/vda /new && exec /bin/busybox switch_root /new /sbin/init\n";
    write_program(&initrd.join("init"), &script)?;
    run(Command::new("sh")
        .args(["-c", "find . | cpio --quiet -o -H newc | gzip -1 > ../initrd.gz"])
        .current_dir(&initrd))
}

/// Runs the machine to its end; gives the file with what it said.
fn boot(dir: &Path, kernel: &Kernel, disk: &Path) -> Result<PathBuf> {
    let console = dir.join("console.log");
    let mut qemu = command("timeout");
    qemu.arg(format!("{MINUTES}m"));
    qemu.args([
        "qemu-system-x86_64",
        "-accel",
        "tcg,thread=multi",
        "-smp",
        "2",
        "-m",
        "3G",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
        "-nic",
        "none",
        "-append",
        "console=ttyS0 quiet panic=-1",
    ]);
    qemu.arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(dir.join("initrd.gz"));
    qemu.arg("-drive")
        .arg(format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()));
    let status = qemu
        .stdin(Stdio::null())
        .stdout(File::create(&console)?)
        .status()
        .context("qemu-system-x86_64")?;
    if !status.success() {
        bail!(
            "{}\nthe virtual machine did not come to its end within {MINUTES} minutes ({status}); the above is {}",
            fs::read_to_string(&console).unwrap_or_default(),
            console.display()
        );
    }
    Ok(console)
}
