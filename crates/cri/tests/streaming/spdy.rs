//! Over SPDY, with the crate's own client.

use std::time::Duration;

use cri::streaming::{ClientError, PortForwardClient, Reader, RemoteStreams, Session, TerminalSize, Timeouts, Wanted};
use http::Uri;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::host::*;

fn uri() -> Uri {
    Uri::from_static("http://node/exec/token")
}

async fn open(command: &[&str], wanted: Wanted) -> RemoteStreams {
    RemoteStreams::open(connect(Host::default(), exec(command, wanted)), &uri(), wanted)
        .await
        .unwrap()
}

async fn all(reader: Option<Reader>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.unwrap().read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn output_error_output_and_exit_code() {
    let mut streams = open(&["sh", "-c", "echo out; echo err >&2; exit 3"], OUTPUT).await;
    assert!(streams.stdin.is_none());
    assert_eq!(all(streams.stdout.take()).await, b"out\n");
    assert_eq!(all(streams.stderr.take()).await, b"err\n");
    assert_eq!(outcome(&all(streams.error.take()).await), Ok(3));
}

#[tokio::test]
async fn end_of_stdin_reaches_the_process() {
    let mut streams = open(&["sh", "-c", "cat; echo over"], ALL).await;
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"hello ").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(all(streams.stdout.take()).await, b"hello over\n");
    assert_eq!(outcome(&all(streams.error.take()).await), Ok(0));
}

#[tokio::test]
async fn a_hundred_megabytes_there_and_back() {
    let mut streams = open(&["cat"], ALL).await;
    let data = noise(100 << 20);
    let sent = data.clone();
    let mut stdin = streams.stdin.take().unwrap();
    let writing = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    assert!(all(streams.stdout.take()).await == data);
    writing.await.unwrap();
    assert_eq!(outcome(&all(streams.error.take()).await), Ok(0));
}

#[tokio::test]
async fn a_process_that_never_reads_does_not_hold_up_its_end() {
    let mut streams = open(&["sh", "-c", "echo done"], ALL).await;
    let mut stdin = streams.stdin.take().unwrap();
    // More than all buffers on the way can hold.
    let writing = tokio::spawn(async move { stdin.write_all(&noise(8 << 20)).await });
    assert_eq!(all(streams.stdout.take()).await, b"done\n");
    assert_eq!(outcome(&all(streams.error.take()).await), Ok(0));
    assert!(writing.await.unwrap().is_err());
}

#[tokio::test]
async fn sizes_of_the_terminal() {
    let mut streams = open(&["any"], TERMINAL).await;
    let mut lines = BufReader::new(streams.stdout.take().unwrap()).lines();
    for (width, height) in [(80, 24), (100, 50)] {
        streams.resize(TerminalSize { width, height }).await.unwrap();
        assert_eq!(lines.next_line().await.unwrap(), Some(format!("{width}x{height}")));
    }
    assert_eq!(outcome(&all(streams.error.take()).await), Ok(0));
}

#[tokio::test]
async fn a_command_that_is_not_there() {
    let mut streams = open(&["/no/such/program"], OUTPUT).await;
    assert_eq!(
        outcome(&all(streams.error.take()).await),
        Err(
            "Internal error occurred: error executing command in container: No such file or directory (os error 2)"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn attach_says_why_it_cannot() {
    let session = Session::Attach {
        container_id: "unknown".to_owned(),
        wanted: OUTPUT,
    };
    let mut streams = RemoteStreams::open(connect(Host::default(), session), &uri(), OUTPUT)
        .await
        .unwrap();
    assert_eq!(
        outcome(&all(streams.error.take()).await),
        Err("Internal error occurred: error attaching to container: no such container".to_owned())
    );
}

#[tokio::test]
async fn a_lost_client_is_the_end_of_stdin_and_not_of_the_process() {
    let (ended, mut was_ended) = tokio::sync::mpsc::unbounded_channel();
    let host = Host { ended: Some(ended) };
    let connection = connect(host, exec(&["sh", "-c", "cat >/dev/null; exit 9"], ALL));
    let streams = RemoteStreams::open(connection, &uri(), ALL).await.unwrap();
    drop(streams);
    assert_eq!(was_ended.recv().await, Some(9));
}

#[tokio::test]
async fn a_quiet_connection_is_closed() {
    let (ended, mut was_ended) = tokio::sync::mpsc::unbounded_channel();
    let host = Host { ended: Some(ended) };
    let short = Timeouts {
        idle: Duration::from_millis(50),
        ..timeouts()
    };
    let connection = connect_with(host, exec(&["cat"], ALL), short);
    let mut streams = RemoteStreams::open(connection, &uri(), ALL).await.unwrap();
    assert_eq!(all(streams.stdout.take()).await, b"");
    assert_eq!(was_ended.recv().await, Some(0));
}

#[tokio::test]
async fn forwarded_connections_at_once() {
    let client = PortForwardClient::open(connect(Host::default(), forward(&[])), &uri())
        .await
        .unwrap();
    let transfers = (0..20).map(|index| {
        let client = &client;
        async move {
            let mut connection = client.connect(7).await.unwrap();
            let data = noise(200_000 + index);
            let (mut reading, mut writing) = tokio::io::split(connection.data);
            let sending = async {
                writing.write_all(&data).await.unwrap();
                writing.shutdown().await.unwrap();
            };
            let mut echo = Vec::new();
            let (_, read) = tokio::join!(sending, reading.read_to_end(&mut echo));
            read.unwrap();
            assert!(echo == data);
            let mut error = String::new();
            connection.error.read_to_string(&mut error).await.unwrap();
            assert_eq!(error, "");
        }
    });
    futures::future::join_all(transfers).await;
}

#[tokio::test]
async fn a_port_where_nobody_listens() {
    let client = PortForwardClient::open(connect(Host::default(), forward(&[])), &uri())
        .await
        .unwrap();
    for _ in 0..2 {
        let mut connection = client.connect(81).await.unwrap();
        let mut error = String::new();
        connection.error.read_to_string(&mut error).await.unwrap();
        assert_eq!(error, "error forwarding port 81 to pod box, uid : connection refused");
        let mut nothing = Vec::new();
        connection.data.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
    }
}

#[tokio::test]
async fn an_exec_session_is_no_port_forward() {
    let connection = connect(Host::default(), exec(&["true"], OUTPUT));
    match PortForwardClient::open(connection, &uri()).await {
        Err(ClientError::Refused { status, message, .. }) => {
            assert_eq!(status, http::StatusCode::FORBIDDEN);
            assert_eq!(
                message,
                "unable to upgrade: unable to negotiate protocol: client supports [portforward.k8s.io], \
                 server accepts [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]"
            );
        }
        _ => panic!("it was not refused"),
    }
}
