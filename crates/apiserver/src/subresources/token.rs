//! `serviceaccounts/token`: tokens for ServiceAccounts, and what a token that comes back says.

use std::time::Duration;

use api::{FieldError, Object, Path, Status, decode, meta, status};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    Body, Identity,
    answer::{Answer, Content},
    authn::service_account::{Bound, Claims, Reference},
    call::{Call, Outcome, read_object},
    identity::service_account_groups,
    query::WriteOptions,
    registry::{current, lookup},
    server::Server,
};

const DEFAULT_SECONDS: i64 = 60 * 60;
const LEAST_SECONDS: i64 = 10 * 60;
const MOST_SECONDS: i64 = 1 << 32;

/// How long the token of a deleted object is good yet: what it is bound to may need it to end in order.
const AFTER_DELETION: Duration = Duration::from_secs(60);

/// Who a ServiceAccount's token stands for, and for whom of the audiences it is; none when it proves nothing, or what
/// it is bound to is gone.
pub(crate) async fn identify(
    server: &Server,
    token: &str,
    audiences: &[String],
    now: Timestamp,
) -> Result<Option<(Identity, Vec<String>)>, Status> {
    let tokens = &server.authenticator.service_accounts;
    let Some(claims) = tokens.verify(token, audiences, now.as_second()) else {
        return Ok(None);
    };
    let bound = &claims.bound;
    let references = [
        ("serviceaccounts", Some(&bound.serviceaccount)),
        ("pods", bound.pod.as_ref()),
        ("secrets", bound.secret.as_ref()),
        // The node that a pod's token names is only told.
        ("nodes", bound.node.as_ref().filter(|_| bound.pod.is_none())),
    ];
    for (plural, reference) in references {
        let Some(reference) = reference else { continue };
        if !is_there(server, plural, &bound.namespace, reference, now).await? {
            return Ok(None);
        }
    }
    let mut identity = Identity::authenticated(&claims.sub, service_account_groups(&bound.namespace));
    identity.uid = bound.serviceaccount.uid.as_str().into();
    let mut extra = vec![("credential-id", format!("JTI={}", claims.jti))];
    for (kind, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(reference) = reference {
            let [name, uid] = match kind {
                "pod" => ["pod-name", "pod-uid"],
                _ => ["node-name", "node-uid"],
            };
            extra.extend([(name, reference.name.clone()), (uid, reference.uid.clone())]);
        }
    }
    let extra = extra.into_iter();
    let extra = extra.map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![value]));
    identity.extra = std::sync::Arc::new(extra.collect());
    let audiences = audiences.iter().filter(|audience| claims.aud.contains(audience));
    Ok(Some((identity, audiences.cloned().collect())))
}

async fn is_there(
    server: &Server,
    plural: &str,
    namespace: &str,
    wanted: &Reference,
    now: Timestamp,
) -> Result<bool, Status> {
    let Some(resource) = server.catalogue.find("", "v1", plural) else {
        return Ok(false);
    };
    let found = lookup(&*server.store, resource, Some(namespace), &wanted.name).await?;
    Ok(found.is_some_and(|found| {
        let meta = found.metadata();
        let is_over = meta
            .deletion_timestamp
            .as_ref()
            .is_some_and(|at| at.0 + AFTER_DELETION < now);
        meta.uid.as_deref() == Some(&wanted.uid) && !is_over
    }))
}

