//! Paths to what they mean.

use http::Method;

use super::Report;

/// A container, as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerPath {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// Given by callers that mean this very pod and not a later one of its name.
    pub(super) uid: Option<String>,
    pub(super) container: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Healthz,
    Pods,
    RunningPods,
    Configz,
    Summary,
    Metrics(Report),
    /// A path below the node's own logs.
    NodeLogs(String),
    Logs(ContainerPath),
    Exec(ContainerPath),
    Attach(ContainerPath),
    Run(ContainerPath),
    PortForward {
        namespace: String,
        pod: String,
        uid: Option<String>,
    },
}

/// Why nothing is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoute {
    NotFound,
    MethodNotAllowed,
}

pub(super) fn route(method: &Method, path: &str) -> Result<Route, NoRoute> {
    if let Some(path) = path.strip_prefix("/logs/") {
        return match *method {
            Method::GET => Ok(Route::NodeLogs(path.to_owned())),
            _ => Err(NoRoute::MethodNotAllowed),
        };
    }
    // Names that need escaping in a path are no names.
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(NoRoute::NotFound);
    }
    let route = match parts[..] {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Route::Healthz,
        ["pods"] => Route::Pods,
        ["runningpods"] => Route::RunningPods,
        ["configz"] => Route::Configz,
        ["stats", "summary"] => Route::Summary,
        ["metrics"] => Route::Metrics(Report::Kubelet),
        ["metrics", "cadvisor"] => Route::Metrics(Report::Containers),
        ["metrics", "resource"] => Route::Metrics(Report::Resources),
        ["metrics", "probes"] => Route::Metrics(Report::Probes),
        ["containerLogs", namespace, pod, container] => Route::Logs(container_path(namespace, pod, None, container)),
        ["portForward", namespace, pod] => Route::PortForward {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: None,
        },
        ["portForward", namespace, pod, uid] => Route::PortForward {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: Some(uid.to_owned()),
        },
        [verb, namespace, pod, ref rest @ ..] => {
            let path = match rest {
                [container] => container_path(namespace, pod, None, container),
                [uid, container] => container_path(namespace, pod, Some(uid), container),
                _ => return Err(NoRoute::NotFound),
            };
            match verb {
                "exec" => Route::Exec(path),
                "attach" => Route::Attach(path),
                "run" => Route::Run(path),
                _ => return Err(NoRoute::NotFound),
            }
        }
        _ => return Err(NoRoute::NotFound),
    };
    let allowed = match route {
        Route::Healthz
        | Route::Pods
        | Route::RunningPods
        | Route::Configz
        | Route::Summary
        | Route::Metrics(_)
        | Route::NodeLogs(_)
        | Route::Logs(_) => *method == Method::GET,
        Route::Run(_) => *method == Method::POST,
        // WebSocket clients can only GET.
        Route::Exec(_) | Route::Attach(_) | Route::PortForward { .. } => {
            *method == Method::GET || *method == Method::POST
        }
    };
    if allowed {
        Ok(route)
    } else {
        Err(NoRoute::MethodNotAllowed)
    }
}

fn container_path(namespace: &str, pod: &str, uid: Option<&str>, container: &str) -> ContainerPath {
    ContainerPath {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let forward = |uid: Option<&str>| Route::PortForward {
            namespace: "ns".to_owned(),
            pod: "p".to_owned(),
            uid: uid.map(str::to_owned),
        };
        for (method, path, expected) in [
            (Method::GET, "/healthz", Ok(Route::Healthz)),
            (Method::GET, "/pods/", Ok(Route::Pods)),
            (Method::GET, "/logs/", Ok(Route::NodeLogs(String::new()))),
            (Method::GET, "/logs/a/b/", Ok(Route::NodeLogs("a/b/".to_owned()))),
            (Method::POST, "/logs/", Err(NoRoute::MethodNotAllowed)),
            (Method::GET, "/logs", Err(NoRoute::NotFound)),
            (Method::GET, "/healthz/ping", Ok(Route::Healthz)),
            (Method::GET, "/runningpods/", Ok(Route::RunningPods)),
            (Method::GET, "/stats/summary", Ok(Route::Summary)),
            (Method::GET, "/stats", Err(NoRoute::NotFound)),
            (Method::GET, "/metrics", Ok(Route::Metrics(Report::Kubelet))),
            (Method::GET, "/metrics/cadvisor", Ok(Route::Metrics(Report::Containers))),
            (Method::GET, "/metrics/other", Err(NoRoute::NotFound)),
            (Method::POST, "/metrics", Err(NoRoute::MethodNotAllowed)),
            (Method::POST, "/pods", Err(NoRoute::MethodNotAllowed)),
            (
                Method::GET,
                "/containerLogs/ns/p/c",
                Ok(Route::Logs(container_path("ns", "p", None, "c"))),
            ),
            (Method::GET, "/containerLogs/ns/p", Err(NoRoute::NotFound)),
            (
                Method::POST,
                "/exec/ns/p/c",
                Ok(Route::Exec(container_path("ns", "p", None, "c"))),
            ),
            (
                Method::GET,
                "/exec/ns/p/u/c",
                Ok(Route::Exec(container_path("ns", "p", Some("u"), "c"))),
            ),
            (Method::PUT, "/exec/ns/p/c", Err(NoRoute::MethodNotAllowed)),
            (
                Method::POST,
                "/attach/ns/p/c",
                Ok(Route::Attach(container_path("ns", "p", None, "c"))),
            ),
            (Method::GET, "/run/ns/p/c", Err(NoRoute::MethodNotAllowed)),
            (
                Method::POST,
                "/run/ns/p/c",
                Ok(Route::Run(container_path("ns", "p", None, "c"))),
            ),
            (Method::POST, "/portForward/ns/p", Ok(forward(None))),
            (Method::GET, "/portForward/ns/p/u", Ok(forward(Some("u")))),
            (Method::GET, "/exec//p/c", Err(NoRoute::NotFound)),
            (Method::GET, "/exec/ns/p/u/c/more", Err(NoRoute::NotFound)),
            (Method::GET, "/", Err(NoRoute::NotFound)),
            (Method::GET, "/spec", Err(NoRoute::NotFound)),
        ] {
            assert_eq!(route(&method, path), expected, "{method} {path}");
        }
    }
}
