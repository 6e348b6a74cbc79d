//! The nftables table `inet podium`, as a value, and the one program that puts it into the kernel.
//!
//! ```text
//! prerouting, output   packets to an address of the node -> hostports
//! hostports            one rule a host port: destination becomes the pod's
//! postrouting          -> hairpin; from 127.0.0.0/8 to a pod, and from a pod out of the cluster: masquerade
//! hairpin              a pod that reaches itself by its host port: masquerade, or it would answer itself
//! input                what a pod sends to 127.0.0.0/8 itself is dropped, though host ports open that way
//! ```
//!
//! The table is replaced as a whole when the server starts; afterwards only `hostports` and `hairpin` change,
//! and each change is one transaction.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use nftables::{
    batch::Batch,
    expr::{CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix},
    helper::{self, NftablesError},
    schema::{Chain, FlushObject, NfCmd, NfListObject, Nftables, Rule, Table},
    stmt::{JumpTarget, Match, NAT, NATFamily, NATFlag, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use crate::{Error, HostPort, Result, plan::NODE_END};

const TABLE: &str = "podium";
const HOST_PORTS: &str = "hostports";
const HAIRPIN: &str = "hairpin";

/// Where the kernel does destination and source translation.
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;

/// A pod's address and its host ports.
pub(crate) type Exposed = (Ipv4Addr, Vec<HostPort>);

/// The whole table, in place of whatever was there.
pub(crate) fn whole(cluster: IpNet, exposed: &[Exposed]) -> Nftables<'static> {
    let mut batch = absent();
    batch.add(NfListObject::Table(table()));
    for name in [HOST_PORTS, HAIRPIN] {
        batch.add(NfListObject::Chain(chain(name)));
    }
    for (name, hook) in [("prerouting", NfHook::Prerouting), ("output", NfHook::Output)] {
        batch.add(NfListObject::Chain(base(name, NfChainType::NAT, hook, DSTNAT)));
        batch.add(rule(
            name,
            vec![equal(fib_daddr_type(), text("local")), jump(HOST_PORTS)],
        ));
    }
    batch.add(NfListObject::Chain(base(
        "postrouting",
        NfChainType::NAT,
        NfHook::Postrouting,
        SRCNAT,
    )));
    batch.add(rule("postrouting", vec![jump(HAIRPIN)]));
    let to_pod = equal(meta(MetaKey::Oifname), text(format!("{NODE_END}*")));
    batch.add(rule(
        "postrouting",
        vec![equal(field("ip", "saddr"), localhost()), to_pod, masquerade()],
    ));
    let family = if matches!(cluster, IpNet::V4(_)) { "ip" } else { "ip6" };
    let from_cluster = equal(field(family, "saddr"), prefix(cluster));
    let out_of_it = differ(field(family, "daddr"), prefix(cluster));
    batch.add(rule("postrouting", vec![from_cluster, out_of_it, masquerade()]));
    batch.add(NfListObject::Chain(base(
        "input",
        NfChainType::Filter,
        NfHook::Input,
        0,
    )));
    let from_pod = equal(meta(MetaKey::Iifname), text(format!("{NODE_END}*")));
    let new = compare(connection("state"), Operator::IN, text("new"));
    let to_localhost = equal(field("ip", "daddr"), localhost());
    batch.add(rule("input", vec![from_pod, to_localhost, new, Statement::Drop(None)]));
    expose(&mut batch, exposed);
    batch.to_nftables()
}

/// Only the host ports, in place of those before.
pub(crate) fn host_ports(exposed: &[Exposed]) -> Nftables<'static> {
    let mut batch = Batch::new();
    for name in [HOST_PORTS, HAIRPIN] {
        batch.add_cmd(NfCmd::Flush(FlushObject::Chain(chain(name))));
    }
    expose(&mut batch, exposed);
    batch.to_nftables()
}

/// No table.
pub(crate) fn none() -> Nftables<'static> {
    absent().to_nftables()
}

/// Puts rules into the kernel, all or none of them.
pub(crate) async fn apply(action: &'static str, rules: Nftables<'static>) -> Result<()> {
    let applied = tokio::task::spawn_blocking(move || helper::apply_ruleset(&rules)).await;
    match applied {
        Ok(Ok(())) => Ok(()),
        Ok(Err(NftablesError::NftExecution { inner, .. })) => Err(Error::NoNft(inner)),
        Ok(Err(NftablesError::NftFailed { stderr, .. })) => {
            // nft repeats the rules it was given; the first line is the reason.
            let reason = stderr.lines().next().unwrap_or_default();
            Err(Error::Nft {
                action,
                output: reason.trim().into(),
            })
        }
        Ok(Err(other)) => Err(Error::Nft {
            action,
            output: other.to_string(),
        }),
        Err(stopped) => Err(Error::Nft {
            action,
            output: stopped.to_string(),
        }),
    }
}

