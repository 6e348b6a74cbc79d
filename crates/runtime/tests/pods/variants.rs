//! Pods that share the node's namespaces, set kernel parameters, have all power, or stand on many layers.

use cri::v1::*;
use cri::{ImageService, RuntimeService};

use crate::support::{Node, mount};

#[tokio::test]
async fn a_pod_may_live_in_the_nodes_namespaces() {
    let node = Node::new().await;
    let mut pod = node.sandbox_config("host");
    let options = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    pod.linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .namespace_options = Some(options.clone());
    let sandbox = node.run(&pod).await;
    assert!(
        node.network.attached.lock().unwrap().is_empty(),
        "the pod was offered to the network"
    );
    let mut config = node.container_config("c", &["sleep", "1000"]);
    config
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .namespace_options = Some(options);
    let id = node.launch(&sandbox, &pod, config).await;
    for namespace in ["net", "pid", "ipc", "uts"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        let script = format!("ls -l /proc/self/ns/{namespace}");
        let (_, out, _) = node.exec(&id, &["sh", "-c", &script]).await.unwrap();
        assert!(
            out.trim().ends_with(&own.display().to_string()),
            "{out} is not {}",
            own.display()
        );
    }
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: sandbox.clone(),
        verbose: false,
    };
    let status = node.runtime.pod_sandbox_status(request).await.unwrap().status.unwrap();
    assert_eq!(status.network.unwrap().ip, "");
    node.stop(&id, 0).await;
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn kernel_parameters_are_the_pods() {
    let node = Node::new().await;
    let mut pod = node.sandbox_config("sysctl");
    pod.linux.as_mut().unwrap().sysctls = [
        ("net.ipv4.ip_local_port_range".into(), "40000 40100".into()),
        ("kernel.shm_rmid_forced".into(), "1".into()),
    ]
    .into();
    let sandbox = node.run(&pod).await;
    let id = node
        .launch(&sandbox, &pod, node.container_config("c", &["sleep", "1000"]))
        .await;
    let files = [
        "/proc/sys/net/ipv4/ip_local_port_range",
        "/proc/sys/kernel/shm_rmid_forced",
    ];
    let (_, out, _) = node.exec(&id, &["cat", files[0], files[1]]).await.unwrap();
    assert_eq!(out, "40000\t40100\n1\n");
    node.remove_sandbox(&sandbox).await;

    // One that does not exist is told, and nothing of the pod stays.
    pod.linux.as_mut().unwrap().sysctls = [("net.ipv4.no_such".into(), "1".into())].into();
    let request = RunPodSandboxRequest {
        config: Some(pod),
        ..Default::default()
    };
    let err = node.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert!(err.message.contains("set sysctl net.ipv4.no_such to \"1\""), "{err}");
    node.assert_clean();
}

#[tokio::test]
async fn a_privileged_container_has_what_the_node_has() {
    let node = Node::new().await;
    let pod = node.sandbox_config("privileged");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config("c", &["sleep", "1000"]);
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.privileged = true;
    let id = node.launch(&sandbox, &pod, config).await;
    let (_, status, _) = node.exec(&id, &["cat", "/proc/self/status"]).await.unwrap();
    assert!(status.contains("Seccomp:\t0"), "{status}");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = own.lines().find(|line| line.starts_with("CapEff:")).unwrap();
    assert!(status.contains(effective), "{status} has not {effective}");
    let (code, _, err) = node
        .exec(&id, &["sh", "-c", "mount -t tmpfs none /tmp && test -c /dev/kmsg"])
        .await
        .unwrap();
    assert_eq!(code, 0, "{err}");
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn volumes_are_read_only_when_asked_and_files_too() {
    let node = Node::new().await;
    let pod = node.sandbox_config("volumes");
    let sandbox = node.run(&pod).await;
    let volume = node.path().join("with space, and: comma");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "content\n").unwrap();
    let mut config = node.container_config("c", &["sleep", "1000"]);
    for (path, readonly, recursive) in [("/rw", false, false), ("/ro", true, false), ("/rro", true, true)] {
        let mut wish = mount(volume.clone(), path);
        wish.readonly = readonly;
        wish.recursive_read_only = recursive;
        config.mounts.push(wish);
    }
    config.mounts.push(mount(volume.join("file"), "/etc/hosts"));
    // What is not there is made.
    config.mounts.push(mount(node.path().join("made/for/it"), "/made"));
    let id = node.launch(&sandbox, &pod, config).await;
    let (_, out, _) = node.exec(&id, &["cat", "/etc/hosts"]).await.unwrap();
    assert_eq!(out, "content\n");
    for (path, writable) in [
        ("/rw/new", true),
        ("/ro/new", false),
        ("/rro/new", false),
        ("/made/new", true),
    ] {
        let (code, _, err) = node.exec(&id, &["touch", path]).await.unwrap();
        assert_eq!(code == 0, writable, "{path}: {err}");
    }
    assert!(volume.join("new").exists() && node.path().join("made/for/it/new").exists());
    node.remove_sandbox(&sandbox).await;
    // A volume is not the runtime's to take away.
    assert!(volume.join("file").exists());
    node.assert_clean();
}

