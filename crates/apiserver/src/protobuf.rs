//! Request bodies in Kubernetes' protobuf, as kubectl's typed commands (`create configmap`, `auth can-i`, …) send
//! them: turned into JSON, from where they go the way of every other body.
//!
//! Described here and in [`pods`] are the kinds that those commands send. Answers are JSON, which all clients that send protobuf
//! take as well.

mod pods;

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Value, json};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The type of a field's value.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Number,
    Flag,
    TextMap,
    BytesMap,
    TextListMap,
    QuantityMap,
    Time,
    /// A number or a name.
    IntOrString,
    Quantity,
    Message(&'static [Field]),
    /// A message whose fields stand among those of the message that has it.
    Inline(&'static [Field]),
}

/// A field: its number, its name in JSON, its type, and whether there may be several.
type Field = (u32, &'static str, Type, bool);

const fn one(number: u32, name: &'static str, kind: Type) -> Field {
    (number, name, kind, false)
}

const fn many(number: u32, name: &'static str, kind: Type) -> Field {
    (number, name, kind, true)
}

use Type::{
    BytesMap, Flag, Inline, IntOrString, Message, Number, Quantity, QuantityMap, Text, TextListMap, TextMap, Time,
};

const OWNER: &[Field] = &[
    one(1, "kind", Text),
    one(3, "name", Text),
    one(4, "uid", Text),
    one(5, "apiVersion", Text),
    one(6, "controller", Flag),
    one(7, "blockOwnerDeletion", Flag),
];

const META: Field = one(
    1,
    "metadata",
    Message(&[
        one(1, "name", Text),
        one(2, "generateName", Text),
        one(3, "namespace", Text),
        one(5, "uid", Text),
        one(6, "resourceVersion", Text),
        one(7, "generation", Number),
        one(8, "creationTimestamp", Time),
        one(9, "deletionTimestamp", Time),
        one(10, "deletionGracePeriodSeconds", Number),
        one(11, "labels", TextMap),
        one(12, "annotations", TextMap),
        many(13, "ownerReferences", Message(OWNER)),
        many(14, "finalizers", Text),
    ]),
);

const REFERENCE: &[Field] = &[
    one(1, "kind", Text),
    one(2, "namespace", Text),
    one(3, "name", Text),
    one(4, "uid", Text),
    one(5, "apiVersion", Text),
    one(6, "resourceVersion", Text),
    one(7, "fieldPath", Text),
];

const CONFIG_MAP: &[Field] = &[
    META,
    one(2, "data", TextMap),
    one(3, "binaryData", BytesMap),
    one(4, "immutable", Flag),
];

const SECRET: &[Field] = &[
    META,
    one(2, "data", BytesMap),
    one(3, "type", Text),
    one(4, "stringData", TextMap),
    one(5, "immutable", Flag),
];

const NAMESPACE: &[Field] = &[META, one(2, "spec", Message(&[many(1, "finalizers", Text)]))];

const SERVICE_ACCOUNT: &[Field] = &[
    META,
    many(2, "secrets", Message(REFERENCE)),
    many(3, "imagePullSecrets", Message(&[one(1, "name", Text)])),
    one(4, "automountServiceAccountToken", Flag),
];

const SERVICE_PORT: &[Field] = &[
    one(1, "name", Text),
    one(2, "protocol", Text),
    one(3, "port", Number),
    one(4, "targetPort", IntOrString),
    one(5, "nodePort", Number),
    one(6, "appProtocol", Text),
];

const SERVICE: &[Field] = &[
    META,
    one(
        2,
        "spec",
        Message(&[
            many(1, "ports", Message(SERVICE_PORT)),
            one(2, "selector", TextMap),
            one(3, "clusterIP", Text),
            one(4, "type", Text),
            many(5, "externalIPs", Text),
            one(7, "sessionAffinity", Text),
            one(8, "loadBalancerIP", Text),
            many(9, "loadBalancerSourceRanges", Text),
            one(10, "externalName", Text),
            one(11, "externalTrafficPolicy", Text),
            one(12, "healthCheckNodePort", Number),
            one(13, "publishNotReadyAddresses", Flag),
            one(17, "ipFamilyPolicy", Text),
            many(18, "clusterIPs", Text),
            many(19, "ipFamilies", Text),
            one(20, "allocateLoadBalancerNodePorts", Flag),
            one(21, "loadBalancerClass", Text),
            one(22, "internalTrafficPolicy", Text),
        ]),
    ),
];

const PRIORITY_CLASS: &[Field] = &[
    META,
    one(2, "value", Number),
    one(3, "globalDefault", Flag),
    one(4, "description", Text),
    one(5, "preemptionPolicy", Text),
];

const DELETE_OPTIONS: &[Field] = &[
    one(1, "gracePeriodSeconds", Number),
    one(
        2,
        "preconditions",
        Message(&[one(1, "uid", Text), one(2, "resourceVersion", Text)]),
    ),
    one(3, "orphanDependents", Flag),
    one(4, "propagationPolicy", Text),
    many(5, "dryRun", Text),
];

const EVICTION: &[Field] = &[META, one(2, "deleteOptions", Message(DELETE_OPTIONS))];

const TOKEN_REQUEST: &[Field] = &[
    META,
    one(
        2,
        "spec",
        Message(&[
            many(1, "audiences", Text),
            one(
                3,
                "boundObjectRef",
                Message(&[
                    one(1, "kind", Text),
                    one(2, "apiVersion", Text),
                    one(3, "name", Text),
                    one(4, "uid", Text),
                ]),
            ),
            one(4, "expirationSeconds", Number),
        ]),
    ),
];

const RESOURCE_ATTRIBUTES: &[Field] = &[
    one(1, "namespace", Text),
    one(2, "verb", Text),
    one(3, "group", Text),
    one(4, "version", Text),
    one(5, "resource", Text),
    one(6, "subresource", Text),
    one(7, "name", Text),
];

const PATH_ATTRIBUTES: &[Field] = &[one(1, "path", Text), one(2, "verb", Text)];

const SELF_ACCESS_REVIEW: &[Field] = &[
    META,
    one(
        2,
        "spec",
        Message(&[
            one(1, "resourceAttributes", Message(RESOURCE_ATTRIBUTES)),
            one(2, "nonResourceAttributes", Message(PATH_ATTRIBUTES)),
        ]),
    ),
];

const ACCESS_REVIEW: &[Field] = &[
    META,
    one(
        2,
        "spec",
        Message(&[
            one(1, "resourceAttributes", Message(RESOURCE_ATTRIBUTES)),
            one(2, "nonResourceAttributes", Message(PATH_ATTRIBUTES)),
            one(3, "user", Text),
            many(4, "groups", Text),
            one(5, "extra", TextListMap),
            one(6, "uid", Text),
        ]),
    ),
];

const RULES_REVIEW: &[Field] = &[META, one(2, "spec", Message(&[one(1, "namespace", Text)]))];

const SUBJECT_REVIEW: &[Field] = &[META];

/// The envelope around every object: what it is, and its bytes.
const TYPE: &[Field] = &[one(1, "apiVersion", Text), one(2, "kind", Text)];

fn fields_of(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "Pod") => pods::POD,
        ("apps/v1", "Deployment") => pods::DEPLOYMENT,
        ("apps/v1", "ReplicaSet") => pods::REPLICA_SET,
        ("autoscaling/v1", "Scale") => pods::SCALE,
        ("v1", "Service") => SERVICE,
        ("scheduling.k8s.io/v1", "PriorityClass") => PRIORITY_CLASS,
        ("policy/v1", "Eviction") => EVICTION,
        (_, "DeleteOptions") => DELETE_OPTIONS,
        ("authentication.k8s.io/v1", "TokenRequest") => TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => SUBJECT_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview") => SELF_ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SubjectAccessReview" | "LocalSubjectAccessReview") => ACCESS_REVIEW,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => RULES_REVIEW,
        _ => return None,
    })
}

