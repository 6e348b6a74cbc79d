//! Port-forward over WebSocket, in both of its forms.
//!
//! The tunnel carries a SPDY session, cut anywhere, in binary messages. The older form has for the n-th port a data
//! channel 2n and an error channel 2n+1, each of which begins with the port in two bytes, the low one first.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{Channels, Encoding, accept, input};
use crate::streaming::{StreamingRuntime, Timeouts, forward_error};

/// The name of the tunnel.
pub(crate) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// The protocols; a client that names none speaks the binary one.
pub(crate) const PROTOCOLS: &[&str] = &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

/// The bytes that are tunnelled in a connection that has been upgraded.
pub(crate) async fn tunnel<T>(io: T) -> impl AsyncRead + AsyncWrite + Send + 'static
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = accept(io).await.split();
    let bytes = stream.filter_map(async |message| match message {
        Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
        Ok(_) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    });
    let sink = sink
        .sink_map_err(io::Error::other)
        .with(async |bytes: Bytes| Ok::<_, io::Error>(Message::Binary(bytes)));
    tokio::io::join(
        StreamReader::new(Box::pin(bytes)),
        SinkWriter::new(CopyToBytes::new(Box::pin(sink))),
    )
}

/// Serves one session of the older form: every port is connected once, at once.
pub(crate) async fn serve<T>(
    io: T,
    protocol: &str,
    runtime: Arc<dyn StreamingRuntime>,
    pod_sandbox_id: String,
    ports: Vec<u16>,
    timeouts: Timeouts,
) where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut inputs, mut inboxes) = (Vec::new(), Vec::new());
    for _ in &ports {
        let (feed, inbox) = input(true);
        inputs.extend([feed, None]);
        inboxes.extend(inbox);
    }
    let channels = Channels::start(io, Encoding::of(protocol), inputs, timeouts.idle).await;
    let mut forwards = JoinSet::new();
    for (index, (port, inbox)) in ports.into_iter().zip(inboxes).enumerate() {
        let mut data = channels.output(2 * index as u8);
        let mut error = channels.output(2 * index as u8 + 1);
        let (runtime, sandbox) = (runtime.clone(), pod_sandbox_id.clone());
        forwards.spawn(async move {
            let number = port.to_le_bytes();
            // Failing writes mean that the client is lost; then the connection ends too.
            let _ = data.write_all(&number).await;
            let _ = error.write_all(&number).await;
            let connection = Box::new(tokio::io::join(inbox, data));
            if let Err(reason) = runtime.port_forward(&sandbox, port, connection).await {
                let _ = error.write_all(forward_error(&sandbox, port, &reason).as_bytes()).await;
            }
        });
    }
    tokio::select! {
        () = async { while forwards.join_next().await.is_some() {} } => {}
        () = channels.lost().cancelled() => {}
    }
    channels.close().await;
}
