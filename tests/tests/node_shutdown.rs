//! The machine's shutdown, as systemd-logind announces it: pods end in their order while logind waits, and nothing new is taken.
//!
//! The bus is a real one of the test's own; logind is a double with the part of its interface that a kubelet uses.
#![allow(missing_docs, reason = "zbus writes methods without")]

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::executor::block_on;
use tests::{Cluster, Options, eventually};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedFd;

/// The locks that were taken: what for, and the end of a pipe that tells when one is let go.
type Locks = Arc<Mutex<Vec<([String; 4], File)>>>;

/// Where a logind is told to wait longer than it would.
const OVERRIDE: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";

struct Logind {
    locks: Locks,
    /// The longest delay, in microseconds.
    delay: Arc<AtomicU64>,
}

/// The part of systemd that has logind read its files anew.
struct Systemd {
    delay: Arc<AtomicU64>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    async fn kill_unit(&self, name: String, who: String, signal: i32) -> zbus::fdo::Result<()> {
        let failed = |why: String| zbus::fdo::Error::Failed(why);
        if (name.as_str(), who.as_str(), signal) != ("systemd-logind.service", "all", 1) {
            return Err(failed(format!("{name} {who} {signal}")));
        }
        let text = fs::read_to_string(OVERRIDE).map_err(|error| failed(error.to_string()))?;
        let seconds = text
            .lines()
            .skip_while(|line| *line != "[Login]")
            .find_map(|line| line.strip_prefix("InhibitDelayMaxSec=")?.parse::<u64>().ok());
        let seconds = seconds.ok_or_else(|| failed(text))?;
        self.delay.store(seconds * 1_000_000, Ordering::SeqCst);
        Ok(())
    }
}

/// Leaves the machine's own configuration as it was.
struct Kept {
    content: Option<Vec<u8>>,
    had_directory: bool,
}

impl Kept {
    fn look() -> Self {
        Self {
            content: fs::read(OVERRIDE).ok(),
            had_directory: Path::new(OVERRIDE).parent().is_some_and(Path::exists),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = match &self.content {
            Some(content) => fs::write(OVERRIDE, content),
            None => fs::remove_file(OVERRIDE),
        };
        if let Some(directory) = Path::new(OVERRIDE).parent().filter(|_| !self.had_directory) {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    async fn inhibit(&self, what: String, who: String, why: String, mode: String) -> zbus::fdo::Result<OwnedFd> {
        let (here, there) = std::io::pipe().map_err(|error| zbus::fdo::Error::Failed(error.to_string()))?;
        let here = File::from(std::os::fd::OwnedFd::from(here));
        self.locks.lock().expect("locks").push(([what, who, why, mode], here));
        Ok(OwnedFd::from(std::os::fd::OwnedFd::from(there)))
    }

    /// In microseconds.
    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    async fn inhibit_delay_max(&self) -> u64 {
        self.delay.load(Ordering::SeqCst)
    }

    /// A shutdown is coming, or comes no more.
    #[zbus(signal)]
    async fn prepare_for_shutdown(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

/// A system bus of the test's own.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("bus");
        let address = format!("unix:path={}", socket.display());
        let configuration = directory.join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
            <busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>
            <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_type=\"method_call\"/><allow send_type=\"signal\"/>
            <allow send_requested_reply=\"true\" send_type=\"method_return\"/><allow send_requested_reply=\"true\" send_type=\"error\"/>
            <allow receive_type=\"method_call\"/><allow receive_type=\"method_return\"/><allow receive_type=\"error\"/>
            <allow receive_type=\"signal\"/></policy></busconfig>"
        );
        fs::write(&configuration, text).expect("the bus' configuration");
        let daemon = Command::new("dbus-daemon")
            .arg("--config-file")
            .arg(&configuration)
            .args(["--nofork", "--nopidfile"])
            .stdin(Stdio::null())
            .spawn()
            .expect("dbus-daemon starts");
        let bus = Self { daemon, address };
        eventually("the bus is there", || socket.exists().then_some(()));
        bus
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn pod(name: &str, more: &str) -> String {
    // Each says when it is told to end and when it does, and takes its time.
    let script = "trap \"cat /proc/uptime; sleep 1; cat /proc/uptime; exit 0\" TERM; while :; do sleep 0.1; done";
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 60{more}, containers: [{{name: c, \
         image: 'localhost/busybox:1', command: [sh, -c, '{script}']}}]}}}}\n---\n"
    )
}

/// When a pod was told to end and when it did, by the kernel's clock.
fn times(cluster: &Cluster, name: &str) -> Vec<f64> {
    let log = cluster.kubectl(&["logs", name]).ok();
    let first = |line: &str| line.split(' ').next().and_then(|seconds| seconds.parse().ok());
    log.lines().map(|line| first(line).expect("seconds")).collect()
}

#[track_caller]
fn until_ready(cluster: &Cluster, expected: &str) {
    let of_it = ".status.conditions[?(@.type==\"Ready\")]";
    let ready = format!("jsonpath={{{of_it}.status}} {{{of_it}.message}}");
    eventually(&format!("the node's Ready is {expected}"), || {
        (cluster.kubectl(&["get", "node", "node", "-o", &ready]).stdout == expected).then_some(())
    });
}

