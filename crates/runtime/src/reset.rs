//! What the commands of a node ask without a server: the list of containers, and the end of everything.

use std::path::Path;

use cri::v1::{ContainerMetadata, PodSandboxConfig, PodSandboxMetadata};
use serde::Serialize;

use crate::config::{Config, Layout};
use crate::host;
use crate::open::{OpenError, at, close, lock, remove, subdirectories};
use crate::pod_files;
use crate::record::{self, ContainerRecord, SandboxRecord, Status};

/// A container of a node, pause containers included, as `podium ps` shows it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Listed {
    /// The container's id.
    pub id: String,
    /// The image as the pod names it; none for pause containers.
    pub image: String,
    /// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`, with `POD` for the pause container.
    pub name: String,
    /// `Created`, `Running` or `Exited`.
    pub state: &'static str,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
}

/// The containers of the node with this run directory, the newest first.
pub fn list(run_dir: &Path) -> Result<Vec<Listed>, OpenError> {
    let layout = Layout::new(Path::new(""), run_dir);
    let mut listed = Vec::new();
    let mut pods = std::collections::HashMap::new();
    for dir in subdirectories(&layout.sandboxes())? {
        // One that is being made or removed is not there.
        let Ok(pod) = record::load::<SandboxRecord>(&dir.join("sandbox.json")) else {
            continue;
        };
        let metadata = pod.config.0.metadata.clone().unwrap_or_default();
        listed.push(Listed {
            id: pod.id.clone(),
            image: String::new(),
            name: name("POD", &metadata, metadata.attempt),
            state: if pod.ready { "Running" } else { "Exited" },
            created_at: pod.created_at,
        });
        pods.insert(pod.id, metadata);
    }
    for dir in subdirectories(&layout.containers())? {
        let Ok(container) = record::load::<ContainerRecord>(&dir.join("container.json")) else {
            continue;
        };
        let Some(pod) = pods.get(&container.sandbox_id) else {
            continue;
        };
        let config = container.config.0;
        let ContainerMetadata { name: own, attempt } = config.metadata.unwrap_or_default();
        let image = config.image.unwrap_or_default();
        listed.push(Listed {
            id: container.id,
            image: if image.user_specified_image.is_empty() {
                image.image
            } else {
                image.user_specified_image
            },
            name: name(&own, pod, attempt),
            state: match container.status {
                Status::Created => "Created",
                Status::Running { .. } => "Running",
                Status::Exited(_) => "Exited",
            },
            created_at: container.created_at,
        });
    }
    listed.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    Ok(listed)
}

fn name(container: &str, pod: &PodSandboxMetadata, attempt: u32) -> String {
    format!("k8s_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

/// The directory of a pod's logs, if it is the pod's alone by its name, as kubelets choose it: another client may have named any directory.
fn own_logs(pod: &PodSandboxConfig) -> Option<&Path> {
    let metadata = pod.metadata.as_ref()?;
    let own = format!("{}_{}_{}", metadata.namespace, metadata.name, metadata.uid);
    let directory = Path::new(&pod.log_directory);
    (directory.file_name()? == own.as_str()).then_some(directory)
}

/// Ends every pod and takes away all that the runtime has put on the machine: processes, mounts, cgroups and
/// directories, the pods' logs too. Images stay. Networks are for their owner to take away.
pub async fn reset(config: &Config) -> Result<(), OpenError> {
    let layout = Layout::new(&config.data_dir, &config.run_dir);
    if !layout.run().exists() {
        return Ok(());
    }
    let _lock = lock(&layout)?;
    let mut cgroups = Vec::new();
    for dir in subdirectories(&layout.containers())? {
        if let Ok(container) = record::load::<ContainerRecord>(&dir.join("container.json")) {
            cgroups.push((container.sandbox_id, container.id));
        }
    }
    for dir in subdirectories(&layout.sandboxes())? {
        close(&dir).await;
        pod_files::unmount(&dir);
        let Ok(pod) = record::load::<SandboxRecord>(&dir.join("sandbox.json")) else {
            continue;
        };
        if let Some(logs) = own_logs(&pod.config.0) {
            remove(logs);
        }
        let own = cgroups
            .iter()
            .filter(|(sandbox, _)| *sandbox == pod.id)
            .map(|(_, id)| id);
        for id in own.chain([&pod.id]) {
            let cgroup = format!("{}/{id}", pod.cgroup_parent);
            // Only a pod whose shim has died still has any.
            for pid in host::cgroup_processes(Path::new(&cgroup)) {
                // SAFETY: sending a signal touches no memory of this process.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            host::remove_cgroup(Path::new(&cgroup));
        }
        // The pod's own, the class's, and the root of all pods, as far as they are empty.
        for ancestor in Path::new(&pod.cgroup_parent).ancestors() {
            host::remove_empty_cgroup(ancestor);
        }
    }
    // Pods that are gone have left the classes that they were in; those of another node's pods are not empty.
    for class in ["/kubepods/besteffort", "/kubepods/burstable", "/kubepods", "/podium"] {
        host::remove_empty_cgroup(Path::new(class));
    }
    for dir in [
        layout.sandboxes(),
        layout.containers(),
        layout.pause(),
        layout.writable_all(),
    ] {
        remove(&dir);
    }
    let log = layout.shim_log();
    match std::fs::remove_file(&log) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(at("remove", &log)(err)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kubelet() {
        let pod = PodSandboxMetadata {
            name: "web".into(),
            namespace: "default".into(),
            uid: "u-1".into(),
            attempt: 0,
        };
        assert_eq!(name("POD", &pod, 0), "k8s_POD_web_default_u-1_0");
        assert_eq!(name("nginx", &pod, 2), "k8s_nginx_web_default_u-1_2");
    }

    #[test]
    fn only_a_pods_own_logs_are_taken() {
        let metadata = Some(PodSandboxMetadata {
            name: "web".into(),
            namespace: "default".into(),
            uid: "u-1".into(),
            attempt: 0,
        });
        for (log_directory, own) in [
            ("/var/log/pods/default_web_u-1", true),
            ("/elsewhere/default_web_u-1/", true),
            ("/var/log/pods/default_web_u-2", false),
            ("/var/log/pods/default_web_u-1/..", false),
            ("/tmp", false),
            ("/", false),
            ("", false),
        ] {
            let pod = PodSandboxConfig {
                metadata: metadata.clone(),
                log_directory: log_directory.into(),
                ..Default::default()
            };
            assert_eq!(
                own_logs(&pod),
                own.then_some(Path::new(log_directory)),
                "{log_directory}"
            );
        }
    }
}
