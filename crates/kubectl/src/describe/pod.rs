//! A pod.

use jiff::Zoned;
use serde_json::Value;

use super::text::{annotations, date, items, pairs, plain, quantities, since, string};
use super::{container, volumes};

/// All of a pod but its events.
pub fn describe(pod: &Value, now: &Zoned) -> String {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    let mut text = String::new();
    let mut line = |title: &str, value: &str| text += &format!("{title}:\t{value}\n");
    line("Name", string(metadata, "name"));
    line("Namespace", string(metadata, "namespace"));
    if !spec["priority"].is_null() {
        line("Priority", &plain(&spec["priority"]));
    }
    for (title, field) in [
        ("Priority Class Name", "priorityClassName"),
        ("Runtime Class Name", "runtimeClassName"),
        ("Service Account", "serviceAccountName"),
    ] {
        if !string(spec, field).is_empty() {
            line(title, string(spec, field));
        }
    }
    match string(spec, "nodeName") {
        "" => line("Node", "<none>"),
        node => line("Node", &format!("{node}/{}", string(status, "hostIP"))),
    }
    if !status["startTime"].is_null() {
        line("Start Time", &date(&status["startTime"], now));
    }
    text += &pairs("Labels", &metadata["labels"]);
    text += &annotations(&metadata["annotations"]);
    text += &state(metadata, status, now);
    text += &container::seccomp(&spec["securityContext"]);
    text += &addresses(status);
    for owner in items(metadata, "ownerReferences").filter(|owner| owner["controller"] == true) {
        text += &format!("Controlled By:\t{}/{}\n", string(owner, "kind"), string(owner, "name"));
    }
    if !string(status, "nominatedNodeName").is_empty() {
        text += &format!("NominatedNodeName:\t{}\n", string(status, "nominatedNodeName"));
    }
    if !spec["resources"].is_null() {
        text += "Resources:\n";
        text += &quantities("Limits", "  ", &spec["resources"]["limits"]);
        text += &quantities("Requests", "  ", &spec["resources"]["requests"]);
    }
    for (title, list, statuses) in [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        (
            "Ephemeral Containers",
            "ephemeralContainers",
            "ephemeralContainerStatuses",
        ),
    ] {
        if items(spec, list).next().is_some() {
            text += &container::describe(title, pod, list, statuses, now);
        }
    }
    text += &conditions(spec, status);
    text += &volumes::describe(spec);
    if !string(status, "qosClass").is_empty() {
        text += &format!("QoS Class:\t{}\n", string(status, "qosClass"));
    }
    text + &pairs("Node-Selectors", &spec["nodeSelector"]) + &tolerations(spec)
}

fn state(metadata: &Value, status: &Value, now: &Zoned) -> String {
    let mut text = if metadata["deletionTimestamp"].is_null() {
        format!("Status:\t{}\n", string(status, "phase"))
    } else {
        format!(
            "Status:\tTerminating (lasts {})\nTermination Grace Period:\t{}s\n",
            since(&metadata["deletionTimestamp"], now),
            metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0),
        )
    };
    for (title, field) in [("Reason", "reason"), ("Message", "message")] {
        if !string(status, field).is_empty() {
            text += &format!("{title}:\t{}\n", string(status, field));
        }
    }
    text
}

fn addresses(status: &Value) -> String {
    let mut text = format!("IP:\t{}\n", string(status, "podIP"));
    if items(status, "podIPs").next().is_none() {
        return text + "IPs:\t<none>\n";
    }
    text += "IPs:\n";
    for address in items(status, "podIPs") {
        text += &format!("  IP:\t{}\n", string(address, "ip"));
    }
    text
}

fn conditions(spec: &Value, status: &Value) -> String {
    let mut text = String::new();
    let find = |kind: &str| items(status, "conditions").find(|condition| string(condition, "type") == kind);
    if items(spec, "readinessGates").next().is_some() {
        text += "Readiness Gates:\n  Type\tStatus\n";
        for gate in items(spec, "readinessGates") {
            let kind = string(gate, "conditionType");
            let status = find(kind).map_or("<none>", |condition| string(condition, "status"));
            text += &format!("  {kind} \t{status} \n");
        }
    }
    if items(status, "conditions").next().is_some() {
        text += "Conditions:\n  Type\tStatus\n";
        for condition in items(status, "conditions") {
            text += &format!("  {} \t{} \n", string(condition, "type"), string(condition, "status"));
        }
    }
    text
}

fn tolerations(spec: &Value) -> String {
    let mut tolerations: Vec<_> = items(spec, "tolerations").collect();
    if tolerations.is_empty() {
        return "Tolerations:\t<none>\n".to_owned();
    }
    tolerations.sort_by_key(|toleration| string(toleration, "key"));
    let lines: Vec<_> = tolerations.into_iter().map(toleration).collect();
    format!("Tolerations:\t{}\n", lines.join("\n\t"))
}

fn toleration(toleration: &Value) -> String {
    let mut text = string(toleration, "key").to_owned();
    let (value, effect) = (string(toleration, "value"), string(toleration, "effect"));
    if !value.is_empty() {
        text += &format!("={value}");
    }
    if !effect.is_empty() {
        text += &format!(":{effect}");
    }
    if string(toleration, "operator") == "Exists" && value.is_empty() {
        text += if text.is_empty() { "op=Exists" } else { " op=Exists" };
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text += &format!(" for {seconds}s");
    }
    text
}
