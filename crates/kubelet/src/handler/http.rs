//! A GET request, and its redirects as long as they stay with the host.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::place::{Place, join};
use super::{LONGEST_OUTPUT, Outcome, Target, dial, port, tls};
use crate::words;

/// As many requests as upstream makes for one answer.
const MOST_REQUESTS: usize = 10;
/// As much as the head of an answer may take.
const LONGEST_HEAD: usize = 256 << 10;

/// Asks as a probe; it is well when the answer's status is 2xx, or a redirect that is not followed.
pub async fn probe(action: &HTTPGetAction, target: &Target<'_>, timeout: Duration) -> Outcome {
    match get(action, target, "kube-probe/1.36", timeout).await {
        Ok(outcome) => outcome,
        Err(Unanswered::Impossible(error)) => Outcome::unknown(error),
        Err(Unanswered::Failed(error)) => Outcome::Failure(error),
    }
}

/// Asks as a hook, which is done when there is an answer, whatever it says.
pub async fn hook(action: &HTTPGetAction, target: &Target<'_>, timeout: Duration) -> Result<(), String> {
    match get(action, target, "kube-lifecycle/1.36", timeout).await {
        Ok(_) => Ok(()),
        Err(Unanswered::Impossible(error) | Unanswered::Failed(error)) => Err(error),
    }
}

/// Why there is no answer.
enum Unanswered {
    /// The request cannot be made.
    Impossible(String),
    Failed(String),
}

/// Asks, and gives what a probe makes of the answer.
async fn get(
    action: &HTTPGetAction,
    target: &Target<'_>,
    agent: &'static str,
    timeout: Duration,
) -> Result<Outcome, Unanswered> {
    let port = port(&action.port, target.container).map_err(Unanswered::Impossible)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty());
    let secure = action
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let path = action.path.as_deref().unwrap_or_default();
    let place = Place::new(secure, host.unwrap_or(target.ip), port, path);
    match headers(action, agent) {
        Ok(headers) => follow(place, headers, timeout).await,
        Err(error) => Err(failed(&place.to_string(), &error)),
    }
}

fn failed(url: &str, error: &str) -> Unanswered {
    Unanswered::Failed(format!("Get {}: {error}", words::quote(url)))
}

/// The action's own headers, and those that it does not have.
fn headers(action: &HTTPGetAction, agent: &'static str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::try_from(&header.name)
            .map_err(|_| format!("net/http: invalid header field name {}", words::quote(&header.name)))?;
        let value = HeaderValue::try_from(&header.value).map_err(|_| {
            format!(
                "net/http: invalid header field value for {}",
                words::quote(&header.name)
            )
        })?;
        headers.append(name, value);
    }
    for (name, default) in [("user-agent", agent), ("accept", "*/*")] {
        match headers.get(name) {
            None => drop(headers.insert(name, HeaderValue::from_static(default))),
            // One that is there and empty says that it is not wanted.
            Some(value) if value.is_empty() => drop(headers.remove(name)),
            Some(_) => {}
        }
    }
    headers.insert("connection", HeaderValue::from_static("close"));
    Ok(headers)
}

/// Makes requests until there is an answer.
async fn follow(first: Place, mut headers: HeaderMap, timeout: Duration) -> Result<Outcome, Unanswered> {
    let deadline = Instant::now() + timeout;
    let mut own_host = headers.remove("host").filter(|host| !host.is_empty());
    let mut place = first;
    let mut made = 0;
    loop {
        made += 1;
        let host = own_host
            .clone()
            .or_else(|| HeaderValue::try_from(&place.authority).ok())
            .unwrap_or_else(|| HeaderValue::from_static(""));
        headers.insert("host", host);
        let next = match ask(&place, &headers, deadline).await {
            Ok(Answer::Final(outcome)) => return Ok(outcome),
            Ok(Answer::Redirect(location)) => location,
            Err(error) => return Err(failed(&place.to_string(), &error)),
        };
        if made >= MOST_REQUESTS {
            return Err(failed(&next, "stopped after 10 redirects"));
        }
        let there = match place.resolve(&next) {
            Ok(there) => there,
            Err(error) => return Err(failed(&place.to_string(), &error)),
        };
        // Another Host than the place's own is kept for what is relative to it.
        if there.authority != place.authority {
            own_host = None;
        }
        if let (Ok(referer), false) = (HeaderValue::try_from(place.to_string()), place.secure && !there.secure) {
            headers.insert("referer", referer);
        }
        place = there;
    }
}

