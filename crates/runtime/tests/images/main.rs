//! Images against real things: docker-registry on loopback, archives composed here, the kernel's files.
//!
//! Every test with a registry runs in a network namespace of its own, which goes with its threads.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod archives;
mod compose;
mod life;
mod pulls;
mod registry;
mod token;

use std::path::Path;

use runtime::images::{Config, Images};

/// Opens the images of a data directory.
fn open(data_dir: &Path) -> Images {
    Images::open(config(data_dir)).unwrap()
}

fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        registries_file: data_dir.join("registries.yaml"),
    }
}

/// What is in a directory of the store.
fn entries(data_dir: &Path, dir: &str) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(data_dir.join("image-store").join(dir))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// That nothing of a failed image is left.
fn assert_empty(data_dir: &Path) {
    for dir in ["layers", "tmp"] {
        assert_eq!(entries(data_dir, dir), Vec::<String>::new(), "{dir}");
    }
}
