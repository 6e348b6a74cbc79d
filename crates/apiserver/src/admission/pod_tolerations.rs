//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable, unless it says
//! otherwise.

use api::{Object, Status};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::{Attributes, Plugin};

const SECONDS: i64 = 300;
const TAINTS: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates("pods")
    }

    async fn mutate(&self, _attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        if let Some(spec) = object
            .as_any_mut()
            .downcast_mut::<Pod>()
            .and_then(|pod| pod.spec.as_mut())
        {
            add_missing(spec.tolerations.get_or_insert_default());
        }
        Ok(())
    }
}

fn add_missing(tolerations: &mut Vec<Toleration>) {
    for taint in TAINTS {
        let tolerated = tolerations.iter().any(|toleration| {
            toleration
                .key
                .as_deref()
                .is_none_or(|key| key.is_empty() || key == *taint)
                && toleration
                    .effect
                    .as_deref()
                    .is_none_or(|effect| effect.is_empty() || effect == "NoExecute")
        });
        if !tolerated {
            tolerations.push(Toleration {
                key: Some((*taint).into()),
                operator: Some("Exists".into()),
                effect: Some("NoExecute".into()),
                toleration_seconds: Some(SECONDS),
                ..Toleration::default()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: Option<&str>, effect: Option<&str>) -> Toleration {
        Toleration {
            key: key.map(Into::into),
            effect: effect.map(Into::into),
            ..Toleration::default()
        }
    }

    #[test]
    fn only_what_is_not_tolerated_is_added() {
        for (given, count) in [
            (vec![], 2),
            (vec![toleration(None, None)], 1),
            (vec![toleration(Some(TAINTS[0]), None)], 2),
            (vec![toleration(Some(TAINTS[0]), Some("NoSchedule"))], 3),
            (vec![toleration(Some("other"), Some("NoExecute"))], 3),
        ] {
            let mut tolerations = given.clone();
            add_missing(&mut tolerations);
            assert_eq!(tolerations.len(), count, "{given:?}");
        }
    }
}
