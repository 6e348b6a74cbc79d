//! The node's HTTPS port as the API server uses it: certificates, logs of real files, sessions with real processes.
#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod node;

use std::io::Write;

use cri::streaming::{ClientError, RemoteStreams, Wanted};
use http::{StatusCode, Uri};
use kubelet::KubeletConfiguration;
use kubelet::configuration::AuthorizationMode;
use node::{Certificates, TestNode, in_own_network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ALL: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

#[test]
fn who_may_ask() {
    in_own_network(async || {
        let node = TestNode::start().await;
        let certificates = Certificates::shared();
        let ok = |text: &str| (StatusCode::OK, text.to_owned());
        let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
        let forbidden = |user: &str, needed: &str| {
            let text = format!("Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[{needed}])\n");
            (StatusCode::FORBIDDEN, text)
        };
        let (master, other) = (("somebody", "system:masters"), ("system:node:other", "system:nodes"));
        let account = "system:serviceaccount:ns:a";
        for (certificate, token, path, expected) in [
            (None, None, "/healthz", unauthorized()),
            (Some(master), None, "/healthz", ok("ok")),
            (Some(other), None, "/healthz", forbidden(other.0, "healthz proxy")),
            (Some(other), None, "/stats/summary", forbidden(other.0, "stats")),
            // A certificate goes before a token.
            (Some(other), Some("good"), "/metrics", forbidden(other.0, "metrics")),
            (None, Some("bad"), "/metrics", unauthorized()),
            (None, Some("good"), "/metrics/resource", ok("Resources")),
            (None, Some("good"), "/metrics/probes", ok("Probes")),
            (None, Some("good"), "/containerLogs/ns/p/c", forbidden(account, "proxy")),
            (None, Some("good"), "/configz", forbidden(account, "configz proxy")),
        ] {
            let client = certificate.map(|(user, group)| certificates.client(user, group));
            let answer = node.get_with(client, token, path).await.unwrap();
            assert_eq!(answer, expected, "{certificate:?} {token:?} {path}");
        }
        let (status, _) = node.get_with(None, Some("good"), "/pods").await.unwrap();
        assert_eq!(status, StatusCode::OK, "who may nodes/pods may /pods");
        // A certificate of another CA does not get as far as HTTP.
        let stranger = Certificates::new().client("kube-apiserver-kubelet-client", "system:masters");
        assert!(node.get_as(Some(stranger), "/healthz").await.is_err());
    });
}

#[test]
fn the_configuration_says_who_is_known_and_who_decides() {
    in_own_network(async || {
        let mut configuration = KubeletConfiguration::default();
        configuration.authentication.anonymous.enabled = true;
        configuration.authentication.webhook.enabled = false;
        let node = TestNode::start_with(&configuration).await;
        let said = "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[healthz proxy])\n";
        assert_eq!(
            node.get_as(None, "/healthz").await.unwrap(),
            (StatusCode::FORBIDDEN, said.to_owned())
        );
        let (status, _) = node.get_with(None, Some("good"), "/metrics").await.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "tokens are not taken");
        configuration.authorization.mode = AuthorizationMode::AlwaysAllow;
        let node = TestNode::start_with(&configuration).await;
        assert_eq!(node.get_as(None, "/healthz").await.unwrap().0, StatusCode::OK);
    });
}

#[test]
fn what_the_node_tells_of_itself() {
    in_own_network(async || {
        let node = TestNode::start().await;
        let configuration = serde_json::json!({"kubeletconfig": KubeletConfiguration::default()}).to_string();
        for (path, status, text) in [
            ("/configz", StatusCode::OK, configuration.as_str()),
            ("/stats/summary", StatusCode::OK, r#"{"node":{},"shallow":false}"#),
            (
                "/stats/summary?only_cpu_and_memory=true",
                StatusCode::OK,
                r#"{"node":{},"shallow":true}"#,
            ),
            ("/metrics", StatusCode::OK, "Kubelet"),
            (
                "/metrics/cadvisor",
                StatusCode::INTERNAL_SERVER_ERROR,
                "the runtime is down",
            ),
            (
                "/runningpods/",
                StatusCode::OK,
                r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}"#,
            ),
        ] {
            assert_eq!(node.get(path).await, (status, text.to_owned()), "{path}");
        }
    });
}

#[test]
fn pods_as_the_kubelet_knows_them() {
    in_own_network(async || {
        let (status, text) = TestNode::start().await.get("/pods").await;
        assert_eq!(status, StatusCode::OK);
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&list["kind"], &list["apiVersion"]), (&"PodList".into(), &"v1".into()));
        assert_eq!(list["items"][0]["metadata"]["name"], "p");
    });
}

