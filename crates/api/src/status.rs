//! `meta/v1` Status, with upstream's wording, codes, reasons and details for every failure.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use serde::Serialize;

use crate::field::FieldError;

/// A failed request, as the client sees it. Boxed, so that a `Result` stays small.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Status(Box<metav1::Status>);

impl Status {
    fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Status(Box::new(metav1::Status {
            code: Some(code.into()),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: Some(message.into()),
            status: Some("Failure".into()),
            ..Default::default()
        }))
    }

    fn with_details(mut self, details: metav1::StatusDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
    }

    /// The machine-readable reason, `NotFound` for example; empty when there is none.
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or_default()
    }

    /// The seconds after which the client may try again, when it should.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        self.0.details.as_ref().and_then(|details| details.retry_after_seconds)
    }

    /// The object that is sent.
    pub fn as_meta(&self) -> &metav1::Status {
        &self.0
    }

    /// The JSON that is sent.
    pub fn to_json(&self) -> Vec<u8> {
        // Every field is a string, a number or a list of such, so this cannot fail.
        serde_json::to_vec(&self.0).unwrap_or_default()
    }
}

impl From<metav1::Status> for Status {
    fn from(status: metav1::Status) -> Self {
        Status(Box::new(status))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Status {}

/// `pods` or `deployments.apps`: a resource with its group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

fn details(group: &str, kind: &str, name: &str) -> metav1::StatusDetails {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    metav1::StatusDetails {
        group: some(group),
        kind: some(kind),
        name: some(name),
        ..Default::default()
    }
}

/// A cause of a Status: a class, a message, and the field it is about (empty for none).
pub fn cause(reason: &str, message: impl Into<String>, field: &str) -> metav1::StatusCause {
    metav1::StatusCause {
        field: (!field.is_empty()).then(|| field.to_owned()),
        message: Some(message.into()),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
    }
}

/// 404: the object is not there.
pub fn not_found(group: &str, resource: &str, name: &str) -> Status {
    let message = format!("{} {} not found", qualified(group, resource), crate::field::quote(name));
    Status::failure(404, "NotFound", message).with_details(details(group, resource, name))
}

/// 404: no such path is served.
pub fn no_such_resource() -> Status {
    Status::failure(404, "NotFound", "the server could not find the requested resource")
        .with_details(details("", "", ""))
}

/// 409: an object of that name is there already.
pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
    let message = format!(
        "{} {} already exists",
        qualified(group, resource),
        crate::field::quote(name)
    );
    Status::failure(409, "AlreadyExists", message).with_details(details(group, resource, name))
}

/// 409: a generated name was taken; the client may try again.
pub fn generate_name_conflict(group: &str, resource: &str, name: &str, retry_after_seconds: i32) -> Status {
    let message = format!(
        "{} {} already exists, the server was not able to generate a unique name for the object",
        qualified(group, resource),
        crate::field::quote(name)
    );
    let mut details = details(group, resource, name);
    details.retry_after_seconds = Some(retry_after_seconds);
    Status::failure(409, "AlreadyExists", message).with_details(details)
}

/// 409: the operation cannot be done on the object as it is now; `why` says in what it conflicts.
pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Status {
    let message = format!(
        "Operation cannot be fulfilled on {} {}: {why}",
        qualified(group, resource),
        crate::field::quote(name)
    );
    Status::failure(409, "Conflict", message).with_details(details(group, resource, name))
}

/// The `why` of a [`conflict`] when the resourceVersion sent is not the current one.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// 410: what the request needs is gone for good.
pub fn gone(message: &str) -> Status {
    Status::failure(410, "Gone", message)
}

/// 410: the revision asked for was compacted, or a continue token is too old.
pub fn expired(message: &str) -> Status {
    Status::failure(410, "Expired", message)
}

/// 410: a watch or list from `requested`, when nothing older than `oldest` is kept.
pub fn too_old(requested: u64, oldest: u64) -> Status {
    expired(&format!("too old resource version: {requested} ({oldest})"))
}

/// 504 with the cause and retry that clients know: the revision asked for has not been reached.
pub fn too_large_resource_version(requested: u64, current: u64, retry_after_seconds: i32) -> Status {
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    let mut details = details("", "", "");
    details.retry_after_seconds = Some(retry_after_seconds);
    details.causes = Some(vec![cause("ResourceVersionTooLarge", "Too large resource version", "")]);
    Status::failure(504, "Timeout", message).with_details(details)
}

/// 422: the object broke the rules of its kind.
pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
    let prefix = format!("{} {} is invalid", qualified(group, kind), crate::field::quote(name));
    let message = match errors {
        [] => prefix,
        [one] => format!("{prefix}: {one}"),
        many => {
            // Upstream's aggregate says each message once.
            let mut said: Vec<String> = Vec::with_capacity(many.len());
            for error in many {
                let text = error.to_string();
                if !said.contains(&text) {
                    said.push(text);
                }
            }
            if said.len() == 1 {
                format!("{prefix}: {}", said[0])
            } else {
                format!("{prefix}: [{}]", said.join(", "))
            }
        }
    };
    let mut details = details(group, kind, name);
    details.causes = (!errors.is_empty()).then(|| {
        errors
            .iter()
            .map(|e| cause(e.kind.cause(), e.body(), &e.field))
            .collect()
    });
    Status::failure(422, "Invalid", message).with_details(details)
}