/// Deleting asks for a table that is there, so it is added first.
fn absent() -> Batch<'static> {
    let mut batch = Batch::new();
    batch.add(NfListObject::Table(table()));
    batch.delete(NfListObject::Table(table()));
    batch
}

fn expose(batch: &mut Batch<'static>, exposed: &[Exposed]) {
    for (pod, ports) in exposed.iter().filter(|(_, ports)| !ports.is_empty()) {
        for port in ports {
            let bound = port
                .bound_to()
                .map(|address| equal(field("ip", "daddr"), address_of(address)));
            let to_port = equal(
                field(port.protocol.name(), "dport"),
                Expression::Number(port.host_port.into()),
            );
            let to_pod = Statement::DNAT(Some(NAT {
                addr: Some(address_of((*pod).into())),
                family: Some(NATFamily::IP),
                port: Some(Expression::Number(port.container_port.into())),
                flags: None,
            }));
            batch.add(rule(HOST_PORTS, bound.into_iter().chain([to_port, to_pod]).collect()));
        }
        let from = equal(field("ip", "saddr"), address_of((*pod).into()));
        let to = equal(field("ip", "daddr"), address_of((*pod).into()));
        batch.add(rule(HAIRPIN, vec![from, to, masquerade()]));
    }
}

fn table() -> Table<'static> {
    Table {
        family: NfFamily::INet,
        name: TABLE.into(),
        handle: None,
    }
}

fn chain(name: &'static str) -> Chain<'static> {
    Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        ..Chain::default()
    }
}

fn base(name: &'static str, kind: NfChainType, hook: NfHook, priority: i32) -> Chain<'static> {
    Chain {
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..chain(name)
    }
}

fn rule(chain: &'static str, statements: Vec<Statement<'static>>) -> NfListObject<'static> {
    NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: statements.into(),
        ..Rule::default()
    })
}

fn compare(left: NamedExpression<'static>, op: Operator, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left: Expression::Named(left),
        right,
        op,
    })
}

fn equal(left: NamedExpression<'static>, right: Expression<'static>) -> Statement<'static> {
    compare(left, Operator::EQ, right)
}

fn differ(left: NamedExpression<'static>, right: Expression<'static>) -> Statement<'static> {
    compare(left, Operator::NEQ, right)
}

fn jump(target: &'static str) -> Statement<'static> {
    Statement::Jump(JumpTarget { target: target.into() })
}

/// Ports are chosen at random, or two pods that ask for the same one at once lose a packet.
fn masquerade() -> Statement<'static> {
    let flags = Some([NATFlag::FullyRandom].into());
    Statement::Masquerade(Some(NAT {
        addr: None,
        family: None,
        port: None,
        flags,
    }))
}

fn field(protocol: &'static str, field: &'static str) -> NamedExpression<'static> {
    NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    }))
}

fn meta(key: MetaKey) -> NamedExpression<'static> {
    NamedExpression::Meta(Meta { key })
}

fn connection(key: &'static str) -> NamedExpression<'static> {
    NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    })
}

fn fib_daddr_type() -> NamedExpression<'static> {
    NamedExpression::Fib(Fib {
        result: FibResult::Type,
        flags: [FibFlag::Daddr].into(),
    })
}

fn text(text: impl Into<String>) -> Expression<'static> {
    Expression::String(text.into().into())
}

fn address_of(address: IpAddr) -> Expression<'static> {
    text(address.to_string())
}

fn prefix(range: IpNet) -> Expression<'static> {
    let addr = Box::new(address_of(range.network()));
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr,
        len: range.prefix_len().into(),
    }))
}

