//! A node, with the pods on it and what they take of it.

use api::quantity::Quantity;
use jiff::Zoned;
use serde_json::Value;

use super::text::{annotations, date, items, pairs, plain, quantities, since, string};

const ROLE: &str = "node-role.kubernetes.io/";

/// All of a node but its events.
pub fn describe(node: &Value, lease: Result<Value, String>, pods: &[Value], now: &Zoned) -> String {
    let (metadata, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
    let mut text = format!("Name:\t{}\nRoles:\t{}\n", string(metadata, "name"), roles(metadata));
    text += &pairs("Labels", &metadata["labels"]);
    text += &annotations(&metadata["annotations"]);
    text += &format!("CreationTimestamp:\t{}\n", date(&metadata["creationTimestamp"], now));
    text += &format!("Taints:\t{}\n", taints(spec));
    text += &format!("Unschedulable:\t{}\n", spec["unschedulable"].as_bool().unwrap_or(false));
    text += &match lease {
        Ok(lease) => {
            let spec = &lease["spec"];
            let holder = match string(spec, "holderIdentity") {
                "" => "<unset>",
                holder => holder,
            };
            format!(
                "Lease:\n  HolderIdentity:\t{holder}\n  AcquireTime:\t{}\n  RenewTime:\t{}\n",
                date(&spec["acquireTime"], now),
                date(&spec["renewTime"], now),
            )
        }
        Err(reason) => format!("Lease:\tFailed to get lease: {reason}"),
    };
    text += &conditions(status, now);
    text += "Addresses:\n";
    for address in items(status, "addresses") {
        text += &format!("  {}:\t{}\n", string(address, "type"), string(address, "address"));
    }
    text += &quantities("Capacity", "", &status["capacity"]);
    text += &quantities("Allocatable", "", &status["allocatable"]);
    text += &system(&status["nodeInfo"]);
    if !string(spec, "podCIDR").is_empty() {
        text += &format!("PodCIDR:\t{}\n", string(spec, "podCIDR"));
    }
    let ranges: Vec<_> = items(spec, "podCIDRs").map(plain).collect();
    if !ranges.is_empty() {
        text += &format!("PodCIDRs:\t{}\n", ranges.join(","));
    }
    if !string(spec, "providerID").is_empty() {
        text += &format!("ProviderID:\t{}\n", string(spec, "providerID"));
    }
    text + &resources(&status["allocatable"], pods, now)
}

fn roles(metadata: &Value) -> String {
    let labels = metadata["labels"].as_object();
    let mut roles: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(label, value)| match label.strip_prefix(ROLE) {
            Some(role) => Some(role.to_owned()),
            None if label == "kubernetes.io/role" => Some(plain(value)),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn taints(spec: &Value) -> String {
    let mut taints: Vec<_> = items(spec, "taints").collect();
    if taints.is_empty() {
        return "<none>".to_owned();
    }
    taints.sort_by_key(|taint| format!("{},{}", string(taint, "effect"), string(taint, "key")));
    let lines: Vec<_> = taints
        .into_iter()
        .map(|taint| {
            let value = match string(taint, "value") {
                "" => String::new(),
                value => format!("={value}"),
            };
            format!("{}{value}:{}", string(taint, "key"), string(taint, "effect"))
        })
        .collect();
    lines.join("\n\t")
}

fn conditions(status: &Value, now: &Zoned) -> String {
    if items(status, "conditions").next().is_none() {
        return String::new();
    }
    let mut text = "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage\n  ----\t------\t-----------------\t------------------\t------\t-------\n".to_owned();
    for condition in items(status, "conditions") {
        text += &format!(
            "  {} \t{} \t{} \t{} \t{} \t{}\n",
            string(condition, "type"),
            string(condition, "status"),
            date(&condition["lastHeartbeatTime"], now),
            date(&condition["lastTransitionTime"], now),
            string(condition, "reason"),
            string(condition, "message"),
        );
    }
    text
}

fn system(info: &Value) -> String {
    let mut text = "System Info:\n".to_owned();
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        text += &format!("  {title}:\t{}\n", string(info, field));
    }
    text
}

/// What a pod asks for and may take of one resource.
#[derive(Clone, Copy)]
struct Share {
    requests: Quantity,
    limits: Quantity,
}

fn resources(allocatable: &Value, pods: &[Value], now: &Zoned) -> String {
    let mut text = format!(
        "Non-terminated Pods:\t({} in total)\n  Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge\n  ---------\t----\t\t------------\t----------\t---------------\t-------------\t---\n",
        pods.len()
    );
    for pod in pods {
        let (cpu, memory) = (share(pod, "cpu"), share(pod, "memory"));
        text += &format!(
            "  {}\t{}\t\t{}\t{}\t{}\t{}\t{}\n",
            string(&pod["metadata"], "namespace"),
            string(&pod["metadata"], "name"),
            part(cpu.requests, &allocatable["cpu"]),
            part(cpu.limits, &allocatable["cpu"]),
            part(memory.requests, &allocatable["memory"]),
            part(memory.limits, &allocatable["memory"]),
            since(&pod["metadata"]["creationTimestamp"], now),
        );
    }
    text += "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)\n  Resource\tRequests\tLimits\n  --------\t--------\t------\n";
    let mut names = vec!["cpu", "memory", "ephemeral-storage"];
    let others = allocatable
        .as_object()
        .map(crate::print::yaml::sorted)
        .unwrap_or_default();
    let others = others.into_iter().map(|(name, _)| name.as_str());
    names.extend(others.filter(|name| !["cpu", "memory", "ephemeral-storage", "pods"].contains(name)));
    for name in names {
        let shares: Vec<_> = pods.iter().map(|pod| share(pod, name)).collect();
        let requests: Quantity = shares.iter().map(|share| share.requests).sum();
        let limits: Quantity = shares.iter().map(|share| share.limits).sum();
        // Of what a node has only because someone added it, no part is worked out.
        let known = !name.contains('/') || name.starts_with("hugepages-");
        text += &if known {
            let of = &allocatable[name];
            format!("  {name}\t{}\t{}\n", part(requests, of), part(limits, of))
        } else {
            format!("  {name}\t{requests}\t{limits}\n")
        };
    }
    text
}

fn part(amount: Quantity, of: &Value) -> String {
    let whole = plain(of).parse::<Quantity>().map_or(0.0, |whole| whole.to_f64());
    let percent = if whole > 0.0 {
        amount.to_f64() / whole * 100.0
    } else {
        0.0
    };
    format!("{amount} ({}%)", percent.trunc())
}

/// The containers together, or the hungriest step of starting them if that is more. What a container holds by its
/// status counts too, and alone where a resize cannot be.
fn share(pod: &Value, name: &str) -> Share {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let amount = |resources: &Value| plain(&resources[name]).parse::<Quantity>().unwrap_or(Quantity::ZERO);
    let infeasible = items(status, "conditions").any(|condition| {
        string(condition, "type") == "PodResizePending" && string(condition, "reason") == "Infeasible"
    });
    let held = |container: &Value| {
        ["containerStatuses", "initContainerStatuses"]
            .into_iter()
            .flat_map(|list| items(status, list))
            .find(|status| string(status, "name") == string(container, "name") && status["resources"].is_object())
            .map(|status| amount(&status["resources"]["requests"]).max(amount(&status["allocatedResources"])))
    };
    let of = |container: &Value, list: &str| {
        let asked = amount(&container["resources"][list]);
        match held(container).filter(|_| list == "requests") {
            Some(held) if infeasible => held,
            Some(held) => held.max(asked),
            None => asked,
        }
    };
    let total = |list: &str| {
        let mut running: Quantity = items(spec, "containers").map(|container| of(container, list)).sum();
        let mut sidecars = Quantity::ZERO;
        let mut starting = Quantity::ZERO;
        for container in items(spec, "initContainers") {
            if string(container, "restartPolicy") == "Always" {
                sidecars += of(container, list);
                starting = starting.max(sidecars);
            } else {
                starting = starting.max(sidecars + of(container, list));
            }
        }
        running += sidecars;
        let overhead = plain(&spec["overhead"][name])
            .parse::<Quantity>()
            .unwrap_or(Quantity::ZERO);
        running.max(starting) + overhead
    };
    Share {
        requests: total("requests"),
        limits: total("limits"),
    }
}
