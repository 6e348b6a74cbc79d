//! Who owns which address and host port, in memory and in a file of the run directory.
//!
//! ```text
//! <run-dir>/pod-links.json     0600, replaced as a whole by rename
//!   version                    1
//!   last                       the address given out last
//!   sandboxes: id -> pod, address, hostPorts
//! ```
//!
//! It is written before a link is made and after it is gone, so whatever is in the kernel has an owner here.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write},
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Error, HostPort, PodLink, Result, addresses};

const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    /// `namespace/name`, for people.
    pub(crate) pod: String,
    pub(crate) address: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) host_ports: Vec<HostPort>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<IpAddr>,
    sandboxes: BTreeMap<String, Owner>,
}

#[derive(Debug)]
pub(crate) struct Owners {
    path: PathBuf,
    kept: Kept,
}

impl Owners {
    /// Reads the file in the run directory, if there is one.
    pub(crate) fn open(run_dir: &Path) -> Result<Self> {
        fs::create_dir_all(run_dir).map_err(|cause| Error::File {
            action: "creating",
            path: run_dir.into(),
            cause,
        })?;
        let path = run_dir.join("pod-links.json");
        let kept = match fs::read(&path) {
            Ok(bytes) => read(&bytes).map_err(|cause| Error::Owners {
                path: path.clone(),
                cause,
            })?,
            Err(cause) if cause.kind() == ErrorKind::NotFound => Kept {
                version: VERSION,
                ..Kept::default()
            },
            Err(cause) => {
                return Err(Error::File {
                    action: "reading",
                    path,
                    cause,
                });
            }
        };
        Ok(Owners { path, kept })
    }

    pub(crate) fn get(&self, sandbox: &str) -> Option<&Owner> {
        self.kept.sandboxes.get(sandbox)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Owner)> {
        self.kept.sandboxes.iter()
    }

    /// Gives a pod an address and its host ports.
    pub(crate) fn add(&mut self, link: &PodLink, range: IpNet) -> Result<Owner> {
        for port in &link.host_ports {
            if let Some(address @ IpAddr::V6(_)) = port.bound_to() {
                return Err(Error::PortFamily { port: *port, address });
            }
            let taken = self
                .iter()
                .find(|(_, owner)| owner.host_ports.iter().any(|other| other.clashes_with(port)));
            if let Some((_, owner)) = taken {
                return Err(Error::PortTaken {
                    port: *port,
                    owner: owner.pod.clone(),
                });
            }
        }
        let taken = |address| self.iter().any(|(_, owner)| IpAddr::V4(owner.address) == address);
        let next = addresses::next(range, self.kept.last, taken);
        let Some(address) = next else {
            return Err(Error::Exhausted {
                range: range.to_string(),
                used: self.kept.sandboxes.len(),
            });
        };
        let IpAddr::V4(v4) = address else {
            return Err(Error::Family {
                given: range.to_string(),
            });
        };
        let owner = Owner {
            pod: format!("{}/{}", link.pod_namespace, link.pod_name),
            address: v4,
            host_ports: link.host_ports.clone(),
        };
        let last = self.kept.last.replace(address);
        self.kept.sandboxes.insert(link.sandbox_id.clone(), owner.clone());
        self.save().inspect_err(|_| {
            self.kept.last = last;
            self.kept.sandboxes.remove(&link.sandbox_id);
        })?;
        Ok(owner)
    }

    /// Frees what a sandbox owns.
    pub(crate) fn remove(&mut self, sandbox: &str) -> Result<()> {
        let Some(owner) = self.kept.sandboxes.remove(sandbox) else {
            return Ok(());
        };
        self.save().inspect_err(|_| {
            self.kept.sandboxes.insert(sandbox.into(), owner);
        })
    }

    fn save(&self) -> Result<()> {
        let fresh = self.path.with_extension("new");
        let failed = |cause| Error::File {
            action: "writing",
            path: self.path.clone(),
            cause,
        };
        let text = serde_json::to_vec(&self.kept).map_err(|cause| failed(cause.into()))?;
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&fresh, &self.path))
            .map_err(failed)
    }
}

