//! The addresses and node ports of Services.
//!
//! Each one that a Service has is a key of the store, so that two Services can not come to the same one, on
//! however many servers they are created. A key is made before its Service is stored and removed after the Service
//! has gone; what a crash leaves between is mended at start.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use api::{FieldError, Object, Path, Status, kinds::service::needs_health_check, status};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use rand::RngExt as _;
use store::{Expected, ListOptions, Store, Value};

use crate::{call::Call, registry::store_error};

const CLAIMS: &str = "/registry/claims/services/";
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30000..=32767;

/// The range of Service addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    first: IpAddr,
    prefix: u8,
}

/// The text is no range of addresses.
#[derive(Debug, thiserror::Error)]
#[error("service-cidr {0:?}: expected an address range such as 10.96.0.0/12")]
pub struct RangeError(String);

impl std::str::FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        // At least the network, one Service and the last address.
        if prefix > bits - 2 {
            return Err(error());
        }
        let range = Self { first: address, prefix };
        Ok(Self {
            first: range.at(0),
            ..range
        })
    }
}

impl Range {
    fn host_bits(self) -> u32 {
        (if self.first.is_ipv4() { 32 } else { 128 }) - u32::from(self.prefix)
    }

    /// How many addresses Services may have: neither the first, which names the network, nor the last. A very
    /// large range is used in part.
    fn size(self) -> u128 {
        (1_u128 << self.host_bits().min(64)) - 2
    }

    /// The address at an offset from the network's own.
    fn at(self, offset: u128) -> IpAddr {
        let mask = u128::MAX.checked_shl(self.host_bits()).unwrap_or(0);
        match self.first {
            IpAddr::V4(first) => {
                let network = u128::from(first.to_bits()) & mask;
                IpAddr::from(((network + offset) as u32).to_be_bytes())
            }
            IpAddr::V6(first) => IpAddr::from(((first.to_bits() & mask) + offset).to_be_bytes()),
        }
    }

    /// Whether a Service may have the address.
    pub fn contains(self, address: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        address.is_ipv4() == self.first.is_ipv4()
            && number(address)
                .checked_sub(number(self.first))
                .is_some_and(|offset| (1..=self.size()).contains(&offset))
    }

    /// The address of the `kubernetes` Service.
    pub fn kubernetes(self) -> IpAddr {
        self.at(1)
    }

    fn family(self) -> &'static str {
        if self.first.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// Gives Services their addresses and ports.
pub(crate) struct Services {
    pub range: Range,
}

/// Claims made for a Service that is not stored yet.
#[must_use]
#[derive(Default)]
pub(crate) struct Held(Vec<String>);

impl Held {
    /// The Service is stored: its claims are its own.
    pub fn keep(self) {}

    /// The Service was not stored.
    pub async fn release(self, store: &dyn Store) {
        give_up(store, self.0.iter()).await;
    }
}

impl Services {
    /// Fills in the addresses and ports that a Service lacks, and claims those that `old` has not.
    pub async fn allocate(
        &self,
        call: &Call<'_>,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        dry_run: bool,
    ) -> Result<Held, Status> {
        let Some(service) = new.as_any_mut().downcast_mut::<Service>() else {
            return Ok(Held::default());
        };
        let owner = format!(
            "{}/{}",
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default()
        );
        let owned = old.and_then(service_of).map(claims).unwrap_or_default();
        let mut claiming = Claiming {
            store: &*call.server.store,
            owner,
            owned,
            dry_run,
            held: Held::default(),
        };
        let name = service.metadata.name.clone().unwrap_or_default();
        let Some(spec) = service.spec.as_mut() else {
            return Ok(Held::default());
        };
        let outcome = self.fill(&mut claiming, spec).await;
        match outcome {
            Ok(()) => Ok(claiming.held),
            Err(failure) => {
                claiming.held.release(&*call.server.store).await;
                Err(match failure {
                    Failure::Field(error) => status::invalid("", "Service", &name, &[error]),
                    Failure::Status(status) => status,
                })
            }
        }
    }

