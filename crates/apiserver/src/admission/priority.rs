//! Priority: a pod's priority is that of its PriorityClass, and one class at most is that of pods that name none.

use api::{Object, Status, kinds::priority_class, status};
use async_trait::async_trait;
use k8s_openapi::api::{core::v1::Pod, scheduling::v1::PriorityClass};
use store::ListOptions;

use super::{Attributes, Operation, Plugin};
use crate::{
    call::Call,
    registry::{lookup, prefix, store_error},
};

pub(super) struct Priority;

/// The system's own classes are never deleted.
fn may_go(name: &str) -> Result<(), Status> {
    if priority_class::system()
        .iter()
        .any(|class| class.metadata.name.as_deref() == Some(name))
    {
        let why = "this is a system priority class and cannot be deleted";
        return Err(status::forbidden("scheduling.k8s.io", "priorityclasses", name, why));
    }
    Ok(())
}

#[async_trait]
impl Plugin for Priority {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates("pods") || attributes.call.resource.storage == "priorityclasses"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<(), Status> {
        if attributes.operation == Operation::Delete {
            return may_go(attributes.call.name.unwrap_or_default());
        }
        let Some(class) = object.and_then(|object| object.as_any().downcast_ref::<PriorityClass>()) else {
            return Ok(());
        };
        if class.global_default != Some(true) {
            return Ok(());
        }
        match default_class(attributes.call).await? {
            Some(default) if default.metadata.name != class.metadata.name => {
                let name = default.metadata.name.unwrap_or_default();
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(attributes.forbidden(class, &why))
            }
            _ => Ok(()),
        }
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let Some(spec) = object.as_any().downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref()) else {
            return Ok(());
        };
        let named = spec.priority_class_name.clone().filter(|name| !name.is_empty());
        let class = match &named {
            None => default_class(attributes.call).await?,
            Some(name) => match class(attributes.call, name).await? {
                Some(class) => Some(class),
                None => {
                    let why = format!("no PriorityClass with name {name} was found");
                    return Err(attributes.forbidden(object, &why));
                }
            },
        };
        match resolve(spec.priority, spec.preemption_policy.as_deref(), class.as_ref()) {
            Err(why) => Err(attributes.forbidden(object, &why)),
            Ok((priority, policy)) => {
                if let Some(spec) = object
                    .as_any_mut()
                    .downcast_mut::<Pod>()
                    .and_then(|pod| pod.spec.as_mut())
                {
                    spec.priority = Some(priority);
                    spec.preemption_policy = Some(policy);
                    spec.priority_class_name = class.and_then(|class| class.metadata.name).or(named);
                }
                Ok(())
            }
        }
    }
}

/// Priority and preemption policy, or why what the pod itself says of them can not be.
fn resolve(
    priority: Option<i32>,
    policy: Option<&str>,
    class: Option<&PriorityClass>,
) -> Result<(i32, String), String> {
    let computed = class.and_then(|class| class.value).unwrap_or(0);
    if let Some(given) = priority.filter(|given| *given != computed) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {computed} from the given PriorityClass name"
        ));
    }
    let computed_policy = class
        .and_then(|class| class.preemption_policy.as_deref())
        .unwrap_or("PreemptLowerPriority");
    if let Some(given) = policy.filter(|given| *given != computed_policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {computed_policy} from the given PriorityClass name"
        ));
    }
    Ok((computed, computed_policy.to_owned()))
}

async fn class(call: &Call<'_>, name: &str) -> Result<Option<PriorityClass>, Status> {
    let Some(classes) = call.server.catalogue.find("scheduling.k8s.io", "v1", "priorityclasses") else {
        return Ok(None);
    };
    let found = lookup(&*call.server.store, classes, None, name).await?;
    Ok(found.and_then(|found| found.as_any().downcast_ref::<PriorityClass>().cloned()))
}

/// The class of pods that name none: of several that claim to be it, the one of lowest value.
async fn default_class(call: &Call<'_>) -> Result<Option<PriorityClass>, Status> {
    let Some(classes) = call.server.catalogue.find("scheduling.k8s.io", "v1", "priorityclasses") else {
        return Ok(None);
    };
    let listing = call
        .server
        .store
        .list(&prefix(classes, None), ListOptions::default())
        .await
        .map_err(store_error)?;
    let mut default: Option<PriorityClass> = None;
    for entry in &listing.entries {
        let object = classes.strategy.load(&entry.value)?;
        if let Some(class) = object.as_any().downcast_ref::<PriorityClass>()
            && class.global_default == Some(true)
            && default.as_ref().is_none_or(|lowest| class.value < lowest.value)
        {
            default = Some(class.clone());
        }
    }
    Ok(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_own_numbers_have_to_be_its_classs() {
        let class = PriorityClass {
            value: Some(7),
            preemption_policy: Some("Never".into()),
            ..PriorityClass::default()
        };
        assert_eq!(resolve(None, None, None), Ok((0, "PreemptLowerPriority".into())));
        assert_eq!(resolve(Some(0), None, None), Ok((0, "PreemptLowerPriority".into())));
        assert_eq!(resolve(None, None, Some(&class)), Ok((7, "Never".into())));
        assert_eq!(resolve(Some(7), Some("Never"), Some(&class)), Ok((7, "Never".into())));
        assert_eq!(
            resolve(Some(5), None, None),
            Err("the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name".into())
        );
        assert!(resolve(None, Some("Never"), None).is_err());
    }
}
