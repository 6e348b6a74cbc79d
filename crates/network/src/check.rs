//! What on this machine would eat the pods' traffic, and what to do about it.
//!
//! [`observe`] looks; [`findings`] judges what was seen. An `accept` in a table of ours could not help: a
//! packet has to pass every table, so who drops it has to be told.

use std::{net::IpAddr, process::Stdio};

use ipnet::IpNet;
use nftables::helper::{self, DEFAULT_NFT, NftablesError};
use serde_json::Value;

use crate::{Result, addresses, apply, netlink, plan::LOOPBACK};

/// Something that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether no pod can run until it is put right.
    pub fatal: bool,
    /// What is so.
    pub problem: String,
    /// What to do: a command where one does it.
    pub remedy: String,
}

/// What was seen of the machine's network.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The range of all pods.
    pub cluster: IpNet,
    /// The range of all Services.
    pub services: IpNet,
    /// The value of `net.ipv4.ip_forward`.
    pub ip_forward: Option<String>,
    /// What `nft -j list ruleset` printed, or why it did not run.
    pub ruleset: Result<Value, String>,
    /// What `iptables-legacy -S` printed, when the kernel has rules of that kind.
    pub legacy: Option<String>,
    /// Every link's name with its addresses and their ranges.
    pub addresses: Vec<(String, IpNet)>,
}

/// Looks at the machine.
pub async fn observe(cluster_cidr: &str, service_cidr: &str) -> Result<Observed> {
    let cluster = addresses::range(cluster_cidr)?;
    let services = addresses::range(service_cidr)?;
    let node = netlink::connect()?;
    let links = netlink::links(&node).await?;
    let nets = netlink::addresses(&node).await?;
    let name = |index| {
        links
            .iter()
            .find(|link| link.index == index)
            .map(|link| link.name.clone())
    };
    // The loopback link's are reached from nowhere else, and one is of our own making: the DNS server's.
    let addresses = nets
        .into_iter()
        .filter(|(index, _)| *index != LOOPBACK)
        .filter_map(|(index, net)| Some((name(index)?, net)))
        .collect();
    Ok(Observed {
        cluster,
        services,
        ip_forward: apply::read_sysctl("net/ipv4/ip_forward").ok(),
        ruleset: ruleset().await,
        legacy: legacy().await,
        addresses,
    })
}

async fn ruleset() -> Result<Value, String> {
    let read = || helper::get_current_ruleset_raw(DEFAULT_NFT, ["list", "ruleset"]);
    let read = tokio::task::spawn_blocking(read)
        .await
        .map_err(|stopped| stopped.to_string())?;
    let text = read.map_err(|error| match error {
        NftablesError::NftFailed { stderr, .. } => stderr.trim().to_owned(),
        NftablesError::NftExecution { inner, .. } => inner.to_string(),
        other => other.to_string(),
    })?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

async fn legacy() -> Option<String> {
    let tables = std::fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    tables.lines().find(|table| *table == "filter")?;
    let printed = tokio::process::Command::new("iptables-legacy")
        .arg("-S")
        .stdin(Stdio::null())
        .output()
        .await;
    String::from_utf8(printed.ok()?.stdout).ok()
}

/// Judges what was seen.
pub fn findings(observed: &Observed) -> Vec<Finding> {
    let mut findings = Vec::new();
    if observed.ip_forward.as_deref() == Some("0") {
        findings.push(Finding {
            fatal: false,
            problem: "net.ipv4.ip_forward is 0: packets do not pass between pods and other machines".into(),
            remedy: "the server turns it on when it starts; by hand: sysctl -w net.ipv4.ip_forward=1".into(),
        });
    }
    match &observed.ruleset {
        Ok(ruleset) => findings.extend(dropped(&Ruleset::read(ruleset), observed.cluster)),
        Err(cause) => findings.push(Finding {
            fatal: true,
            problem: format!("nft, which pods' rules are set up with, does not work: {cause}"),
            remedy: "apt-get install nftables, or the like of your distribution".into(),
        }),
    }
    findings.extend(
        observed
            .legacy
            .as_deref()
            .and_then(|rules| dropped_by_legacy(rules, observed.cluster)),
    );
    findings.extend(overlaps(observed));
    findings
}

/// What is of interest in a ruleset: base chains that filter, and all rules.
struct Ruleset<'a> {
    chains: Vec<Chain<'a>>,
    names: Vec<(Table<'a>, &'a str)>,
    rules: Vec<(Table<'a>, &'a str, &'a [Value])>,
}

type Table<'a> = (&'a str, &'a str);

struct Chain<'a> {
    table: Table<'a>,
    name: &'a str,
    hook: &'a str,
    drops: bool,
}

