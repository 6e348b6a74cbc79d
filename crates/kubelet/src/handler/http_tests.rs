//! Probes and hooks over HTTP, against a server of the test.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const ENOUGH: Duration = Duration::from_secs(20);

/// A server on the loopback that answers by path, as written here, and tells what it was asked.
async fn serving(answer: fn(&str) -> Reply) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, all) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = asked.send(request);
                match answer(&path) {
                    Reply::Once(text) => drop(stream.write_all(text.as_bytes()).await),
                    Reply::Then(text, again) => {
                        let mut sent = stream.write_all(text.as_bytes()).await;
                        while sent.is_ok() {
                            sent = stream.write_all(again.as_bytes()).await;
                        }
                    }
                    Reply::Hang(text) => {
                        let _ = stream.write_all(text.as_bytes()).await;
                        pending::<()>().await;
                    }
                }
            });
        }
    });
    (port, all)
}

enum Reply {
    Once(String),
    /// The first, and then the second again and again.
    Then(&'static str, &'static str),
    /// And then nothing.
    Hang(&'static str),
}

fn status(status: &str, headers: &str) -> Reply {
    Reply::Once(format!("HTTP/1.1 {status}\r\n{headers}content-length: 2\r\n\r\nok"))
}

fn container(port: u16) -> Container {
    serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]})).unwrap()
}

fn target(container: &Container) -> Target<'_> {
    Target {
        id: "",
        container,
        ip: "127.0.0.1",
    }
}

async fn asked(port: u16, action: Value, timeout: Duration) -> Outcome {
    let container = container(port);
    let mut whole = json!({"port": "web"});
    whole
        .as_object_mut()
        .unwrap()
        .extend(action.as_object().unwrap().clone());
    probe(&serde_json::from_value(whole).unwrap(), &target(&container), timeout).await
}

#[tokio::test]
async fn a_hook_is_done_when_there_is_an_answer() {
    let (port, mut requests) = serving(answers).await;
    let container = container(port);
    let hooked =
        async |action: Value| hook(&serde_json::from_value(action).unwrap(), &target(&container), ENOUGH).await;
    assert_eq!(hooked(json!({"port": "web", "path": "/busy"})).await, Ok(()));
    let request = requests.try_recv().unwrap();
    assert!(request.contains("user-agent: kube-lifecycle/1.36"), "{request}");
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = free.local_addr().unwrap().port();
    drop(free);
    assert_eq!(
        hooked(json!({"port": closed, "path": "/x"})).await,
        Err(format!(
            "Get \"http://127.0.0.1:{closed}/x\": dial tcp 127.0.0.1:{closed}: connect: connection refused"
        ))
    );
    assert_eq!(
        hooked(json!({"port": "db"})).await,
        Err("strconv.Atoi: parsing \"db\": invalid syntax".into())
    );
}

fn answers(path: &str) -> Reply {
    match path {
        "/ok" => status("200 OK", ""),
        "/304" => status("304 Not Modified", ""),
        "/busy" => status("503 No", ""),
        "/to" => status("302 Found", "location: /ok\r\n"),
        "/to-busy" => status("307 Temporary", "location: busy\r\n"),
        "/loop" => status("302 Found", "location: /loop\r\n"),
        "/away" => status("301 Moved", "location: http://192.0.2.1/\r\n"),
        "/nowhere" => status("302 Found", ""),
        "/closed" => Reply::Once(String::new()),
        "/endless" => Reply::Then("HTTP/1.1 200 OK\r\n\r\n", "and on "),
        "/head" => Reply::Then("HTTP/1.1 200 OK\r\n", "and: on\r\n"),
        "/garbage" => Reply::Then("SSH-2.0-OpenSSH\r\n", "\r\n"),
        "/hang" => Reply::Hang(""),
        "/half" => Reply::Hang("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"),
        other => panic!("asked for {other}"),
    }
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status() {
    let (port, mut requests) = serving(answers).await;
    let here = format!("127.0.0.1:{port}");
    let warning = |body: &str| Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"));
    for (path, outcome, made) in [
        ("/ok", Outcome::Success, 1),
        ("/304", warning(""), 1),
        (
            "/busy",
            Outcome::Failure("HTTP probe failed with statuscode: 503".into()),
            1,
        ),
        ("/to", Outcome::Success, 2),
        (
            "/to-busy",
            Outcome::Failure("HTTP probe failed with statuscode: 503".into()),
            2,
        ),
        (
            "/loop",
            Outcome::Failure("Get \"/loop\": stopped after 10 redirects".into()),
            10,
        ),
        ("/away", warning("ok"), 1),
        ("/nowhere", warning("ok"), 1),
        (
            "/closed",
            Outcome::Failure(format!("Get \"http://{here}/closed\": EOF")),
            1,
        ),
        ("/endless", Outcome::Success, 1),
        (
            "/head",
            Outcome::Failure(format!(
                "Get \"http://{here}/head\": net/http: server response headers exceeded 262144 bytes; aborted"
            )),
            1,
        ),
    ] {
        assert_eq!(asked(port, json!({"path": path}), ENOUGH).await, outcome, "{path}");
        let mut seen = 0;
        while requests.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, made, "requests for {path}");
    }
    let garbage = asked(port, json!({"path": "/garbage"}), ENOUGH).await;
    let said = "net/http: HTTP/1.x transport connection broken: malformed HTTP response";
    assert!(
        matches!(&garbage, Outcome::Failure(error) if error.contains(said)),
        "{garbage:?}"
    );
}

