//! The walk of a request, from top to bottom:
//!
//! request → who → as whom → audit → may → what → (decode, default → mutate → validate → admit → store) → bytes.
//!
//! Who asks is found here for connections, and known already for clients in this process. The steps in brackets
//! are those of writes; they stand in this order in `registry::create` and `registry::modify`.

use std::sync::Arc;

use api::{Status, Verb, status};
use http::{HeaderMap, Method, Request, Response};
use jiff::Timestamp;

use crate::{
    Body, Identity,
    authn::{Bearer, Peer},
    authz::{Action, refusal},
    call::{Call, Outcome},
    documents, impersonation,
    negotiate::{Accept, wants_pretty},
    query::Query,
    registry::{create, delete, get, list, patch, update, watch},
    render,
    request_info::{ResourcePath, Target},
    reviews,
    server::Server,
    subresources,
};

/// Who asks: by the connection's certificate, else by a token, else nobody known. A credential that proves
/// nothing is refused.
pub(crate) async fn identify(server: &Server, peer: &Peer, headers: &HeaderMap) -> Result<Identity, Status> {
    if let Ok(Some(identity)) = peer {
        return Ok(identity.clone());
    }
    match server.authenticator.bearer(headers) {
        Bearer::Known(identity) => Ok(identity),
        Bearer::Other(token) => {
            let own = std::slice::from_ref(&server.authenticator.service_accounts.issuer);
            let found = subresources::token::identify(server, token, own, Timestamp::now()).await?;
            found.map(|(identity, _)| identity).ok_or_else(status::unauthorized)
        }
        Bearer::None if peer.is_err() => Err(status::unauthorized()),
        Bearer::None => Ok(Identity::anonymous()),
    }
}

/// Answers a request of a known identity.
pub(crate) async fn walk(server: &Arc<Server>, request: Request<Body>, identity: &Identity) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let accept = Accept::negotiate(&parts.headers, wants_pretty(&parts.headers, &query));
    // Errors are shown in the client's form, or in JSON when that is none that there is.
    let shown = accept.as_ref().copied().unwrap_or(Accept::plain());
    let acting = match impersonation::take(&mut parts.headers, identity, &*server.authorizer) {
        Ok(acting) => acting,
        Err(failure) => return render::failure(&failure, shown).await,
    };
    let identity = acting.as_ref().unwrap_or(identity);
    let path = parts.uri.path();
    tracing::trace!(method = %parts.method, path, user = %identity.user, "request");

    let target = match Target::parse(path) {
        Target::Resource(target) => target,
        Target::Other => {
            let verb = parts.method.as_str().to_ascii_lowercase();
            let action = Action::Path {
                verb: if verb == "head" { "get" } else { &verb },
                path,
            };
            if !server.authorizer.allows(identity, action) {
                return render::failure(&refusal(identity, action), shown).await;
            }
            return documents::answer(server, &parts, accept).await;
        }
    };

    let verb = target.verb(&parts.method, &query);
    // Reading logs and sessions has no verb of its own: a GET is `get`, a POST `create`.
    let action = Action::Resource {
        verb,
        group: &target.group,
        resource: &target.resource,
        subresource: target.subresource.as_deref(),
        namespace: target.namespace.as_deref(),
        name: target.name.as_deref(),
    };
    if !server.authorizer.allows(identity, action) {
        return render::failure(&refusal(identity, action), shown).await;
    }

    if documents::are_custom_resources(&target) && verb == "list" {
        return documents::no_custom_resources(shown).await;
    }
    let (resource, subresource) = match find(server, &target) {
        Ok(found) => found,
        Err(failure) => return render::failure(&failure, shown).await,
    };
    let call = Call {
        server,
        resource,
        subresource,
        namespace: target.namespace.as_deref().filter(|_| resource.namespaced),
        name: target.name.as_deref(),
        rest: &target.rest,
        verb,
        parts: &parts,
        query: &query,
        accept: shown,
        identity,
    };
    let outcome = match accept {
        // A session or another's answer is none of the forms that are negotiated here.
        Err(failure) if !subresources::is_proxied(subresource) => Err(failure),
        _ => dispatch(&call, body).await,
    };
    match outcome {
        Ok(answer) => render::resource(&call, answer).await,
        Err(failure) => render::failure(&failure, shown).await,
    }
}

type Found = (&'static api::Resource, Option<&'static api::Subresource>);

/// The resource and subresource that a path names.
fn find(server: &Server, target: &ResourcePath) -> Result<Found, Status> {
    let resource = server
        .catalogue
        .find(&target.group, &target.version, &target.resource)
        .ok_or_else(status::no_such_resource)?;
    // `namespaces` is the one kind whose own path looks like that of something in a namespace.
    let own_name = resource.storage == "namespaces";
    if !resource.namespaced && target.namespace.is_some() && !own_name {
        return Err(status::no_such_resource());
    }
    let subresource = match &target.subresource {
        None => None,
        Some(name) => Some(resource.subresource(name).ok_or_else(status::no_such_resource)?),
    };
    // Only a list of all namespaces, and a creation that then names none, go without a namespace.
    if resource.namespaced && target.namespace.is_none() && target.name.is_some() {
        return Err(status::no_such_resource());
    }
    // A slash that was hidden by its encoding would lead to another object's key.
    let hides = |text: &Option<String>| {
        text.as_deref()
            .is_some_and(|text| text.contains('/') || text.contains('\0'))
    };
    if hides(&target.name) || hides(&target.namespace) {
        return Err(status::not_found(
            resource.group,
            resource.plural,
            target.name.as_deref().unwrap_or_default(),
        ));
    }
    Ok((resource, subresource))
}

async fn dispatch(call: &Call<'_>, body: Body) -> Outcome {
    if call.subresource.is_some() {
        return subresources::dispatch(call, body).await;
    }
    let verb = match call.verb {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        _ => Verb::DeleteCollection,
    };
    let known = matches!(
        call.parts.method,
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    );
    if !known || !call.resource.allows(verb) {
        return Err(status::unsupported_method());
    }
    match verb {
        Verb::Get => get::get(call).await,
        Verb::List => list::list(call).await,
        Verb::Watch => watch::watch(call).await,
        // A review is answered and not kept.
        Verb::Create if call.resource.storage.is_empty() => reviews::create(call, body).await,
        Verb::Create => create::create(call, body).await,
        Verb::Update => update::update(call, body).await,
        Verb::Patch => patch::patch(call, body).await,
        Verb::Delete => delete::delete(call, body).await,
        Verb::DeleteCollection => delete::delete_collection(call, body).await,
    }
}