impl<'a> Ruleset<'a> {
    fn read(ruleset: &'a Value) -> Self {
        let mut read = Ruleset {
            chains: Vec::new(),
            names: Vec::new(),
            rules: Vec::new(),
        };
        for object in ruleset["nftables"].as_array().into_iter().flatten() {
            if let (Some(table), Some(chain)) = (table(&object["rule"]), object["rule"]["chain"].as_str()) {
                read.rules.push((
                    table,
                    chain,
                    object["rule"]["expr"].as_array().map_or(&[], Vec::as_slice),
                ));
            }
            let chain = &object["chain"];
            let (Some(table), Some(name)) = (table(chain), chain["name"].as_str()) else {
                continue;
            };
            read.names.push((table, name));
            if let (Some("filter"), Some(hook @ ("forward" | "input"))) =
                (chain["type"].as_str(), chain["hook"].as_str())
                && matches!(table.0, "ip" | "inet")
            {
                read.chains.push(Chain {
                    table,
                    name,
                    hook,
                    drops: chain["policy"] == "drop",
                });
            }
        }
        for chain in &mut read.chains {
            let own = |(table, name, _): &&(Table, &str, &[Value])| (*table, *name) == (chain.table, chain.name);
            chain.drops |= read
                .rules
                .iter()
                .filter(own)
                .any(|(_, _, statements)| refuses_everything(statements));
        }
        read
    }

    fn has_chain(&self, table: Table, beginning: &str) -> bool {
        self.names
            .iter()
            .any(|(its, name)| *its == table && name.starts_with(beginning))
    }

    /// Whether some rule of the table lets packets with an address of the range there go on.
    fn lets_pass(&self, table: Table, field: &str, range: IpNet) -> bool {
        self.rules
            .iter()
            .filter(|(its, _, _)| *its == table)
            .any(|(_, _, statements)| {
                statements.iter().any(|statement| is_match(statement, field, range))
                    && !statements.iter().any(is_refusal)
            })
    }
}

fn table(object: &Value) -> Option<Table<'_>> {
    Some((object["family"].as_str()?, object["table"].as_str()?))
}

fn is_refusal(statement: &Value) -> bool {
    statement.get("drop").is_some() || statement.get("reject").is_some()
}

fn refuses_everything(statements: &[Value]) -> bool {
    let passive = |statement: &Value| statement.get("counter").is_some() || statement.get("log").is_some();
    statements.iter().any(is_refusal) && statements.iter().all(|s| is_refusal(s) || passive(s))
}

fn is_match(statement: &Value, field: &str, range: IpNet) -> bool {
    let compared = &statement["match"];
    let prefix = &compared["right"]["prefix"];
    compared["op"] == "=="
        && compared["left"]["payload"]["field"] == field
        && prefix["addr"].as_str().and_then(|addr| addr.parse().ok()) == Some(range.network())
        && prefix["len"] == range.prefix_len()
}

fn dropped(ruleset: &Ruleset, cluster: IpNet) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for chain in ruleset.chains.iter().filter(|chain| chain.drops) {
        let Chain { table, name, hook, .. } = *chain;
        let firewalld = table.1 == "firewalld";
        let from = ruleset.lets_pass(table, "saddr", cluster);
        let to = ruleset.lets_pass(table, "daddr", cluster) || firewalld || hook == "input";
        if from && to {
            continue;
        }
        let (who, remedy) = if firewalld {
            let trust = format!("firewall-cmd --permanent --zone=trusted --add-source={cluster}");
            ("firewalld".into(), format!("{trust} && firewall-cmd --reload"))
        } else if ruleset.has_chain(table, "ufw-") {
            let allow = format!("ufw allow from {cluster} && ufw route allow from {cluster}");
            ("ufw".into(), format!("{allow} && ufw route allow to {cluster}"))
        } else if table == ("ip", "filter") && name == name.to_uppercase() {
            let docker = hook == "forward" && ruleset.has_chain(table, "DOCKER-USER");
            let chain = if docker { "DOCKER-USER" } else { name };
            (
                format!("iptables, chain {name},"),
                iptables("iptables", chain, hook, cluster),
            )
        } else {
            let (family, table) = table;
            let insert = |field| format!("nft insert rule {family} {table} {name} ip {field} {cluster} accept");
            let both = match hook {
                "input" => insert("saddr"),
                _ => format!("{} && {}", insert("saddr"), insert("daddr")),
            };
            (format!("nftables, chain {family} {table} {name},"), both)
        };
        let what = if hook == "input" {
            "from pods to this machine"
        } else {
            "from and to pods"
        };
        let finding = Finding {
            fatal: false,
            problem: format!("{who} drops traffic {what}"),
            remedy,
        };
        // One command opens both hooks of ufw and firewalld.
        if findings.iter().all(|other| other.remedy != finding.remedy) {
            findings.push(finding);
        }
    }
    findings
}

