//! A server that goes and another that comes: containers do not notice.

use cri::RuntimeService;
use cri::v1::*;
use runtime::{Command, Sessions, Streams};
use tokio::io::AsyncReadExt;

use crate::support::{Node, config};

async fn sandbox_state(node: &Node, id: &str) -> PodSandboxState {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: id.into(),
        verbose: false,
    };
    node.runtime
        .pod_sandbox_status(request)
        .await
        .unwrap()
        .status
        .unwrap()
        .state()
}

#[tokio::test]
async fn a_new_server_goes_on_with_the_old_ones_pods() {
    let node = Node::new().await;
    let pod = node.sandbox_config("lives");
    let sandbox = node.run(&pod).await;
    let kept = node
        .launch(
            &sandbox,
            &pod,
            node.container_config(
                "kept",
                &[
                    "sh",
                    "-c",
                    "trap 'echo told; touch /tmp/told' USR1; while :; do sleep 1000 & wait; done",
                ],
            ),
        )
        .await;
    let created = node
        .create(&sandbox, &pod, node.container_config("created", &["sleep", "1000"]))
        .await;
    // It ends while nobody is there, when its input does.
    let mut config = node.container_config("ends", &["sh", "-c", "read go; exit 9"]);
    config.stdin = true;
    config.stdin_once = true;
    let ends = node.launch(&sandbox, &pod, config).await;
    let wanted = Streams {
        stdin: true,
        ..Default::default()
    };
    let session = Sessions::attach(&node.runtime, &ends, wanted).await.unwrap();
    let started = node.status(&kept).await.started_at;

    let node = node.restart().await;
    drop(session);
    assert_eq!(sandbox_state(&node, &sandbox).await, PodSandboxState::SandboxReady);
    let status = node.status(&kept).await;
    assert_eq!(
        (status.state(), status.started_at),
        (ContainerState::ContainerRunning, started)
    );
    assert_eq!(node.ended(&ends).await.exit_code, 9);
    let (code, out, _) = node.exec(&kept, &["cat", "/proc/1/cmdline"]).await.unwrap();
    assert!(code == 0 && out.starts_with("sh\0"), "{out}");
    node.exec(
        &kept,
        &["sh", "-c", "kill -USR1 1; until test -e /tmp/told; do :; done"],
    )
    .await
    .unwrap();
    node.start(&created).await.unwrap();
    node.stop(&kept, 0).await;
    assert!(
        node.log("lives", "kept").contains("told"),
        "{}",
        node.log("lives", "kept")
    );
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn exits_without_a_server_are_known_later() {
    let node = Node::new().await;
    let pod = node.sandbox_config("alone");
    let sandbox = node.run(&pod).await;
    let mut config_ends = node.container_config("ends", &["sh", "-c", "read go; echo last words; exit 3"]);
    config_ends.stdin = true;
    config_ends.stdin_once = true;
    let id = node.launch(&sandbox, &pod, config_ends).await;
    let wanted = Streams {
        stdin: true,
        stdout: true,
        ..Default::default()
    };
    let mut session = Sessions::attach(&node.runtime, &id, wanted).await.unwrap();
    let log = node.path().join("logs/alone/ends.log");
    let node = node
        .without_server(async move {
            drop(session.stdin.take());
            let mut words = String::new();
            session.stdout.take().unwrap().read_to_string(&mut words).await.unwrap();
            assert_eq!(words, "last words\n");
        })
        .await;
    let status = node.ended(&id).await;
    assert_eq!(status.exit_code, 3);
    assert!(std::fs::read_to_string(log).unwrap().ends_with("last words\n"));
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn a_pod_without_its_shim_is_over() {
    let node = Node::new().await;
    let pod = node.sandbox_config("killed");
    let sandbox = node.run(&pod).await;
    let id = node
        .launch(&sandbox, &pod, node.container_config("c", &["sleep", "1000"]))
        .await;
    node.kill_shim(&sandbox);
    let status = node.ended(&id).await;
    assert_eq!(status.exit_code, 255);
    assert_eq!(sandbox_state(&node, &sandbox).await, PodSandboxState::SandboxNotready);

    // The same, found by a new server.
    let other = node.sandbox_config("killed-later");
    let second = node.run(&other).await;
    let id = node
        .launch(&second, &other, node.container_config("c", &["sleep", "1000"]))
        .await;
    let shim = node.shim_pid(&second);
    let node = node.without_server(async move { kill(shim) }).await;
    assert_eq!(node.status(&id).await.exit_code, 255);
    assert_eq!(sandbox_state(&node, &second).await, PodSandboxState::SandboxNotready);
    node.remove_sandbox(&sandbox).await;
    node.remove_sandbox(&second).await;
    node.assert_clean();
}

pub fn kill(pid: i32) {
    // SAFETY: sending a signal touches no memory of this process.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

#[tokio::test]
async fn what_no_record_tells_of_is_swept() {
    let node = Node::new().await;
    let pod = node.sandbox_config("swept");
    let sandbox = node.run(&pod).await;
    node.launch(&sandbox, &pod, node.container_config("c", &["sleep", "1000"]))
        .await;
    // As a server leaves it that is killed while it makes the pod.
    std::fs::remove_file(node.path().join("run/sandboxes").join(&sandbox).join("sandbox.json")).unwrap();
    let node = node.restart().await;
    let list = node
        .runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await
        .unwrap();
    assert!(list.items.is_empty());
    node.remove_cgroup("swept");
    node.assert_clean();
}

#[tokio::test]
async fn reset_takes_everything_away() {
    let node = Node::new().await;
    let pod = node.sandbox_config("reset");
    let sandbox = node.run(&pod).await;
    let id = node
        .launch(&sandbox, &pod, node.container_config("c", &["sleep", "1000"]))
        .await;
    let listed = runtime::list(&node.path().join("run")).unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|one| (one.id.as_str(), one.name.as_str(), one.state))
        .collect();
    assert_eq!(
        names,
        [
            (id.as_str(), "k8s_c_reset_default_uid-reset_0", "Running"),
            (sandbox.as_str(), "k8s_POD_reset_default_uid-reset_0", "Running"),
        ]
    );
    let place = config(node.path());
    let err = runtime::reset(&place).await.unwrap_err();
    assert!(err.to_string().contains("is used by another Podium process"), "{err}");
    let shim = node.shim_pid(&sandbox);
    let node = node
        .without_server(async move { runtime::reset(&place).await.unwrap() })
        .await;
    // Nobody may have collected it yet, but it has ended.
    let state = std::fs::read_to_string(format!("/proc/{shim}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    node.network.attached.lock().unwrap().clear();
    node.assert_clean();
}

#[tokio::test]
async fn commands_go_on_while_a_server_is_away() {
    let node = Node::new().await;
    let pod = node.sandbox_config("command");
    let sandbox = node.run(&pod).await;
    let id = node
        .launch(&sandbox, &pod, node.container_config("c", &["sleep", "1000"]))
        .await;
    let run = Command {
        args: vec!["sleep".into(), "2000".into()],
        streams: Streams::default(),
    };
    let session = Sessions::exec(&node.runtime, &id, run).await.unwrap();
    let node = node.restart().await;
    assert!(session.exit.await.is_err(), "an exit code that nobody can know");
    let (_, out, _) = node.exec(&id, &["ps"]).await.unwrap();
    assert!(out.contains("sleep 2000"), "{out}");
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}
