//! Exec, attach, run and port-forward: the runtime says where the session is, the proxy goes there.

use std::sync::Arc;

use cri::Code;
use cri::v1::{AttachRequest, ExecRequest, ExecSyncRequest, PortForwardRequest};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;

use super::proxy::forward;
use super::query::Query;
use super::respond::{Body, Node, plain, whole};
use super::route::ContainerPath;

/// An answer that ends the request.
type Refusal = Box<Response<Body>>;

fn refuse(status: StatusCode, text: impl Into<String>) -> Refusal {
    Box::new(plain(status, text))
}

/// The answer to an error of the runtime: its text, under the status nearest to its code.
fn refuse_with(error: &cri::Error) -> Refusal {
    match error.code {
        Code::NotFound => refuse(StatusCode::NOT_FOUND, error.to_string()),
        Code::ResourceExhausted => {
            // The sessions that wait are forgotten within the minute.
            let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, error.to_string());
            response
                .headers_mut()
                .insert(http::header::RETRY_AFTER, HeaderValue::from_static("60"));
            response
        }
        _ => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Node {
    fn session_pod(&self, namespace: &str, name: &str, wanted_uid: Option<&str>) -> Result<Arc<Pod>, Refusal> {
        self.pods
            .pod(namespace, name)
            .filter(|pod| wanted_uid.is_none_or(|wanted| wanted == uid(pod)))
            .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "pod does not exist"))
    }

    fn session_container(&self, path: &ContainerPath) -> Result<(Arc<Pod>, String), Refusal> {
        let pod = self.session_pod(&path.namespace, &path.pod, path.uid.as_deref())?;
        let container_id = self.pods.container_id(uid(&pod), &path.container).ok_or_else(|| {
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("container not found ({:?})", path.container),
            )
        })?;
        Ok((pod, container_id))
    }
}

/// The streams that a query asks for, by the kubelet's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

fn wanted(query: &Query) -> Result<Wanted, &'static str> {
    let (stdin, stdout, tty) = (query.flag("input"), query.flag("output"), query.flag("tty"));
    // A terminal has one output.
    let stderr = query.flag("error") && !tty;
    if !stdin && !stdout && !stderr {
        return Err("you must specify at least 1 of stdin, stdout, stderr");
    }
    Ok(Wanted {
        stdin,
        stdout,
        stderr,
        tty,
    })
}

pub(super) async fn exec(node: &Node, path: &ContainerPath, request: Request<Incoming>) -> Response<Body> {
    let url = async {
        let query = Query::parse(request.uri().query());
        let Wanted {
            stdin,
            stdout,
            stderr,
            tty,
        } = wanted(&query).map_err(|reason| refuse(StatusCode::BAD_REQUEST, reason))?;
        let (_, container_id) = node.session_container(path)?;
        let cmd = query.all("command").map(str::to_owned).collect();
        let asked = ExecRequest {
            container_id,
            cmd,
            tty,
            stdin,
            stdout,
            stderr,
            ..Default::default()
        };
        Ok(node.runtime.exec(asked).await.map_err(|error| refuse_with(&error))?.url)
    };
    go_to(url.await, request).await
}

pub(super) async fn attach(node: &Node, path: &ContainerPath, request: Request<Incoming>) -> Response<Body> {
    let url = async {
        let query = Query::parse(request.uri().query());
        let Wanted {
            stdin, stdout, stderr, ..
        } = wanted(&query).map_err(|reason| refuse(StatusCode::BAD_REQUEST, reason))?;
        let (pod, container_id) = node.session_container(path)?;
        // Whether there is a terminal was settled when the container was made.
        let tty = has_terminal(&pod, &path.container);
        let stderr = stderr && !tty;
        let asked = AttachRequest {
            container_id,
            stdin,
            tty,
            stdout,
            stderr,
            ..Default::default()
        };
        Ok(node
            .runtime
            .attach(asked)
            .await
            .map_err(|error| refuse_with(&error))?
            .url)
    };
    go_to(url.await, request).await
}

