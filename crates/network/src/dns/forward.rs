//! Names that are not the cluster's: the machine's resolvers know them, and what they say is kept for as long as
//! they say.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration, time::SystemTime};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    system_conf::parse_resolv_conf,
};
use parking_lot::Mutex;

/// As many answers are kept.
const KEPT: u64 = 4096;

/// How long one resolver is waited for, and how often it is asked.
const TIMEOUT: Duration = Duration::from_millis(1500);
const ATTEMPTS: usize = 2;

/// What somebody else says.
pub(super) enum Found {
    Records(Vec<Record>),
    Nothing {
        code: ResponseCode,
        authority: Option<Box<Record>>,
    },
    Failed,
}

/// The machine's resolvers.
pub(super) struct Forwarder {
    /// This server, which must not ask itself.
    own: Ipv4Addr,
    /// What names the others; empty when there are none.
    file: PathBuf,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// Of the file that the resolver was made by.
    modified: Option<SystemTime>,
    /// None when the file names none.
    resolver: Option<Arc<TokioResolver>>,
}

impl Forwarder {
    pub(super) fn new(own: Ipv4Addr, file: impl Into<PathBuf>) -> Forwarder {
        Forwarder {
            own,
            file: file.into(),
            current: Mutex::default(),
        }
    }

    pub(super) async fn look_up(&self, name: &Name, kind: RecordType) -> Found {
        let Some(resolver) = self.resolver() else {
            return Found::Failed;
        };
        match resolver.lookup(name.clone(), kind).await {
            Ok(found) => Found::Records(found.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Found::Nothing {
                code: none.response_code,
                authority: none.soa.map(|soa| {
                    let soa = *soa;
                    Box::new(Record::from_rdata(soa.name, soa.ttl, RData::SOA(soa.data)))
                }),
            },
            Err(error) => {
                tracing::debug!(%name, %kind, %error, "asking the machine's resolvers");
                Found::Failed
            }
        }
    }

    /// The resolvers that the file names now. Looking whether it is another file is cheaper than asking anyone.
    fn resolver(&self) -> Option<Arc<TokioResolver>> {
        if self.file.as_os_str().is_empty() {
            return None;
        }
        let modified = std::fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        let mut current = self.current.lock();
        if modified.is_none() || current.modified != modified {
            *current = Current {
                modified,
                resolver: self.made().map(Arc::new),
            };
        }
        current.resolver.clone()
    }

    fn made(&self) -> Option<TokioResolver> {
        let file = self.file.display();
        let unusable = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "{file} can not be used: only the cluster's names are known");
        };
        let text = std::fs::read_to_string(&self.file)
            .inspect_err(|error| unusable(error))
            .ok()?;
        let (config, _) = parse_resolv_conf(text).inspect_err(|error| unusable(error)).ok()?;
        let servers: Vec<_> = config
            .name_servers()
            .iter()
            .filter(|server| server.ip != self.own)
            .cloned()
            .collect();
        if servers.is_empty() {
            return None;
        }
        let config = ResolverConfig::from_name_servers(servers);
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = KEPT;
        options.use_hosts_file = ResolveHosts::Never;
        options.edns0 = true;
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .inspect_err(|error| unusable(error))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use hickory_proto::{op::Message, rr::rdata::A};
    use nix::sched::{CloneFlags, unshare};
    use tokio::net::UdpSocket;

    use super::*;

    /// A resolver of the machine's: it knows names that end in `org`, and counts how often it is asked.
    async fn serve(socket: UdpSocket, address: Ipv4Addr, asked: Arc<AtomicUsize>) {
        let mut bytes = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            let question = Message::from_vec(&bytes[..length]).unwrap();
            asked.fetch_add(1, Ordering::Relaxed);
            let name = question.queries[0].name().clone();
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            answer.metadata.recursion_available = true;
            answer.add_query(question.queries[0].clone());
            if name.to_ascii().ends_with("org.") {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(address))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }

    async fn told(forwarder: &Forwarder, name: &str) -> String {
        match forwarder.look_up(&Name::from_ascii(name).unwrap(), RecordType::A).await {
            Found::Records(records) => records[0].data.to_string(),
            Found::Nothing { code, .. } => format!("{code:?}"),
            Found::Failed => "failed".into(),
        }
    }

    async fn others_names(dir: tempfile::TempDir) {
        let file = dir.path().join("resolv.conf");
        let asked: [Arc<AtomicUsize>; 2] = Default::default();
        for (last, asked) in (1..).zip(&asked) {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 53)).await.unwrap();
            tokio::spawn(serve(socket, Ipv4Addr::new(198, 51, 100, last), asked.clone()));
        }
        let asked = || asked.each_ref().map(|asked| asked.load(Ordering::Relaxed));
        // Each is a file of another second: the clock of files is a coarse one.
        let mut second = 0;
        let mut write = |text: &str| {
            second += 1;
            fs::write(&file, text).unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(modified)
                .unwrap();
        };
        let own = Ipv4Addr::new(127, 0, 0, 3);
        let forwarder = Forwarder::new(own, &file);
        assert_eq!(told(&forwarder, "a.org.").await, "failed", "there is no file");
        write("nameserver 127.0.0.3\n");
        assert_eq!(told(&forwarder, "a.org.").await, "failed", "it must not ask itself");

        write("nameserver 127.0.0.3\nnameserver 127.0.0.1\nsearch x.org\n");
        assert_eq!(told(&forwarder, "a.org.").await, "198.51.100.1");
        assert_eq!(asked(), [1, 0]);
        for _ in 0..10 {
            assert_eq!(told(&forwarder, "a.org.").await, "198.51.100.1");
        }
        assert_eq!(asked(), [1, 0], "what is known is not asked for again");
        assert_eq!(
            told(&forwarder, "b.net.").await,
            "NXDomain",
            "what is searched for is the client's to say"
        );

        write("nameserver 127.0.0.2\n");
        assert_eq!(
            told(&forwarder, "a.org.").await,
            "198.51.100.2",
            "other resolvers, other answers"
        );
        write("nonsense\n");
        assert_eq!(told(&forwarder, "a.org.").await, "failed");
    }

    #[test]
    fn what_resolvers_say_is_kept_and_others_are_asked_when_the_file_names_them() {
        let node = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(others_names(tempfile::tempdir().unwrap()));
        });
        if let Err(panic) = node.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
