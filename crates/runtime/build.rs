//! Compiles the pause program, which the crate carries in its binary.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=pause/pause.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|err| panic!("{name}: {err}"));
    let output = PathBuf::from(variable("OUT_DIR")).join("pause");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-name", "pause", "--crate-type", "bin"])
        .args(["--target", &variable("TARGET")])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"])
        // Small pages of the file: a program of one page of code need not be 64 KiB long.
        .args([
            "-C",
            "link-args=-nostartfiles -nostdlib -static -Wl,-z,max-page-size=4096,--build-id=none",
        ])
        .arg("-o")
        .arg(&output)
        .arg("pause/pause.rs")
        .status()
        .unwrap_or_else(|err| panic!("run rustc for the pause program: {err}"));
    assert!(status.success(), "rustc could not compile the pause program: {status}");
}
