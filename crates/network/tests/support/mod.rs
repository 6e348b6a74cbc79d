//! Network namespaces that live as long as a thread does, and probes between them. Sockets stay in the
//! namespace they were made in, so a probe is made inside and used outside.

#![allow(dead_code, reason = "not every test file needs every probe")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use network::{HostPort, Links, PodLink, Protocol, Settings, services, services::Proxy};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt::ReceiveTimeout},
    sys::time::TimeVal,
    unistd::gettid,
};

const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub struct Space {
    pub path: PathBuf,
    pub tid: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Space {
    pub fn new() -> Space {
        let (ready, started) = mpsc::channel();
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(gettid().as_raw()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let tid = started.recv().unwrap();
        let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id()).into();
        Space {
            path,
            tid,
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    /// Does something inside.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, done) = mpsc::channel();
        let job = move || sender.send(job()).unwrap();
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        done.recv().expect("a step in another namespace failed")
    }

    pub fn sh(&self, command: &'static str) -> String {
        self.run(move || sh(command))
    }

    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.run(move || connect(to))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.jobs = None;
        // A step that failed in there has been told by `run`.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Runs a test in a node of its own: a namespace with an uplink `up0` 192.0.2.1/24 of MTU 1400 to a machine
/// outside, 192.0.2.2, which the default route leads to.
pub fn node<F: Future<Output = ()>>(body: impl FnOnce(Outside) -> F + Send + 'static) {
    let node = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let outside = Space::new();
        sh("ip link set lo up");
        sh(&format!(
            "ip link add up0 mtu 1400 type veth peer name up0 mtu 1400 netns {}",
            outside.tid
        ));
        sh("ip address add 192.0.2.1/24 dev up0 && ip link set up0 up");
        outside.sh("ip link set lo up && ip address add 192.0.2.2/24 dev up0 && ip link set up0 up");
        sh("ip route add default via 192.0.2.2");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(body(Outside {
            space: outside,
            run_dir: dir.path().to_owned(),
        }));
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

pub struct Outside {
    pub space: Space,
    pub run_dir: PathBuf,
}

impl Outside {
    pub async fn links(&self) -> Links {
        let settings = Settings {
            run_dir: self.run_dir.clone(),
            cluster_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/12".into(),
            node_ip: Some(NODE),
        };
        let links = Links::open(settings).await.unwrap();
        links.set_pod_cidr("10.244.0.0/24").unwrap();
        links
    }

    /// A proxy for the node `here`.
    pub fn proxy(&self) -> Proxy {
        Proxy::open(&services::Settings {
            node_name: "here".into(),
            cluster_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/12".into(),
        })
        .unwrap()
    }
}

pub const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn pod(name: &str, space: &Space, host_ports: Vec<HostPort>) -> PodLink {
    PodLink {
        sandbox_id: format!("sandbox-of-{name}"),
        pod_name: name.into(),
        pod_namespace: "default".into(),
        netns: space.path.clone(),
        host_ports,
    }
}

pub fn port(protocol: Protocol, host_port: u16, container_port: u16, host_ip: Option<IpAddr>) -> HostPort {
    HostPort {
        protocol,
        container_port,
        host_port,
        host_ip,
    }
}

/// A TCP port inside; who has come there is asked from outside.
pub fn listen(space: &Space, port: u16) -> TcpListener {
    space.run(move || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        setsockopt(&listener, ReceiveTimeout, &TimeVal::new(PATIENCE.as_secs() as _, 0)).unwrap();
        listener
    })
}

/// The address that the next connection seems to come from.
pub fn visitor(listener: &TcpListener) -> IpAddr {
    listener.accept().expect("a connection").1.ip()
}

pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE)
}

/// A connection that is expected to get no answer.
pub fn connect_in_vain(to: SocketAddr) -> io::Error {
    TcpStream::connect_timeout(&to, SHORT).expect_err("nobody should have answered")
}

pub fn udp() -> UdpSocket {
    udp_at(0)
}

pub fn udp_at(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
