//! Which addresses there may be behind a Service or in front of it.

use std::net::IpAddr;

use crate::field::{FieldError, Path};

/// What is said of text that is no address.
pub(super) const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Adds what is wrong with the address of an endpoint or an external address. Those that mean something else on every
/// machine, as 127.0.0.1 does, would lead a client, or the API server as its proxy, to what is not theirs to reach.
pub(super) fn reachable(ip: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let Ok(address) = ip.parse::<IpAddr>() else {
        errors.push(FieldError::invalid(path, ip, NO_ADDRESS));
        return;
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    for (bad, detail) in [
        (address.is_unspecified(), format!("may not be unspecified ({ip})")),
        (
            address.is_loopback(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned(),
        ),
        (
            link_local,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned(),
        ),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ] {
        if bad {
            errors.push(FieldError::invalid(path, ip, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_machine_has_itself_is_nobodys_endpoint() {
        for (ip, want) in [
            ("10.9.8.7", None),
            ("2001:db8::1", None),
            ("0.0.0.0", Some("may not be unspecified (0.0.0.0)")),
            ("::", Some("may not be unspecified (::)")),
            (
                "127.8.0.1",
                Some("may not be in the loopback range (127.0.0.0/8, ::1/128)"),
            ),
            ("::1", Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")),
            (
                "169.254.169.254",
                Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
            ),
            (
                "fe80::1",
                Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
            ),
            (
                "224.0.0.251",
                Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
            ),
            (
                "ff02::fb",
                Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
            ),
            // As upstream: what is routed to many may be meant.
            ("239.1.2.3", None),
            ("10.9.8", Some(NO_ADDRESS)),
        ] {
            let mut errors = Vec::new();
            reachable(ip, &Path::new("ip"), &mut errors);
            let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let want: Vec<String> = want
                .into_iter()
                .map(|detail| format!("ip: Invalid value: \"{ip}\": {detail}"))
                .collect();
            assert_eq!(told, want);
        }
    }
}
