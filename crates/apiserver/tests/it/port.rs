//! The server's port: TLS, who is let in, and sessions that go on to a node.

use std::{net::Ipv4Addr, sync::Arc};

use apiserver::{Body, pki::KeyedCertificate};
use http::{Request, Response, StatusCode, header};
use hyper::{body::Incoming, client::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::cluster::{Answer, Cluster, read};

fn roots(cluster: &Cluster) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(cluster.pki.ca_certificate.as_bytes()).unwrap())
        .unwrap();
    Arc::new(roots)
}

fn parts(of: &KeyedCertificate) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(of.certificate.as_bytes()).unwrap();
    (
        vec![certificate],
        PrivateKeyDer::from_pem_slice(of.key.as_bytes()).unwrap(),
    )
}

/// Serves the cluster's port until the sender is dropped.
async fn serve(cluster: &Cluster) -> (u16, oneshot::Sender<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(cluster.server.clone().serve(listener, async { drop(stopped.await) }));
    (port, stop)
}

async fn connect(cluster: &Cluster, port: u16, who: Option<&KeyedCertificate>) -> http1::SendRequest<Body> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(cluster));
    let config = match who.map(parts) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let name = ServerName::try_from("kubernetes.default.svc").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

async fn ask(sender: &mut http1::SendRequest<Body>, path: &str, token: Option<&str>) -> Answer {
    let mut request = Request::builder().uri(path).header(header::HOST, "localhost");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    read(response.map(Body::stream)).await
}

#[tokio::test]
async fn who_asks_is_known_by_certificate_or_token() {
    let cluster = Cluster::new().await;
    let (port, _stop) = serve(&cluster).await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut stranger = connect(&cluster, port, None).await;
    assert_eq!(ask(&mut stranger, "/healthz", None).await.bytes, "ok");
    let refused = ask(&mut stranger, pods, None).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let wrong = ask(&mut stranger, pods, Some("guess")).await;
    assert_eq!((wrong.code, wrong.message().as_str()), (401, "Unauthorized"));
    assert_eq!(ask(&mut stranger, pods, Some("secret")).await.code, 200);

    let mut admin = connect(&cluster, port, Some(&cluster.pki.admin)).await;
    assert_eq!(ask(&mut admin, pods, None).await.code, 200);

    // A certificate of another cluster is a stranger's, and told so.
    let other = Cluster::new().await;
    let mut impostor = connect(&cluster, port, Some(&other.pki.admin)).await;
    assert_eq!(ask(&mut impostor, pods, None).await.code, 401);
}

#[tokio::test]
async fn a_service_accounts_token_lets_its_owner_in_while_the_account_is_there() {
    let cluster = Cluster::new().await;
    let (port, _stop) = serve(&cluster).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.post(accounts, &json!({"metadata": {"name": "bot"}})).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let made = cluster.post(&format!("{accounts}/bot/token"), &request).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let token = made.json()["status"]["token"].as_str().unwrap().to_owned();
    let mut sender = connect(&cluster, port, None).await;
    assert_eq!(ask(&mut sender, "/api/v1/namespaces", Some(&token)).await.code, 200);
    cluster.delete(&format!("{accounts}/bot"), &json!({})).await;
    assert_eq!(ask(&mut sender, "/api/v1/namespaces", Some(&token)).await.code, 401);
}

