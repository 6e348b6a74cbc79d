//! The rules that run: what a compiler or clippy cannot see but the project still holds to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::system::{self, command, output};

/// The arrows design.md allows: a crate may depend on these rooms and on no other.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &[]),
    ("cri", &[]),
    ("client", &["api"]),
    ("runtime", &["cri"]),
    ("apiserver", &["store", "api"]),
    ("network", &["client", "api"]),
    ("scheduler", &["client", "api"]),
    ("controllers", &["client", "api"]),
    ("kubelet", &["client", "api", "cri"]),
    ("kubectl", &["client", "api"]),
];

/// Licences of dependencies that may be linked into an Apache-2.0 binary without further duties than notice.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "LGPL-2.1",
    "LGPL-2.1-only",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Dependencies that name no licence but carry its text, with the licence that the text is.
const LICENCE_FILES: &[(&str, &str)] = &[("rust-criu", "MIT")];

/// Checks every rule and names all that are broken.
pub fn check() -> Result<()> {
    let metadata: Value = serde_json::from_str(&output(command("cargo").args([
        "metadata",
        "--format-version=1",
        "--locked",
    ]))?)?;
    let mut broken = arrows(&metadata);
    broken.extend(licences(&metadata));
    broken.extend(the_map()?);
    for directory in ["benches", "crates", "tests", "xtask"] {
        sources(&system::root().join(directory), &mut |path, text| {
            broken.extend(source(path, text))
        })?;
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("rules broken:\n  {}", broken.join("\n  "));
}

fn workspace_packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| package["source"].is_null())
}

fn arrows(metadata: &Value) -> Vec<String> {
    let rooms: BTreeSet<&str> = MAY_USE.iter().map(|(room, _)| *room).collect();
    let mut broken = Vec::new();
    for package in workspace_packages(metadata) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = MAY_USE.iter().find(|(room, _)| *room == name) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if rooms.contains(on) && dependency["kind"].is_null() && !allowed.contains(&on) {
                broken.push(format!("crate {name} may not use {on}: design.md draws no such arrow"));
            }
        }
    }
    broken
}

fn licences(metadata: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let by_file = LICENCE_FILES
            .iter()
            .find(|(carrier, _)| *carrier == name)
            .map(|(_, licence)| *licence);
        let licence = package["license"].as_str().or(by_file).unwrap_or("none named");
        let free = licence.replace('/', " OR ").split(" OR ").any(|choice| {
            choice
                .split(" AND ")
                .all(|part| LICENCES.contains(&part.trim().trim_matches(['(', ')']).trim()))
        });
        if !free {
            broken.push(format!(
                "dependency {name} has licence {licence}, which is not on the list"
            ));
        }
    }
    broken
}

/// ARCHITECTURE.md names every crate, and every path it names is there.
fn the_map() -> Result<Vec<String>> {
    let root = system::root();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let mut broken = Vec::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !map.contains(&format!("`{name}`")) {
            broken.push(format!("ARCHITECTURE.md does not name crate {name}"));
        }
    }
    for word in map.split('`').skip(1).step_by(2) {
        let path = word.starts_with("crates/")
            || word.starts_with("tests/")
            || word.starts_with("xtask/")
            || word.starts_with("examples/");
        if path && !word.contains(['*', ' ', '<']) && !root.join(word).exists() {
            broken.push(format!("ARCHITECTURE.md names {word}, which is not there"));
        }
    }
    Ok(broken)
}

/// A file of more lines holds two ideas at least.
const MOST_LINES: usize = 800;

/// Shows every Rust file below a directory, by its path in the repository.
fn sources(directory: &Path, see: &mut impl FnMut(&str, &str)) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, see)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let root = system::root();
            see(&path.strip_prefix(root).unwrap_or(&path).to_string_lossy(), &text);
        }
    }
    Ok(())
}

/// Each module opens by saying what it is, and is of a size that one can read.
fn source(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    // A build script is no module.
    if !path.ends_with("/build.rs") && !text.trim_start().starts_with("//!") {
        broken.push(format!("{path} does not open with //! and what it is"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        broken.push(format!(
            "{path} has {lines} lines; {MOST_LINES} are the most: it holds more than one idea"
        ));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_opens_with_what_it_is_and_is_no_book() {
        assert_eq!(source("crates/a/src/lib.rs", "//! What it is.\n"), Vec::<String>::new());
        assert_eq!(source("crates/a/build.rs", "fn main() {}\n"), Vec::<String>::new());
        assert_eq!(source("crates/a/src/lib.rs", "use std::fs;\n").len(), 1);
        let book = "//! A book.\n".to_owned() + &"// A line.\n".repeat(MOST_LINES);
        assert_eq!(
            source("crates/a/src/lib.rs", &book),
            ["crates/a/src/lib.rs has 801 lines; 800 are the most: it holds more than one idea"]
        );
    }
}