/// Why a body can not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The kind is none that is described here.
    #[error("{0} {1} is not read from protobuf")]
    UnknownKind(String, String),
    /// The bytes are no protobuf message of their kind.
    #[error("the body is not a Kubernetes protobuf object: {0}")]
    Malformed(String),
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::Malformed(why.to_string())
}

/// The object in a body, as JSON.
pub(crate) fn to_json(body: &[u8]) -> Result<Value, Error> {
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| malformed("it does not begin with its mark"))?;
    let mut kind = Value::Null;
    let mut raw: &[u8] = &[];
    for field in Fields(envelope) {
        match field? {
            (1, Wire::Bytes(bytes)) => kind = message(bytes, TYPE)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let text = |name: &str| kind[name].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let Some(fields) = fields_of(&api_version, &kind) else {
        return Err(Error::UnknownKind(api_version, kind));
    };
    let mut object = message(raw, fields)?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(object)
}

/// A field's value as it is on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.read())
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u32, Wire<'a>), Error> {
        let rest = &mut self.0;
        let failed = |rest: &mut &[u8], error: prost::DecodeError| {
            // Nothing after a broken field can be read.
            *rest = &[];
            malformed(error)
        };
        let (number, kind) = decode_key(rest).map_err(|error| failed(rest, error))?;
        match kind {
            WireType::Varint => {
                let value = decode_varint(rest).map_err(|error| failed(rest, error))?;
                Ok((number, Wire::Number(value)))
            }
            WireType::LengthDelimited => {
                let length = decode_varint(rest).map_err(|error| failed(rest, error))?;
                let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
                let Some(length) = length else {
                    *rest = &[];
                    return Err(malformed("a field is longer than its message"));
                };
                let (bytes, after) = rest.split_at(length);
                *rest = after;
                Ok((number, Wire::Bytes(bytes)))
            }
            other => {
                // No kind here has such a field: it is a newer one, and unknown.
                skip_field(other, number, rest, DecodeContext::default()).map_err(|error| failed(rest, error))?;
                Ok((0, Wire::Number(0)))
            }
        }
    }
}