#[tokio::test]
async fn a_token_is_for_its_audience_and_as_good_as_what_it_is_bound_to() {
    let cluster = Cluster::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = cluster.post(secrets, &json!({"metadata": {"name": "s"}})).await.json();
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": secret["metadata"]["uid"]});
    let request = json!({"spec": {"audiences": ["vault"], "boundObjectRef": bound}});
    let made = cluster
        .post("/api/v1/namespaces/default/serviceaccounts/default/token", &request)
        .await;
    assert_eq!(made.code, 201, "{}", made.message());
    let token = made.json()["status"]["token"].clone();
    let review = async |audiences: serde_json::Value| {
        let review = json!({"spec": {"token": token, "audiences": audiences}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        cluster.post(path, &review).await.json()["status"].clone()
    };
    let known = review(json!(["vault", "other"])).await;
    assert_eq!(
        (&known["authenticated"], &known["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    assert_eq!(known["user"]["username"], "system:serviceaccount:default:default");
    let credential = &known["user"]["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(credential.as_str().unwrap().starts_with("JTI="), "{known}");
    assert_eq!(
        review(json!([])).await["authenticated"],
        json!(null),
        "it is not for the API server"
    );
    cluster.delete(&format!("{secrets}/s"), &json!({})).await;
    assert_eq!(review(json!(["vault"])).await["authenticated"], json!(null));

    // A token is bound to what is there, and to a pod of the account.
    cluster
        .post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "bot"}}),
        )
        .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "bot", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(cluster.post("/api/v1/namespaces/default/pods", &pod).await.code, 201);
    let to = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    for (spec, code, message) in [
        (
            json!({"expirationSeconds": 300}),
            422,
            r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 300: may not specify a duration less than 10 minutes"#,
        ),
        (
            to("Pod", "p", ""),
            400,
            r#"cannot bind token for serviceaccount "default" to pod running with different serviceaccount name."#,
        ),
        (to("Pod", "nobody", ""), 404, r#"pods "nobody" not found"#),
        (
            to("ConfigMap", "c", ""),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
    ] {
        let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let refused = cluster.post(path, &json!({"spec": spec})).await;
        assert_eq!((refused.code, refused.message()), (code, message.to_owned()), "{spec}");
    }
    let request = json!({"spec": to("Pod", "p", "another")});
    let refused = cluster
        .post("/api/v1/namespaces/default/serviceaccounts/bot/token", &request)
        .await;
    assert_eq!(refused.code, 409);
    assert!(
        refused
            .message()
            .starts_with(r#"Operation cannot be fulfilled on Pod "p": the UID in"#),
        "{}",
        refused.message()
    );

    let configuration = cluster.get("/.well-known/openid-configuration").await.json();
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
    let keys = configuration["jwks_uri"].as_str().unwrap();
    assert!(keys.ends_with("/openid/v1/jwks"), "{keys}");
    let keys = cluster.get("/openid/v1/jwks").await.json();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
}

/// A kubelet's port that only knows the API server, upgrades what asks for it and echoes, and otherwise answers
/// with the path that it was asked for.
async fn kubelet(cluster: &Cluster) -> u16 {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(cluster), provider.clone())
        .build()
        .unwrap();
    let (chain, key) = parts(&cluster.pki.kubelet);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(
                http.serve_connection(TokioIo::new(stream), service_fn(echo))
                    .with_upgrades(),
            );
        }
    });
    port
}

async fn echo(mut request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
    assert!(!request.headers().contains_key(header::AUTHORIZATION));
    let path = request.uri().to_string();
    if !request.headers().contains_key(header::UPGRADE) {
        let refused = path.contains("tailLines=7");
        let mut response = Response::new(Body::from(path));
        if refused {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        return Ok(response);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..count]).await.unwrap();
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1");
    Ok(response.body(Body::empty()).unwrap())
}

#[tokio::test]
async fn sessions_go_on_to_the_kubelet_untouched() {
    let cluster = Cluster::new().await;
    let kubelet_port = kubelet(&cluster).await;
    let node = json!({"metadata": {"name": "one"}});
    assert_eq!(cluster.post("/api/v1/nodes", &node).await.code, 201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
    }});
    cluster
        .patch("/api/v1/nodes/one/status", "strategic-merge-patch", &status)
        .await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "one", "containers": [{"name": "c", "image": "x"}]}});
    assert_eq!(cluster.post(pods, &pod).await.code, 201);

    let log = cluster
        .get(&format!("{pods}/p/log?follow=true&timestamps=true&container=c"))
        .await;
    assert_eq!(log.bytes, "/containerLogs/default/p/c?follow=true&timestamps=true");
    let refused = cluster.get(&format!("{pods}/p/log?tailLines=7")).await;
    assert_eq!(
        (refused.code, refused.json()["reason"].as_str()),
        (400, Some("BadRequest"))
    );
    let proxied = cluster.get("/api/v1/nodes/one/proxy/stats/a%2Fb?x=1").await;
    assert_eq!(proxied.bytes, "/stats/a%2Fb?x=1");

    // Over the port: the client's connection and the kubelet's become one.
    let (port, _stop) = serve(&cluster).await;
    let mut sender = connect(&cluster, port, Some(&cluster.pki.admin)).await;
    let request = Request::post(format!("{pods}/p/exec?command=sh&stdin=true&stdout=true"))
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1");
    let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()[header::UPGRADE], "SPDY/3.1");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut bytes = [0; 5];
    for word in [b"hello", b"again"] {
        stream.write_all(word).await.unwrap();
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, word);
    }

    // In this process the caller is given the kubelet's side itself.
    let headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let response = cluster
        .open(http::Method::POST, &format!("{pods}/p/attach"), &headers, Body::empty())
        .await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello");
}