#[test]
fn logs_and_why_there_are_none() {
    in_own_network(async || {
        let node = TestNode::start().await;
        let mut log = std::fs::File::create(node.log_path()).unwrap();
        for line in ["stdout F one", "stderr F two", "stdout F three"] {
            writeln!(log, "2024-01-01T00:00:01.000000000Z {line}").unwrap();
        }
        for (path, status, text) in [
            ("ns/p/c", StatusCode::OK, "one\ntwo\nthree\n"),
            (
                "ns/p/c?tailLines=1&timestamps=true",
                StatusCode::OK,
                "2024-01-01T00:00:01.000000000Z three\n",
            ),
            ("ns/p/c?stream=Stderr", StatusCode::OK, "two\n"),
            ("ns/p/c?limitBytes=5", StatusCode::OK, "one\nt"),
            (
                "ns/p/c?tailLines=x",
                StatusCode::BAD_REQUEST,
                r#"{"message": "Unable to decode query."}"#,
            ),
            (
                "ns/p/c?tailLines=-1",
                StatusCode::UNPROCESSABLE_ENTITY,
                r#"{"message": "Invalid request."}"#,
            ),
            ("ns/q/c", StatusCode::NOT_FOUND, "pod \"q\" not found\n"),
            (
                "ns/p/d",
                StatusCode::NOT_FOUND,
                "container \"d\" not found in pod \"p\"\n",
            ),
            (
                "ns/p/c?previous=true",
                StatusCode::BAD_REQUEST,
                r#"previous terminated container "c" in pod "p" not found"#,
            ),
            (
                "ns/p/waits",
                StatusCode::BAD_REQUEST,
                r#"container "waits" in pod "p" is waiting to start: ContainerCreating"#,
            ),
        ] {
            let answer = node.get(&format!("/containerLogs/{path}")).await;
            assert_eq!(answer, (status, text.to_owned()), "{path}");
        }
    });
}

#[test]
fn a_followed_log_ends_with_its_container() {
    in_own_network(async || {
        let node = TestNode::start().await;
        let mut log = std::fs::File::create(node.log_path()).unwrap();
        let mut body = node.stream("/containerLogs/ns/p/c?follow=true").await;
        for number in 0..3 {
            writeln!(log, "2024-01-01T00:00:01.000000000Z stdout F {number}").unwrap();
            assert_eq!(body.next_text().await, Some(format!("{number}\n")));
        }
        node.end_container();
        assert_eq!(body.next_text().await, None);
    });
}

#[test]
fn exec_goes_through_to_the_process_and_back() {
    in_own_network(async || {
        let node = TestNode::start().await;
        let uri = Uri::from_static("https://node/exec/ns/p/c?command=cat&input=1&output=1&error=1");
        let mut streams = RemoteStreams::open(node.connect().await, &uri, ALL).await.unwrap();
        let data: Vec<u8> = (0u32..5_000_000).flat_map(u32::to_le_bytes).collect();
        let sent = data.clone();
        let mut stdin = streams.stdin.take().unwrap();
        let writing = tokio::spawn(async move {
            stdin.write_all(&sent).await.unwrap();
            stdin.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        streams.stdout.take().unwrap().read_to_end(&mut received).await.unwrap();
        assert!(received == data);
        writing.await.unwrap();
        let mut status = String::new();
        streams.error.take().unwrap().read_to_string(&mut status).await.unwrap();
        assert_eq!(status, r#"{"metadata":{},"status":"Success"}"#);
    });
}

#[test]
fn why_there_is_no_session() {
    in_own_network(async || {
        let node = TestNode::start().await;
        for (path, status, text) in [
            ("exec/ns/q/c?output=1", StatusCode::NOT_FOUND, "pod does not exist"),
            (
                "exec/ns/p/other-uid/c?output=1",
                StatusCode::NOT_FOUND,
                "pod does not exist",
            ),
            (
                "exec/ns/p/waits?output=1",
                StatusCode::INTERNAL_SERVER_ERROR,
                r#"container not found ("waits")"#,
            ),
            (
                "exec/ns/p/c?command=ls",
                StatusCode::BAD_REQUEST,
                "you must specify at least 1 of stdin, stdout, stderr",
            ),
            (
                "portForward/ns/p?port=x",
                StatusCode::BAD_REQUEST,
                r#"unable to parse "x" as a port: invalid syntax"#,
            ),
            (
                "portForward/ns/p",
                StatusCode::INTERNAL_SERVER_ERROR,
                r#"pod not found ("p_ns(uid-1)")"#,
            ),
        ] {
            let uri: Uri = format!("https://node/{path}").parse().unwrap();
            match RemoteStreams::open(node.connect().await, &uri, ALL).await {
                Err(ClientError::Refused {
                    status: refused,
                    message,
                    ..
                }) => {
                    assert_eq!((refused, &message[..]), (status, text), "{path}");
                }
                Err(error) => panic!("{path}: {error}"),
                Ok(_) => panic!("{path}: a session"),
            }
        }
    });
}
