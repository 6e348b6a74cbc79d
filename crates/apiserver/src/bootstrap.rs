//! What every cluster has from its first moment: the system's namespaces with their accounts, priority classes, and the
//! `kubernetes` Service with its endpoint, and the Service of the DNS server.

use api::{Status, kinds::priority_class};
use http::{Method, Request, Response, header};
use serde_json::{Value, json};

use crate::{ApiServer, Body, Identity, server::StartError};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// The user of the server's own writes.
const USER: &str = "system:apiserver";

/// Makes what is missing.
pub(crate) async fn run(server: &ApiServer) -> Result<(), StartError> {
    let bootstrap = Bootstrap {
        server,
        identity: Identity::master(USER),
    };
    for name in NAMESPACES {
        bootstrap.namespace(name).await?;
        // What the controllers see to in every namespace is there in these before they run.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
        bootstrap.create(&accounts, &account).await?;
    }
    for class in priority_class::system() {
        let class = json!(class);
        bootstrap
            .create("/apis/scheduling.k8s.io/v1/priorityclasses", &class)
            .await?;
    }
    bootstrap.mend_services().await?;
    bootstrap.kubernetes_service().await?;
    bootstrap.dns_service().await;
    Ok(())
}

/// Makes again what the server does not work without, where somebody deleted or changed it.
pub(crate) async fn mend(server: &ApiServer) -> Result<(), StartError> {
    let bootstrap = Bootstrap {
        server,
        identity: Identity::master(USER),
    };
    for name in NAMESPACES {
        bootstrap.namespace(name).await?;
    }
    bootstrap.kubernetes_service().await?;
    bootstrap.dns_service().await;
    Ok(())
}

/// What [`mend`] makes: group, plural, namespace and name.
pub(crate) const OWN: &[(&str, &str, Option<&str>, &str)] = &[
    // The other namespaces are never deleted.
    ("", "namespaces", None, "kube-node-lease"),
    ("", "services", Some("default"), "kubernetes"),
    ("", "endpoints", Some("default"), "kubernetes"),
    ("discovery.k8s.io", "endpointslices", Some("default"), "kubernetes"),
    ("", "services", Some("kube-system"), "kube-dns"),
];

struct Bootstrap<'a> {
    server: &'a ApiServer,
    identity: Identity,
}

impl Bootstrap<'_> {
    async fn send(&self, method: Method, path: &str, object: Option<&Value>) -> Response<Body> {
        let body = object.map(|object| Body::from(object.to_string())).unwrap_or_default();
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // Every path here is made of names that are valid in one.
        *request.uri_mut() = path.parse().unwrap_or_default();
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        self.server.handle(request, self.identity.clone()).await
    }

    /// Creates an object, or finds that it is there. Looks first: a Service that is there already holds its address,
    /// and creating it once more would be refused for that before its name is looked at.
    async fn create(&self, collection: &str, object: &Value) -> Result<(), StartError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let found = self.send(Method::GET, &format!("{collection}/{name}"), None).await;
        if found.status() == 200 {
            return Ok(());
        }
        let response = self.send(Method::POST, collection, Some(object)).await;
        match response.status().as_u16() {
            201 | 409 => Ok(()),
            code => Err(failed(collection, object, code, response.body())),
        }
    }

    /// Creates an object, or makes it what it has to be.
    async fn put(&self, collection: &str, object: &Value) -> Result<(), StartError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{collection}/{name}");
        let found = self.send(Method::GET, &path, None).await;
        if found.status() == 404 {
            return self.create(collection, object).await;
        }
        let response = self.send(Method::PUT, &path, Some(object)).await;
        match response.status().as_u16() {
            200 | 201 => Ok(()),
            code => Err(failed(collection, object, code, response.body())),
        }
    }

    async fn namespace(&self, name: &str) -> Result<(), StartError> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &namespace).await
    }

    async fn mend_services(&self) -> Result<(), StartError> {
        let server = self.server.inner();
        let error = |source: Status| StartError::Bootstrap {
            what: "the Services' addresses".into(),
            source,
        };
        let Some(resource) = server.catalogue.find("", "v1", "services") else {
            return Ok(());
        };
        let prefix = crate::registry::prefix(resource, None);
        let listing = server
            .store
            .list(&prefix, store::ListOptions::default())
            .await
            .map_err(|failure| error(crate::registry::store_error(failure)))?;
        let mut objects = Vec::with_capacity(listing.entries.len());
        for entry in &listing.entries {
            objects.push(resource.strategy.load(&entry.value).map_err(error)?);
        }
        let services = objects.iter().filter_map(|object| object.as_any().downcast_ref());
        server
            .services
            .mend(&*server.store, services)
            .await
            .map_err(|failure| error(crate::registry::store_error(failure)))
    }

    /// The Service by which pods reach this server. Its endpoint follows the server's address.
    async fn kubernetes_service(&self) -> Result<(), StartError> {
        let server = self.server.inner();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let address = server.services.range.kubernetes().to_string();
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": server.config.https_port}],
            },
        });
        self.create("/api/v1/namespaces/default/services", &service).await?;
        // On an address that every machine has itself no pod could find the server.
        let mut reachable = server.config.addresses.iter().filter(|address| !address.is_loopback());
        let Some(first) = reachable.next().map(ToString::to_string) else {
            return Ok(());
        };
        let mirrored = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        let port = server.config.https_port;
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": mirrored},
            "subsets": [{
                "addresses": [{"ip": first}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }],
        });
        self.put("/api/v1/namespaces/default/endpoints", &endpoints).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": if first.contains(':') { "IPv6" } else { "IPv4" },
            "endpoints": [{"addresses": [first], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        self.put("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice)
            .await
    }

    /// The Service that holds the DNS server's address. Every node has a server at that address itself, so it needs
    /// no endpoints. A cluster where something else has the address goes on without.
    async fn dns_service(&self) {
        let server = self.server.inner();
        let in_range = |address: &std::net::IpAddr| server.services.range.contains(*address);
        let Some(address) = server.config.cluster_dns.filter(in_range) else {
            return;
        };
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kube-dns", "namespace": "kube-system",
                "labels": {
                    "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
                },
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": address.to_string(),
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        });
        if let Err(error) = self.create("/api/v1/namespaces/kube-system/services", &service).await {
            tracing::warn!(%error, "the DNS server's address has no Service of its own");
        }
    }
}

fn failed(collection: &str, object: &Value, code: u16, body: &Body) -> StartError {
    let what = format!(
        "{collection}/{}",
        object["metadata"]["name"].as_str().unwrap_or_default()
    );
    let told = body.ready().map(String::from_utf8_lossy).unwrap_or_default();
    StartError::Bootstrap {
        what,
        source: api::status::internal(format!("answered with {code}: {told}")),
    }
}
