//! Variables from files in volumes, which init containers write.
//!
//! A file holds `NAME='value'` lines: a small part of a shell's syntax. A value stands in single quotes, as it is, over several lines if
//! need be. Blank lines and comments say nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use k8s_openapi::api::core::v1::FileKeySelector;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tracing::debug;

use crate::volumes::Mounted;
use crate::words;

/// More than any environment can hold.
const LONGEST_FILE: u64 = 1 << 20;

/// The variable that a reference names; none if it may be missing and is.
pub fn variable(key: &FileKeySelector, volumes: &HashMap<String, Mounted>) -> Result<Option<String>, String> {
    let mounted = volumes.get(&key.volume_name).ok_or_else(|| {
        let name = words::quote(&key.volume_name);
        format!("cannot find the volume {name} referenced by FileKeyRef")
    })?;
    let volume = &mounted.path;
    let found = read(volume, &key.path).and_then(|text| parse(&text, &key.key));
    match found {
        Ok(Some(value)) if !value.is_empty() => Ok(Some(value)),
        Ok(_) if key.optional == Some(true) => Ok(None),
        Ok(_) => Err(format!(
            "environment variable key {} not found in file {}",
            words::quote(&key.key),
            words::quote(&volume.join(&key.path).to_string_lossy())
        )),
        Err(error) => {
            debug!(volume = %volume.display(), path = key.path, error, "environment file");
            Err("couldn't parse env file".into())
        }
    }
}

/// The text of a file in a volume. Containers write there: no link leads out of it.
fn read(volume: &Path, path: &str) -> Result<String, String> {
    let root = open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let how = OpenHow::new()
        // What is no file at all must not hold up who opens it.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = root.and_then(|root| openat2(&root, path, how));
    let file = File::from(opened.map_err(|error| format!("open: {error}"))?);
    let metadata = file.metadata().map_err(|error| format!("stat: {error}"))?;
    if !metadata.is_file() || metadata.len() > LONGEST_FILE {
        return Err(format!("not a file of at most {LONGEST_FILE} bytes"));
    }
    let mut text = String::new();
    file.take(LONGEST_FILE)
        .read_to_string(&mut text)
        .map_err(|error| format!("read: {error}"))?;
    Ok(text)
}

/// The value of a variable in a file's text. Only what stands before it has to be well-formed.
fn parse(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let wrong = |what: &str| format!("invalid environment variable format at line {number}: {what}");
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("missing '='"))?;
        if name.trim_end_matches([' ', '\t']).is_empty() {
            return Err(wrong("empty variable name"));
        }
        if name.ends_with([' ', '\t']) {
            return Err(wrong("whitespace before '=' is not allowed"));
        }
        // As in a shell, what follows a space is not the value.
        if value.starts_with([' ', '\t']) {
            if name == key {
                return Ok(Some(String::new()));
            }
            continue;
        }
        let mut rest = value
            .strip_prefix('\'')
            .ok_or_else(|| wrong("value must be enclosed in single quotes"))?;
        let mut value = String::new();
        let after = loop {
            match rest.split_once('\'') {
                Some((end, after)) => {
                    value.push_str(end);
                    break after;
                }
                None => {
                    value.push_str(rest);
                    value.push('\n');
                    (_, rest) = lines.next().ok_or_else(|| wrong("unclosed single quote"))?;
                }
            }
        };
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with('#') {
            return Err(wrong("unexpected content after closing quote"));
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn values_stand_in_single_quotes() {
        let text = "# written by init\n\n  HOST='db.internal' # where\nMOTD='two\n  lines'\nEMPTY= 'x'\nDOLLAR='$HOME \\n'\nBAD\n";
        for (key, value) in [
            ("HOST", Ok(Some("db.internal"))),
            ("MOTD", Ok(Some("two\n  lines"))),
            ("EMPTY", Ok(Some(""))),
            ("DOLLAR", Ok(Some("$HOME \\n"))),
            (
                "NONE",
                Err("invalid environment variable format at line 8: missing '='"),
            ),
        ] {
            let value = value
                .map(|value| value.map(str::to_owned))
                .map_err(|error| error.to_owned());
            assert_eq!(parse(text, key), value, "{key}");
        }
        for (text, wrong) in [
            ("A ='b'", "whitespace before '=' is not allowed"),
            ("='b'", "empty variable name"),
            ("A=b", "value must be enclosed in single quotes"),
            ("A='b", "unclosed single quote"),
            ("A='b'c", "unexpected content after closing quote"),
        ] {
            let error = parse(text, "A").unwrap_err();
            assert_eq!(error, format!("invalid environment variable format at line 1: {wrong}"));
        }
    }

    #[test]
    fn a_file_is_looked_for_in_its_volume_alone() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(dir.path().join("secret.env"), "A='outside'\n").unwrap();
        std::fs::write(volume.join("secret.env"), "A='inside'\n").unwrap();
        symlink("../secret.env", volume.join("link.env")).unwrap();
        nix::unistd::mkfifo(&volume.join("pipe.env"), Mode::S_IRWXU).unwrap();
        let volumes = HashMap::from([(
            "v".to_owned(),
            Mounted {
                device: false,
                path: volume.clone(),
                read_only: false,
            },
        )]);
        let ask = |volume: &str, path: &str, key: &str, optional: bool| {
            let key = FileKeySelector {
                volume_name: volume.into(),
                path: path.into(),
                key: key.into(),
                optional: Some(optional),
            };
            variable(&key, &volumes)
        };
        assert_eq!(ask("v", "link.env", "A", false), Ok(Some("inside".into())));
        assert_eq!(ask("v", "secret.env", "B", true), Ok(None));
        let file = volume.join("secret.env");
        assert_eq!(
            ask("v", "secret.env", "B", false),
            Err(format!("environment variable key \"B\" not found in file {file:?}"))
        );
        for path in ["none.env", "pipe.env"] {
            assert_eq!(
                ask("v", path, "A", true),
                Err("couldn't parse env file".into()),
                "{path}"
            );
        }
        assert_eq!(
            ask("w", "x", "A", false),
            Err("cannot find the volume \"w\" referenced by FileKeyRef".into())
        );
    }
}