/// 400: the request cannot be understood.
pub fn bad_request(message: impl Into<String>) -> Status {
    Status::failure(400, "BadRequest", message)
}

/// 401: who asks is not known.
pub fn unauthorized() -> Status {
    Status::failure(401, "Unauthorized", "Unauthorized")
}

/// 403: who asks may not do this to the named object; `why` is the authorizer's or an admission plugin's.
pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Status {
    let message = if resource.is_empty() {
        format!("forbidden: {why}")
    } else if name.is_empty() {
        format!("{} is forbidden: {why}", qualified(group, resource))
    } else {
        format!(
            "{} {} is forbidden: {why}",
            qualified(group, resource),
            crate::field::quote(name)
        )
    };
    Status::failure(403, "Forbidden", message).with_details(details(group, resource, name))
}

/// 405: the resource has no such verb.
pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> Status {
    let message = format!(
        "{verb} is not supported on resources of kind {}",
        crate::field::quote(&qualified(group, resource))
    );
    Status::failure(405, "MethodNotAllowed", message).with_details(details(group, resource, ""))
}

/// 405 for a path that the server knows, asked in a way that it does not.
pub fn unsupported_method() -> Status {
    Status::failure(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
    .with_details(details("", "", ""))
}

/// 406: none of the media types that the client accepts can be produced.
pub fn not_acceptable(accepted: &[&str]) -> Status {
    let message = format!("only the following media types are accepted: {}", accepted.join(", "));
    Status::failure(406, "NotAcceptable", message)
}

/// 413: the body is larger than the server takes.
pub fn request_entity_too_large(limit: usize) -> Status {
    Status::failure(
        413,
        "RequestEntityTooLarge",
        format!("Request entity too large: limit is {limit}"),
    )
}

/// 413: a JSON patch has more operations than the server applies.
pub fn too_many_patch_operations(limit: usize, count: usize) -> Status {
    let message = format!("The allowed maximum operations in a JSON patch is {limit}, got {count}");
    Status::failure(413, "RequestEntityTooLarge", message)
}

/// 415: the body's media type is none that the server reads.
pub fn unsupported_media_type(accepted: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Status::failure(415, "UnsupportedMediaType", message)
}

/// 422 for a patch that is well-formed and cannot be applied to the object; `why` says what does not fit.
pub fn unprocessable(why: impl Into<String>) -> Status {
    let mut details = details("", "", "");
    details.causes = Some(vec![cause("UnexpectedServerResponse", why, "")]);
    Status::failure(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    )
    .with_details(details)
}

/// 429: too much is asked at once, or a disruption budget says no.
pub fn too_many_requests(message: &str, retry_after_seconds: i32) -> Status {
    let mut details = details("", "", "");
    details.retry_after_seconds = (retry_after_seconds > 0).then_some(retry_after_seconds);
    Status::failure(429, "TooManyRequests", message).with_details(details)
}

/// 500: the server failed; `error` says how.
pub fn internal(error: impl fmt::Display) -> Status {
    let error = error.to_string();
    let mut details = details("", "", "");
    details.causes = Some(vec![cause("", error.clone(), "")]);
    Status::failure(500, "InternalError", format!("Internal error occurred: {error}")).with_details(details)
}

/// 503: the server cannot answer now.
pub fn service_unavailable(message: &str) -> Status {
    Status::failure(503, "ServiceUnavailable", message)
}

/// 504: no answer in time; `message` says of what.
pub fn timeout(message: &str, retry_after_seconds: i32) -> Status {
    let mut details = details("", "", "");
    details.retry_after_seconds = (retry_after_seconds > 0).then_some(retry_after_seconds);
    Status::failure(504, "Timeout", format!("Timeout: {message}")).with_details(details)
}

/// 200: the answer to a deletion whose object is gone.
pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Status {
    let mut details = details(group, resource, name);
    details.uid = (!uid.is_empty()).then(|| uid.to_owned());
    success(200).with_details(details)
}

/// The answer of an operation that worked and has no object to return.
pub fn success(code: u16) -> Status {
    Status(Box::new(metav1::Status {
        code: (code != 200).then_some(code.into()),
        status: Some("Success".into()),
        ..Default::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    #[test]
    fn messages_are_upstreams() {
        let spec = Path::new("spec");
        let one = [FieldError::required(&spec.child("containers"), "")];
        let two = [one[0].clone(), FieldError::forbidden(&spec, "no")];
        let twice = [one[0].clone(), one[0].clone()];
        for (status, code, reason, message) in [
            (not_found("", "pods", "web"), 404, "NotFound", r#"pods "web" not found"#),
            (
                not_found("apps", "deployments", "web"),
                404,
                "NotFound",
                r#"deployments.apps "web" not found"#,
            ),
            (
                already_exists("", "pods", "web"),
                409,
                "AlreadyExists",
                r#"pods "web" already exists"#,
            ),
            (
                conflict("", "pods", "web", MODIFIED),
                409,
                "Conflict",
                r#"Operation cannot be fulfilled on pods "web": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                invalid("", "Pod", "web", &one),
                422,
                "Invalid",
                r#"Pod "web" is invalid: spec.containers: Required value"#,
            ),
            (
                invalid("", "Pod", "web", &two),
                422,
                "Invalid",
                r#"Pod "web" is invalid: [spec.containers: Required value, spec: Forbidden: no]"#,
            ),
            (
                invalid("", "Pod", "web", &twice),
                422,
                "Invalid",
                r#"Pod "web" is invalid: spec.containers: Required value"#,
            ),
            (
                forbidden("", "pods", "web", "no"),
                403,
                "Forbidden",
                r#"pods "web" is forbidden: no"#,
            ),
            (
                forbidden("", "pods", "", "no"),
                403,
                "Forbidden",
                "pods is forbidden: no",
            ),
            (
                method_not_allowed("", "bindings", "list"),
                405,
                "MethodNotAllowed",
                r#"list is not supported on resources of kind "bindings""#,
            ),
            (unauthorized(), 401, "Unauthorized", "Unauthorized"),
            (internal("x"), 500, "InternalError", "Internal error occurred: x"),
            (too_old(1, 5), 410, "Expired", "too old resource version: 1 (5)"),
            (bad_request("x"), 400, "BadRequest", "x"),
        ] {
            assert_eq!(
                (status.code(), status.reason(), status.message()),
                (code, reason, message)
            );
        }
    }

    #[test]
    fn causes_name_fields() {
        let status = invalid(
            "",
            "Pod",
            "web",
            &[FieldError::required(&Path::new("spec").child("x"), "why")],
        );
        let json: serde_json::Value = serde_json::from_slice(&status.to_json()).unwrap_or_default();
        assert_eq!(
            json,
            serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422, "reason": "Invalid",
                "message": "Pod \"web\" is invalid: spec.x: Required value: why",
                "details": {"name": "web", "kind": "Pod", "causes": [
                    {"reason": "FieldValueRequired", "message": "Required value: why", "field": "spec.x"},
                ]},
            })
        );
    }
}
