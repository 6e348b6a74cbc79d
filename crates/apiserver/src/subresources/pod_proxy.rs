//! Logs, sessions and requests that go on to a pod, by way of its kubelet or straight to its address.

use std::net::{IpAddr, SocketAddr};

use api::{FieldError, Path, Status, status};
use http::Response;
use k8s_openapi::api::core::v1::{Container, Endpoints, ObjectReference, Pod, Service};
use rand::seq::SliceRandom as _;

use crate::{
    Body,
    answer::{Answer, Content},
    call::{Call, Outcome},
    proxy::{Subject, Target},
    query::Query,
    registry::{current, lookup},
};

use super::nodes::kubelet;

async fn pod(call: &Call<'_>) -> Result<Pod, Status> {
    let entry = current(call).await?;
    let object = call.resource.strategy.load(&entry.value)?;
    object.as_any().downcast_ref().cloned().ok_or_else(|| call.not_found())
}

fn passed(response: Response<Body>) -> Answer {
    Answer::new(response.status().as_u16(), Content::Response(response))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .filter(|node| !node.is_empty())
}

fn no_host(call: &Call<'_>) -> Status {
    status::bad_request(format!(
        "pod {} does not have a host assigned",
        call.name.unwrap_or_default()
    ))
}

/// A container's log, as the kubelet streams it.
pub(super) async fn log(call: &Call<'_>) -> Outcome {
    let pod = pod(call).await?;
    let query = log_query(call.query, call.name.unwrap_or_default())?;
    let container = container(&pod, call.query.get("container"))?;
    let Some(node) = node_of(&pod) else {
        // As upstream: a pod without a node has nothing to say yet.
        return Ok(passed(Response::new(Body::empty())));
    };
    let address = kubelet(call.server, node).await?;
    let path = kubelet_path("containerLogs", call, Some(container), &query);
    let subject = Subject {
        resource: "pods",
        name: call.name.unwrap_or_default(),
    };
    let mut response = call
        .server
        .dialer
        .stream(
            &Target {
                address,
                tls: true,
                path,
            },
            call.parts,
            subject,
        )
        .await?;
    let headers = response.headers_mut();
    headers
        .entry(http::header::CONTENT_TYPE)
        .or_insert(http::HeaderValue::from_static("text/plain"));
    Ok(passed(response))
}

/// `exec` and `attach`: a session with a container.
pub(super) async fn exec(call: &Call<'_>, what: &str) -> Outcome {
    let pod = pod(call).await?;
    let container = container(&pod, call.query.get("container"))?;
    let node = node_of(&pod).ok_or_else(|| no_host(call))?;
    if let Some(phase @ ("Succeeded" | "Failed")) = pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        return Err(status::bad_request(format!(
            "cannot {what} into a container in a completed pod; current phase is {phase}"
        )));
    }
    let address = kubelet(call.server, node).await?;
    let path = kubelet_path(what, call, Some(container), &session_query(call.query));
    let response = call
        .server
        .dialer
        .forward(
            &Target {
                address,
                tls: true,
                path,
            },
            call.parts,
            Body::empty(),
        )
        .await?;
    Ok(passed(response))
}

/// Connections to a pod's ports.
pub(super) async fn port_forward(call: &Call<'_>) -> Outcome {
    let pod = pod(call).await?;
    let node = node_of(&pod).ok_or_else(|| no_host(call))?;
    let address = kubelet(call.server, node).await?;
    let ports: Vec<&str> = call.query.all("ports").chain(call.query.all("port")).collect();
    let query: Vec<(&str, &str)> = ports.into_iter().map(|port| ("port", port)).collect();
    let path = kubelet_path("portForward", call, None, &query);
    let response = call
        .server
        .dialer
        .forward(
            &Target {
                address,
                tls: true,
                path,
            },
            call.parts,
            Body::empty(),
        )
        .await?;
    Ok(passed(response))
}