fn localhost() -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(text("127.0.0.0")),
        len: 8,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the cases are well-formed")]
    use super::*;
    use crate::Protocol;

    /// The rules as nft's own language would have them, which is easier on the eyes than its JSON.
    fn lines(rules: &Nftables) -> Vec<String> {
        let document = serde_json::to_value(rules).unwrap();
        let commands = document["nftables"].as_array().unwrap().clone();
        commands
            .iter()
            .map(|command| {
                let (verb, object) = command.as_object().unwrap().iter().next().unwrap();
                let (kind, object) = object.as_object().unwrap().iter().next().unwrap();
                let statements = object["expr"]
                    .as_array()
                    .map(|all| all.iter().map(statement).collect::<Vec<_>>().join(" "));
                let name = object
                    .get("name")
                    .or_else(|| object.get("chain"))
                    .unwrap()
                    .as_str()
                    .unwrap();
                let hook = object
                    .get("hook")
                    .map(|hook| format!(" {} {}", hook.as_str().unwrap(), object["prio"]));
                format!(
                    "{verb} {kind} {name}{}{}",
                    hook.unwrap_or_default(),
                    statements.map(|s| format!(" {s}")).unwrap_or_default()
                )
            })
            .collect()
    }

    fn statement(value: &serde_json::Value) -> String {
        let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
        match kind.as_str() {
            "match" => format!(
                "{} {} {}",
                expression(&value["left"]),
                value["op"].as_str().unwrap(),
                expression(&value["right"])
            ),
            "jump" => format!("jump {}", value["target"].as_str().unwrap()),
            "dnat" => format!(
                "dnat {} {}:{}",
                value["family"].as_str().unwrap(),
                value["addr"].as_str().unwrap(),
                value["port"]
            ),
            other => other.into(),
        }
    }

    fn expression(value: &serde_json::Value) -> String {
        let Some(object) = value.as_object() else {
            return value.to_string().trim_matches('"').into();
        };
        let (kind, value) = object.iter().next().unwrap();
        match kind.as_str() {
            "payload" => format!(
                "{} {}",
                value["protocol"].as_str().unwrap(),
                value["field"].as_str().unwrap()
            ),
            "prefix" => format!("{}/{}", value["addr"].as_str().unwrap(), value["len"]),
            "fib" => format!("fib {} type", value["flags"][0].as_str().unwrap()),
            _ => format!("{kind} {}", value["key"].as_str().unwrap()),
        }
    }

    fn exposed() -> Vec<Exposed> {
        let port = |protocol, host_port, host_ip: Option<&str>| HostPort {
            protocol,
            container_port: 80,
            host_port,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        let ports = vec![
            port(Protocol::Tcp, 8080, None),
            port(Protocol::Udp, 8081, Some("192.168.0.2")),
            port(Protocol::Sctp, 8082, Some("0.0.0.0")),
        ];
        vec![
            (Ipv4Addr::new(10, 244, 0, 5), ports),
            (Ipv4Addr::new(10, 244, 0, 6), vec![]),
        ]
    }

    #[test]
    fn the_whole_table() {
        let rules = whole("10.244.0.0/16".parse().unwrap(), &exposed());
        let expected = [
            "add table podium",
            "delete table podium",
            "add table podium",
            "add chain hostports",
            "add chain hairpin",
            "add chain prerouting prerouting -100",
            "add rule prerouting fib daddr type == local jump hostports",
            "add chain output output -100",
            "add rule output fib daddr type == local jump hostports",
            "add chain postrouting postrouting 100",
            "add rule postrouting jump hairpin",
            "add rule postrouting ip saddr == 127.0.0.0/8 meta oifname == pod* masquerade",
            "add rule postrouting ip saddr == 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade",
            "add chain input input 0",
            "add rule input meta iifname == pod* ip daddr == 127.0.0.0/8 ct state in new drop",
            "add rule hostports tcp dport == 8080 dnat ip 10.244.0.5:80",
            "add rule hostports ip daddr == 192.168.0.2 udp dport == 8081 dnat ip 10.244.0.5:80",
            "add rule hostports sctp dport == 8082 dnat ip 10.244.0.5:80",
            "add rule hairpin ip saddr == 10.244.0.5 ip daddr == 10.244.0.5 masquerade",
        ];
        assert_eq!(lines(&rules), expected);
    }

    #[test]
    fn a_change_of_host_ports_touches_nothing_else() {
        assert_eq!(
            lines(&host_ports(&[])),
            ["flush chain hostports", "flush chain hairpin"]
        );
        let rules = lines(&host_ports(&exposed()));
        assert_eq!(rules.len(), 6);
        assert!(
            rules[2..].iter().all(|line| line.starts_with("add rule h")),
            "{rules:?}"
        );
        assert_eq!(lines(&none()), ["add table podium", "delete table podium"]);
    }
}