/// Makes a token for the ServiceAccount that the path names.
pub(super) async fn create(call: &Call<'_>, body: Body) -> Outcome {
    let (body, format) = read_object(call, body).await?;
    let WriteOptions { dry_run, validation } = call.query.write_options("CreateOptions")?;
    let (mut request, warnings) = decode::body::<TokenRequest>(&body, format, validation)?;
    let account = current(call).await?;
    let account = call.resource.strategy.load(&account.value)?;
    let mut spec = request.spec.take().unwrap_or_default();
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    check_seconds(seconds)?;
    let key = &call.server.authenticator.service_accounts;
    let audiences = match spec.audiences.take() {
        Some(audiences) if !audiences.is_empty() => audiences,
        _ => vec![key.issuer.clone()],
    };
    let bound = bind(call, spec.bound_object_ref.as_ref(), &*account).await?;
    let now = Timestamp::now().as_second();
    let claims = Claims {
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        iss: key.issuer.clone(),
        jti: meta::new_uid(),
        sub: format!(
            "system:serviceaccount:{}:{}",
            bound.namespace, bound.serviceaccount.name
        ),
        bound,
        nbf: now,
    };
    request.metadata.name = account.metadata().name.clone();
    request.metadata.namespace = account.metadata().namespace.clone();
    request.metadata.creation_timestamp = Some(meta::time(Timestamp::now()));
    let token = if dry_run {
        String::new()
    } else {
        key.sign(&claims).map_err(status::internal)?
    };
    let expires = Timestamp::from_second(claims.exp).map_err(status::internal)?;
    request.status = Some(TokenRequestStatus {
        token: Some(token),
        expiration_timestamp: Some(Time(expires)),
    });
    request.spec = Some(TokenRequestSpec {
        audiences: Some(audiences),
        expiration_seconds: Some(seconds),
        ..spec
    });
    let json = serde_json::to_vec(&request).map_err(status::internal)?;
    Ok(Answer::new(201, Content::Other(json.into())).warning(warnings))
}

fn check_seconds(seconds: i64) -> Result<(), Status> {
    let detail = if seconds < LEAST_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MOST_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let spec = Path::new("spec");
    let error = FieldError::invalid(&spec.child("expirationSeconds"), seconds, detail);
    // A request has no name, and upstream gives it none.
    Err(status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
}

/// The node that a pod is on, for its token to tell.
async fn node_reference(call: &Call<'_>, name: &str) -> Result<Option<Reference>, Status> {
    let Some(resource) = call.server.catalogue.find("", "v1", "nodes") else {
        return Ok(None);
    };
    let found = lookup(&*call.server.store, resource, None, name).await?;
    Ok(found.map(|found| Reference {
        name: name.to_owned(),
        uid: found.metadata().uid.clone().unwrap_or_default(),
    }))
}

async fn bind(call: &Call<'_>, wanted: Option<&BoundObjectReference>, account: &dyn Object) -> Result<Bound, Status> {
    let meta = account.metadata();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let of = |name: &Option<String>, uid: &Option<String>| Reference {
        name: name.clone().unwrap_or_default(),
        uid: uid.clone().unwrap_or_default(),
    };
    let serviceaccount = of(&meta.name, &meta.uid);
    let mut bound = Bound {
        namespace,
        serviceaccount,
        pod: None,
        node: None,
        secret: None,
    };
    let Some(wanted) = wanted else { return Ok(bound) };
    let kind = wanted.kind.as_deref().unwrap_or_default();
    let version = wanted.api_version.as_deref().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let (plural, slot) = match (group, kind) {
        ("", "Pod") => ("pods", &mut bound.pod),
        ("", "Secret") => ("secrets", &mut bound.secret),
        ("", "Node") => ("nodes", &mut bound.node),
        _ => {
            let message = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(status::bad_request(message));
        }
    };
    let reference = of(&wanted.name, &wanted.uid);
    let Some(resource) = call.server.catalogue.find("", "v1", plural) else {
        return Err(status::no_such_resource());
    };
    let namespace = resource.namespaced.then_some(bound.namespace.as_str());
    let Some(found) = lookup(&*call.server.store, resource, namespace, &reference.name).await? else {
        return Err(status::not_found("", plural, &reference.name));
    };
    let pod = found.as_any().downcast_ref::<Pod>();
    let account = &bound.serviceaccount.name;
    let runs_as = pod.and_then(|pod| pod.spec.as_ref()?.service_account_name.as_ref());
    if pod.is_some() && runs_as != Some(account) {
        let message = format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        );
        return Err(status::bad_request(message));
    }
    let uid = found.metadata().uid.clone().unwrap_or_default();
    if !reference.uid.is_empty() && reference.uid != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            reference.uid
        );
        return Err(status::conflict("", kind, &reference.name, &why));
    }
    *slot = Some(Reference {
        name: reference.name,
        uid,
    });
    if let Some(node) = pod.and_then(api::pod::node_name) {
        bound.node = node_reference(call, node).await?;
    }
    Ok(bound)
}
