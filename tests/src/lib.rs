//! The end-to-end harness: a real server in a network namespace of its own, real containers, upstream's kubectl.
//!
//! A [`Cluster`] makes its namespace and directories, starts the built binary in it and takes everything away when it is
//! dropped. Nothing in it reaches past the namespace: it has an uplink of its own whose other end is in a second
//! namespace, the [outside](Cluster::outside), and no route beyond.

pub mod ceph;
mod cluster;
mod command;
mod containerd;
mod image;
mod mount;
mod netns;
pub mod nfs;
mod registry;
mod terminal;

pub use cluster::{Cluster, NODE_IP, Options};
pub use command::{Output, eventually, promised, run};
pub use containerd::Containerd;
pub use image::{layered, variant};
pub use mount::{Loop, Mount};
pub use netns::Netns;
pub use registry::Registry;
pub use terminal::Terminal;

use std::path::PathBuf;
use std::process::Command;

/// Cargo's target directory, where the binary, the images and the tools are.
pub fn target() -> PathBuf {
    let own = || {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .map(|root| root.join("target"))
            .unwrap_or_default()
    };
    ["PODIUM_TARGET", "CARGO_TARGET_DIR"]
        .iter()
        .find_map(std::env::var_os)
        .map_or_else(own, PathBuf::from)
}

/// The archive of an image that `cargo xtask images` composes.
pub fn image(name: &str) -> PathBuf {
    target().join("images").join(format!("{name}.tar"))
}

/// A pod whose one container sleeps. `mounts` are the container's volumeMounts, `volumes` the pod's; `more` is further lines of its spec.
pub fn sleeper(name: &str, mounts: &str, volumes: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{color: red}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{more}  containers:\n  - name: c\n    image: localhost/busybox:1\n    command: [sleep, '1000']\n    volumeMounts: [{mounts}]\n  volumes: [{volumes}]\n"
    )
}

/// The binary under test.
pub fn podium() -> PathBuf {
    std::env::var_os("PODIUM").map_or_else(|| target().join("debug/podium"), PathBuf::from)
}

/// Whether this machine's kernel has a file system, perhaps in a module that nobody has asked for yet.
///
/// # Panics
/// When it has not, where no test is to be left out.
#[track_caller]
pub fn kernel_has(file_system: &str) -> bool {
    let _ = run(Command::new("modprobe").args(["-q", file_system]), "");
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = known
        .lines()
        .any(|line| line.split_whitespace().last() == Some(file_system));
    assert!(
        has || !nothing_is_left_out(),
        "this kernel has no file system {file_system:?}"
    );
    has
}

/// Whether this machine's kernel has AppArmor, and what loads a profile.
///
/// # Panics
/// When it has not, where no test is to be left out.
#[track_caller]
pub fn has_app_armor() -> bool {
    let enabled =
        std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with('Y'));
    let has = enabled && Command::new("apparmor_parser").arg("--version").output().is_ok();
    assert!(
        has || !nothing_is_left_out(),
        "this machine has no AppArmor, or no apparmor_parser"
    );
    has
}

/// Whether this machine has all that tests can use, so that what is missing is a failure.
fn nothing_is_left_out() -> bool {
    std::env::var_os("PODIUM_TEST_KERNEL").is_some()
}
