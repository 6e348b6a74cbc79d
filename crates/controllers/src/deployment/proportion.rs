//! Scaling in the middle of a rollout: each set takes a share of what is added or taken away, after its size.

use std::cmp::Ordering;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::sets;

/// The sizes that sets are to have, in their order.
pub fn sizes(deployment: &Deployment, members: &[&ReplicaSet]) -> Vec<i32> {
    let wished = sets::wished(deployment);
    let allowed = match wished {
        0 => 0,
        _ => wished + sets::max_surge(deployment),
    };
    let to_add = allowed - sets::sizes(members.iter().copied());
    // The largest first; of equals the newer when growing, the older when shrinking.
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (members[*a], members[*b]);
        let by_age = sets::age_order(a, b);
        let by_age = if to_add > 0 { by_age.reverse() } else { by_age };
        sets::size(b).cmp(&sets::size(a)).then(by_age)
    });
    let mut sizes: Vec<i32> = members.iter().map(|set| sets::size(set)).collect();
    let mut added = 0;
    for index in &order {
        let share = share(deployment, members[*index], to_add, added);
        sizes[*index] += share;
        added += share;
    }
    // What rounding has left goes to the largest.
    if let Some(largest) = order.first() {
        sizes[*largest] = (sizes[*largest] + to_add - added).max(0);
    }
    sizes
}

/// What one set takes of what is left of `to_add`.
fn share(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    let fraction = fraction(deployment, set);
    match to_add.cmp(&0) {
        Ordering::Greater => fraction.min(left),
        Ordering::Less => fraction.max(left),
        Ordering::Equal => 0,
    }
}

/// How much larger the set would be, were it to grow as the Deployment does.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let size = sets::size(set);
    if sets::wished(deployment) == 0 {
        return -size;
    }
    let now = sets::wished(deployment) + sets::max_surge(deployment);
    let status = deployment.status.as_ref();
    let before = sets::maximum(set).or_else(|| status.and_then(|status| status.replicas));
    let Some(before) = before.filter(|before| *before > 0) else {
        return 0;
    };
    let grown = (f64::from(size) * f64::from(now) / f64::from(before)).round();
    grown as i32 - size
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_follow_sizes() {
        // Sizes, what the Deployment could have before, what it wishes for now and may surge by, and the new sizes.
        for (before, could, wished, surge, after) in [
            (&[5, 5][..], 10, 20, 0, &[10, 10][..]),
            (&[8, 3], 11, 20, 1, &[15, 6]),
            (&[8, 3], 11, 5, 1, &[4, 2]),
            (&[4, 3, 3], 10, 4, 0, &[2, 1, 1]),
            (&[1, 1, 1], 3, 10, 0, &[4, 3, 3]),
            (&[5, 5], 10, 0, 0, &[0, 0]),
            (&[5, 5], 10, 10, 0, &[5, 5]),
            (&[100, 1], 101, 1, 0, &[1, 0]),
        ] {
            let deployment: Deployment = serde_json::from_value(json!({"spec": {
                "replicas": wished, "selector": {}, "template": {},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1}},
            }}))
            .unwrap();
            let members: Vec<ReplicaSet> = before
                .iter()
                .enumerate()
                .map(|(n, size)| {
                    serde_json::from_value(json!({
                        "metadata": {
                            "name": format!("s{n}"), "creationTimestamp": format!("2026-01-01T00:00:0{}Z", 9 - n),
                            "annotations": {"deployment.kubernetes.io/max-replicas": could.to_string()},
                        },
                        "spec": {"replicas": size, "selector": {}},
                    }))
                    .unwrap()
                })
                .collect();
            let members: Vec<&ReplicaSet> = members.iter().collect();
            assert_eq!(
                sizes(&deployment, &members),
                after,
                "{before:?} of {could} for {wished}+{surge}"
            );
        }
    }
}