fn iptables(program: &str, chain: &str, hook: &str, cluster: IpNet) -> String {
    let insert = |field| format!("{program} -I {chain} {field} {cluster} -j ACCEPT");
    match hook {
        "input" => insert("-s"),
        _ => format!("{} && {}", insert("-s"), insert("-d")),
    }
}

fn dropped_by_legacy(rules: &str, cluster: IpNet) -> Option<Finding> {
    let has = |line: String| rules.lines().any(|other| other.trim() == line);
    let accepts = |field| has(format!("-A FORWARD {field} {cluster} -j ACCEPT"));
    if !has("-P FORWARD DROP".into()) || (accepts("-s") && accepts("-d")) {
        return None;
    }
    Some(Finding {
        fatal: false,
        problem: "iptables-legacy, chain FORWARD, drops traffic from and to pods".into(),
        remedy: iptables("iptables-legacy", "FORWARD", "forward", cluster),
    })
}

fn overlaps(observed: &Observed) -> Vec<Finding> {
    let ranges = [
        (observed.cluster, "pods'", "--cluster-cidr"),
        (observed.services, "Services'", "--service-cidr"),
    ];
    let overlap = |(name, net): &(String, IpNet), (range, whose, flag): (IpNet, &str, &str)| {
        let over = net.contains(&range.network()) || range.contains(&net.network());
        let real = !matches!(net.addr(), IpAddr::V4(address) if address.is_loopback());
        (over && real).then(|| Finding {
            fatal: false,
            problem: format!("{name} has {net}, which overlaps the {whose} range {range}"),
            remedy: format!("start the server with another {flag}"),
        })
    };
    observed
        .addresses
        .iter()
        .flat_map(|address| ranges.into_iter().filter_map(move |r| overlap(address, r)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the cases are well-formed")]
    use super::*;
    use serde_json::json;

    fn observed(objects: Value) -> Observed {
        Observed {
            cluster: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/12".parse().unwrap(),
            ip_forward: Some("1".into()),
            ruleset: Ok(json!({ "nftables": objects })),
            legacy: None,
            addresses: vec![],
        }
    }

    fn told(observed: &Observed) -> Vec<(String, String)> {
        findings(observed)
            .into_iter()
            .map(|finding| (finding.problem, finding.remedy))
            .collect()
    }

    fn base(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> Value {
        json!({ "chain": { "family": family, "table": table, "name": name, "handle": 1, "type": "filter",
                           "hook": hook, "prio": 0, "policy": policy } })
    }

    fn chain(table: &str, name: &str) -> Value {
        json!({ "chain": { "family": "ip", "table": table, "name": name, "handle": 2 } })
    }

    fn accept(family: &str, table: &str, name: &str, field: &str) -> Value {
        let compared = json!({ "match": { "op": "==", "left": { "payload": { "protocol": "ip", "field": field } },
                                          "right": { "prefix": { "addr": "10.244.0.0", "len": 16 } } } });
        json!({ "rule": { "family": family, "table": table, "chain": name, "handle": 3,
                          "expr": [compared, { "counter": { "packets": 0, "bytes": 0 } }, { "accept": null }] } })
    }

    #[test]
    fn a_quiet_machine_has_no_findings() {
        assert_eq!(told(&observed(json!([]))), []);
        let others = json!([
            { "metainfo": { "version": "1.0.6" } },
            base("inet", "filter", "forward", "forward", "accept"),
            base("ip6", "filter", "FORWARD", "forward", "drop"),
            base("inet", "podium", "input", "input", "accept"),
        ]);
        assert_eq!(told(&observed(others)), []);
    }

    #[test]
    fn each_firewall_is_told_in_its_own_words() {
        let drop_rule = json!({ "rule": { "family": "inet", "table": "mine", "chain": "fwd", "handle": 9,
            "expr": [{ "counter": { "packets": 1, "bytes": 1 } }, { "reject": { "type": "icmpx", "expr": "admin-prohibited" } }] } });
        for (objects, problem, remedy) in [
            (
                json!([base("ip", "filter", "FORWARD", "forward", "drop")]),
                "iptables, chain FORWARD, drops traffic from and to pods",
                "iptables -I FORWARD -s 10.244.0.0/16 -j ACCEPT && iptables -I FORWARD -d 10.244.0.0/16 -j ACCEPT",
            ),
            (
                json!([
                    base("ip", "filter", "FORWARD", "forward", "drop"),
                    chain("filter", "DOCKER-USER")
                ]),
                "iptables, chain FORWARD, drops traffic from and to pods",
                "iptables -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT && iptables -I DOCKER-USER -d 10.244.0.0/16 -j ACCEPT",
            ),
            (
                json!([base("ip", "filter", "INPUT", "input", "drop")]),
                "iptables, chain INPUT, drops traffic from pods to this machine",
                "iptables -I INPUT -s 10.244.0.0/16 -j ACCEPT",
            ),
            (
                json!([
                    base("ip", "filter", "FORWARD", "forward", "drop"),
                    base("ip", "filter", "INPUT", "input", "drop"),
                    chain("filter", "ufw-user-forward")
                ]),
                "ufw drops traffic from and to pods",
                "ufw allow from 10.244.0.0/16 && ufw route allow from 10.244.0.0/16 && ufw route allow to 10.244.0.0/16",
            ),
            (
                json!([base("inet", "firewalld", "filter_FORWARD", "forward", "drop")]),
                "firewalld drops traffic from and to pods",
                "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 && firewall-cmd --reload",
            ),
            (
                json!([base("inet", "mine", "fwd", "forward", "accept"), drop_rule]),
                "nftables, chain inet mine fwd, drops traffic from and to pods",
                "nft insert rule inet mine fwd ip saddr 10.244.0.0/16 accept && nft insert rule inet mine fwd ip daddr 10.244.0.0/16 accept",
            ),
        ] {
            assert_eq!(told(&observed(objects)), [(problem.into(), remedy.into())]);
        }
    }

    #[test]
    fn a_firewall_that_was_told_is_no_finding() {
        let told_both = json!([
            base("ip", "filter", "FORWARD", "forward", "drop"),
            accept("ip", "filter", "FORWARD", "saddr"),
            accept("ip", "filter", "FORWARD", "daddr"),
        ]);
        assert_eq!(told(&observed(told_both)), []);
        let told_half = json!([
            base("ip", "filter", "FORWARD", "forward", "drop"),
            accept("ip", "filter", "FORWARD", "saddr")
        ]);
        assert_eq!(told(&observed(told_half)).len(), 1);
        let told_elsewhere = json!([
            base("ip", "filter", "FORWARD", "forward", "drop"),
            accept("inet", "filter", "FORWARD", "saddr"),
            accept("inet", "filter", "FORWARD", "daddr"),
        ]);
        assert_eq!(
            told(&observed(told_elsewhere)).len(),
            1,
            "a table accepts for itself only"
        );
    }

    #[test]
    fn the_rest_of_the_machine() {
        let mut seen = observed(json!([]));
        seen.ip_forward = Some("0".into());
        seen.legacy = Some("-P INPUT ACCEPT\n-P FORWARD DROP\n".into());
        seen.addresses = vec![
            ("lo".into(), "127.0.0.1/8".parse().unwrap()),
            ("eth0".into(), "192.168.0.2/24".parse().unwrap()),
            ("eth1".into(), "10.97.0.2/16".parse().unwrap()),
            ("tun0".into(), "10.0.0.9/8".parse().unwrap()),
        ];
        let problems: Vec<String> = findings(&seen).into_iter().map(|finding| finding.problem).collect();
        assert_eq!(
            problems,
            [
                "net.ipv4.ip_forward is 0: packets do not pass between pods and other machines",
                "iptables-legacy, chain FORWARD, drops traffic from and to pods",
                "eth1 has 10.97.0.2/16, which overlaps the Services' range 10.96.0.0/12",
                "tun0 has 10.0.0.9/8, which overlaps the pods' range 10.244.0.0/16",
                "tun0 has 10.0.0.9/8, which overlaps the Services' range 10.96.0.0/12",
            ]
        );
        seen.legacy = Some(
            "-P FORWARD DROP\n-A FORWARD -s 10.244.0.0/16 -j ACCEPT\n-A FORWARD -d 10.244.0.0/16 -j ACCEPT".into(),
        );
        assert!(
            findings(&seen)
                .iter()
                .all(|finding| !finding.problem.contains("legacy"))
        );

        seen.ruleset = Err("No such file or directory (os error 2)".into());
        let fatal: Vec<Finding> = findings(&seen).into_iter().filter(|finding| finding.fatal).collect();
        assert_eq!(fatal.len(), 1);
        assert!(fatal[0].problem.contains("No such file or directory"));
    }
}
