//! RuntimeClass: a pod carries the overhead of its class and goes where the class runs.

use api::{Object, Status};
use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Pod, PodSpec},
    node::v1,
};

use super::{Attributes, Plugin};
use crate::registry::lookup;

pub(super) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates("pods")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut dyn Object) -> Result<(), Status> {
        let Some(spec) = object.as_any().downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref()) else {
            return Ok(());
        };
        let mut new = spec.clone();
        let applied = match spec.runtime_class_name.as_deref().filter(|name| !name.is_empty()) {
            None if spec.overhead.as_ref().is_some_and(|overhead| !overhead.is_empty()) => Err(String::from(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            None => return Ok(()),
            Some(name) => {
                let call = attributes.call;
                let classes = call.server.catalogue.find("node.k8s.io", "v1", "runtimeclasses");
                let found = match classes {
                    Some(classes) => lookup(&*call.server.store, classes, None, name).await?,
                    None => None,
                };
                match found
                    .as_ref()
                    .and_then(|found| found.as_any().downcast_ref::<v1::RuntimeClass>())
                {
                    Some(class) => apply(&mut new, class),
                    None => Err(format!("pod rejected: RuntimeClass {name:?} not found")),
                }
            }
        };
        if let Err(why) = applied {
            return Err(attributes.forbidden(object, &why));
        }
        if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
            pod.spec = Some(new);
        }
        Ok(())
    }
}

/// Puts what the class asks for into the pod's spec, or says what of it contradicts.
fn apply(spec: &mut PodSpec, class: &v1::RuntimeClass) -> Result<(), String> {
    let overhead = class.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.clone());
    if spec
        .overhead
        .as_ref()
        .is_some_and(|own| !own.is_empty() && Some(own) != overhead.as_ref())
    {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
    }
    if overhead.is_some() {
        spec.overhead = overhead;
    }
    let Some(scheduling) = &class.scheduling else {
        return Ok(());
    };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let own = spec.node_selector.get_or_insert_default();
        match own.get(key) {
            Some(given) if given != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
                ));
            }
            _ => {
                own.insert(key.clone(), value.clone());
            }
        }
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let own = spec.tolerations.get_or_insert_default();
        if !own.contains(toleration) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}