#[tokio::test]
async fn what_takes_too_long_is_let_go() {
    let (port, _requests) = serving(answers).await;
    let short = Duration::from_millis(50);
    assert_eq!(
        asked(port, json!({"path": "/hang"}), short).await,
        Outcome::Failure(format!(
            "Get \"http://127.0.0.1:{port}/hang\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ))
    );
    assert_eq!(
        asked(port, json!({"path": "/half"}), short).await,
        Outcome::Error {
            state: "failure",
            error: "context deadline exceeded (Client.Timeout or context cancellation while reading body)".into()
        }
    );
}

#[tokio::test]
async fn a_request_has_the_probes_headers() {
    let (port, mut requests) = serving(answers).await;
    let mut ask = async |action: Value| {
        assert_eq!(asked(port, action, ENOUGH).await, Outcome::Success);
        let mut all = Vec::new();
        while let Ok(request) = requests.try_recv() {
            let mut lines: Vec<String> = request
                .trim()
                .split("\r\n")
                .map(|line| line.trim().to_owned())
                .collect();
            lines[1..].sort();
            all.push(lines.join("|"));
        }
        all
    };
    assert_eq!(
        ask(json!({"path": "/ok"})).await,
        [format!(
            "GET /ok HTTP/1.1|accept: */*|connection: close|host: 127.0.0.1:{port}|user-agent: kube-probe/1.36"
        )]
    );
    let headers = [
        ("Host", "web.example"),
        ("X-A", "b"),
        ("X-Empty", ""),
        ("Accept", ""),
        ("User-Agent", "me"),
    ];
    let headers: Vec<Value> = headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    assert_eq!(
        ask(json!({"path": "to", "httpHeaders": headers})).await,
        [
            "GET /to HTTP/1.1|connection: close|host: web.example|user-agent: me|x-a: b|x-empty:".to_owned(),
            format!(
                "GET /ok HTTP/1.1|connection: close|host: web.example|referer: http://127.0.0.1:{port}/to|user-agent: me|x-a: b|x-empty:"
            ),
        ]
    );
}

#[tokio::test]
async fn a_closed_port_is_said_in_gos_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(
        asked(port, json!({}), ENOUGH).await,
        Outcome::Failure(format!("Get \"http://127.0.0.1:{port}/\": {refused}"))
    );
    assert_eq!(
        dial::dial(&format!("127.0.0.1:{port}"), ENOUGH).await.map(drop),
        Err(refused)
    );
}

#[tokio::test]
async fn https_to_a_server_of_http_says_so() {
    let (port, _requests) = serving(|_| status("400 Bad Request", "")).await;
    assert_eq!(
        asked(port, json!({"scheme": "HTTPS"}), ENOUGH).await,
        Outcome::Failure(format!(
            "Get \"https://127.0.0.1:{port}/\": http: server gave HTTP response to HTTPS client"
        ))
    );
}
