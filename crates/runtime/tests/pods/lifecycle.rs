//! Sandboxes and containers from their creation to their end.

use cri::v1::*;
use cri::{Code, RuntimeService};

use crate::support::{Node, mount};

#[tokio::test]
async fn two_containers_share_a_pod() {
    let node = Node::new().await;
    let pod = node.sandbox_config("web");
    let sandbox = node.run(&pod).await;
    let volume = node.path().join("volume");
    std::fs::create_dir(&volume).unwrap();

    let mut config = node.container_config(
        "server",
        &["sh", "-c", "nc -l -p 8080 -e echo hello & echo ready; sleep 1000"],
    );
    config.mounts.push(mount(volume.clone(), "/cache"));
    let server = node.launch(&sandbox, &pod, config).await;
    let mut config = node.container_config("client", &["sleep", "1000"]);
    config.mounts.push(mount(volume, "/cache"));
    let client = node.launch(&sandbox, &pod, config).await;

    let status = node.status(&server).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at && status.created_at > 0);

    // One network, one host name, one shared memory, one volume; separate roots and process trees.
    // The server's process may not listen yet; the port in the kernel's table (1F90, listening) says that it does.
    let listening = "until grep -qE ':1F90 0+:0000 0A' /proc/net/tcp /proc/net/tcp6; do :; done; nc 127.0.0.1 8080";
    let (code, out, err) = node.exec(&client, &["sh", "-c", listening]).await.unwrap();
    assert_eq!((code, out.as_str()), (0, "hello\n"), "{err}");
    let (_, out, _) = node.exec(&client, &["hostname"]).await.unwrap();
    assert_eq!(out, "web\n");
    node.exec(
        &server,
        &[
            "sh",
            "-c",
            "echo shared > /cache/file; echo memory > /dev/shm/file; echo own > /tmp/file",
        ],
    )
    .await
    .unwrap();
    let (_, out, _) = node
        .exec(&client, &["cat", "/cache/file", "/dev/shm/file"])
        .await
        .unwrap();
    assert_eq!(out, "shared\nmemory\n");
    let (code, ..) = node.exec(&client, &["test", "-e", "/tmp/file"]).await.unwrap();
    assert_eq!(code, 1);
    let (_, out, _) = node.exec(&client, &["cat", "/proc/1/cmdline"]).await.unwrap();
    assert_eq!(out, "sleep\x001000\x00");
    let (_, out, _) = node
        .exec(&client, &["cat", "/etc/resolv.conf", "/etc/hostname"])
        .await
        .unwrap();
    assert_eq!(out, "nameserver 10.96.0.10\nweb\n");

    // A process that ignores SIGTERM, as process 1 does, goes when its time is up.
    node.stop(&client, 1).await;
    let status = node.status(&client).await;
    assert_eq!(
        (status.state(), status.exit_code),
        (ContainerState::ContainerExited, 137)
    );
    assert_eq!(status.reason, "Error");
    assert!(
        node.log("web", "server").contains(" stdout F ready\n"),
        "{}",
        node.log("web", "server")
    );

    node.stop_sandbox(&sandbox).await;
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: sandbox.clone(),
        verbose: false,
    };
    let status = node.runtime.pod_sandbox_status(request).await.unwrap();
    assert_eq!(status.status.unwrap().state(), PodSandboxState::SandboxNotready);
    assert_eq!(status.containers_statuses.len(), 2);
    // Stopping and removing may be repeated.
    node.stop_sandbox(&sandbox).await;
    node.remove_sandbox(&sandbox).await;
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn containers_end_as_they_are_told_or_by_themselves() {
    let node = Node::new().await;
    let pod = node.sandbox_config("ends");
    let sandbox = node.run(&pod).await;
    // The image's own command, in its directory.
    let mut config = node.container_config("image", &[]);
    config.envs.push(KeyValue {
        key: "FROM_POD".into(),
        value: "yes".into(),
    });
    let id = node.launch(&sandbox, &pod, config).await;
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(
        status.finished_at >= status.started_at && status.started_at > 0,
        "{status:?}"
    );
    assert!(node.log("ends", "image").ends_with(" stdout F from the image\n"));

    let mut config = node.container_config("args", &[]);
    config.args = vec!["-c".into(), "echo $FROM_IMAGE $PWD $HOME $HOSTNAME >&2; exit 3".into()];
    let id = node.launch(&sandbox, &pod, config).await;
    assert_eq!(node.ended(&id).await.exit_code, 3);
    assert!(
        node.log("ends", "args").ends_with(" stderr F yes /tmp /root ends\n"),
        "{}",
        node.log("ends", "args")
    );

    // Obeys SIGTERM, once it is ready to hear it: process 1 of a namespace is deaf before.
    let script = "trap 'echo bye; exit 7' TERM; touch /tmp/up; while :; do sleep 1; done";
    let id = node
        .launch(&sandbox, &pod, node.container_config("polite", &["sh", "-c", script]))
        .await;
    node.exec(&id, &["sh", "-c", "until test -e /tmp/up; do :; done"])
        .await
        .unwrap();
    node.stop(&id, 20).await;
    assert_eq!(node.status(&id).await.exit_code, 7);
    assert!(
        node.log("ends", "polite").ends_with(" stdout F bye\n"),
        "{}",
        node.log("ends", "polite")
    );
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn a_program_that_cannot_run_is_told_in_upstreams_words() {
    let node = Node::new().await;
    let pod = node.sandbox_config("bad");
    let sandbox = node.run(&pod).await;
    let cases = [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("/etc/notes", "exec: \"/etc/notes\": permission denied"),
    ];
    for (index, (program, reason)) in cases.into_iter().enumerate() {
        let id = node
            .create(&sandbox, &pod, node.container_config(&format!("c{index}"), &[program]))
            .await;
        let err = node.start(&id).await.unwrap_err();
        assert_eq!(err.code, Code::Unknown);
        assert_eq!(
            err.message,
            format!(
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
                 failed: unable to start container process: error during container init: {reason}"
            )
        );
        let status = node.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert_eq!(status.message, err.message);
    }
    let id = node
        .launch(&sandbox, &pod, node.container_config("good", &["sleep", "1000"]))
        .await;
    for (program, reason) in cases {
        let err = node.exec(&id, &[program]).await.unwrap_err();
        let expected =
            format!("OCI runtime exec failed: exec failed: unable to start container process: {reason}: unknown");
        assert!(err.message.ends_with(&expected), "{err}");
    }
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn a_container_is_confined() {
    let node = Node::new().await;
    let pod = node.sandbox_config("confined");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config("c", &["sh", "-c", "echo own > /dev/stdout; exec sleep 1000"]);
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.run_as_username = "user".into();
    context.supplemental_groups = vec![3000];
    context.readonly_rootfs = true;
    let id = node.launch(&sandbox, &pod, config).await;
    let (_, out, _) = node.exec(&id, &["id"]).await.unwrap();
    assert!(out.starts_with("uid=1000(user) gid=1000(user) groups="), "{out}");
    for group in ["2000(extra)", "3000"] {
        assert!(out.contains(group), "{out}");
    }
    // Its streams are its own, to be opened by name too.
    let (_, out, err) = node
        .exec(&id, &["sh", "-c", "echo mine > /dev/stdout; echo too > /dev/stderr"])
        .await
        .unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("mine\n", "too\n"));
    assert!(
        node.log("confined", "c").ends_with(" stdout F own\n"),
        "{}",
        node.log("confined", "c")
    );
    let (code, ..) = node.exec(&id, &["touch", "/home/user/file"]).await.unwrap();
    assert_eq!(code, 1);
    let status = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    // The container's own process and a command in it are under the same filter and the same bound.
    let (_, own, _) = node.exec(&id, &["cat", "/proc/1/status"]).await.unwrap();
    let (_, command, _) = node.exec(&id, &["cat", "/proc/self/status"]).await.unwrap();
    for text in [&own, &command] {
        assert_eq!(status(text, "Seccomp:"), "2");
        assert_eq!(status(text, "CapBnd:"), "00000000a80425fb");
        assert_eq!(status(text, "CapEff:"), "0000000000000000");
        assert_eq!(status(text, "SigBlk:"), "0000000000000000");
        assert_eq!(status(text, "SigIgn:"), "0000000000000000");
    }
    let (_, score, _) = node.exec(&id, &["cat", "/proc/1/oom_score_adj"]).await.unwrap();
    assert_eq!(score, "1000\n");
    let (code, _, err) = node.exec(&id, &["unshare", "-m", "true"]).await.unwrap();
    assert!(code != 0 && err.contains("not permitted"), "{err}");

    // One that gives everything up, and one that can gain nothing.
    for no_new_privs in [false, true] {
        let mut config = node.container_config(&format!("bare-{no_new_privs}"), &["sleep", "1000"]);
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.no_new_privs = no_new_privs;
        context.capabilities = Some(Capability {
            drop_capabilities: vec!["ALL".into()],
            ..Default::default()
        });
        let id = node.launch(&sandbox, &pod, config).await;
        for process in ["1", "self"] {
            let (_, text, _) = node
                .exec(&id, &["cat", &format!("/proc/{process}/status")])
                .await
                .unwrap();
            assert_eq!(status(&text, "Seccomp:"), "2");
            assert_eq!(status(&text, "NoNewPrivs:"), if no_new_privs { "1" } else { "0" });
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                assert_eq!(status(&text, set), "0000000000000000", "{set} of {process}");
            }
        }
    }

    // Root keeps the default set and nothing more, a command too.
    let id = node
        .launch(&sandbox, &pod, node.container_config("root", &["sleep", "1000"]))
        .await;
    let (_, command, _) = node.exec(&id, &["cat", "/proc/self/status"]).await.unwrap();
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        assert_eq!(status(&command, set), "00000000a80425fb", "{set}");
    }
    assert_eq!(status(&command, "CapInh:"), "0000000000000000");
    let (code, _, err) = node
        .exec(&id, &["sh", "-c", "echo 1 > /proc/sys/kernel/panic"])
        .await
        .unwrap();
    assert!(code != 0 && err.contains("Read-only"), "{err}");
    let (code, _, err) = node
        .exec(
            &id,
            &[
                "sh",
                "-c",
                "test -d /sys/fs/cgroup/pids && cd /sys/fs/cgroup/pids || cd /sys/fs/cgroup; echo 1 > pids.max",
            ],
        )
        .await
        .unwrap();
    assert!(code != 0 && err.contains("Read-only"), "{err}");
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn limits_hold_and_change() {
    let node = Node::new().await;
    let pod = node.sandbox_config("limits");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config("hungry", &["sh", "-c", "dd if=/dev/zero of=/dev/null bs=256M count=1"]);
    config
        .linux
        .as_mut()
        .unwrap()
        .resources
        .as_mut()
        .unwrap()
        .memory_limit_in_bytes = 16 << 20;
    let id = node.launch(&sandbox, &pod, config).await;
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));

    let id = node
        .launch(&sandbox, &pod, node.container_config("modest", &["sleep", "1000"]))
        .await;
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_shares: 512,
            ..Default::default()
        }),
        ..Default::default()
    };
    node.runtime.update_container_resources(request).await.unwrap();
    let resources = node.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
    let stats = node
        .runtime
        .container_stats(ContainerStatsRequest { container_id: id })
        .await
        .unwrap()
        .stats
        .unwrap();
    let memory = stats.memory.unwrap();
    let (used, left) = (
        memory.working_set_bytes.unwrap().value,
        memory.available_bytes.unwrap().value,
    );
    assert!(used > 0 && used + left == 64 << 20, "{used} {left}");
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn processes_are_shared_when_asked() {
    let node = Node::new().await;
    let mut pod = node.sandbox_config("shared");
    let options = NamespaceOption {
        pid: NamespaceMode::Pod.into(),
        ..Default::default()
    };
    let security = pod.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(options.clone());
    let sandbox = node.run(&pod).await;
    let config = |name: &str, command: &[&str]| {
        let mut config = node.container_config(name, command);
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options = Some(options.clone());
        config
    };
    // Its orphan outlives the shell that made it, until the container is stopped.
    let orphans = config(
        "orphans",
        &["sh", "-c", "sh -c 'sleep 2000 & sleep 2001 &'; exec sleep 2002"],
    );
    let orphans = node.launch(&sandbox, &pod, orphans).await;
    let other = node.launch(&sandbox, &pod, config("other", &["sleep", "1000"])).await;
    let (_, out, _) = node.exec(&other, &["cat", "/proc/1/cmdline"]).await.unwrap();
    assert_eq!(out, "/pause\0");
    let (_, out, _) = node.exec(&other, &["ps"]).await.unwrap();
    assert!(out.contains("sleep 2002") && out.contains("sleep 1000"), "{out}");
    node.stop(&orphans, 0).await;
    let (_, out, _) = node.exec(&other, &["ps"]).await.unwrap();
    assert!(!out.contains("sleep 200"), "{out}");
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}