    async fn fill(&self, claiming: &mut Claiming<'_>, spec: &mut ServiceSpec) -> Result<(), Failure> {
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP").to_owned();
        if kind != "ExternalName" {
            self.fill_address(claiming, spec).await?;
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            fill_node_ports(claiming, spec).await?;
        }
        if needs_health_check(spec) {
            spec.health_check_node_port = Some(health_check_port(claiming, spec).await?);
        }
        Ok(())
    }

    /// Refuses families that the cluster has no addresses of.
    fn check_families(&self, spec: &ServiceSpec) -> Result<(), FieldError> {
        let path = Path::new("spec");
        // Endpoints that somebody writes by hand may be of any family.
        let by_hand =
            spec.cluster_ip.as_deref() == Some("None") && spec.selector.as_ref().is_none_or(BTreeMap::is_empty);
        if by_hand {
            return Ok(());
        }
        if let Some(policy @ "RequireDualStack") = spec.ip_family_policy.as_deref() {
            let detail = "this cluster is not configured for dual-stack services";
            return Err(FieldError::invalid(&path.child("ipFamilyPolicy"), policy, detail));
        }
        let families = path.child("ipFamilies");
        let mut named = spec.ip_families.iter().flatten().enumerate();
        match named.find(|(_, family)| *family != self.range.family()) {
            Some((index, family)) => {
                let detail = "not configured on this cluster";
                Err(FieldError::invalid(&families.index(index), family, detail))
            }
            None => Ok(()),
        }
    }

    async fn fill_address(&self, claiming: &mut Claiming<'_>, spec: &mut ServiceSpec) -> Result<(), Failure> {
        self.check_families(spec)?;
        let listed = spec.cluster_ips.as_ref().and_then(|all| all.first()).cloned();
        let wanted = spec.cluster_ip.clone().filter(|address| !address.is_empty()).or(listed);
        let address = match wanted.as_deref() {
            Some("None") => String::from("None"),
            Some(text) => {
                let refuse = |why: String| {
                    let detail = format!("failed to allocate IP {text}: {why}");
                    Failure::from(FieldError::invalid(
                        &Path::new("spec").child("clusterIPs"),
                        [text],
                        detail,
                    ))
                };
                let inside = text.parse().is_ok_and(|address| self.range.contains(address));
                if !inside && !claiming.owned.contains(&address_claim(text)) {
                    return Err(refuse("the provided network does not match the current range".into()));
                }
                if !claiming.claim(&address_claim(text)).await? {
                    return Err(refuse("provided IP is already allocated".into()));
                }
                text.to_owned()
            }
            None => self.free_address(claiming).await?,
        };
        spec.cluster_ips = Some(vec![address.clone()]);
        spec.cluster_ip = Some(address);
        if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
            spec.ip_families = Some(vec![self.range.family().into()]);
        }
        spec.ip_family_policy.get_or_insert_with(|| "SingleStack".into());
        Ok(())
    }

    async fn free_address(&self, claiming: &mut Claiming<'_>) -> Result<String, Failure> {
        let size = self.range.size();
        for offset in turns(size, (size / 16).clamp(16, 256)) {
            let address = self.range.at(1 + offset).to_string();
            if claiming.claim(&address_claim(&address)).await? {
                return Ok(address);
            }
        }
        let why = format!("failed to allocate a serviceIP: range is full ({})", self.range);
        Err(Failure::Status(status::internal(why)))
    }

    /// Gives up what a Service had that is gone.
    pub async fn free(&self, store: &dyn Store, gone: &dyn Object) {
        if let Some(service) = service_of(gone) {
            give_up(store, claims(service).iter()).await;
        }
    }

    /// Gives up what a Service had and has no more.
    pub async fn free_replaced(&self, store: &dyn Store, old: &dyn Object, new: &dyn Object) {
        if let (Some(old), Some(new)) = (service_of(old), service_of(new)) {
            give_up(store, claims(old).difference(&claims(new))).await;
        }
    }

