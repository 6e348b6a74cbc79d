//! A node with one pod, whose container `c` is the machine itself and writes its log to a file.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio as Pipes;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use cri::streaming::{
    Connection, Session, SessionError, Stdio, StreamingRuntime, Timeouts, Wanted, serve as serve_session,
};
use cri::v1::*;
use cri::{ContainerEvents, Error, Result, RuntimeService};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kubelet::KubeletConfiguration;
use kubelet::server::{Access, NodeReports, PodLookup, Report, Server, ServerConfig};
use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Runs a test on a thread with a network namespace of its own; all that it starts is in it too.
pub fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(
            std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap()
                .success()
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub struct Certificates {
    ca: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

pub type KeyedCertificate = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Certificates {
    pub fn new() -> Certificates {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().der().clone();
        Certificates {
            ca,
            issuer: Issuer::new(params, key),
        }
    }

    /// Those of the cluster.
    pub fn shared() -> &'static Certificates {
        static SHARED: OnceLock<Certificates> = OnceLock::new();
        SHARED.get_or_init(Certificates::new)
    }

    pub fn client(&self, user: &str, group: &str) -> KeyedCertificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        self.sign(params)
    }

    fn server(&self) -> KeyedCertificate {
        self.sign(CertificateParams::new(vec!["node".to_owned()]).unwrap())
    }

    fn sign(&self, params: CertificateParams) -> KeyedCertificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            certificate.der().clone(),
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
    }
}

pub struct TestNode {
    address: SocketAddr,
    directory: tempfile::TempDir,
    ended: CancellationToken,
}

/// What a log answers, piece by piece.
pub struct Text(Incoming);

impl Text {
    pub async fn next_text(&mut self) -> Option<String> {
        let data = self.0.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(data.to_vec()).unwrap())
    }
}

impl TestNode {
    pub async fn start() -> TestNode {
        Self::start_with(&KubeletConfiguration::default()).await
    }

    pub async fn start_with(configuration: &KubeletConfiguration) -> TestNode {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ended = CancellationToken::new();
        let certificates = Certificates::shared();
        let (certificate, key) = certificates.server();
        let config = ServerConfig {
            certificate: vec![certificate],
            key,
            client_ca: vec![certificates.ca.clone()],
            access: Access::new(reviewer(), "node", configuration),
        };
        let runtime = Machine {
            log_path: directory.path().join("0.log"),
            streaming: Streaming::start().await,
        };
        let pods = Pods {
            pod: Arc::new(pod()),
            ended: ended.clone(),
        };
        let server = Server::new(config, Arc::new(runtime), Arc::new(pods), Arc::new(Reports::default())).unwrap();
        tokio::spawn(server.serve(listener, CancellationToken::new()));
        TestNode {
            address,
            directory,
            ended,
        }
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    pub fn end_container(&self) {
        self.ended.cancel();
    }

    /// A connection as the API server makes it.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let client = Certificates::shared().client("kube-apiserver-kubelet-client", "system:masters");
        self.connect_as(Some(client)).await.unwrap()
    }

    async fn connect_as(&self, client: Option<KeyedCertificate>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(Certificates::shared().ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("node").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    async fn ask(
        &self,
        client: Option<KeyedCertificate>,
        token: Option<&str>,
        path: &str,
    ) -> std::result::Result<http::Response<Incoming>, Box<dyn std::error::Error>> {
        let stream = self.connect_as(client).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "node");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?)
    }

    pub async fn get_as(
        &self,
        client: Option<KeyedCertificate>,
        path: &str,
    ) -> std::result::Result<(StatusCode, String), Box<dyn std::error::Error>> {
        self.get_with(client, None, path).await
    }