enum Answer {
    Final(Outcome),
    /// To be followed, to this location.
    Redirect(String),
}

/// One request; an error comes before the head of an answer.
async fn ask(place: &Place, headers: &HeaderMap, deadline: Instant) -> Result<Answer, String> {
    let late = |_| "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned();
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = place
        .path
        .parse::<Uri>()
        .map_err(|error| format!("parse {:?}: {error}", place.path))?;
    *request.headers_mut() = headers.clone();
    let left = deadline.saturating_duration_since(Instant::now());
    let address = join(&place.host, place.port);
    let stream = timeout_at(deadline, dial::dial(&address, left)).await.map_err(late)??;
    if place.secure {
        let shaken = timeout_at(deadline, tls::connect(stream, &place.host));
        let stream = shaken.await.map_err(late)?.map_err(|error| tls::said(&error))?;
        exchange(stream, request, place, deadline, None).await
    } else {
        let ends = ends(&stream);
        exchange(stream, request, place, deadline, ends).await
    }
}

/// `from->to`, as errors of reading name a connection.
fn ends(stream: &TcpStream) -> Option<String> {
    Some(format!("{}->{}", stream.local_addr().ok()?, stream.peer_addr().ok()?))
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
    place: &Place,
    deadline: Instant,
    ends: Option<String>,
) -> Result<Answer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let said = |error: hyper::Error| broken(&error, ends.as_deref());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(said)?;
    let talk = async {
        let response = timeout_at(deadline, sender.send_request(request))
            .await
            .map_err(|_| "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())?
            .map_err(said)?;
        Ok(match location(&response, place)? {
            Some(location) => Answer::Redirect(location),
            None => Answer::Final(judge(response, deadline).await),
        })
    };
    driven(talk, connection).await
}

/// Lets a connection work while something waits for it; what becomes of the connection reaches whoever waits through it.
async fn driven<T>(wait: impl Future<Output = T>, connection: impl Future) -> T {
    let drive = async {
        let _ = connection.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        done = wait => done,
        never = drive => match never {},
    }
}

/// Where an answer redirects to, if that is to be followed: it has a place, and on the same host.
fn location<B>(response: &Response<B>, place: &Place) -> Result<Option<String>, String> {
    const REDIRECTS: [StatusCode; 5] = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let location = response
        .headers()
        .get("location")
        .filter(|location| !location.is_empty());
    let Some(location) = location.filter(|_| REDIRECTS.contains(&response.status())) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
    let there = place.resolve(&location)?;
    Ok((there.host == place.host).then_some(location))
}

async fn judge(response: Response<Incoming>, deadline: Instant) -> Outcome {
    let status = response.status();
    // The container may count on its answer being read, up to a point.
    let body = match timeout_at(deadline, read(response.into_body())).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return unread(broken(&error, None)),
        Err(_) => {
            return unread(
                "context deadline exceeded (Client.Timeout or context cancellation while reading body)".into(),
            );
        }
    };
    match status.as_u16() {
        200..300 => Outcome::Success,
        300..400 => {
            let body = String::from_utf8_lossy(&body);
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

fn unread(error: String) -> Outcome {
    Outcome::Error {
        state: "failure",
        error,
    }
}

/// The beginning of a body.
async fn read(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut read = Vec::new();
    while read.len() < LONGEST_OUTPUT {
        match body.frame().await {
            None => break,
            Some(frame) => read.extend_from_slice(frame?.data_ref().unwrap_or(&Bytes::new())),
        }
    }
    read.truncate(LONGEST_OUTPUT);
    Ok(read)
}

/// Why a connection that stood gave no answer.
fn broken(error: &hyper::Error, ends: Option<&str>) -> String {
    if error.is_incomplete_message() {
        return "EOF".into();
    }
    if error.is_parse_too_large() {
        return format!("net/http: server response headers exceeded {LONGEST_HEAD} bytes; aborted");
    }
    if error.is_parse() {
        return format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {error}");
    }
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    match (source.and_then(std::io::Error::raw_os_error), ends) {
        (Some(code), Some(ends)) => format!("read tcp {ends}: read: {}", dial::errno(code)),
        (Some(code), None) => format!("read: {}", dial::errno(code)),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