    /// Makes the claims those of the Services that there are: what a crash left between is mended.
    pub async fn mend<'a>(
        &self,
        store: &dyn Store,
        services: impl Iterator<Item = &'a Service>,
    ) -> Result<(), store::Error> {
        let wanted: BTreeSet<String> = services.flat_map(claims).collect();
        let found = store.list(CLAIMS, ListOptions::default()).await?.entries;
        let found: BTreeSet<String> = found.iter().map(|entry| entry.key.to_string()).collect();
        for lost in found.difference(&wanted) {
            tracing::info!(key = %lost, "a Service's address or port without its Service is free again");
            store.delete(lost, Expected::Any).await?;
        }
        for missing in wanted.difference(&found) {
            store.put(missing, Expected::Any, Value::plain("")).await?;
        }
        Ok(())
    }
}

/// Why a Service can not have what it asks for.
enum Failure {
    Field(FieldError),
    Status(Status),
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

struct Claiming<'a> {
    store: &'a dyn Store,
    owner: String,
    /// What the Service has already.
    owned: BTreeSet<String>,
    dry_run: bool,
    held: Held,
}

impl Claiming<'_> {
    /// Whether it is the Service's already.
    fn has(&self, key: &str) -> bool {
        self.owned.contains(key) || self.held.0.iter().any(|held| held == key)
    }

    /// Whether the claim is the Service's now.
    async fn claim(&mut self, key: &str) -> Result<bool, Status> {
        if self.has(key) {
            return Ok(true);
        }
        if self.dry_run {
            return Ok(self.store.get(key).await.map_err(store_error)?.is_none());
        }
        match self
            .store
            .put(key, Expected::Absent, Value::plain(self.owner.clone()))
            .await
        {
            Ok(_) => {
                self.held.0.push(key.to_owned());
                Ok(true)
            }
            Err(store::Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }
}

/// The order in which what is free is looked for in a range: from a random one on, and last in the band at the range's
/// beginning, where users choose for themselves.
fn turns(size: u128, band: u128) -> impl Iterator<Item = u128> {
    let band = if band < size { band } else { 0 };
    let above = size - band;
    let start = rand::rng().random_range(0..above.max(1));
    let upper = (0..above).map(move |step| band + (start + step) % above);
    upper.chain(0..band)
}

async fn fill_node_ports(claiming: &mut Claiming<'_>, spec: &mut ServiceSpec) -> Result<(), Failure> {
    let on_request =
        spec.type_.as_deref() == Some("LoadBalancer") && spec.allocate_load_balancer_node_ports == Some(false);
    let ports = spec.ports.as_deref_mut().unwrap_or_default();
    for index in 0..ports.len() {
        let wanted = ports[index].node_port.filter(|port| *port != 0);
        // The same port of another protocol has the same node port, as that of DNS.
        let same =
            |other: &&ServicePort| other.port == ports[index].port && other.node_port.is_some_and(|port| port != 0);
        let shared = ports.iter().find(same).and_then(|other| other.node_port);
        match wanted.or(shared.filter(|_| !on_request)) {
            Some(wanted) => {
                claim_port(claiming, wanted).await?.map_err(|why| {
                    let spec = Path::new("spec");
                    let ports = spec.child("ports");
                    FieldError::invalid(&ports.index(index).child("nodePort"), wanted, why)
                })?;
                ports[index].node_port = Some(wanted);
            }
            None if on_request => {}
            None => ports[index].node_port = Some(free_port(claiming, "nodePort").await?),
        }
    }
    Ok(())
}

/// Where load balancers ask.
async fn health_check_port(claiming: &mut Claiming<'_>, spec: &ServiceSpec) -> Result<i32, Failure> {
    match spec.health_check_node_port.filter(|port| *port != 0) {
        Some(wanted) => match claim_port(claiming, wanted).await? {
            Ok(()) => Ok(wanted),
            Err(why) => Err(Failure::Status(status::internal(format!(
                "failed to allocate requested HealthCheck NodePort {wanted}: {why}"
            )))),
        },
        None => free_port(claiming, "HealthCheck NodePort").await,
    }
}

/// Claims a port that is asked for, or says why it can not be had.
async fn claim_port(claiming: &mut Claiming<'_>, wanted: i32) -> Result<Result<(), &'static str>, Status> {
    let claim = port_claim(wanted);
    if !NODE_PORTS.contains(&wanted) && !claiming.owned.contains(&claim) {
        return Ok(Err(
            "provided port is not in the valid range. The range of valid ports is 30000-32767",
        ));
    }
    match claiming.claim(&claim).await? {
        true => Ok(Ok(())),
        false => Ok(Err("provided port is already allocated")),
    }
}

async fn free_port(claiming: &mut Claiming<'_>, what: &str) -> Result<i32, Failure> {
    let size = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    for offset in turns(size as u128, (size as u128 / 32).clamp(16, 128)) {
        let port = NODE_PORTS.start() + offset as i32;
        let claim = port_claim(port);
        // What the Service has already is another port's.
        if !claiming.has(&claim) && claiming.claim(&claim).await? {
            return Ok(port);
        }
    }
    let why = format!("failed to allocate a {what}: range is full");
    Err(Failure::Status(status::internal(why)))
}

async fn give_up(store: &dyn Store, keys: impl Iterator<Item = impl AsRef<str>>) {
    for key in keys {
        match store.delete(key.as_ref(), Expected::Any).await {
            Ok(_) | Err(store::Error::Conflict { .. }) => {}
            // It is found and mended at the next start.
            Err(error) => tracing::warn!(key = key.as_ref(), %error, "freeing a Service's address or port"),
        }
    }
}

fn service_of(object: &dyn Object) -> Option<&Service> {
    object.as_any().downcast_ref()
}

fn address_claim(address: &str) -> String {
    format!("{CLAIMS}addresses/{address}")
}

/// Of every protocol: a port that is one Service's with TCP is none of another's with UDP, as upstream has it.
fn port_claim(port: i32) -> String {
    format!("{CLAIMS}ports/{port}")
}

/// The keys of what a Service has.
fn claims(service: &Service) -> BTreeSet<String> {
    let Some(spec) = &service.spec else {
        return BTreeSet::new();
    };
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let addresses = addresses
        .filter(|address| !matches!(address.as_str(), "" | "None"))
        .map(|ip| address_claim(ip));
    let ports = spec.ports.iter().flatten().map(|port| port.node_port);
    let ports = ports.chain([spec.health_check_node_port]).flatten();
    let ports = ports.filter(|port| *port != 0).map(port_claim);
    addresses.chain(ports).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    #[test]
    fn users_choices_are_left_to_them_while_there_are_others() {
        let order: Vec<u128> = turns(100, 16).collect();
        assert!(order[..84].iter().all(|offset| (16..100).contains(offset)), "{order:?}");
        assert_eq!(order[84..], (0..16).collect::<Vec<_>>());
        let mut small: Vec<u128> = turns(6, 16).collect();
        small.sort_unstable();
        assert_eq!(small, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn ranges_know_their_addresses() {
        for (text, first, inside, outside) in [
            ("10.96.0.0/12", "10.96.0.1", "10.111.255.254", "10.111.255.255"),
            ("10.96.3.7/30", "10.96.3.5", "10.96.3.6", "10.96.3.4"),
            ("fd00::/108", "fd00::1", "fd00::f:fffe", "fd01::1"),
        ] {
            let range: Range = text.parse().unwrap();
            assert_eq!(range.kubernetes().to_string(), first);
            assert!(range.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{text} {outside}");
            assert!(!range.contains("192.0.2.1".parse().unwrap()));
        }
        for text in ["", "10.96.0.0", "10.96.0.0/33", "10.96.0.0/31", "x/12", "10.96.0.0/-1"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }
}
