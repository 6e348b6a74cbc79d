//! One container of a pod: what it runs, how it fares, what it is given.

use api::quantity::Quantity;
use jiff::Zoned;
use serde_json::Value;

use super::text::{boolean, date, items, plain, quantities, string};

/// The containers of one list of the pod, with their statuses.
pub fn describe(title: &str, pod: &Value, list: &str, statuses: &str, now: &Zoned) -> String {
    let mut text = format!("{title}:\n");
    for container in items(&pod["spec"], list) {
        let name = string(container, "name");
        let status = items(&pod["status"], statuses).find(|status| string(status, "name") == name);
        text += &format!("  {name}:\n");
        for line in one(pod, container, status, now) {
            text += &format!("    {line}\n");
        }
    }
    text
}

/// The lines about a container. A message of its own may have line breaks in it, and is one line here.
fn one(pod: &Value, container: &Value, status: Option<&Value>, now: &Zoned) -> Vec<String> {
    let mut lines = Vec::new();
    let block = |lines: &mut Vec<String>, text: String| lines.extend(text.lines().map(str::to_owned));
    if let Some(status) = status {
        lines.push(format!("Container ID:\t{}", string(status, "containerID")));
    }
    lines.push(format!("Image:\t{}", string(container, "image")));
    if let Some(status) = status {
        lines.push(format!("Image ID:\t{}", string(status, "imageID")));
    }
    block(&mut lines, ports(container));
    block(&mut lines, seccomp(&container["securityContext"]));
    block(&mut lines, command("Command", container, "command"));
    block(&mut lines, command("Args", container, "args"));
    if let Some(status) = status {
        lines.extend(state("State", &status["state"], now));
        if status["lastState"]["terminated"].is_object() {
            lines.extend(state("Last State", &status["lastState"], now));
        }
        lines.push(format!("Ready:\t{}", boolean(&status["ready"])));
        lines.push(format!(
            "Restart Count:\t{}",
            status["restartCount"].as_i64().unwrap_or(0)
        ));
    }
    let resources = &container["resources"];
    block(&mut lines, quantities("Limits", "", &resources["limits"]));
    block(&mut lines, quantities("Requests", "", &resources["requests"]));
    for (title, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        if let Some(probe) = container.get(field).filter(|probe| probe.is_object()) {
            lines.push(format!("{title}:\t{}", self::probe(probe)));
        }
    }
    block(&mut lines, environment(pod, container));
    block(&mut lines, mounts(container));
    lines
}

fn ports(container: &Value) -> String {
    let list = |number: &str| {
        let all: Vec<_> = items(container, "ports")
            .map(|port| {
                let protocol = string(port, "protocol");
                let number = port[number].as_i64().unwrap_or(0);
                match string(port, "name") {
                    "" => format!("{number}/{protocol}"),
                    name => format!("{number}/{protocol} ({name})"),
                }
            })
            .collect();
        if all.is_empty() {
            "<none>".to_owned()
        } else {
            all.join(", ")
        }
    };
    let plural = if items(container, "ports").count() > 1 { "s" } else { "" };
    format!(
        "Port{plural}:\t{}\nHost Port{plural}:\t{}\n",
        list("containerPort"),
        list("hostPort")
    )
}

/// The seccomp profile of a security context, when it has one.
pub fn seccomp(context: &Value) -> String {
    let profile = &context["seccompProfile"];
    match string(profile, "type") {
        "" => String::new(),
        "Localhost" => format!(
            "SeccompProfile:\tLocalhost\nLocalhostProfile:\t{}\n",
            string(profile, "localhostProfile")
        ),
        kind => format!("SeccompProfile:\t{kind}\n"),
    }
}

fn command(title: &str, container: &Value, field: &str) -> String {
    let words: Vec<_> = items(container, field).collect();
    if words.is_empty() {
        return String::new();
    }
    let mut text = format!("{title}:\n");
    for line in words
        .iter()
        .flat_map(|word| word.as_str().unwrap_or_default().split('\n'))
    {
        text += &format!("  {line}\n");
    }
    text
}

fn state(title: &str, state: &Value, now: &Zoned) -> Vec<String> {
    if let Some(running) = state.get("running") {
        return vec![
            format!("{title}:\tRunning"),
            format!("  Started:\t{}", date(&running["startedAt"], now)),
        ];
    }
    if let Some(ended) = state.get("terminated") {
        let mut lines = vec![format!("{title}:\tTerminated")];
        for (title, field) in [("Reason", "reason"), ("Message", "message")] {
            if !string(ended, field).is_empty() {
                lines.push(format!("  {title}:\t{}", string(ended, field)));
            }
        }
        lines.push(format!("  Exit Code:\t{}", ended["exitCode"].as_i64().unwrap_or(0)));
        if let Some(signal) = ended["signal"].as_i64().filter(|signal| *signal > 0) {
            lines.push(format!("  Signal:\t{signal}"));
        }
        lines.push(format!("  Started:\t{}", date(&ended["startedAt"], now)));
        lines.push(format!("  Finished:\t{}", date(&ended["finishedAt"], now)));
        return lines;
    }
    let mut lines = vec![format!("{title}:\tWaiting")];
    let reason = string(&state["waiting"], "reason");
    if !reason.is_empty() {
        lines.push(format!("  Reason:\t{reason}"));
    }
    lines
}