    pub async fn get_with(
        &self,
        client: Option<KeyedCertificate>,
        token: Option<&str>,
        path: &str,
    ) -> std::result::Result<(StatusCode, String), Box<dyn std::error::Error>> {
        let response = self.ask(client, token, path).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec())?))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let client = Certificates::shared().client("kube-apiserver-kubelet-client", "system:masters");
        self.get_as(Some(client), path).await.unwrap()
    }

    pub async fn stream(&self, path: &str) -> Text {
        let client = Certificates::shared().client("kube-apiserver-kubelet-client", "system:masters");
        Text(self.ask(Some(client), None, path).await.unwrap().into_body())
    }
}

/// An API server as far as reviews go: the token `good` is a service account's, which may `nodes/metrics` and `nodes/pods`.
fn reviewer() -> client::Client {
    let service = tower::service_fn(|request: Request<client::kube::client::Body>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut review: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let spec = &review["spec"];
        let status = match review["kind"].as_str() {
            Some("TokenReview") if spec["token"] == "good" => serde_json::json!({
                "authenticated": true,
                "user": {"username": "system:serviceaccount:ns:a", "groups": ["system:authenticated"]},
            }),
            Some("TokenReview") => serde_json::json!({}),
            _ => {
                let asked = &spec["resourceAttributes"];
                let subresource = asked["subresource"].as_str().unwrap();
                let granted =
                    spec["user"] == "system:serviceaccount:ns:a" && ["metrics", "pods"].contains(&subresource);
                let about = (&asked["resource"], &asked["name"], &asked["verb"]);
                assert_eq!(about, (&"nodes".into(), &"node".into(), &"get".into()));
                serde_json::json!({"allowed": granted})
            }
        };
        review["status"] = status;
        let body = http_body_util::Full::new(Bytes::from(serde_json::to_vec(&review).unwrap()));
        Ok::<_, Infallible>(http::Response::builder().status(201).body(body).unwrap())
    });
    client::in_process(service)
}

/// A node that has little to tell.
#[derive(Default)]
struct Reports(KubeletConfiguration);

#[async_trait]
impl NodeReports for Reports {
    fn configuration(&self) -> &KubeletConfiguration {
        &self.0
    }

    fn running_pods(&self) -> Vec<Pod> {
        Vec::new()
    }

    async fn summary(&self, only_cpu_and_memory: bool) -> std::result::Result<serde_json::Value, String> {
        Ok(serde_json::json!({"node": {}, "shallow": only_cpu_and_memory}))
    }

    async fn metrics(&self, report: Report) -> std::result::Result<String, String> {
        match report {
            Report::Containers => Err("the runtime is down".into()),
            other => Ok(format!("{other:?}")),
        }
    }
}

fn pod() -> Pod {
    let status = |name: &str, id: &str, state: serde_json::Value| {
        serde_json::json!({
            "name": name, "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "containerID": id, "state": state,
        })
    };
    serde_json::from_value(serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "uid-1"},
        "spec": {"containers": [{"name": "c"}, {"name": "waits"}]},
        "status": {"containerStatuses": [
            status("c", "podium://container-1", serde_json::json!({"running": {}})),
            status("waits", "", serde_json::json!({"waiting": {"reason": "ContainerCreating"}})),
        ]},
    }))
    .unwrap()
}

struct Pods {
    pod: Arc<Pod>,
    ended: CancellationToken,
}

impl PodLookup for Pods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        vec![self.pod.clone()]
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        (namespace == "ns" && name == "p").then(|| self.pod.clone())
    }

    fn sandbox_id(&self, _: &str) -> Option<String> {
        None
    }

    fn container_id(&self, pod_uid: &str, container: &str) -> Option<String> {
        (pod_uid == "uid-1" && container == "c").then(|| "container-1".to_owned())
    }

    fn ended(&self, _: &str) -> BoxFuture<'static, ()> {
        self.ended.clone().cancelled_owned().boxed()
    }
}

/// The runtime's streaming server: one address, whoever comes gets the session asked for last.
struct Streaming {
    address: SocketAddr,
    session: Arc<Mutex<Option<Session>>>,
}

