//! Who asks, and whether they may.

use http::Method;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who may use the port.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Users, by the common name of their certificate.
    pub users: Vec<String>,
    /// Groups, by the organizations of their members' certificates.
    pub groups: Vec<String>,
}

impl Default for Allowed {
    /// The API server and the cluster's masters.
    fn default() -> Self {
        Allowed {
            users: vec!["kube-apiserver-kubelet-client".to_owned()],
            groups: vec!["system:masters".to_owned()],
        }
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) groups: Vec<String>,
}

impl Caller {
    /// Reads the subject of a certificate (DER) that TLS has verified.
    pub(super) fn of(certificate: &[u8]) -> Option<Caller> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        Some(Caller {
            user: subject.iter_common_name().next()?.as_str().ok()?.to_owned(),
            groups: subject
                .iter_organization()
                .filter_map(|name| name.as_str().ok())
                .map(str::to_owned)
                .collect(),
        })
    }

    /// Whether the caller may send a request; if not, what they are told.
    pub(super) fn authorize(&self, allowed: &Allowed, method: &Method) -> Result<(), String> {
        if allowed.users.contains(&self.user) || self.groups.iter().any(|group| allowed.groups.contains(group)) {
            return Ok(());
        }
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        Err(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource=[proxy])",
            self.user
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may() {
        let caller = |user: &str, groups: &[&str]| Caller {
            user: user.to_owned(),
            groups: groups.iter().map(|group| group.to_string()).collect(),
        };
        for (caller, verdict) in [
            (caller("kube-apiserver-kubelet-client", &[]), Ok(())),
            (caller("kubernetes-admin", &["system:masters"]), Ok(())),
            (
                caller("system:node:n1", &["system:nodes"]),
                Err("Forbidden (user=system:node:n1, verb=create, resource=nodes, subresource=[proxy])".to_owned()),
            ),
        ] {
            assert_eq!(caller.authorize(&Allowed::default(), &Method::POST), verdict);
        }
    }
}
