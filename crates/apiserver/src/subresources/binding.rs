//! `pods/binding`: a pod gets its node, once.

use api::{FieldError, Object, Path, Status, decode, meta, status};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};

use crate::{
    Body,
    answer::Answer,
    call::{Call, Outcome, read_object},
    query::WriteOptions,
    registry::modify::rewrite,
};

/// Binds the pod that the path names.
pub(super) async fn create(call: &Call<'_>, body: Body) -> Outcome {
    let (body, format) = read_object(call, body).await?;
    let WriteOptions { dry_run, validation } = call.query.write_options("CreateOptions")?;
    let (binding, warnings) = decode::body::<Binding>(&body, format, validation)?;
    let name = call.name()?;
    if binding.metadata.name.as_deref() != Some(name) {
        return Err(status::bad_request("name in URL does not match name in Binding object"));
    }
    validate(&binding, name)?;
    rewrite(call, dry_run, |object| bind(object, &binding, name)).await?;
    Ok(Answer::from(status::success(201)).warning(warnings))
}

fn validate(binding: &Binding, name: &str) -> Result<(), Status> {
    let target = Path::new("target");
    let mut errors = Vec::new();
    if let Some(kind) = binding
        .target
        .kind
        .as_deref()
        .filter(|kind| !matches!(*kind, "" | "Node"))
    {
        errors.push(FieldError::not_supported(
            &target.child("kind"),
            kind,
            &["Node", "<empty>"],
        ));
    }
    if binding.target.name.as_deref().is_none_or(str::is_empty) {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid("", "Binding", name, &errors))
    }
}

fn bind(object: &mut dyn Object, binding: &Binding, name: &str) -> Result<(), Status> {
    let conflict = |why: &str| status::conflict("", "pods/binding", name, why);
    let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() else {
        return Err(status::internal("the object is no pod"));
    };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if let Some(wanted) = binding
        .metadata
        .uid
        .as_deref()
        .filter(|wanted| !wanted.is_empty() && *wanted != uid)
    {
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        )));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(conflict(&format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        )));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Err(conflict(&format!("pod {name} is already assigned to node {node:?}")));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    spec.node_name.clone_from(&binding.target.name);
    if let Some(annotations) = &binding.metadata.annotations {
        pod.metadata
            .annotations
            .get_or_insert_default()
            .extend(annotations.clone());
    }
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let now = meta::time(Timestamp::now());
    match conditions
        .iter_mut()
        .find(|condition| condition.type_ == "PodScheduled")
    {
        Some(condition) if condition.status == "True" => {}
        Some(condition) => {
            condition.status = "True".into();
            condition.last_transition_time = Some(now);
            (condition.reason, condition.message) = (None, None);
            condition.observed_generation = generation;
        }
        None => conditions.push(PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            last_transition_time: Some(now),
            observed_generation: generation,
            ..PodCondition::default()
        }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use super::*;

    fn binding() -> Binding {
        serde_json::from_str(r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"one"}}"#).unwrap()
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod: Pod =
            serde_json::from_str(r#"{"metadata":{"name":"p","uid":"u"},"spec":{"containers":[]}}"#).unwrap();
        bind(&mut pod, &binding(), "p").unwrap();
        assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("one"));
        let condition = &pod.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
        assert_eq!((&*condition.type_, &*condition.status), ("PodScheduled", "True"));
        let again = bind(&mut pod, &binding(), "p").unwrap_err();
        assert_eq!(again.code(), 409);
        assert_eq!(
            again.message(),
            r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "one""#
        );
    }

    #[test]
    fn another_pod_of_the_same_name_is_not_bound() {
        let mut pod: Pod =
            serde_json::from_str(r#"{"metadata":{"name":"p","uid":"u"},"spec":{"containers":[]}}"#).unwrap();
        let mut wrong = binding();
        wrong.metadata.uid = Some("other".into());
        assert_eq!(bind(&mut pod, &wrong, "p").unwrap_err().code(), 409);
        wrong.target.kind = Some("Pod".into());
        wrong.target.name = None;
        let refused = validate(&wrong, "p").unwrap_err();
        assert_eq!(
            refused.message(),
            r#"Binding "p" is invalid: [target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>", target.name: Required value]"#
        );
    }
}
