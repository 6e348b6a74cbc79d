//! Reviews: questions of who one is and what one may, answered and not stored.

use std::any::Any;

use api::{Decoded, Status, status};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{
        SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
    },
    authorization::v1::{
        LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
        SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus,
        SubjectRulesReviewStatus,
    },
};

use crate::{
    Body, Identity,
    answer::{Answer, Content},
    authz::Action,
    call::{Call, Outcome, read_object},
    registry::unstored,
    server::Server,
    subresources::token,
};

/// Answers the review in the request's body.
pub(crate) async fn create(call: &Call<'_>, body: Body) -> Outcome {
    let (body, format) = read_object(call, body).await?;
    let validation = call.query.write_options("CreateOptions")?.validation;
    let strategy = call.resource.strategy;
    let Decoded { mut object, warnings } = strategy.decode(&body, format, validation)?;
    object.metadata_mut().creation_timestamp = Some(api::meta::time(Timestamp::now()));
    let bearer = match object.as_any().downcast_ref::<TokenReview>() {
        Some(review) => bearer(call.server, &review.spec).await?,
        None => None,
    };
    fill(call, object.as_any_mut(), bearer.as_ref())?;
    Ok(Answer::new(201, Content::Other(unstored(&*object)?)).warning(warnings))
}

/// Whom a token stands for, and for whom of those who ask it is.
type Bearer = (Identity, Vec<String>);

async fn bearer(server: &Server, asked: &TokenReviewSpec) -> Result<Option<Bearer>, Status> {
    let token = asked.token.as_str();
    let own = || vec![server.authenticator.service_accounts.issuer.clone()];
    let audiences = asked.audiences.clone().filter(|audiences| !audiences.is_empty());
    let audiences = audiences.unwrap_or_else(own);
    match server.authenticator.known(token) {
        Some(identity) => Ok(Some((identity, audiences))),
        None => token::identify(server, token, &audiences, Timestamp::now()).await,
    }
}

/// Writes the answer; `bearer` is whom the token of a TokenReview stands for.
fn fill(call: &Call<'_>, review: &mut dyn Any, bearer: Option<&Bearer>) -> Result<(), Status> {
    let server = call.server;
    if let Some(review) = review.downcast_mut::<SelfSubjectReview>() {
        review.status = Some(SelfSubjectReviewStatus {
            user_info: Some(user_info(call.identity)),
        });
    } else if let Some(review) = review.downcast_mut::<SelfSubjectAccessReview>() {
        let (resource, path) = (&review.spec.resource_attributes, &review.spec.non_resource_attributes);
        review.status = Some(decide(server, call.identity, resource.as_ref(), path.as_ref())?);
    } else if let Some(review) = review.downcast_mut::<SubjectAccessReview>() {
        let spec = &review.spec;
        let identity = identity(spec.user.as_deref(), spec.groups.as_deref());
        let (resource, path) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
        review.status = Some(decide(server, &identity, resource, path)?);
    } else if let Some(review) = review.downcast_mut::<LocalSubjectAccessReview>() {
        let spec = &review.spec;
        let identity = identity(spec.user.as_deref(), spec.groups.as_deref());
        review.status = Some(decide(server, &identity, spec.resource_attributes.as_ref(), None)?);
    } else if let Some(review) = review.downcast_mut::<SelfSubjectRulesReview>() {
        review.status = Some(rules(server, call.identity));
    } else if let Some(review) = review.downcast_mut::<TokenReview>() {
        review.status = Some(TokenReviewStatus {
            authenticated: bearer.is_some().then_some(true),
            audiences: bearer.map(|(_, audiences)| audiences.clone()),
            user: Some(bearer.map(|(identity, _)| user_info(identity)).unwrap_or_default()),
            ..TokenReviewStatus::default()
        });
    }
    Ok(())
}

fn user_info(identity: &Identity) -> UserInfo {
    UserInfo {
        username: Some(identity.user.to_string()),
        uid: Some(identity.uid.to_string()).filter(|uid| !uid.is_empty()),
        groups: Some(identity.groups.iter().map(ToString::to_string).collect()),
        extra: (!identity.extra.is_empty()).then(|| (*identity.extra).clone()),
    }
}

/// The subject that a review names: with the groups that it names, and no others.
fn identity(user: Option<&str>, groups: Option<&[String]>) -> Identity {
    let groups = groups
        .unwrap_or_default()
        .iter()
        .map(|group| group.as_str().into())
        .collect();
    Identity {
        user: user.unwrap_or_default().into(),
        groups,
        ..Identity::anonymous()
    }
}

fn decide(
    server: &Server,
    identity: &Identity,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> Result<SubjectAccessReviewStatus, Status> {
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let allowed = match (resource, path) {
        (Some(asked), None) => {
            let (verb, group, plural) = (text(&asked.verb), text(&asked.group), text(&asked.resource));
            let some = |field: &'_ Option<String>| field.clone().filter(|text| !text.is_empty());
            let (sub, namespace, name) = (some(&asked.subresource), some(&asked.namespace), some(&asked.name));
            let action = Action::Resource {
                verb: &verb,
                group: &group,
                resource: &plural,
                subresource: sub.as_deref(),
                namespace: namespace.as_deref(),
                name: name.as_deref(),
            };
            server.authorizer.allows(identity, action)
        }
        (None, Some(asked)) => {
            let (verb, path) = (text(&asked.verb), text(&asked.path));
            server.authorizer.allows(
                identity,
                Action::Path {
                    verb: &verb,
                    path: &path,
                },
            )
        }
        _ => {
            return Err(status::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    Ok(SubjectAccessReviewStatus {
        allowed,
        ..SubjectAccessReviewStatus::default()
    })
}

/// What a user may: all or nothing, until rules say more.
fn rules(server: &Server, identity: &Identity) -> SubjectRulesReviewStatus {
    let anything = Action::Resource {
        verb: "*",
        group: "*",
        resource: "*",
        subresource: None,
        namespace: None,
        name: None,
    };
    let all = || vec![String::from("*")];
    let allowed = server.authorizer.allows(identity, anything);
    SubjectRulesReviewStatus {
        resource_rules: if allowed {
            vec![ResourceRule {
                verbs: all(),
                api_groups: Some(all()),
                resources: Some(all()),
                resource_names: None,
            }]
        } else {
            Vec::new()
        },
        non_resource_rules: if allowed {
            vec![NonResourceRule {
                verbs: all(),
                non_resource_urls: Some(all()),
            }]
        } else {
            Vec::new()
        },
        ..SubjectRulesReviewStatus::default()
    }
}
