//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe, SleepAction,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Errors, non_negative, refuse, required};
use crate::field::{FieldError, Path};
use crate::meta::names;

pub(super) fn lifecycle_and_probes(container: &Container, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    if let Some(lifecycle) = &container.lifecycle {
        self::lifecycle(lifecycle, spec, &path.child("lifecycle"), errors);
    }
    if let Some(probe) = &container.liveness_probe {
        let path = path.child("livenessProbe");
        self::probe(probe, &path, errors);
        one_success(probe, &path, errors);
    }
    if let Some(probe) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        self::probe(probe, &path, errors);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let detail = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                detail,
            ));
        }
    }
    if let Some(probe) = &container.startup_probe {
        let path = path.child("startupProbe");
        self::probe(probe, &path, errors);
        one_success(probe, &path, errors);
    }
}

fn one_success(probe: &Probe, path: &Path<'_>, errors: &mut Errors) {
    if let Some(threshold) = probe.success_threshold.filter(|threshold| *threshold != 1) {
        errors.push(FieldError::invalid(
            &path.child("successThreshold"),
            threshold,
            "must be 1",
        ));
    }
}

fn probe(probe: &Probe, path: &Path<'_>, errors: &mut Errors) {
    let handlers = Handlers {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handlers.check(None, path, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        non_negative(value.unwrap_or(0).into(), &path.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(
            &path.child("terminationGracePeriodSeconds"),
            seconds,
            detail,
        ));
    }
}

fn lifecycle(lifecycle: &Lifecycle, spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(LifecycleHandler {
            exec,
            http_get,
            sleep,
            tcp_socket,
        }) = hook
        {
            let handlers = Handlers {
                exec: exec.as_ref(),
                http_get: http_get.as_ref(),
                tcp_socket: tcp_socket.as_ref(),
                grpc: None,
                sleep: sleep.as_ref(),
            };
            handlers.check(spec.termination_grace_period_seconds, &path.child(field), errors);
        }
    }
    if let Some(signal) = &lifecycle.stop_signal {
        let path = path.child("stopSignal");
        match spec.os.as_ref().map(|os| os.name.as_str()).unwrap_or_default() {
            "" => {
                let detail = "may not be set for containers with empty `spec.os.name`";
                errors.push(FieldError::forbidden(&path, detail));
            }
            "windows" if !["SIGKILL", "SIGTERM"].contains(&signal.as_str()) => {
                errors.push(FieldError::not_supported(&path, signal, &["SIGKILL", "SIGTERM"]));
            }
            "windows" => {}
            _ if !is_linux_signal(signal) => errors.push(FieldError::not_supported(&path, signal, SIGNALS)),
            _ => {}
        }
    }
}

/// The signals that have a name on Linux, but for the real-time ones.
const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn is_linux_signal(signal: &str) -> bool {
    let offset = |rest: &str, max: u8| rest.parse::<u8>().is_ok_and(|n| (1..=max).contains(&n));
    SIGNALS.contains(&signal)
        || matches!(signal, "SIGRTMIN" | "SIGRTMAX")
        || signal.strip_prefix("SIGRTMIN+").is_some_and(|rest| offset(rest, 15))
        || signal.strip_prefix("SIGRTMAX-").is_some_and(|rest| offset(rest, 14))
}

/// What a probe or hook does: exactly one of these.
struct Handlers<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Handlers<'_> {
    fn check(&self, grace_seconds: Option<i64>, path: &Path<'_>, errors: &mut Errors) {
        let mut found = false;
        let mut first = |field: &str, errors: &mut Errors| {
            if found {
                errors.push(FieldError::forbidden(
                    &path.child(field),
                    "may not specify more than 1 handler type",
                ));
            }
            !std::mem::replace(&mut found, true)
        };
        if let Some(exec) = self.exec
            && first("exec", errors)
            && exec.command.as_deref().unwrap_or_default().is_empty()
        {
            errors.push(FieldError::required(&path.child("exec").child("command"), ""));
        }
        if let Some(http) = self.http_get
            && first("httpGet", errors)
        {
            http_get(http, &path.child("httpGet"), errors);
        }
        if let Some(tcp) = self.tcp_socket
            && first("tcpSocket", errors)
        {
            port(&tcp.port, &path.child("tcpSocket").child("port"), errors);
        }
        if let Some(grpc) = self.grpc
            && first("grpc", errors)
        {
            port(&IntOrString::Int(grpc.port), &path.child("grpc").child("port"), errors);
        }
        if let Some(sleep) = self.sleep
            && first("sleep", errors)
            && let Some(grace) = grace_seconds
            && !(0..=grace).contains(&sleep.seconds)
        {
            let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.push(FieldError::invalid(&path.child("sleep"), sleep.seconds, detail));
        }
        if !found {
            errors.push(FieldError::required(path, "must specify a handler type"));
        }
    }
}

fn http_get(http: &HTTPGetAction, path: &Path<'_>, errors: &mut Errors) {
    required(http.path.as_deref().unwrap_or_default(), &path.child("path"), errors);
    port(&http.port, &path.child("port"), errors);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.push(FieldError::not_supported(
            &path.child("scheme"),
            scheme,
            &["HTTP", "HTTPS"],
        ));
    }
    for header in http.http_headers.iter().flatten() {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if header.name.is_empty() || !header.name.bytes().all(fits) {
            errors.push(FieldError::invalid(
                &path.child("httpHeaders"),
                &header.name,
                "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            ));
        }
    }
}

/// Checks a port given by number or by a container port's name.
fn port(port: &IntOrString, path: &Path<'_>, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => refuse(errors, path, number, names::port_number(*number)),
        IntOrString::String(name) => refuse(errors, path, name, names::port_name(name)),
    }
}
