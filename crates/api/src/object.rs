//! A decoded object of any kind, and its encoding.

use std::any::Any;
use std::fmt::Debug;
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An object could not be turned into JSON, or its JSON does not have the shape that every object has.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A field's value has no JSON form (a time before year 0, for example).
    #[error("encoding a {kind}: {source}")]
    Json {
        /// The kind of the object.
        kind: &'static str,
        /// What serialisation said.
        source: serde_json::Error,
    },
    /// The metadata was not found in the bytes; only a broken type can cause it.
    #[error("encoding a {kind}: its metadata is not in its JSON")]
    NoMetadata {
        /// The kind of the object.
        kind: &'static str,
    },
}

/// JSON bytes with no resourceVersion's digits in them, and the offset where the store puts the revision in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The object, with `"resourceVersion":""` in its metadata.
    pub bytes: Vec<u8>,
    /// The offset between those two quotes.
    pub stamp: usize,
}

impl Encoded {
    /// The bytes with `revision` put in at the stamp.
    pub fn stamped(&self, revision: u64) -> Vec<u8> {
        let digits = revision.to_string();
        let mut out = Vec::with_capacity(self.bytes.len() + digits.len());
        out.extend_from_slice(&self.bytes[..self.stamp]);
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(&self.bytes[self.stamp..]);
        out
    }
}

/// What a type has to be for [`Object`] and a [`TypedStrategy`](crate::TypedStrategy); the types of
/// `k8s-openapi` with object metadata are.
pub trait Kind:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + schemars::JsonSchema
    + Clone
    + Debug
    + Default
    + PartialEq
    + Send
    + Sync
    + 'static
{
}

impl<T> Kind for T where
    T: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + schemars::JsonSchema
        + Clone
        + Debug
        + Default
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// A decoded object. `k8s-openapi` types implement it.
pub trait Object: Debug + Send + Sync + 'static {
    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// The bytes to store: apiVersion and kind included, resourceVersion left to the store. The object is
    /// as before when this returns; it is borrowed mutably so that nothing has to be copied meanwhile.
    fn encode(&mut self) -> Result<Encoded, EncodeError>;
    /// The object as a JSON value, resourceVersion as it stands in the metadata.
    fn to_value(&self) -> Result<Value, EncodeError>;
    /// A copy.
    fn clone_object(&self) -> Box<dyn Object>;
    /// Whether both are of one type and equal in every field.
    fn equals(&self, other: &dyn Object) -> bool;
    /// The typed object behind the trait.
    fn as_any(&self) -> &dyn Any;
    /// The typed object behind the trait, to change.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// Stands for the revision while an object is serialised, so that its place can be found in one scan. It
/// is random for each process: nobody can send a value that is mistaken for it.
static SENTINEL: LazyLock<String> = LazyLock::new(|| format!("\u{1}{}", uuid::Uuid::new_v4().simple()));

/// How the sentinel looks once it is JSON.
static NEEDLE: LazyLock<Vec<u8>> =
    LazyLock::new(|| format!("\"resourceVersion\":\"\\u0001{}\"", &SENTINEL[1..]).into_bytes());

const BEFORE_DIGITS: usize = "\"resourceVersion\":\"".len();

impl<T: Kind> Object for T {
    fn metadata(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }

    fn encode(&mut self) -> Result<Encoded, EncodeError> {
        let version = Object::metadata_mut(self).resource_version.replace(SENTINEL.clone());
        let encoded = serde_json::to_vec(self);
        Object::metadata_mut(self).resource_version = version;
        let mut bytes = encoded.map_err(|source| EncodeError::Json { kind: T::KIND, source })?;
        let at = memchr::memmem::find(&bytes, &NEEDLE).ok_or(EncodeError::NoMetadata { kind: T::KIND })?;
        let stamp = at + BEFORE_DIGITS;
        bytes.drain(stamp..at + NEEDLE.len() - 1);
        Ok(Encoded { bytes, stamp })
    }

    fn to_value(&self) -> Result<Value, EncodeError> {
        serde_json::to_value(self).map_err(|source| EncodeError::Json { kind: T::KIND, source })
    }

    fn clone_object(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn equals(&self, other: &dyn Object) -> bool {
        other.as_any().downcast_ref::<T>().is_some_and(|other| self == other)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
