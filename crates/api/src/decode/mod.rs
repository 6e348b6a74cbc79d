//! Reading request bodies: JSON and YAML, strictly or leniently, with upstream's words for what is wrong.
//!
//! A body is read in three steps: [`tree`] parses it and notices fields that are there twice; the apiVersion
//! and kind are compared with what the path expects; [`check`] walks the value along the kind's type, finds
//! unknown fields and wrong types, and brings nulls and quantities into the form that the types take.

mod check;
mod origin;
mod tree;

use serde_json::Value;

pub use origin::Origin;

use crate::catalogue::Catalogue;
use crate::field::{FieldError, Path, quote};
use crate::object::{Kind, Object};
use crate::schema::Types;
use crate::status::{self, Status};

/// What to do with unknown and duplicate fields: the `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Say nothing.
    Ignore,
    /// Answer with warnings.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// The value of the query parameter; [`FieldValidation::Warn`] when it is not there.
    pub fn parse(parameter: Option<&str>) -> Result<Self, FieldError> {
        match parameter {
            None | Some("" | "Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(FieldError::not_supported(
                &Path::new("fieldValidation"),
                other,
                &["Ignore", "Strict", "Warn"],
            )),
        }
    }
}

/// The encoding of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// An object read from a request, and what the client should be warned of.
#[derive(Debug)]
pub struct Decoded {
    /// The object, not yet defaulted.
    pub object: Box<dyn Object>,
    /// The texts of `Warning` headers.
    pub warnings: Vec<String>,
}

/// Reads an object of type `T` from a request body.
pub fn body<T: Kind>(body: &[u8], format: Format, validation: FieldValidation) -> Result<(T, Vec<String>), Status> {
    let tree = tree::parse(body, format).map_err(|error| {
        status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error} ({})",
            T::KIND,
            summary(body)
        ))
    })?;
    read(tree.value, tree.duplicates, validation, Origin::Whole)
}

/// Reads an object of type `T` from a JSON value, for example the result of a patch.
pub fn value_as<T: Kind>(
    value: Value,
    validation: FieldValidation,
    origin: Origin<'_>,
) -> Result<(T, Vec<String>), Status> {
    read(value, Vec::new(), validation, origin)
}

/// Parses a body that is no object of a kind: a patch, or delete options.
pub fn raw(body: &[u8], format: Format) -> Result<Value, String> {
    tree::parse(body, format).map(|tree| tree.value)
}

fn read<T: Kind>(
    mut value: Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
    origin: Origin<'_>,
) -> Result<(T, Vec<String>), Status> {
    let unhandled = |kind: &str, version: &str, why: &dyn std::fmt::Display| {
        status::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: {why}",
            quote(version),
            T::KIND
        ))
    };
    let Value::Object(fields) = &mut value else {
        return Err(status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            T::KIND,
            check::json_type(&value)
        )));
    };
    // A kind or version left out is the one that the path expects.
    for (field, default) in [("apiVersion", T::API_VERSION), ("kind", T::KIND)] {
        if fields.get(field).is_none_or(|value| value.is_null() || value == "") {
            fields.insert(field.to_owned(), default.into());
        }
    }
    if let (Some(version), Some(kind)) = (
        fields.get("apiVersion").and_then(Value::as_str),
        fields.get("kind").and_then(Value::as_str),
    ) && (version != T::API_VERSION || kind != T::KIND)
    {
        let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
        if Catalogue::builtin().find_kind(group, short, kind).is_none() {
            let why = format!(
                "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
                quote(kind),
                quote(version)
            );
            return Err(unhandled(kind, short, &why));
        }
        if version != T::API_VERSION {
            return Err(status::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({})",
                T::API_VERSION
            )));
        }
        let why = format!(
            "converting ({short}.{kind}) to ({short}.{}): unknown conversion",
            T::KIND
        );
        return Err(unhandled(kind, short, &why));
    }
    // The walk takes away what does not fit.
    let patched = matches!(origin, Origin::Patch).then(|| value.to_string());
    let unfit = |why: String| match origin {
        Origin::Whole => unhandled(T::KIND, T::VERSION, &why),
        Origin::Patch => origin::unfit(patched.unwrap_or_default(), why),
        Origin::StrategicPatch(patch) => origin::unfit(origin::printed(patch), why),
    };
    let types = Types::builtin();
    let unknown = match check::check(types, &types.find(&T::schema_name()), &mut value, origin.words()) {
        Ok(unknown) => unknown,
        Err(why) => return Err(unfit(why)),
    };
    let found: Vec<String> = match validation {
        FieldValidation::Ignore => Vec::new(),
        _ => {
            let unknown = unknown.iter().map(|path| format!("unknown field {}", quote(path)));
            let twice = duplicates.iter().map(|path| format!("duplicate field {}", quote(path)));
            unknown.chain(twice).collect()
        }
    };
    if validation == FieldValidation::Strict && !found.is_empty() {
        let why = format!("strict decoding error: {}", found.join(", "));
        return Err(unfit(why));
    }
    match serde_json::from_value(value) {
        Ok(object) => Ok((object, found)),
        Err(error) => Err(unfit(error.to_string())),
    }
}