/// The container that a request means: the one that it names, or the pod's only one.
fn container<'a>(pod: &'a Pod, named: Option<&'a str>) -> Result<&'a str, Status> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else {
        return Err(no_container(name));
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or_default();
    if let Some(named) = named {
        let known = spec
            .containers
            .iter()
            .chain(init)
            .any(|container| container.name == named)
            || ephemeral.iter().any(|container| container.name == named);
        let refusal = || status::bad_request(format!("container {named} is not valid for pod {name}"));
        return if known { Ok(named) } else { Err(refusal()) };
    }
    match &spec.containers[..] {
        [] => Err(no_container(name)),
        [only] => Ok(&only.name),
        several => {
            let names = |containers: &[Container]| {
                containers
                    .iter()
                    .map(|container| container.name.as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names(several)
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", names(init)));
            }
            Err(status::bad_request(message))
        }
    }
}

fn no_container(name: &str) -> Status {
    status::bad_request(format!("a container name must be specified for pod {name}"))
}

/// The options of a log that the kubelet is told, after the checks that upstream makes before it.
fn log_query<'q>(query: &'q Query, pod: &str) -> Result<Vec<(&'q str, &'q str)>, Status> {
    let mut errors = Vec::new();
    for (option, least, rule) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        if let Some(number) = query.integer(option)?.filter(|number| *number < least) {
            errors.push(FieldError::invalid(&Path::new(option), number, rule));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors.push(FieldError::forbidden(
            &Path::new(""),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if !errors.is_empty() {
        return Err(status::invalid("", "PodLogOptions", pod, &errors));
    }
    let passed = [
        "follow",
        "previous",
        "timestamps",
        "tailLines",
        "sinceSeconds",
        "sinceTime",
        "limitBytes",
        "stream",
    ];
    Ok(query
        .pairs()
        .filter(|(name, value)| passed.contains(name) && !value.is_empty())
        .collect())
}

/// The options of a session, under the kubelet's names for them.
fn session_query(query: &Query) -> Vec<(&str, &str)> {
    let mut options: Vec<(&str, &str)> = query.all("command").map(|part| ("command", part)).collect();
    let said = ["stdin", "stdout", "stderr"].iter().any(|stream| query.flag(stream));
    for (option, stream) in [
        ("input", "stdin"),
        ("output", "stdout"),
        ("error", "stderr"),
        ("tty", "tty"),
    ] {
        // Who names no stream wants to see what there is.
        if query.flag(stream) || (!said && matches!(stream, "stdout" | "stderr")) {
            options.push((option, "1"));
        }
    }
    options
}

fn kubelet_path(what: &str, call: &Call<'_>, container: Option<&str>, query: &[(&str, &str)]) -> String {
    let (namespace, name) = (call.namespace.unwrap_or_default(), call.name.unwrap_or_default());
    let mut path = format!("/{what}/{namespace}/{name}");
    if let Some(container) = container {
        path.push('/');
        path.push_str(container);
    }
    if !query.is_empty() {
        path.push('?');
        path = form_urlencoded::Serializer::for_suffix(path.clone(), path.len())
            .extend_pairs(query)
            .finish();
    }
    path
}

/// `scheme:name:port`, `name:port` or `name`.
pub(super) fn split_name(text: &str) -> Result<(&str, &str, Option<&str>), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [name] => Ok(("", name, None)),
        [name, port] => Ok(("", name, Some(port))),
        [scheme @ ("http" | "https" | ""), name, port] => Ok((scheme, name, Some(port))),
        _ => Err(status::bad_request(format!(
            "invalid name {text:?}: expected NAME, NAME:PORT or SCHEME:NAME:PORT"
        ))),
    }
}

/// What a proxied request asks of its target.
pub(super) fn path_and_query(call: &Call<'_>) -> String {
    let path = if call.rest.is_empty() { "/" } else { call.rest };
    match call.parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Passes a request on to a port of a pod.
pub(super) async fn proxy(call: &Call<'_>, body: Body) -> Outcome {
    let text = call.name()?;
    let (scheme, name, port) = split_name(text)?;
    let pod = pod(&Call {
        server: call.server,
        name: Some(name),
        ..*call
    })
    .await?;
    let address = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref())
        .and_then(|address| address.parse::<IpAddr>().ok())
        .ok_or_else(|| {
            status::service_unavailable(&format!("address not allowed: pod {name} has no IP address yet"))
        })?;
    let first = || {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers
            .flat_map(|container| container.ports.iter().flatten())
            .next()
            .map(|port| port.container_port)
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => port
            .parse()
            .map_err(|_| status::bad_request(format!("invalid port in pod name {text:?}")))?,
        None => first().and_then(|port| u16::try_from(port).ok()).unwrap_or(80),
    };
    if !is_proxied_to(address) {
        return Err(status::bad_request("address not allowed"));
    }
    pass(call, body, scheme, SocketAddr::new(address, port)).await
}

/// Whether requests are passed on to an address: those of the machine itself, and those that lead no further than its
/// links, are the server's to reach and not its clients'.
fn is_proxied_to(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let on_link = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !special && !on_link
}

/// Passes a request on to one of a Service's endpoints.
pub(super) async fn service_proxy(call: &Call<'_>, body: Body) -> Outcome {
    let text = call.name()?;
    let (scheme, name, port) = split_name(text)?;
    let mut port = port.unwrap_or_default().to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let found = lookup(&*call.server.store, call.resource, call.namespace, name).await?;
        let service = found
            .as_ref()
            .and_then(|found| found.as_any().downcast_ref::<Service>());
        let service = service.ok_or_else(|| status::not_found("", "services", name))?;
        port = port_name(service, number).ok_or_else(|| {
            status::service_unavailable(&format!("no service port {number} found for service {name:?}"))
        })?;
    }
    let endpoints = call
        .server
        .catalogue
        .find("", "v1", "endpoints")
        .ok_or_else(status::no_such_resource)?;
    let found = lookup(&*call.server.store, endpoints, call.namespace, name).await?;
    let endpoints = found
        .as_ref()
        .and_then(|found| found.as_any().downcast_ref::<Endpoints>());
    let endpoints = endpoints.ok_or_else(|| status::not_found("", "endpoints", name))?;
    let mut all = addresses(endpoints, &port);
    all.shuffle(&mut rand::rng());
    for (address, pod) in all {
        if is_proxied_to(address.ip()) && is_of_pod(call, address.ip(), pod).await? {
            return pass(call, body, scheme, address).await;
        }
    }
    let refusal = format!("no endpoints available for service {text:?}");
    Err(status::service_unavailable(&refusal))
}

