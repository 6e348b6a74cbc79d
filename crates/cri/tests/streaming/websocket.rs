//! Over WebSocket, with a client that knows nothing of this crate.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cri::streaming::Session;
use futures::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::host::*;

async fn open(session: Session, protocol: &'static str) -> WebSocketStream<DuplexStream> {
    let mut request = "ws://node/exec/token".into_client_request().unwrap();
    if !protocol.is_empty() {
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let (socket, response) = tokio_tungstenite::client_async(request, connect(Host::default(), session))
        .await
        .unwrap();
    let agreed = response
        .headers()
        .get("sec-websocket-protocol")
        .map_or("", |value| value.to_str().unwrap());
    assert_eq!(agreed, protocol);
    socket
}

/// Everything until the server's goodbye, by channel.
async fn all<S>(socket: &mut S) -> [Vec<u8>; 5]
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let mut channels: [Vec<u8>; 5] = Default::default();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
            Message::Text(text) => {
                let (digit, data) = text.as_bytes().split_first().unwrap();
                channels[usize::from(digit - b'0')].extend(BASE64_STANDARD.decode(data).unwrap());
            }
            Message::Close(frame) => {
                assert_eq!(frame.unwrap().code, CloseCode::Normal);
                return channels;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn every_protocol_carries_output_and_status() {
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"] {
        let session = exec(&["sh", "-c", "echo out; echo err >&2; exit 3"], OUTPUT);
        let [_, stdout, stderr, error, _] = all(&mut open(session, protocol).await).await;
        assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err\n"[..]), "{protocol}");
        assert_eq!(outcome(&error), Ok(3), "{protocol}");
    }
    for protocol in ["channel.k8s.io", "base64.channel.k8s.io", ""] {
        let session = exec(&["sh", "-c", "echo out; exit 3"], OUTPUT);
        let [_, stdout, _, error, _] = all(&mut open(session, protocol).await).await;
        assert_eq!(stdout, b"out\n", "{protocol}");
        assert!(String::from_utf8(error).unwrap().ends_with("exit code 3"), "{protocol}");
    }
}

#[tokio::test]
async fn the_close_channel_ends_stdin() {
    let mut socket = open(exec(&["sh", "-c", "cat; echo over"], ALL), "v5.channel.k8s.io").await;
    socket.send(Message::binary(&b"\x00hello "[..])).await.unwrap();
    socket.send(Message::binary(&[255, 0][..])).await.unwrap();
    let [_, stdout, _, error, _] = all(&mut socket).await;
    assert_eq!(stdout, b"hello over\n");
    assert_eq!(outcome(&error), Ok(0));
}

#[tokio::test]
async fn a_hundred_megabytes_there_and_back() {
    let (mut sink, mut stream) = open(exec(&["cat"], ALL), "v5.channel.k8s.io").await.split();
    let data = noise(100 << 20);
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        for piece in sent.chunks(100_000) {
            sink.send(Message::binary([&[0], piece].concat())).await.unwrap();
        }
        sink.send(Message::binary(&[255, 0][..])).await.unwrap();
        sink.flush().await.unwrap();
    });
    let [_, stdout, _, error, _] = all(&mut stream).await;
    assert!(stdout == data);
    assert_eq!(outcome(&error), Ok(0));
    writing.await.unwrap();
}

#[tokio::test]
async fn sizes_of_the_terminal() {
    let mut socket = open(exec(&["any"], TERMINAL), "v4.channel.k8s.io").await;
    socket
        .send(Message::binary(&b"\x04{\"Width\":80,\"Height\":24}"[..]))
        .await
        .unwrap();
    // The first message greets; the second is the size.
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"\x01"[..]));
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::binary(&b"\x0180x24\n"[..])
    );
    socket
        .send(Message::binary(&b"\x04{\"Width\":100,\"Height\":50}"[..]))
        .await
        .unwrap();
    let [_, stdout, _, error, _] = all(&mut socket).await;
    assert_eq!(stdout, b"100x50\n");
    assert_eq!(outcome(&error), Ok(0));
}

#[tokio::test]
async fn pings_are_answered_in_the_middle_of_a_session() {
    let mut socket = open(exec(&["cat"], ALL), "v5.channel.k8s.io").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"\x01"[..]));
    socket.send(Message::Ping(b"there?"[..].into())).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::Pong(b"there?"[..].into())
    );
}

#[tokio::test]
async fn ports_by_channels() {
    let mut socket = open(forward(&[7, 81]), "v4.channel.k8s.io").await;
    let mut channels: [Vec<u8>; 4] = Default::default();
    socket.send(Message::binary(&b"\x00hello"[..])).await.unwrap();
    while channels[0].len() < 7 || !channels[3].ends_with(b"connection refused") {
        let message = socket.next().await.unwrap().unwrap().into_data();
        channels[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    assert_eq!(channels[0], b"\x07\x00hello");
    assert_eq!(channels[1], b"\x07\x00");
    assert_eq!(channels[2], b"\x51\x00");
    assert_eq!(
        channels[3],
        b"\x51\x00error forwarding port 81 to pod box, uid : connection refused"
    );
}
