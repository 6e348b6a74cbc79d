//! Exec, attach, terminals and connections into a pod.

use std::time::Duration;

use runtime::{Command, Sessions, Stream, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::Node;

fn command(args: &[&str], streams: Streams) -> Command {
    Command {
        args: args.iter().map(ToString::to_string).collect(),
        streams,
    }
}

const PIPES: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

const TERMINAL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: false,
    tty: true,
};

async fn read_until(stream: &mut Stream, text: &str) -> String {
    let mut read = String::new();
    let wait = async {
        let mut chunk = [0; 1024];
        while !read.contains(text) {
            let count = stream.read(&mut chunk).await.unwrap();
            assert!(count > 0, "ended after {read:?}, before {text:?}");
            read.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(done.is_ok(), "{text:?} does not come after {read:?}");
    read
}

#[tokio::test]
async fn commands_have_their_streams_and_codes() {
    let node = Node::new().await;
    let pod = node.sandbox_config("exec");
    let sandbox = node.run(&pod).await;
    let id = node
        .launch(&sandbox, &pod, node.container_config("c", &["sleep", "1000"]))
        .await;

    let run = command(&["sh", "-c", "cat; echo oops >&2; exit 5"], PIPES);
    let mut session = Sessions::exec(&node.runtime, &id, run).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through").await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    session.stdout.unwrap().read_to_string(&mut out).await.unwrap();
    session.stderr.unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("through", "oops\n"));
    assert_eq!(session.exit.await.unwrap(), 5);

    // A terminal has a size, and says so when it changes.
    let run = command(&["sh"], TERMINAL);
    let mut session = Sessions::exec(&node.runtime, &id, run).await.unwrap();
    session.terminal.as_ref().unwrap().resize(91, 27).unwrap();
    let (mut input, mut output) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    input.write_all(b"stty size\n").await.unwrap();
    read_until(&mut output, "27 91").await;
    input.write_all(b"exit 4\n").await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 4);

    // A command that takes too long is ended.
    let request = cri::v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".into(), "3000".into()],
        timeout: 1,
    };
    let err = cri::RuntimeService::exec_sync(&node.runtime, request)
        .await
        .unwrap_err();
    assert_eq!(err.code, cri::Code::DeadlineExceeded);
    let (_, out, _) = node.exec(&id, &["ps"]).await.unwrap();
    assert!(!out.contains("sleep 3000"), "{out}");

    // One that says more than its caller wants to know comes to its end all the same.
    let request = cri::v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: ["sh", "-c", "yes | head -c 3000000; yes | head -c 3000000 >&2; exit 3"]
            .map(str::to_owned)
            .to_vec(),
        timeout: 20,
    };
    let brief = cri::RuntimeService::exec_sync_in_brief(&node.runtime, request.clone(), 1000)
        .await
        .unwrap();
    assert_eq!(
        (brief.exit_code, brief.stdout.len(), brief.stderr.len()),
        (3, 1000, 1000)
    );
    let whole = cri::RuntimeService::exec_sync(&node.runtime, request).await.unwrap();
    assert_eq!(
        (whole.exit_code, whole.stdout.len(), whole.stderr.len()),
        (3, 3_000_000, 3_000_000)
    );
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn attached_clients_see_what_the_log_gets() {
    let node = Node::new().await;
    let pod = node.sandbox_config("attach");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config(
        "pipes",
        &["sh", "-c", "while read line; do echo got $line; done; echo end"],
    );
    config.stdin = true;
    config.stdin_once = true;
    let id = node.launch(&sandbox, &pod, config).await;
    let mut session = Sessions::attach(&node.runtime, &id, PIPES).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let mut stdout = session.stdout.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    read_until(&mut stdout, "got one\n").await;
    // Its only client's end is the end of its input.
    drop(stdin);
    read_until(&mut stdout, "end\n").await;
    assert_eq!(session.exit.await.unwrap(), 0);
    let log = node.log("attach", "pipes");
    assert!(
        log.contains(" stdout F got one\n") && log.ends_with(" stdout F end\n"),
        "{log}"
    );

    let mut config = node.container_config("terminal", &["sh"]);
    config.stdin = true;
    config.tty = true;
    let id = node.launch(&sandbox, &pod, config).await;
    let mut session = Sessions::attach(&node.runtime, &id, TERMINAL).await.unwrap();
    session.terminal.as_ref().unwrap().resize(80, 24).unwrap();
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"stty size; echo to the $((40 + 2))\n")
        .await
        .unwrap();
    let seen = read_until(session.stdout.as_mut().unwrap(), "to the 42").await;
    assert!(seen.contains("24 80"), "{seen}");
    // One who leaves ends nothing; the next one goes on.
    drop(session);
    let mut session = Sessions::attach(&node.runtime, &id, TERMINAL).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"exit 6\n").await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 6);
    assert!(
        node.log("attach", "terminal").contains("to the 42"),
        "{}",
        node.log("attach", "terminal")
    );
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn much_output_is_lost_nowhere() {
    let node = Node::new().await;
    let pod = node.sandbox_config("much");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config("c", &["sh", "-c", "read go; seq 1 200000"]);
    config.stdin = true;
    let id = node.launch(&sandbox, &pod, config).await;
    let mut session = Sessions::attach(&node.runtime, &id, PIPES).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let mut seen = String::new();
    session.stdout.take().unwrap().read_to_string(&mut seen).await.unwrap();
    let numbers = |text: &str| {
        text.lines()
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
            .collect::<Vec<_>>()
    };
    let expected: Vec<u32> = (1..=200_000).collect();
    assert!(
        numbers(&seen) == expected,
        "the client has {} lines",
        seen.lines().count()
    );
    node.ended(&id).await;
    let log = node.log("much", "c");
    assert!(numbers(&log) == expected, "the log has {} lines", log.lines().count());
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn a_pods_loopback_is_reached_from_outside() {
    let node = Node::new().await;
    let pod = node.sandbox_config("dial");
    let sandbox = node.run(&pod).await;
    let script = "nc -l -p 7000 -e cat & echo listening; wait";
    let id = node
        .launch(&sandbox, &pod, node.container_config("c", &["sh", "-c", script]))
        .await;
    // It listens once its socket is in the pod's table.
    let (code, ..) = node
        .exec(
            &id,
            &[
                "sh",
                "-c",
                "until grep -q :1B58 /proc/net/tcp /proc/net/tcp6; do :; done",
            ],
        )
        .await
        .unwrap();
    assert_eq!(code, 0);
    let mut stream = node.runtime.dial(&sandbox, 7000).await.unwrap();
    stream.write_all(b"echo").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"echo");
    let err = node.runtime.dial(&sandbox, 7001).await.unwrap_err();
    assert!(
        err.message.contains("127.0.0.1:7001: connect: connection refused"),
        "{err}"
    );
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}

#[tokio::test]
async fn a_rotated_log_is_opened_anew() {
    let node = Node::new().await;
    let pod = node.sandbox_config("rotate");
    let sandbox = node.run(&pod).await;
    let mut config = node.container_config("c", &["sh", "-c", "while read line; do echo $line; done"]);
    config.stdin = true;
    let id = node.launch(&sandbox, &pod, config).await;
    let mut session = Sessions::attach(&node.runtime, &id, PIPES).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"old\n").await.unwrap();
    read_until(&mut stdout, "old\n").await;
    let log = node.path().join("logs/rotate/c.log");
    std::fs::rename(&log, log.with_extension("1")).unwrap();
    let request = cri::v1::ReopenContainerLogRequest { container_id: id };
    cri::RuntimeService::reopen_container_log(&node.runtime, request)
        .await
        .unwrap();
    stdin.write_all(b"new\n").await.unwrap();
    read_until(&mut stdout, "new\n").await;
    let log = node.log("rotate", "c");
    assert!(log.ends_with(" stdout F new\n") && !log.contains("old"), "{log}");
    node.remove_sandbox(&sandbox).await;
    node.assert_clean();
}
