//! Nodes: where their kubelets listen.

use std::net::{IpAddr, SocketAddr};

use api::{Status, status};
use k8s_openapi::api::core::v1::Node;

use crate::{
    Body,
    answer::{Answer, Content},
    call::{Call, Outcome},
    proxy::Target,
    registry::lookup,
    server::Server,
};

/// The kubelet's port where a node does not say another.
const KUBELET_PORT: u16 = 10250;

/// Where a node's kubelet listens.
pub(super) async fn kubelet(server: &Server, name: &str) -> Result<SocketAddr, Status> {
    let Some(nodes) = server.catalogue.find("", "v1", "nodes") else {
        return Err(status::no_such_resource());
    };
    let found = lookup(&*server.store, nodes, None, name).await?;
    let Some(node) = found.as_ref().and_then(|node| node.as_any().downcast_ref::<Node>()) else {
        return Err(status::not_found("", "nodes", name));
    };
    endpoint(node).ok_or_else(|| {
        status::internal(format!(
            "no preferred addresses found; known addresses of node {name}: none that is an IP address"
        ))
    })
}

fn endpoint(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let of = |kind: &str| {
        let addresses = status.addresses.iter().flatten();
        addresses
            .filter(|address| address.type_ == kind)
            .find_map(|address| address.address.parse::<IpAddr>().ok())
    };
    let address = of("InternalIP").or_else(|| of("ExternalIP"))?;
    let port = status
        .daemon_endpoints
        .as_ref()
        .and_then(|endpoints| endpoints.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(KUBELET_PORT);
    Some(SocketAddr::new(address, port))
}

/// Passes a request on to a node's kubelet, or to another port of the node: the name may be `node:port`.
pub(super) async fn proxy(call: &Call<'_>, body: Body) -> Outcome {
    let name = call.name()?;
    let (scheme, node, port) = super::pod_proxy::split_name(name)?;
    let kubelet = kubelet(call.server, node).await?;
    let address = match port {
        None | Some("") => kubelet,
        Some(port) => {
            let port = port
                .parse()
                .map_err(|_| status::bad_request(format!("invalid port in node name {name:?}")))?;
            SocketAddr::new(kubelet.ip(), port)
        }
    };
    // The kubelet's own port always speaks TLS; another does when the name says so.
    let target = Target {
        address,
        tls: address == kubelet || scheme == "https",
        path: super::pod_proxy::path_and_query(call),
    };
    let response = call.server.dialer.forward(&target, call.parts, body).await?;
    Ok(Answer::new(response.status().as_u16(), Content::Response(response)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    #[test]
    fn a_kubelet_is_found_by_its_nodes_status() {
        for (json, expected) in [
            (r#"{"metadata":{}}"#, None),
            (
                r#"{"metadata":{},"status":{"addresses":[{"type":"Hostname","address":"one"}]}}"#,
                None,
            ),
            (
                r#"{"metadata":{},"status":{"addresses":[{"type":"Hostname","address":"one"},{"type":"InternalIP","address":"192.0.2.7"}]}}"#,
                Some("192.0.2.7:10250"),
            ),
            (
                r#"{"metadata":{},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.7"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":10350}}}}"#,
                Some("192.0.2.7:10350"),
            ),
        ] {
            let node: Node = serde_json::from_str(json).unwrap();
            assert_eq!(
                endpoint(&node).map(|endpoint| endpoint.to_string()).as_deref(),
                expected,
                "{json}"
            );
        }
    }
}