/// Whether the pod that an endpoint names is there and has the address: who may write Endpoints may not thereby send the
/// API server anywhere.
async fn is_of_pod(call: &Call<'_>, address: IpAddr, pod: Option<&ObjectReference>) -> Result<bool, Status> {
    let Some(pod) = pod.filter(|pod| pod.namespace.as_deref() == call.namespace) else {
        return Ok(false);
    };
    let pods = call.server.catalogue.find("", "v1", "pods");
    let pods = pods.ok_or_else(status::no_such_resource)?;
    let name = pod.name.as_deref().unwrap_or_default();
    let found = lookup(&*call.server.store, pods, call.namespace, name).await?;
    let found = found.as_ref().and_then(|found| found.as_any().downcast_ref::<Pod>());
    let status = found.and_then(|pod| pod.status.as_ref());
    let mut ips = status.into_iter().flat_map(|status| status.pod_ips.iter().flatten());
    Ok(ips.any(|ip| ip.ip.parse() == Ok(address)))
}

/// The name of a Service's port, by which its endpoints know it; empty when it has none.
fn port_name(service: &Service, number: i64) -> Option<String> {
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = ports.find(|port| i64::from(port.port) == number)?;
    Some(port.name.clone().unwrap_or_default())
}

/// The ready endpoints of the port of that name, or of the first one when no name is given, and whose they are.
fn addresses<'a>(endpoints: &'a Endpoints, wanted: &str) -> Vec<(SocketAddr, Option<&'a ObjectReference>)> {
    let subsets = endpoints.subsets.iter().flatten();
    let found = subsets.flat_map(|subset| {
        let mut ports = subset.ports.iter().flatten();
        let port = ports.find(|port| wanted.is_empty() || port.name.as_deref() == Some(wanted));
        let number = port.and_then(|port| u16::try_from(port.port).ok());
        let ready = subset.addresses.iter().flatten();
        ready.filter_map(move |address| {
            let socket = SocketAddr::new(address.ip.parse().ok()?, number?);
            Some((socket, address.target_ref.as_ref()))
        })
    });
    found.collect()
}