/// The beginning of a body, as upstream shows it in errors: text when it looks like JSON, else hexadecimal.
fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    let start = &body[..body.len().min(MAX)];
    let more = if body.len() > MAX { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => {
            let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
    use serde_json::json;

    use super::*;

    fn strict<T: Kind>(text: &str) -> Result<T, String> {
        body::<T>(text.as_bytes(), Format::Json, FieldValidation::Strict)
            .map(|(object, _)| object)
            .map_err(|status| status.message().to_owned())
    }

    #[test]
    fn kind_and_version_may_be_left_out() {
        let map: ConfigMap = strict(r#"{"metadata":{"name":"a"}}"#).unwrap();
        assert_eq!(map.metadata.name.as_deref(), Some("a"));
    }

    #[test]
    fn errors_are_upstreams() {
        for (text, want) in [
            (
                r#"{"dta":{}}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta""#,
            ),
            (
                r#"{"data":{"a":"1"},"data":{}}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data""#,
            ),
            (
                r#"{"data":{"a":"1","a":"2"},"x":1}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "x", duplicate field "data.a""#,
            ),
            (
                r#"{"data":{"a":1}}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#,
            ),
            (
                r#"{"metadata":{"labels":"x"}}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string"#,
            ),
            (
                r#"{"binaryData":{"a":"*"}}"#,
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: illegal base64 data at input byte 0"#,
            ),
            (
                r#"{"apiVersion":"v1","kind":"Foo"}"#,
                r#"Foo in version "v1" cannot be handled as a ConfigMap: no kind "Foo" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
            (
                r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease"}"#,
                "the API version in the data (coordination.k8s.io/v1) does not match the expected API version (v1)",
            ),
            (
                r#"{"apiVersion":"v1","kind":"Secret"}"#,
                r#"Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (v1.ConfigMap): unknown conversion"#,
            ),
        ] {
            assert_eq!(strict::<ConfigMap>(text).unwrap_err(), want, "{text}");
        }
        assert!(strict::<ConfigMap>("hello").unwrap_err().ends_with("(68656c6c6f)"));
        assert!(
            strict::<ConfigMap>("")
                .unwrap_err()
                .ends_with("json parse error: unexpected end of JSON input (<empty>)")
        );
    }

    #[test]
    fn paths_and_types_below_lists() {
        for (text, want) in [
            (
                r#"{"spec":{"ports":[{"prt":1}]}}"#,
                r#"strict decoding error: unknown field "spec.ports[0].prt""#,
            ),
            (
                r#"{"spec":{"ports":[{"port":"80"}]}}"#,
                "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
            ),
            (
                r#"{"spec":{"ports":{"port":80}}}"#,
                "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
            ),
            (
                r#"{"spec":{"ports":[{"port":1.5}]}}"#,
                "json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
            ),
            (
                r#"{"spec":[]}"#,
                "json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec",
            ),
            (
                r#"{"spec":{"publishNotReadyAddresses":"yes"}}"#,
                "json: cannot unmarshal string into Go struct field ServiceSpec.spec.publishNotReadyAddresses of type bool",
            ),
        ] {
            let error = strict::<Service>(text).unwrap_err();
            assert_eq!(
                error,
                format!("Service in version \"v1\" cannot be handled as a Service: {want}"),
                "{text}"
            );
        }
    }

    #[test]
    fn pods() {
        for (text, want) in [
            (
                r#"{"spec":{"containers":[{"imagee":"x"}]}}"#,
                r#"strict decoding error: unknown field "spec.containers[0].imagee""#,
            ),
            (
                r#"{"spec":{"containers":[{"name":"a"},{"ports":[{"containerPort":"80"}]}]}}"#,
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                r#"{"spec":{"containers":"a"}}"#,
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                r#"{"spec":{"containers":[{"env":[{"name":"A","value":1}]}]}}"#,
                "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
            ),
        ] {
            let error = strict::<Pod>(text).unwrap_err();
            assert_eq!(
                error,
                format!("Pod in version \"v1\" cannot be handled as a Pod: {want}"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_patch_breaks_is_said_of_the_patch() {
        let service = || json!({"spec": {"ports": [{"port": 1.5, "prt": 1}]}});
        let patch = json!({"spec": {"ports": [{"port": 1.5, "prt": 1}], "clusterIP": null}, "kind": "Service"});
        let cases = [
            (
                service(),
                Origin::Patch,
                r#"patch: Invalid value: "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"spec\":{\"ports\":[{\"port\":1.5,\"prt\":1}]}}": json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32"#,
            ),
            (
                service(),
                Origin::StrategicPatch(&patch),
                r#"patch: Invalid value: "map[kind:Service spec:map[clusterIP:<nil> ports:[map[port:1.5 prt:1]]]]": cannot convert float64 to int32"#,
            ),
            (
                json!({"spec": {"foo": 1}}),
                Origin::StrategicPatch(&patch),
                r#"patch: Invalid value: "map[kind:Service spec:map[clusterIP:<nil> ports:[map[port:1.5 prt:1]]]]": strict decoding error: unknown field "spec.foo""#,
            ),
        ];
        for (value, origin, want) in cases {
            let status = value_as::<Service>(value, FieldValidation::Strict, origin).unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (422, &*format!(" \"\" is invalid: {want}"))
            );
        }
    }

    #[test]
    fn the_converters_words() {
        let patch = json!({});
        for (value, want) in [
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "cannot convert int64 to string",
            ),
            (
                json!({"metadata": {"labels": {"a": true}}}),
                "unrecognized type: string",
            ),
            (json!({"metadata": {"labels": "a"}}), "cannot restore map from string"),
            (json!({"spec": {"ports": {}}}), "cannot restore slice from map"),
            (json!({"spec": {"ports": ["a"]}}), "cannot restore struct from: string"),
            (json!({"spec": {"ports": [{"port": "80"}]}}), "unrecognized type: int32"),
            (
                json!({"spec": {"publishNotReadyAddresses": 1}}),
                "unrecognized type: bool",
            ),
            (
                json!({"spec": {"ports": [{"targetPort": true}]}}),
                "json: cannot unmarshal bool into Go value of type intstr.IntOrString",
            ),
        ] {
            let origin = Origin::StrategicPatch(&patch);
            let error = value_as::<Service>(value, FieldValidation::Warn, origin).unwrap_err();
            assert_eq!(
                error.message(),
                format!(" \"\" is invalid: patch: Invalid value: \"map[]\": {want}")
            );
        }
    }

    #[test]
    fn warnings_and_silence() {
        let text = br#"{"metadata":{"name":"a"},"x":1,"x":2}"#;
        let (_, warnings) = body::<ConfigMap>(text, Format::Json, FieldValidation::Warn).unwrap();
        assert_eq!(warnings, [r#"unknown field "x""#, r#"duplicate field "x""#]);
        let (_, warnings) = body::<ConfigMap>(text, Format::Json, FieldValidation::Ignore).unwrap();
        assert!(warnings.is_empty());
    }

    #[test]
    fn nulls_are_absent() {
        let map: ConfigMap = strict(r#"{"kind":null,"metadata":null,"data":{"a":null},"immutable":null}"#).unwrap();
        assert_eq!(map.data.unwrap()["a"], "");
        assert_eq!(map.immutable, None);
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let map: ConfigMap = strict(r#"{"metadata":{"labels":{},"finalizers":[]},"data":{}}"#).unwrap();
        assert_eq!(map, ConfigMap::default());
    }

    #[test]
    fn json_with_tabs_is_read_as_yaml() {
        assert_eq!(
            raw(b"{\n\t\"a\": 1}", Format::Yaml).unwrap(),
            serde_json::json!({"a": 1})
        );
        assert_eq!(raw(b"{a: 1}", Format::Yaml).unwrap(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn yaml_is_read_too() {
        let text = b"metadata:\n  name: a\ndata:\n  k: |\n    line\nextra: 1\n";
        let (map, warnings) = body::<ConfigMap>(text, Format::Yaml, FieldValidation::Warn).unwrap();
        assert_eq!(map.data.unwrap()["k"], "line\n");
        assert_eq!(warnings, [r#"unknown field "extra""#]);
    }

    #[test]
    fn quantities_become_canonical() {
        let pod: Pod =
            strict(r#"{"spec":{"containers":[{"name":"a","resources":{"requests":{"cpu":0.5,"memory":"1024Mi"}}}]}}"#)
                .unwrap();
        let requests = pod
            .spec
            .unwrap()
            .containers
            .remove(0)
            .resources
            .unwrap()
            .requests
            .unwrap();
        assert_eq!(
            (requests["cpu"].0.as_str(), requests["memory"].0.as_str()),
            ("500m", "1Gi")
        );
        let error = strict::<Pod>(r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#).unwrap_err();
        assert!(
            error.contains("quantities must match the regular expression"),
            "{error}"
        );
    }
}
