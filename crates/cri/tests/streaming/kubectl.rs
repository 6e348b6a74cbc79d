//! Sessions as upstream kubectl opens them, by each of its transports, against a server that answers for one pod.
//!
//! Each test has a network namespace of its own: a thread enters it, and everything that the thread starts is in it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use cri::streaming::{Session, Wanted, serve};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::host::{Host, noise, timeouts};

fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(
            std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap()
                .success()
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A server of as much of the API as kubectl asks for before and in a session with pod `p`.
async fn api_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(
                        TokioIo::new(connection),
                        service_fn(async |request| Ok::<_, Infallible>(answer(request))),
                    )
                    .with_upgrades(),
            );
        }
    });
    address
}

fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let query: Vec<(String, String)> = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    let flag = |name: &str| query.iter().any(|(key, value)| key == name && value == "true");
    let wanted = Wanted {
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        tty: flag("tty"),
    };
    let runtime = Arc::new(Host::default());
    let json = |value: serde_json::Value| {
        let mut response = Response::new(Full::from(value.to_string()));
        response
            .headers_mut()
            .insert("content-type", "application/json".parse().unwrap());
        response
    };
    match request.uri().path() {
        "/api" => json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        "/apis" => json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        "/api/v1" => json(json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]},
        ]})),
        "/api/v1/namespaces/default/pods/p" => json(json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"},
        })),
        "/api/v1/namespaces/default/pods/p/exec" => {
            let command = query
                .into_iter()
                .filter(|(key, _)| key == "command")
                .map(|(_, value)| value)
                .collect();
            let session = Session::Exec {
                container_id: "c".to_owned(),
                command,
                wanted,
            };
            serve(runtime, session, timeouts(), request)
        }
        "/api/v1/namespaces/default/pods/p/attach" => serve(
            runtime,
            Session::Attach {
                container_id: "known".to_owned(),
                wanted,
            },
            timeouts(),
            request,
        ),
        "/api/v1/namespaces/default/pods/p/portforward" => {
            let session = Session::PortForward {
                pod_sandbox_id: "box".to_owned(),
                ports: Vec::new(),
            };
            serve(runtime, session, timeouts(), request)
        }
        _ => {
            let mut response = json(json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

/// How kubectl is told to use WebSocket, or not to.
const TRANSPORTS: [(&str, &str); 2] = [("WebSocket", "true"), ("SPDY", "false")];

fn kubectl(server: SocketAddr, websocket: &str) -> Command {
    let mut command = Command::new("kubectl");
    command
        .arg(format!("--server=http://{server}"))
        .env("KUBECONFIG", "/dev/null")
        .env("KUBECACHEDIR", "/dev/null/none")
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket)
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (_, output) = tokio::join!(
        async move {
            // A command that does not read is no failure of the test.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        },
        child.wait_with_output()
    );
    output.unwrap()
}

#[test]
fn exec_passes_output_and_exit_code() {
    in_own_network(|| async {
        let server = api_server().await;
        for (transport, websocket) in TRANSPORTS {
            let mut command = kubectl(server, websocket);
            command.args(["exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
            let output = run(command, b"").await;
            assert_eq!(output.stdout, b"out\n", "{transport}");
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(stderr, "err\ncommand terminated with exit code 3\n", "{transport}");
            assert_eq!(output.status.code(), Some(3), "{transport}");
        }
    });
}

#[test]
fn exec_passes_a_hundred_megabytes_each_way() {
    in_own_network(|| async {
        let server = api_server().await;
        let data = noise(100 << 20);
        for (transport, websocket) in TRANSPORTS {
            let mut command = kubectl(server, websocket);
            command.args(["exec", "-i", "p", "--", "cat"]);
            let output = run(command, &data).await;
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{transport}");
            assert!(output.status.success(), "{transport}");
            assert!(output.stdout == data, "{transport}");
        }
    });
}

#[test]
fn exec_tells_the_terminal_its_size() {
    in_own_network(|| async {
        let server = api_server().await;
        for (transport, websocket) in TRANSPORTS {
            let session = format!("stty cols 100 rows 50; kubectl --server=http://{server} exec -it p -- any");
            let mut command = Command::new("script");
            command
                .args(["--quiet", "--return", "--command", &session, "/dev/null"])
                .env("KUBECONFIG", "/dev/null")
                .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket)
                .kill_on_drop(true);
            let output = run(command, b"").await;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("100x50"), "{transport}: {text}");
            assert!(output.status.success(), "{transport}: {text}");
        }
    });
}

#[test]
fn attach_shows_output() {
    in_own_network(|| async {
        let server = api_server().await;
        for (transport, websocket) in TRANSPORTS {
            let mut child = kubectl(server, websocket)
                .args(["attach", "p"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert_eq!(
                lines.next_line().await.unwrap().as_deref(),
                Some("attached"),
                "{transport}"
            );
            child.kill().await.unwrap();
        }
    });
}

#[test]
fn port_forward_carries_connections_at_once() {
    in_own_network(|| async {
        let server = api_server().await;
        for (transport, websocket) in TRANSPORTS {
            let mut child = kubectl(server, websocket)
                .args(["port-forward", "p", ":7", ":81"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let echo = local_port(&mut lines, 7).await;
            let transfers = (0..10).map(|index| async move {
                let (mut reading, mut writing) = TcpStream::connect(("127.0.0.1", echo)).await.unwrap().into_split();
                let data = noise(1_000_000 + index);
                let mut back = vec![0; data.len()];
                let (_, read) = tokio::join!(writing.write_all(&data), reading.read_exact(&mut back));
                read.unwrap();
                assert!(back == data);
            });
            futures::future::join_all(transfers).await;

            let refusing = local_port(&mut lines, 81).await;
            let mut refused = TcpStream::connect(("127.0.0.1", refusing)).await.unwrap();
            let mut nothing = Vec::new();
            refused.read_to_end(&mut nothing).await.unwrap();
            let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
            let error = errors.next_line().await.unwrap().unwrap();
            assert!(
                error.contains("-> 81: error forwarding port 81 to pod box, uid : connection refused"),
                "{transport}: {error}"
            );
            child.kill().await.unwrap();
        }
    });
}

/// The local port that kubectl says it forwards to `remote`.
async fn local_port(lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>, remote: u16) -> u16 {
    loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some((_, rest)) = line.split_once("127.0.0.1:")
            && rest.ends_with(&format!("-> {remote}"))
        {
            return rest.split(' ').next().unwrap().parse().unwrap();
        }
    }
}