async fn pass(call: &Call<'_>, body: Body, scheme: &str, address: SocketAddr) -> Outcome {
    if scheme == "https" {
        return Err(status::bad_request(
            "proxying to HTTPS ports of pods and Services is not supported; use port-forward",
        ));
    }
    let target = Target {
        address,
        tls: false,
        path: path_and_query(call),
    };
    Ok(passed(call.server.dialer.forward(&target, call.parts, body).await?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], init: &[&str]) -> Pod {
        let all = |names: &[&str]| {
            names
                .iter()
                .map(|name| Container {
                    name: (*name).into(),
                    ..Container::default()
                })
                .collect::<Vec<_>>()
        };
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        let spec = pod.spec.get_or_insert_default();
        spec.containers = all(containers);
        spec.init_containers = Some(all(init));
        pod
    }

    #[test]
    fn the_container_is_named_or_the_only_one() {
        for (containers, init, named, expected) in [
            (&["a"][..], &[][..], None, Ok("a")),
            (&["a", "b"], &["i"], Some("b"), Ok("b")),
            (&["a", "b"], &["i"], Some("i"), Ok("i")),
            (
                &["a", "b"],
                &[],
                None,
                Err("a container name must be specified for pod web, choose one of: [a b]"),
            ),
            (
                &["a", "b"],
                &["i"],
                None,
                Err(
                    "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]",
                ),
            ),
            (&["a"], &[], Some("x"), Err("container x is not valid for pod web")),
        ] {
            let pod = pod(containers, init);
            let found = container(&pod, named);
            match expected {
                Ok(name) => assert_eq!(found.unwrap(), name),
                Err(message) => assert_eq!(found.unwrap_err().message(), message),
            }
        }
    }

    #[test]
    fn sessions_are_asked_for_in_the_kubelets_words() {
        let query =
            Query::parse("command=sh&command=-c&command=a+b&stdin=true&stdout=true&tty=true&container=c&stderr=false");
        assert_eq!(
            session_query(&query),
            [
                ("command", "sh"),
                ("command", "-c"),
                ("command", "a b"),
                ("input", "1"),
                ("output", "1"),
                ("tty", "1")
            ]
        );
        assert_eq!(
            session_query(&Query::parse("command=ls")),
            [("command", "ls"), ("output", "1"), ("error", "1")]
        );
    }

    #[test]
    fn log_options_are_checked() {
        assert_eq!(
            log_query(&Query::parse("follow=true&tailLines=5&container=c&pretty=1"), "web").unwrap(),
            [("follow", "true"), ("tailLines", "5")]
        );
        let refused = log_query(&Query::parse("tailLines=-1"), "web").unwrap_err();
        assert_eq!(
            refused.message(),
            r#"PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#
        );
        assert!(log_query(&Query::parse("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z"), "web").is_err());
    }

    #[test]
    fn a_services_port_leads_to_that_of_its_endpoints() {
        let service: Service = serde_json::from_value(json!({"spec": {"ports": [
            {"name": "http", "port": 80, "targetPort": 8090}, {"name": "alt", "port": 8090, "targetPort": 9000}]}}))
        .unwrap();
        let endpoints: Endpoints = serde_json::from_value(json!({"subsets": [{
            "addresses": [{"ip": "10.244.0.1"}, {"ip": "10.244.0.2"}], "notReadyAddresses": [{"ip": "10.244.0.3"}],
            "ports": [{"name": "http", "port": 8090}, {"name": "alt", "port": 9000}]}]}))
        .unwrap();
        for (number, name, port) in [(80, Some("http"), 8090), (8090, Some("alt"), 9000), (9000, None, 0)] {
            let found = port_name(&service, number);
            assert_eq!(found.as_deref(), name);
            if let Some(found) = found {
                let expected = ["10.244.0.1", "10.244.0.2"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
                let found: Vec<SocketAddr> = addresses(&endpoints, &found).into_iter().map(|(at, _)| at).collect();
                assert_eq!(found, expected);
            }
        }
        assert_eq!(addresses(&endpoints, "")[0].0.port(), 8090);
        assert!(addresses(&endpoints, "other").is_empty());
    }

    #[test]
    fn requests_go_to_no_address_of_the_machine_itself() {
        for (address, want) in [
            ("10.244.0.1", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("0.0.0.0", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_proxied_to(address.parse().unwrap()), want, "{address}");
        }
    }

    #[test]
    fn names_may_carry_scheme_and_port() {
        for (text, expected) in [
            ("web", ("", "web", None)),
            ("web:80", ("", "web", Some("80"))),
            ("http:web:80", ("http", "web", Some("80"))),
            ("https:web:", ("https", "web", Some(""))),
        ] {
            assert_eq!(split_name(text).unwrap(), expected);
        }
        assert!(split_name("ftp:web:80").is_err());
        assert!(split_name("a:b:c:d").is_err());
    }
}
