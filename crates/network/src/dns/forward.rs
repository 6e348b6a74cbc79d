//! Names that are not the cluster's: the machine's resolvers know them, and what they say is kept for as long as
//! they say.

use std::{net::Ipv4Addr, sync::Arc, time::Duration, time::SystemTime};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};
use parking_lot::Mutex;

const RESOLV_CONF: &str = "/etc/resolv.conf";

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
    pub(super) fn new(own: Ipv4Addr) -> Forwarder {
        Forwarder {
            own,
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
        let modified = std::fs::metadata(RESOLV_CONF).and_then(|file| file.modified()).ok();
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
        let (config, _) = match read_system_conf() {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "{RESOLV_CONF} can not be used: only the cluster's names are known");
                return None;
            }
        };
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
            .inspect_err(|error| tracing::warn!(%error, "{RESOLV_CONF}: only the cluster's names are known"))
            .ok()
    }
}
