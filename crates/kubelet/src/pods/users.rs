//! The users of pods that are not to be the node's (`hostUsers: false`): each such pod has a range of user and group ids of the node for
//! itself. What a pod has is in a file of its directory, as upstream keeps it, and goes with that.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use cri::v1::{IdMapping, NamespaceMode, UserNamespace};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The file, below the pod's directory.
const FILE: &str = "userns";
/// As many ids as a pod has; ranges begin at multiples of it, and the first is the node's.
const LENGTH: u32 = 65536;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

/// The first id of the range that a pod has, if it has one.
fn read(pod_dir: &Path) -> Result<Option<u32>, String> {
    let path = pod_dir.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("read {}: {error}", path.display())),
    };
    let invalid = |why: String| format!("invalid user namespace mappings file {}: {why}", path.display());
    let mappings: Mappings = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    match (mappings.uid_mappings.as_slice(), mappings.gid_mappings.as_slice()) {
        ([uids], [gids])
            if uids == gids
                && uids.container_id == 0
                && uids.length == LENGTH
                && uids.host_id >= LENGTH
                && uids.host_id % LENGTH == 0 =>
        {
            Ok(Some(uids.host_id))
        }
        _ => Err(invalid("not one range of users and groups alike".into())),
    }
}

/// Gives ranges out.
#[derive(Default)]
pub struct Ranges(Mutex<()>);

impl Ranges {
    /// The range of a pod, which has it for as long as it has its directory. `pods` is the directory of all pods, and `most` how many the
    /// node takes.
    pub fn of(&self, pods: &Path, pod_dir: &Path, most: u32) -> Result<UserNamespace, String> {
        let _turn = self.0.lock();
        let first = match read(pod_dir)? {
            Some(first) => first,
            None => take(pods, pod_dir, most)?,
        };
        let range = vec![IdMapping {
            host_id: first,
            container_id: 0,
            length: LENGTH,
        }];
        Ok(UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: range.clone(),
            gids: range,
        })
    }
}

fn take(pods: &Path, pod_dir: &Path, most: u32) -> Result<u32, String> {
    let mut taken = BTreeSet::new();
    for entry in fs::read_dir(pods).map_err(|error| format!("list {}: {error}", pods.display()))? {
        let entry = entry.map_err(|error| format!("list {}: {error}", pods.display()))?;
        taken.extend(read(&entry.path())?);
    }
    let first = (1..=most)
        .map(|number| number.saturating_mul(LENGTH))
        .find(|first| !taken.contains(first))
        .ok_or("could not find an empty slot to allocate a user namespace")?;
    let range = vec![Mapping {
        host_id: first,
        container_id: 0,
        length: LENGTH,
    }];
    let mappings = Mappings {
        uid_mappings: range.clone(),
        gid_mappings: range,
    };
    let (new, file) = (pod_dir.join(format!("{FILE}.new")), pod_dir.join(FILE));
    serde_json::to_vec(&mappings)
        .map_err(io::Error::from)
        .and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &file))
        .map_err(|error| format!("write {}: {error}", file.display()))?;
    Ok(first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn each_pod_has_a_range_until_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = Ranges::default();
        let of = |pod: &str| {
            let own = dir.path().join(pod);
            fs::create_dir_all(&own).unwrap();
            ranges.of(dir.path(), &own, 3).map(|users| users.uids[0].host_id)
        };
        assert_eq!([of("a"), of("b"), of("a")], [Ok(65536), Ok(131072), Ok(65536)]);
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!([of("c"), of("d")], [Ok(65536), Ok(196608)]);
        assert_eq!(
            of("e").unwrap_err(),
            "could not find an empty slot to allocate a user namespace"
        );
        fs::write(dir.path().join("b/userns"), "{}").unwrap();
        assert!(of("b").unwrap_err().contains("invalid user namespace mappings file"));
    }
}