#[test]
fn pods_end_before_the_machine_does() {
    let scratch = tempfile::tempdir().expect("a directory");
    let bus = Bus::start(scratch.path());
    let _kept = Kept::look();
    let locks = Locks::default();
    let delay = Arc::new(AtomicU64::new(5_000_000));
    let connection = block_on(async {
        let logind = Logind {
            locks: locks.clone(),
            delay: delay.clone(),
        };
        zbus::connection::Builder::address(bus.address.as_str())?
            .name("org.freedesktop.login1")?
            .name("org.freedesktop.systemd1")?
            .serve_at("/org/freedesktop/login1", logind)?
            .serve_at("/org/freedesktop/systemd1", Systemd { delay: delay.clone() })?
            .build()
            .await
    })
    .expect("logind is on the bus");
    let announce = |start: bool| {
        let sent = block_on(async {
            let emitter = SignalEmitter::new(&connection, "/org/freedesktop/login1")?;
            Logind::prepare_for_shutdown(&emitter, start).await
        });
        sent.expect("the news is sent");
    };
    let mut cluster = Cluster::with(Options {
        images: &["busybox"],
        kubelet: Some("shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 15s"),
        env: vec![("DBUS_SYSTEM_BUS_ADDRESS", bus.address.clone())],
        ..Options::default()
    });
    let taken = eventually("a lock is taken", || locks.lock().expect("locks").pop());
    assert_eq!(
        delay.load(Ordering::SeqCst),
        30_000_000,
        "logind waits as long as is asked for"
    );
    cluster.create(&(pod("regular", "") + &pod("critical", ", priorityClassName: system-node-critical")));
    cluster.wait_ready("regular");
    cluster.wait_ready("critical");
    let (asked, mut lock) = taken;
    assert_eq!(
        asked,
        [
            "shutdown",
            "kubelet",
            "Kubelet needs time to handle node shutdown",
            "delay"
        ]
    );

    announce(true);
    // Nothing is read until the lock is let go.
    let mut rest = Vec::new();
    lock.read_to_end(&mut rest).expect("the lock's end");
    for name in ["regular", "critical"] {
        cluster.until(name, "{.status.phase} {.status.reason}", "Failed Terminated");
        assert_eq!(
            cluster.field(name, "{.status.message}"),
            "Pod was terminated in response to imminent node shutdown."
        );
        assert_eq!(
            cluster.field(name, "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}"),
            "TerminationByKubelet"
        );
    }
    // They had the time that they asked for, one after the other.
    let (regular, critical) = (times(&cluster, "regular"), times(&cluster, "critical"));
    assert_eq!((regular.len(), critical.len()), (2, 2), "{regular:?} {critical:?}");
    assert!(regular[1] <= critical[0], "{regular:?} {critical:?}");
    until_ready(&cluster, "False node is shutting down");
    cluster.until_told("node", "Normal", "Shutdown", "Shutdown manager detected shutdown event");
    cluster.create(&pod("late", ", nodeName: node"));
    cluster.until("late", "{.status.phase} {.status.reason}", "Failed NodeShutdown");
    assert_eq!(
        cluster.field("late", "{.status.message}"),
        "Pod was rejected: Pod was rejected as the node is shutting down."
    );

    // The shutdown is called off.
    announce(false);
    until_ready(&cluster, "True kubelet is posting ready status");
    eventually("another lock is taken", || locks.lock().expect("locks").pop());
    cluster.create(&pod("again", ""));
    cluster.wait_ready("again");
    cluster.until_told(
        "node",
        "Normal",
        "Shutdown",
        "Shutdown manager detected shutdown cancellation",
    );

    // Groups by priority: who does not end keeps those of its group and no others beyond their time, and is killed.
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]).ok();
    cluster.create("{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 1000}");
    cluster.kill_server();
    cluster.configure_kubelet(
        "shutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 4}, {priority: 1000, shutdownGracePeriodSeconds: 20}, {priority: 2000000000, shutdownGracePeriodSeconds: 10}]",
    );
    cluster.start_server();
    let mut lock = eventually("a lock is taken", || locks.lock().expect("locks").pop()).1;
    assert_eq!(delay.load(Ordering::SeqCst), 34_000_000, "as long as all groups have");
    let stubborn = pod("stubborn", "").replace("cat /proc/uptime; exit 0", "");
    let stubborn = stubborn.replace("sleep 1; ", "");
    let names = ["stubborn", "regular", "high", "critical"];
    cluster.create(
        &(stubborn
            + &pod("regular", "")
            + &pod("high", ", priorityClassName: high")
            + &pod("critical", ", priorityClassName: system-node-critical")),
    );
    for name in names {
        cluster.wait_ready(name);
    }
    announce(true);
    lock.read_to_end(&mut rest).expect("the lock's end");
    for name in names {
        cluster.until(name, "{.status.phase} {.status.reason}", "Failed Terminated");
    }
    let code = |name: &str| cluster.field(name, "{.status.containerStatuses[0].state.terminated.exitCode}");
    assert_eq!(names.map(code), ["137", "0", "0", "0"]);
    let (told, regular) = (times(&cluster, "stubborn")[0], times(&cluster, "regular"));
    let (high, critical) = (times(&cluster, "high"), times(&cluster, "critical"));
    assert!(
        regular[0] - told < 2.0 && regular[1] < high[0],
        "one group at once: {told} {regular:?} {high:?}"
    );
    assert!(high[0] - told >= 3.9, "it has all of its time: {told} {high:?}");
    assert!(high[1] <= critical[0], "{high:?} {critical:?}");
    announce(false);
    until_ready(&cluster, "True kubelet is posting ready status");
    cluster.kubectl(&["delete", "pod", "--all", "--timeout=60s"]).ok();
    cluster.create(&pod("again", ""));
    cluster.wait_ready("again");

    // Without a bus the node does its work, and says once that nothing waits for it.
    drop(bus);
    cluster.kill_server();
    cluster.start_server();
    cluster.wait_ready("again");
    eventually("it is said", || {
        let log = cluster.log();
        log.contains("no systemd-logind: the machine's shutdown does not wait for pods")
            .then_some(())
    });
}