fn read(bytes: &[u8]) -> Result<Kept, String> {
    let kept: Kept = serde_json::from_slice(bytes).map_err(|cause| cause.to_string())?;
    match kept.version {
        VERSION => Ok(kept),
        version => Err(format!("it has version {version}, this server knows version {VERSION}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
    use super::*;
    use crate::Protocol;

    fn pod(sandbox: &str, host_ports: Vec<HostPort>) -> PodLink {
        PodLink {
            sandbox_id: sandbox.into(),
            pod_name: format!("pod-{sandbox}"),
            pod_namespace: "default".into(),
            netns: "/proc/self/ns/net".into(),
            host_ports,
        }
    }

    fn port(host_ip: Option<&str>, protocol: Protocol, host_port: u16) -> HostPort {
        HostPort {
            protocol,
            container_port: 80,
            host_port,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        }
    }

    #[test]
    fn owners_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let range = addresses::range("10.244.0.0/30").unwrap();
        let mut owners = Owners::open(dir.path()).unwrap();
        let ports = vec![port(Some("127.0.0.1"), Protocol::Udp, 53)];
        assert_eq!(
            owners.add(&pod("a", ports), range).unwrap().address,
            Ipv4Addr::new(10, 244, 0, 1)
        );
        owners.add(&pod("b", vec![]), range).unwrap();
        owners.remove("b").unwrap();
        owners.remove("b").unwrap();
        let again = Owners::open(dir.path()).unwrap();
        assert_eq!(again.kept, owners.kept);
        assert_eq!(
            fs::read_to_string(dir.path().join("pod-links.json")).unwrap(),
            r#"{"version":1,"last":"10.244.0.2","sandboxes":{"a":{"pod":"default/pod-a","address":"10.244.0.1","#
                .to_owned()
                + r#""hostPorts":[{"protocol":"UDP","containerPort":80,"hostPort":53,"hostIp":"127.0.0.1"}]}}}"#
        );
    }

    #[test]
    fn a_full_range_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let range = addresses::range("10.244.0.0/30").unwrap();
        let mut owners = Owners::open(dir.path()).unwrap();
        owners.add(&pod("a", vec![]), range).unwrap();
        owners.add(&pod("b", vec![]), range).unwrap();
        let error = owners.add(&pod("c", vec![]), range).unwrap_err().to_string();
        assert_eq!(
            error,
            "no address is free in the node's podCIDR 10.244.0.0/30: 2 are in use"
        );
    }

    #[test]
    fn a_host_port_has_one_owner() {
        use Protocol::{Tcp, Udp};
        let range = addresses::range("10.244.0.0/24").unwrap();
        for (first, second, clash) in [
            (port(None, Tcp, 80), port(None, Tcp, 80), true),
            (port(None, Tcp, 80), port(None, Udp, 80), false),
            (port(None, Tcp, 80), port(None, Tcp, 81), false),
            (port(None, Tcp, 80), port(Some("10.0.0.1"), Tcp, 80), true),
            (port(Some("0.0.0.0"), Tcp, 80), port(Some("10.0.0.1"), Tcp, 80), true),
            (port(Some("10.0.0.2"), Tcp, 80), port(Some("10.0.0.1"), Tcp, 80), false),
            (port(Some("10.0.0.1"), Tcp, 80), port(Some("10.0.0.1"), Tcp, 80), true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut owners = Owners::open(dir.path()).unwrap();
            owners.add(&pod("a", vec![first]), range).unwrap();
            let outcome = owners
                .add(&pod("b", vec![second]), range)
                .map_err(|error| error.to_string());
            let expected = "host port 80/tcp is taken by pod default/pod-a";
            assert_eq!(
                outcome.err().as_deref(),
                clash.then_some(expected),
                "{first:?} {second:?}"
            );
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod-links.json");
        for (content, cause) in [
            ("{", "EOF while parsing"),
            (
                r#"{"version":2,"sandboxes":{}}"#,
                "it has version 2, this server knows version 1",
            ),
        ] {
            fs::write(&path, content).unwrap();
            let error = Owners::open(dir.path()).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{} is damaged: {cause}", path.display())),
                "{error}"
            );
        }
    }
}