fn message(bytes: &[u8], fields: &[Field]) -> Result<Value, Error> {
    let mut object = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let Some((_, name, kind, several)) = fields.iter().find(|(known, ..)| *known == number) else {
            continue;
        };
        match kind {
            TextMap | BytesMap | TextListMap | QuantityMap => {
                let (key, value) = entry(bytes_of(&wire, name)?, *kind)?;
                let map = object.entry(*name).or_insert_with(|| json!({}));
                map[key] = value;
            }
            Inline(fields) => {
                if let Value::Object(inner) = message(bytes_of(&wire, name)?, fields)? {
                    object.extend(inner);
                }
            }
            _ => {
                let Some(value) = value(&wire, *kind, name)? else {
                    continue;
                };
                if *several {
                    let list = object.entry(*name).or_insert_with(|| json!([]));
                    list.as_array_mut()
                        .into_iter()
                        .for_each(|list| list.push(value.clone()));
                } else {
                    object.insert((*name).to_owned(), value);
                }
            }
        }
    }
    Ok(Value::Object(object))
}

fn bytes_of<'a>(wire: &Wire<'a>, name: &str) -> Result<&'a [u8], Error> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        Wire::Number(_) => Err(malformed(format!("{name} is a number"))),
    }
}

fn text(wire: &Wire<'_>, name: &str) -> Result<String, Error> {
    let bytes = bytes_of(wire, name)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed(format!("{name} is not UTF-8")))
}

/// Numbers and flags that are on the wire also when nobody has set them, and then are zero.
const ALWAYS_SENT: &[&str] = &[
    "failureThreshold",
    "generation",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "partition",
    "paused",
    "periodSeconds",
    "readOnly",
    "stdin",
    "stdinOnce",
    "successThreshold",
    "timeoutSeconds",
    "tty",
];

/// One value; none for what stands for nothing, as an empty text does for a field that is not set.
fn value(wire: &Wire<'_>, kind: Type, name: &str) -> Result<Option<Value>, Error> {
    Ok(Some(match (kind, wire) {
        (Number | Flag, Wire::Number(0)) if ALWAYS_SENT.contains(&name) => return Ok(None),
        (Number, Wire::Number(number)) => number.cast_signed().into(),
        (Flag, Wire::Number(number)) => (*number != 0).into(),
        (Number | Flag, Wire::Bytes(_)) => return Err(malformed(format!("{name} is no number"))),
        (Text, _) => {
            let text = text(wire, name)?;
            if text.is_empty() {
                return Ok(None);
            }
            text.into()
        }
        (Message(fields), _) => message(bytes_of(wire, name)?, fields)?,
        (Time, _) => match time(bytes_of(wire, name)?)? {
            Some(time) => time.into(),
            None => return Ok(None),
        },
        (IntOrString, _) => {
            let parts = message(
                bytes_of(wire, name)?,
                &[one(1, "type", Number), one(2, "number", Number), one(3, "text", Text)],
            )?;
            match parts["type"].as_i64() {
                Some(1) => parts["text"].clone(),
                _ => parts["number"].as_i64().unwrap_or(0).into(),
            }
        }
        (Quantity, _) => quantity(bytes_of(wire, name)?)?,
        (TextMap | BytesMap | TextListMap | QuantityMap | Inline(_), _) => return Ok(None),
    }))
}

/// A quantity is a message of one text.
fn quantity(bytes: &[u8]) -> Result<Value, Error> {
    Ok(message(bytes, &[one(1, "text", Text)])?["text"].take())
}

fn time(bytes: &[u8]) -> Result<Option<String>, Error> {
    let parts = message(bytes, &[one(1, "seconds", Number)])?;
    let Some(seconds) = parts["seconds"].as_i64() else {
        return Ok(None);
    };
    // The zero time of the language that wrote it, which is long before any cluster.
    if seconds <= 0 {
        return Ok(None);
    }
    Timestamp::from_second(seconds)
        .map(|time| Some(time.to_string()))
        .map_err(malformed)
}

