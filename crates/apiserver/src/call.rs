//! One request for a resource, taken apart: what every verb works on.

use std::{sync::Arc, time::Duration};

use api::{Format, Resource, Status, Subresource, status};
use bytes::Bytes;
use http::request::Parts;
use tokio::time::timeout;

use crate::{
    Body, Identity,
    answer::Answer,
    negotiate::{self, Accept, body_format, media_type},
    protobuf,
    query::Query,
    server::Server,
};

/// The largest body that the server reads: 3 MiB, as upstream.
const BODY_BYTES: usize = 3 << 20;

/// How long a client may take to send a body, as upstream gives a whole request.
const BODY_TIME: Duration = Duration::from_secs(60);

/// One request for a resource.
pub(crate) struct Call<'a> {
    pub server: &'a Arc<Server>,
    pub resource: &'static Resource,
    pub subresource: Option<&'static Subresource>,
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    /// What follows the subresource in the path, still encoded.
    pub rest: &'a str,
    pub verb: &'static str,
    pub parts: &'a Parts,
    pub query: &'a Query,
    pub accept: Accept,
    pub identity: &'a Identity,
}

/// What every verb returns.
pub(crate) type Outcome = Result<Answer, Status>;

impl<'a> Call<'a> {
    /// The object's name; a path without one has no such verb.
    pub fn name(&self) -> Result<&'a str, Status> {
        self.name.ok_or_else(status::unsupported_method)
    }

    /// The subresource's name.
    pub fn subresource_name(&self) -> Option<&'static str> {
        self.subresource.map(|subresource| subresource.name)
    }

    /// `not found`, of the object that the call names.
    pub fn not_found(&self) -> Status {
        status::not_found(self.resource.group, self.resource.plural, self.name.unwrap_or_default())
    }

    /// `Operation cannot be fulfilled on …`, of the object that the call names.
    pub fn conflict(&self, why: &str) -> Status {
        status::conflict(
            self.resource.group,
            self.resource.plural,
            self.name.unwrap_or_default(),
            why,
        )
    }
}

/// The request's body, up to the limit.
pub(crate) async fn read(body: Body) -> Result<Bytes, Status> {
    let Ok(collected) = timeout(BODY_TIME, body.collect(BODY_BYTES)).await else {
        return Err(status::timeout(
            "request did not complete within the allotted timeout",
            0,
        ));
    };
    match collected {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(status::request_entity_too_large(BODY_BYTES)),
        Err(error) => Err(status::bad_request(format!("reading the request's body: {error}"))),
    }
}

/// The object in a request's body, and the form it has. One in protobuf is turned into JSON first.
pub(crate) async fn read_object(call: &Call<'_>, body: Body) -> Result<(Bytes, Format), Status> {
    let headers = &call.parts.headers;
    if media_type(headers) != protobuf::MEDIA_TYPE {
        let format = body_format(headers)?;
        return Ok((read(body).await?, format));
    }
    let value = match protobuf::to_json(&read(body).await?) {
        Ok(value) => value,
        Err(protobuf::Error::UnknownKind(..)) => return Err(negotiate::unreadable()),
        Err(error) => return Err(status::bad_request(error.to_string())),
    };
    Ok((value.to_string().into(), Format::Json))
}