pub(super) async fn port_forward(
    node: &Node,
    namespace: &str,
    pod: &str,
    wanted_uid: Option<&str>,
    request: Request<Incoming>,
) -> Response<Body> {
    let url = async {
        let pod = node.session_pod(namespace, pod, wanted_uid)?;
        let port =
            ports(&Query::parse(request.uri().query())).map_err(|reason| refuse(StatusCode::BAD_REQUEST, reason))?;
        let name = || pod.metadata.name.as_deref().unwrap_or_default().to_owned();
        let pod_sandbox_id = node.pods.sandbox_id(uid(&pod)).ok_or_else(|| {
            let words = format!("pod not found ({:?})", format!("{}_{namespace}({})", name(), uid(&pod)));
            refuse(StatusCode::INTERNAL_SERVER_ERROR, words)
        })?;
        let asked = PortForwardRequest { pod_sandbox_id, port };
        Ok(node
            .runtime
            .port_forward(asked)
            .await
            .map_err(|error| refuse_with(&error))?
            .url)
    };
    go_to(url.await, request).await
}

/// Runs a command to its end; its output is the answer.
pub(super) async fn run(node: &Node, path: &ContainerPath, query: Option<&str>) -> Response<Body> {
    let container_id = match node.session_container(path) {
        Ok((_, container_id)) => container_id,
        Err(refusal) => return *refusal,
    };
    let query = Query::parse(query);
    let cmd = query
        .get("cmd")
        .unwrap_or_default()
        .split(' ')
        .map(str::to_owned)
        .collect();
    match node
        .runtime
        .exec_sync(ExecSyncRequest {
            container_id,
            cmd,
            timeout: 0,
        })
        .await
    {
        Ok(done) => {
            let output = [done.stdout, done.stderr].concat();
            if done.exit_code == 0 {
                return Response::new(whole(output));
            }
            let words = format!(
                "command '{}' exited with {}: {}",
                query.get("cmd").unwrap_or_default(),
                done.exit_code,
                String::from_utf8_lossy(&output)
            );
            plain(StatusCode::INTERNAL_SERVER_ERROR, words)
        }
        Err(error) => *refuse_with(&error),
    }
}

async fn go_to(url: Result<String, Refusal>, request: Request<Incoming>) -> Response<Body> {
    match url {
        Ok(url) => forward(&url, request).await,
        Err(refusal) => *refusal,
    }
}

/// The ports of a session whose protocol does not name them itself.
fn ports(query: &Query) -> Result<Vec<i32>, String> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(i32::from(port)),
        Err(_) => Err(format!("unable to parse {text:?} as a port: invalid syntax")),
    };
    query
        .all("port")
        .flat_map(|value| value.split(','))
        .filter(|text| !text.is_empty())
        .map(number)
        .collect()
}

fn has_terminal(pod: &Pod, container: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    spec.containers
        .iter()
        .chain(init)
        .map(|container| (&container.name, container.tty))
        .chain(ephemeral.map(|container| (&container.name, container.tty)))
        .any(|(name, tty)| name == container && tty == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_query() {
        let all = |stdin, stdout, stderr, tty| {
            Ok(Wanted {
                stdin,
                stdout,
                stderr,
                tty,
            })
        };
        for (query, expected) in [
            ("output=1&error=1", all(false, true, true, false)),
            ("input=true&output=1&error=1&tty=1", all(true, true, false, true)),
            (
                "command=ls",
                Err("you must specify at least 1 of stdin, stdout, stderr"),
            ),
            ("output=0", Err("you must specify at least 1 of stdin, stdout, stderr")),
        ] {
            assert_eq!(wanted(&Query::parse(Some(query))), expected, "{query}");
        }
    }

    #[test]
    fn ports_of_a_query() {
        for (query, expected) in [
            ("", Ok(vec![])),
            ("port=80&port=443", Ok(vec![80, 443])),
            ("port=80,443", Ok(vec![80, 443])),
            ("port=0", Err(r#"port "0" must be > 0"#.to_owned())),
            (
                "port=http",
                Err(r#"unable to parse "http" as a port: invalid syntax"#.to_owned()),
            ),
        ] {
            assert_eq!(ports(&Query::parse(Some(query))), expected, "{query}");
        }
    }
}