fn entry(bytes: &[u8], kind: Type) -> Result<(String, Value), Error> {
    let mut found: BTreeMap<u32, &[u8]> = BTreeMap::new();
    for field in Fields(bytes) {
        if let (number, Wire::Bytes(bytes)) = field? {
            found.insert(number, bytes);
        }
    }
    let of = |number: u32| Wire::Bytes(found.get(&number).copied().unwrap_or_default());
    let key = text(&of(1), "a key")?;
    let value = match kind {
        BytesMap => BASE64_STANDARD
            .encode(found.get(&2).copied().unwrap_or_default())
            .into(),
        QuantityMap => quantity(found.get(&2).copied().unwrap_or_default())?,
        TextListMap => message(found.get(&2).copied().unwrap_or_default(), &[many(1, "items", Text)])?["items"].take(),
        _ => text(&of(2), &key)?.into(),
    };
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test fails by panicking.
    use prost::encoding::encode_varint;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    }

    fn object(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let kind = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [
            MAGIC.to_vec(),
            field(1, &kind),
            field(2, raw),
            field(3, b""),
            field(4, b""),
        ]
        .concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let labels = field(11, &[field(1, b"k"), field(2, b"v")].concat());
        let meta = [field(1, b"a"), field(2, b""), field(8, b""), labels].concat();
        let data = field(2, &[field(1, b"x"), field(2, b"1")].concat());
        let binary = field(3, &[field(1, b"b"), field(2, b"\x00\xff")].concat());
        let body = object(
            "v1",
            "ConfigMap",
            &[field(1, &meta), data, binary, vec![4 << 3, 1]].concat(),
        );
        assert_eq!(
            to_json(&body).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"k": "v"}},
                "data": {"x": "1"}, "binaryData": {"b": "AP8="}, "immutable": true,
            })
        );
    }

    #[test]
    fn a_ports_target_is_a_number_or_a_name() {
        let named = field(4, &[vec![1 << 3, 1], field(3, b"web")].concat());
        let numbered = field(4, &[1 << 3, 0, 2 << 3, 80]);
        let ports = [field(1, &[vec![3 << 3, 81], named].concat()), field(1, &numbered)].concat();
        let body = object("v1", "Service", &field(2, &ports));
        assert_eq!(
            to_json(&body).unwrap()["spec"]["ports"],
            json!([{"port": 81, "targetPort": "web"}, {"targetPort": 80}])
        );
    }

    #[test]
    fn a_template_of_pods_is_read() {
        let limit = [field(1, b"cpu"), field(2, &field(1, b"100m"))].concat();
        let reference = [field(1, &field(1, b"map")), field(2, b"key")].concat();
        let variable = [field(1, b"V"), field(3, &field(3, &reference))].concat();
        let container = [
            field(1, b"c"),
            field(2, b"i:1"),
            field(3, b"sh"),
            field(3, b"-c"),
            field(7, &variable),
            field(8, &field(1, &limit)),
        ]
        .concat();
        let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
        let spec = [field(1, &volume), field(2, &container)].concat();
        let template = [field(1, b""), field(2, &spec)].concat();
        let unset = vec![5 << 3, 0, 7 << 3, 0];
        let raw = field(
            2,
            &[vec![1 << 3, 3], field(3, &template), field(4, b""), unset].concat(),
        );
        assert_eq!(
            to_json(&object("apps/v1", "Deployment", &raw)).unwrap()["spec"],
            json!({"replicas": 3, "strategy": {}, "template": {"metadata": {}, "spec": {
                "containers": [{
                    "name": "c", "image": "i:1", "command": ["sh", "-c"],
                    "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "key"}}}],
                    "resources": {"limits": {"cpu": "100m"}},
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
            }}})
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_object_or_an_error(raw: Vec<u8>) {
            for kind in ["ConfigMap", "Service", "Secret", "Pod"] {
                let _ = to_json(&object("v1", kind, &raw));
            }
        }
    }

    #[test]
    fn what_can_not_be_read_is_refused() {
        assert!(matches!(to_json(b"{}"), Err(Error::Malformed(_))));
        assert!(matches!(
            to_json(&object("v1", "Unheard", b"")),
            Err(Error::UnknownKind(..))
        ));
        let good = object("v1", "ConfigMap", &field(1, &field(1, b"a")));
        for end in MAGIC.len() + 1..good.len() {
            // Cut anywhere, it is an error or less of the object, and never a panic.
            let _ = to_json(&good[..end]);
        }
        assert!(to_json(&object("v1", "ConfigMap", &[0x0a, 0xff])).is_err());
        assert!(to_json(&object("v1", "ConfigMap", &[1 << 3, 5])).is_err());
    }
}
