//! Subresources: what is below an object and is not the object itself.

mod binding;
mod eviction;
mod nodes;
mod pod_proxy;
mod scale;
pub(crate) mod token;

use api::{Subresource, Verb, status};

use crate::{
    Body,
    call::{Call, Outcome},
    registry::{get, patch, update},
};

/// Whether a subresource's answers are somebody else's, and no matter of the forms that are negotiated here.
pub(crate) fn is_proxied(subresource: Option<&Subresource>) -> bool {
    subresource.is_some_and(|sub| matches!(sub.name, "log" | "exec" | "attach" | "portforward" | "proxy"))
}

/// Does what a call asks of a subresource.
pub(crate) async fn dispatch(call: &Call<'_>, body: Body) -> Outcome {
    let Some(subresource) = call.subresource else {
        return Err(status::no_such_resource());
    };
    call.name()?;
    let verb = match call.verb {
        "get" => Verb::Get,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        _ => return Err(status::unsupported_method()),
    };
    if !subresource.verbs.contains(&verb) {
        return Err(status::unsupported_method());
    }
    match (call.resource.storage, subresource.name, verb) {
        ("pods", "binding", Verb::Create) => binding::create(call, body).await,
        ("pods", "eviction", Verb::Create) => eviction::create(call, body).await,
        ("pods", "log", _) => pod_proxy::log(call).await,
        ("pods", "exec", _) => pod_proxy::exec(call, "exec").await,
        ("pods", "attach", _) => pod_proxy::exec(call, "attach").await,
        ("pods", "portforward", _) => pod_proxy::port_forward(call).await,
        ("pods", "proxy", _) => pod_proxy::proxy(call, body).await,
        ("services", "proxy", _) => pod_proxy::service_proxy(call, body).await,
        ("nodes", "proxy", _) => nodes::proxy(call, body).await,
        ("serviceaccounts", "token", Verb::Create) => token::create(call, body).await,
        (_, "scale", Verb::Get) => scale::get(call).await,
        (_, "scale", Verb::Update) => scale::update(call, body).await,
        (_, "scale", Verb::Patch) => scale::patch(call, body).await,
        // The others show the object itself, and say in their kind's rules what of it they may change.
        (_, _, Verb::Get) => get::get(call).await,
        (_, _, Verb::Update) => update::update(call, body).await,
        (_, _, Verb::Patch) => patch::patch(call, body).await,

        _ => Err(status::unsupported_method()),
    }
}