#[tokio::test]
async fn a_root_may_stand_on_many_layers() {
    let node = Node::new().await;
    let image = "podium.test/layers:120";
    node.import_layers(image, 120).await;
    let pod = node.sandbox_config("layers");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config("c", &["sleep", "1000"]);
    config.image.as_mut().unwrap().image = image.into();
    let id = node.launch(&sandbox, &pod, config).await;
    // Each layer has a file of its own, and every one writes the same file.
    let (_, out, _) = node
        .exec(&id, &["sh", "-c", "ls /layers | wc -l; cat /top"])
        .await
        .unwrap();
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["120", "120"]);
    // An image in use may be removed, and its containers do not notice.
    let request = RemoveImageRequest {
        image: Some(ImageSpec {
            image: image.into(),
            ..Default::default()
        }),
    };
    node.runtime.remove_image(request).await.unwrap();
    let (_, out, _) = node.exec(&id, &["cat", "/top"]).await.unwrap();
    assert_eq!(out, "120\n");
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn lists_and_bad_requests() {
    let node = Node::new().await;
    let pod = node.sandbox_config("lists");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config("c", &["sleep", "1000"]);
    config.labels.insert("app".into(), "web".into());
    let id = node.create(&sandbox, &pod, config).await;
    let found = |state: Option<ContainerState>, label: &str| {
        let filter = ContainerFilter {
            state: state.map(|state| ContainerStateValue { state: state.into() }),
            label_selector: [("app".to_owned(), label.to_owned())].into(),
            ..Default::default()
        };
        node.runtime
            .list_containers(ListContainersRequest { filter: Some(filter) })
    };
    assert_eq!(
        found(Some(ContainerState::ContainerCreated), "web")
            .await
            .unwrap()
            .containers[0]
            .id,
        id
    );
    assert!(
        found(Some(ContainerState::ContainerRunning), "web")
            .await
            .unwrap()
            .containers
            .is_empty()
    );
    assert!(found(None, "db").await.unwrap().containers.is_empty());

    // A container that never ran is removed like any other.
    let request = RemoveContainerRequest {
        container_id: id.clone(),
    };
    node.runtime.remove_container(request.clone()).await.unwrap();
    node.runtime.remove_container(request).await.unwrap();
    let request = ContainerStatusRequest {
        container_id: id,
        verbose: false,
    };
    assert!(node.runtime.container_status(request).await.unwrap_err().is_not_found());

    let mut config = node.container_config("noimage", &["true"]);
    config.image.as_mut().unwrap().image = "podium.test/no-such:1".into();
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(config),
        sandbox_config: Some(pod.clone()),
    };
    let err = node.runtime.create_container(request.clone()).await.unwrap_err();
    assert!(
        err.is_not_found() && err.message.contains("podium.test/no-such:1"),
        "{err}"
    );
    let mut config = node.container_config("nouser", &["true"]);
    config
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap()
        .run_as_username = "ghost".into();
    let request = CreateContainerRequest {
        config: Some(config),
        ..request
    };
    let err = node.runtime.create_container(request).await.unwrap_err();
    assert!(
        err.message
            .contains("unable to find user ghost: no matching entries in passwd file"),
        "{err}"
    );
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}