impl Streaming {
    async fn start() -> Streaming {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let session: Arc<Mutex<Option<Session>>> = Arc::default();
        let sessions = session.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let sessions = sessions.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let session = sessions.lock().take().unwrap();
                    let response = serve_session(Arc::new(Processes), session, Timeouts::default(), request);
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .with_upgrades(),
                );
            }
        });
        Streaming { address, session }
    }
}

struct Processes;

#[async_trait]
impl StreamingRuntime for Processes {
    async fn exec(&self, _: &str, command: &[String], _: bool, stdio: Stdio) -> std::result::Result<i32, SessionError> {
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Pipes::piped())
            .stdout(Pipes::piped())
            .spawn()
            .map_err(SessionError::new)?;
        let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (mut from, mut to) = (stdio.stdin.unwrap(), stdio.stdout.unwrap());
        let input = async move {
            tokio::io::copy(&mut from, &mut stdin).await.unwrap();
            stdin.shutdown().await.unwrap();
        };
        let (_, copied) = tokio::join!(input, tokio::io::copy(&mut stdout, &mut to));
        copied.map_err(SessionError::new)?;
        Ok(process.wait().await.map_err(SessionError::new)?.code().unwrap())
    }

    async fn attach(&self, _: &str, _: bool, _: Stdio) -> std::result::Result<(), SessionError> {
        Err(SessionError::new("not a part of this test"))
    }

    async fn port_forward(&self, _: &str, _: u16, _: Box<dyn Connection>) -> std::result::Result<(), SessionError> {
        Err(SessionError::new("not a part of this test"))
    }
}

/// The CRI side of it.
struct Machine {
    log_path: PathBuf,
    streaming: Streaming,
}

macro_rules! machine {
    ($($method:ident($request:ident) -> $response:ident),* $(,)?) => {
        #[async_trait]
        impl RuntimeService for Machine {
            $(async fn $method(&self, _: $request) -> Result<$response> {
                Err(Error::failed_precondition("not a part of this test"))
            })*

            async fn exec(&self, asked: ExecRequest) -> Result<ExecResponse> {
                assert_eq!(asked.container_id, "container-1");
                let wanted =
                    Wanted { stdin: asked.stdin, stdout: asked.stdout, stderr: asked.stderr, tty: asked.tty };
                let session = Session::Exec { container_id: asked.container_id, command: asked.cmd, wanted };
                *self.streaming.session.lock() = Some(session);
                Ok(ExecResponse { url: format!("http://{}/exec/token", self.streaming.address) })
            }

            async fn container_status(&self, asked: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
                assert_eq!(asked.container_id, "container-1");
                let log_path = self.log_path.display().to_string();
                let status = Some(ContainerStatus { log_path, ..Default::default() });
                Ok(ContainerStatusResponse { status, ..Default::default() })
            }

            async fn get_container_events(&self, _: GetEventsRequest) -> Result<ContainerEvents> {
                Err(Error::failed_precondition("not a part of this test"))
            }
        }
    };
}

machine! {
    version(VersionRequest) -> VersionResponse,
    run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse,
    stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse,
    remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse,
    pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse,
    list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse,
    create_container(CreateContainerRequest) -> CreateContainerResponse,
    start_container(StartContainerRequest) -> StartContainerResponse,
    stop_container(StopContainerRequest) -> StopContainerResponse,
    remove_container(RemoveContainerRequest) -> RemoveContainerResponse,
    list_containers(ListContainersRequest) -> ListContainersResponse,
    update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse,
    reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse,
    exec_sync(ExecSyncRequest) -> ExecSyncResponse,
    attach(AttachRequest) -> AttachResponse,
    port_forward(PortForwardRequest) -> PortForwardResponse,
    container_stats(ContainerStatsRequest) -> ContainerStatsResponse,
    list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse,
    pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse,
    list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse,
    update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse,
    runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse,
    status(StatusRequest) -> StatusResponse,
}