fn probe(probe: &Value) -> String {
    let number = |field: &str| probe[field].as_i64().unwrap_or(0);
    let times = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds"),
        number("timeoutSeconds"),
        number("periodSeconds"),
        number("successThreshold"),
        number("failureThreshold"),
    );
    if let Some(exec) = probe.get("exec") {
        let words: Vec<_> = items(exec, "command").map(plain).collect();
        return format!("exec [{}] {times}", words.join(" "));
    }
    if let Some(http) = probe.get("httpGet") {
        let port = plain(&http["port"]);
        let port = if port.is_empty() { port } else { format!(":{port}") };
        let (scheme, host) = (string(http, "scheme").to_lowercase(), string(http, "host"));
        let path = string(http, "path");
        let slash = if path.starts_with('/') { "" } else { "/" };
        return format!("http-get {scheme}://{host}{port}{slash}{path} {times}");
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return format!("tcp-socket {}:{} {times}", string(tcp, "host"), plain(&tcp["port"]));
    }
    if let Some(grpc) = probe.get("grpc") {
        return format!(
            "grpc <pod>:{} {} {times}",
            plain(&grpc["port"]),
            string(grpc, "service")
        );
    }
    format!("unknown {times}")
}

fn environment(pod: &Value, container: &Value) -> String {
    let mut text = String::new();
    if items(container, "envFrom").next().is_some() {
        text += "Environment Variables from:\n";
        for source in items(container, "envFrom") {
            let (kind, from) = match source.get("configMapRef") {
                Some(map) => ("ConfigMap", map),
                None => ("Secret", &source["secretRef"]),
            };
            let prefix = match string(source, "prefix") {
                "" => String::new(),
                prefix => format!(" with prefix '{prefix}'"),
            };
            let optional = from["optional"].as_bool().unwrap_or(false);
            text += &format!("  {}\t{kind}{prefix}\tOptional: {optional}\n", string(from, "name"));
        }
    }
    if items(container, "env").next().is_none() {
        return text + "Environment:\t<none>\n";
    }
    text += "Environment:\n";
    for variable in items(container, "env") {
        let name = string(variable, "name");
        let from = &variable["valueFrom"];
        let optional = |reference: &Value| reference["optional"].as_bool().unwrap_or(false);
        if let Some(field) = from.get("fieldRef") {
            let path = string(field, "fieldPath");
            let version = field.get("apiVersion").map_or("v1".to_owned(), plain);
            text += &format!("  {name}:\t{} ({version}:{path})\n", field_of(pod, path));
        } else if let Some(resource) = from.get("resourceFieldRef") {
            let of = string(resource, "resource");
            text += &format!("  {name}:\t{} ({of})\n", resource_of(container, resource));
        } else if let Some(secret) = from.get("secretKeyRef") {
            text += &format!(
                "  {name}:\t<set to the key '{}' in secret '{}'>\tOptional: {}\n",
                string(secret, "key"),
                string(secret, "name"),
                optional(secret)
            );
        } else if let Some(map) = from.get("configMapKeyRef") {
            text += &format!(
                "  {name}:\t<set to the key '{}' of config map '{}'>\tOptional: {}\n",
                string(map, "key"),
                string(map, "name"),
                optional(map)
            );
        } else if from.is_null() {
            let lines: Vec<_> = string(variable, "value").split('\n').collect();
            text += &format!("  {name}:\t{}\n", lines.join("\n  \t"));
        }
    }
    text
}

/// Only what the metadata says is known here; the rest is known where the container runs.
fn field_of(pod: &Value, path: &str) -> String {
    let metadata = &pod["metadata"];
    match path {
        "metadata.name" => string(metadata, "name").to_owned(),
        "metadata.namespace" => string(metadata, "namespace").to_owned(),
        "metadata.uid" => string(metadata, "uid").to_owned(),
        _ => {
            let key = |list: &str| {
                let key = path.strip_prefix(&format!("metadata.{list}['"))?.strip_suffix("']")?;
                metadata[list][key].as_str()
            };
            key("labels")
                .or_else(|| key("annotations"))
                .unwrap_or_default()
                .to_owned()
        }
    }
}

/// A limit or request in units of the divisor, rounded up.
fn resource_of(container: &Value, reference: &Value) -> String {
    let resource = string(reference, "resource");
    let (list, name) = resource.split_once('.').unwrap_or_default();
    let quantity = |value: &Value| plain(value).parse::<Quantity>().ok();
    let amount = quantity(&container["resources"][list][name]).map_or(0, |amount| amount.millis());
    let divisor = quantity(&reference["divisor"]).map_or(1000, |divisor| divisor.millis());
    let divisor = if divisor == 0 { 1000 } else { divisor };
    let value = (amount + divisor - 1) / divisor;
    if value == 0 && matches!(resource, "limits.cpu" | "limits.memory") {
        "node allocatable".to_owned()
    } else {
        value.to_string()
    }
}

fn mounts(container: &Value) -> String {
    let mut mounts: Vec<_> = items(container, "volumeMounts").collect();
    if mounts.is_empty() {
        return "Mounts:\t<none>\n".to_owned();
    }
    mounts.sort_by_key(|mount| string(mount, "mountPath"));
    let mut text = "Mounts:\n".to_owned();
    for mount in mounts {
        let mode = if mount["readOnly"].as_bool().unwrap_or(false) {
            "ro"
        } else {
            "rw"
        };
        let path = match string(mount, "subPath") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        text += &format!(
            "  {} from {} ({mode}{path})\n",
            string(mount, "mountPath"),
            string(mount, "name")
        );
    }
    text
}
