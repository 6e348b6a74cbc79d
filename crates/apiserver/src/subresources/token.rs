//! `serviceaccounts/token`: tokens for ServiceAccounts, and what a token that comes back says.

use api::{FieldError, FieldValidation, Object, Path, Status, decode, meta, status};
use jiff::Timestamp;
use k8s_openapi::{
    api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    Body, Identity,
    answer::{Answer, Content},
    authn::service_account::{Bound, Claims, Reference},
    call::{Call, Outcome, read_object},
    registry::{current, lookup},
    server::Server,
};

const DEFAULT_SECONDS: i64 = 60 * 60;
const LEAST_SECONDS: i64 = 10 * 60;
const MOST_SECONDS: i64 = 1 << 32;

/// Who a ServiceAccount's token stands for; none when it proves nothing, or what it is bound to is gone.
pub(crate) async fn identify(server: &Server, token: &str, now: Timestamp) -> Result<Option<Identity>, Status> {
    let Some(claims) = server.authenticator.service_accounts.verify(token, now.as_second()) else {
        return Ok(None);
    };
    let bound = &claims.bound;
    let namespace = Some(bound.namespace.as_str());
    let references = [
        ("serviceaccounts", Some(&bound.serviceaccount)),
        ("pods", bound.pod.as_ref()),
        ("secrets", bound.secret.as_ref()),
    ];
    for (plural, reference) in references {
        let Some(reference) = reference else { continue };
        if !is_there(server, plural, namespace, reference).await? {
            return Ok(None);
        }
    }
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{}", bound.namespace),
    ];
    let mut identity = Identity::authenticated(&claims.sub, groups);
    identity.uid = bound.serviceaccount.uid.as_str().into();
    if let Some(pod) = &bound.pod {
        let extra = [("pod-name", &pod.name), ("pod-uid", &pod.uid)];
        let extra = extra.map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![value.clone()]));
        identity.extra = std::sync::Arc::new(extra.into());
    }
    Ok(Some(identity))
}

async fn is_there(server: &Server, plural: &str, namespace: Option<&str>, wanted: &Reference) -> Result<bool, Status> {
    let Some(resource) = server.catalogue.find("", "v1", plural) else {
        return Ok(false);
    };
    let found = lookup(&*server.store, resource, namespace, &wanted.name).await?;
    Ok(found.is_some_and(|found| found.metadata().uid.as_deref() == Some(&wanted.uid)))
}

/// Makes a token for the ServiceAccount that the path names.
pub(super) async fn create(call: &Call<'_>, body: Body) -> Outcome {
    let (body, format) = read_object(call, body).await?;
    let dry_run = call.query.dry_run("CreateOptions")?;
    let validation = FieldValidation::parse(call.query.get("fieldValidation"))?;
    let (mut request, warnings) = decode::body::<TokenRequest>(&body, format, validation)?;
    let account = current(call).await?;
    let account = call.resource.strategy.load(&account.value)?;
    let mut spec = request.spec.take().unwrap_or_default();
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    check_seconds(seconds, call.name.unwrap_or_default())?;
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

fn check_seconds(seconds: i64, name: &str) -> Result<(), Status> {
    let detail = if seconds < LEAST_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MOST_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let spec = Path::new("spec");
    let error = FieldError::invalid(&spec.child("expirationSeconds"), seconds, detail);
    Err(status::invalid("authentication.k8s.io", "TokenRequest", name, &[error]))
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
    let (plural, slot) = match kind {
        "Pod" => ("pods", &mut bound.pod),
        "Secret" => ("secrets", &mut bound.secret),
        "Node" => ("nodes", &mut bound.node),
        other => {
            let message =
                format!("cannot bind token for serviceaccount to kind {other:?}: must be Pod, Secret or Node");
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
    let uid = found.metadata().uid.clone().unwrap_or_default();
    if !reference.uid.is_empty() && reference.uid != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            reference.uid
        );
        return Err(status::conflict("", plural, &reference.name, &why));
    }
    *slot = Some(Reference {
        name: reference.name,
        uid,
    });
    Ok(bound)
}
