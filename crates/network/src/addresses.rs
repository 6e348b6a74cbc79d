//! Which address is next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::{Error, Result};

/// Reads a range such as `10.244.0.0/24`; host bits are cleared.
pub(crate) fn range(text: &str) -> Result<IpNet> {
    let range = text
        .trim()
        .parse::<IpNet>()
        .map_err(|_| Error::Range { given: text.into() })?;
    Ok(range.trunc())
}

/// The same for the one family that pods and Services have.
pub(crate) fn range_v4(text: &str) -> Result<Ipv4Net> {
    match range(text)? {
        IpNet::V4(range) => Ok(range),
        IpNet::V6(_) => Err(Error::Family { given: text.into() }),
    }
}

/// The next free address after the one given out last, round and round: an address just freed comes last, so
/// that what still talks to its old owner does not reach the new one.
pub(crate) fn next(range: IpNet, last: Option<IpAddr>, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let (low, high) = bounds(range);
    let start = match last.filter(|last| range.contains(last)).map(number) {
        Some(last) if last < high => last.max(low.saturating_sub(1)) + 1,
        _ => low,
    };
    let address = |number| match range {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    };
    (start..=high)
        .chain(low..start)
        .map(address)
        .find(|address| !taken(*address))
}

/// The first and last address to give out: neither the range's own nor its broadcast address, which other
/// machines may take for something else.
fn bounds(range: IpNet) -> (u128, u128) {
    let (first, last) = (number(range.network()), number(range.broadcast()));
    if last - first < 2 {
        (first, last)
    } else {
        (first + 1, last - 1)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "the cases are well-formed")]
    use super::*;

    #[test]
    fn the_next_address_is_the_first_free_one_after_the_last() {
        for (cidr, last, taken, expected) in [
            ("10.244.0.0/24", None, "", Some("10.244.0.1")),
            ("10.244.0.0/24", Some("10.244.0.1"), "10.244.0.1", Some("10.244.0.2")),
            ("10.244.0.0/24", Some("10.244.0.7"), "", Some("10.244.0.8")),
            ("10.244.0.0/24", Some("10.244.0.254"), "", Some("10.244.0.1")),
            ("10.244.0.0/24", Some("10.244.0.255"), "", Some("10.244.0.1")),
            ("10.244.0.0/24", Some("10.244.0.0"), "", Some("10.244.0.1")),
            (
                "10.244.0.0/24",
                Some("10.244.0.253"),
                "10.244.0.254 10.244.0.1",
                Some("10.244.0.2"),
            ),
            ("10.244.1.0/24", Some("10.244.0.9"), "", Some("10.244.1.1")),
            ("10.0.0.0/30", Some("10.0.0.2"), "10.0.0.2", Some("10.0.0.1")),
            ("10.0.0.0/30", None, "10.0.0.1 10.0.0.2", None),
            ("10.0.0.6/31", None, "10.0.0.6", Some("10.0.0.7")),
            ("10.0.0.6/32", None, "", Some("10.0.0.6")),
            ("10.0.0.6/32", Some("10.0.0.6"), "10.0.0.6", None),
            ("0.0.0.0/0", Some("255.255.255.254"), "", Some("0.0.0.1")),
            ("fd00::/64", Some("fd00::1"), "fd00::2", Some("fd00::3")),
            ("fd00::/64", Some("10.0.0.1"), "", Some("fd00::1")),
        ] {
            let taken: Vec<IpAddr> = taken.split_whitespace().map(|a| a.parse().unwrap()).collect();
            let last = last.map(|last| last.parse().unwrap());
            let found = next(range(cidr).unwrap(), last, |address| taken.contains(&address));
            assert_eq!(
                found,
                expected.map(|e| e.parse().unwrap()),
                "{cidr} after {last:?}, taken {taken:?}"
            );
        }
    }

    #[test]
    fn a_freed_address_is_used_last() {
        let cidr = range("10.0.0.0/29").unwrap();
        let mut last = None;
        let given: Vec<String> = (0..8)
            .map(|_| {
                last = next(cidr, last, |_| false);
                last.unwrap().to_string()
            })
            .collect();
        assert_eq!(
            given.join(" "),
            "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.1 10.0.0.2"
        );
    }

    #[test]
    fn a_range_is_read_or_refused() {
        assert_eq!(range(" 10.244.3.7/24 ").unwrap().to_string(), "10.244.3.0/24");
        for given in ["", "10.244.0.0", "10.244.0.0/33", "10.244.0/24", "pods"] {
            let error = range(given).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{given:?} is not a range of addresses such as 10.244.0.0/24")
            );
        }
    }
}
