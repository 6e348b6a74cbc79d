//! Which transport and protocol a request gets: values in, an HTTP answer out.

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The protocols that a SPDY client can speak.
pub(crate) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Told to a client with whom no protocol is shared.
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The value of `Upgrade` for SPDY.
pub(crate) const SPDY: &str = "SPDY/3.1";

/// What the bytes after the upgrade are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Spdy,
    WebSocket,
}

/// A request that is granted.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) transport: Transport,
    /// One of the protocols that were on offer; empty when a WebSocket client named none.
    pub(crate) protocol: &'static str,
    pub(crate) response: Response<Full<Bytes>>,
}

/// A plain answer without an upgrade.
pub(crate) fn plain(status: StatusCode, message: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(message.into() + "\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Looks for a transport and for the first of the client's protocols that is on offer.
pub(crate) fn negotiate(
    headers: &HeaderMap,
    spdy: &[&'static str],
    websocket: &[&'static str],
) -> Result<Granted, Box<Response<Full<Bytes>>>> {
    let bad = |message: &str| Box::new(plain(StatusCode::BAD_REQUEST, message));
    let upgrade = words(headers, &UPGRADE)
        .map(str::to_ascii_lowercase)
        .collect::<Vec<_>>();
    let asked = words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    if asked && upgrade.iter().any(|word| word == "websocket") {
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .ok_or_else(|| bad("unable to upgrade: missing Sec-WebSocket-Key header in request"))?;
        let clients: Vec<_> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
        let protocol = match first_shared(&clients, websocket) {
            Some(protocol) => protocol,
            None if clients.is_empty() => "",
            None => {
                return Err(bad(&format!(
                    "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                    clients.join(" "),
                    websocket.join(" ")
                )));
            }
        };
        let accept = derive_accept_key(key.as_bytes());
        let mut response = switching("websocket");
        if let Ok(accept) = HeaderValue::from_str(&accept) {
            response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if !protocol.is_empty() {
            response
                .headers_mut()
                .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        return Ok(Granted {
            transport: Transport::WebSocket,
            protocol,
            response,
        });
    }
    if asked && upgrade.iter().any(|word| word.eq_ignore_ascii_case(SPDY)) {
        let clients: Vec<_> = words(headers, &STREAM_PROTOCOL).collect();
        if clients.is_empty() {
            return Err(bad("unable to upgrade: X-Stream-Protocol-Version header is required"));
        }
        let Some(protocol) = first_shared(&clients, spdy) else {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                clients.join(" "),
                spdy.join(" ")
            );
            let mut response = plain(StatusCode::FORBIDDEN, message);
            for protocol in spdy {
                response
                    .headers_mut()
                    .append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(protocol));
            }
            return Err(Box::new(response));
        };
        let mut response = switching(SPDY);
        response
            .headers_mut()
            .insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        return Ok(Granted {
            transport: Transport::Spdy,
            protocol,
            response,
        });
    }
    Err(bad("unable to upgrade: missing upgrade headers in request"))
}

fn switching(to: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// The comma-separated words of every header of that name.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn first_shared(clients: &[&str], ours: &[&'static str]) -> Option<&'static str> {
    clients
        .iter()
        .find_map(|client| ours.iter().find(|our| *our == client))
        .copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use super::*;

    const SPDY_PROTOCOLS: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"];
    const WEB_PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

    fn ask(headers: &[(&'static str, &'static str)]) -> Result<Granted, Box<Response<Full<Bytes>>>> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        negotiate(&map, SPDY_PROTOCOLS, WEB_PROTOCOLS)
    }

    #[test]
    fn granted() {
        let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let web = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "x"),
        ];
        let version = "x-stream-protocol-version";
        let subprotocol = "sec-websocket-protocol";
        for (headers, transport, protocol) in [
            (
                [
                    &spdy[..],
                    &[(version, "v9.channel.k8s.io"), (version, "v3.channel.k8s.io")],
                ]
                .concat(),
                Transport::Spdy,
                "v3.channel.k8s.io",
            ),
            (
                [&spdy[..], &[(version, "channel.k8s.io,v4.channel.k8s.io")]].concat(),
                Transport::Spdy,
                "channel.k8s.io",
            ),
            (
                [&web[..], &[(subprotocol, "v5.channel.k8s.io, v4.channel.k8s.io")]].concat(),
                Transport::WebSocket,
                "v5.channel.k8s.io",
            ),
            (web.to_vec(), Transport::WebSocket, ""),
        ] {
            let granted = ask(&headers).unwrap();
            assert_eq!(
                (granted.transport, granted.protocol),
                (transport, protocol),
                "{headers:?}"
            );
            assert_eq!(granted.response.status(), StatusCode::SWITCHING_PROTOCOLS);
        }
    }

    #[test]
    fn refused() {
        let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        for (headers, status) in [
            (vec![], StatusCode::BAD_REQUEST),
            (vec![("upgrade", "SPDY/3.1")], StatusCode::BAD_REQUEST),
            (
                vec![("connection", "upgrade"), ("upgrade", "h2c")],
                StatusCode::BAD_REQUEST,
            ),
            (
                vec![("connection", "upgrade"), ("upgrade", "websocket")],
                StatusCode::BAD_REQUEST,
            ),
            (spdy.to_vec(), StatusCode::BAD_REQUEST),
            (
                [&spdy[..], &[("x-stream-protocol-version", "v9")]].concat(),
                StatusCode::FORBIDDEN,
            ),
        ] {
            assert_eq!(ask(&headers).unwrap_err().status(), status, "{headers:?}");
        }
    }
}
