//! The rules of one kind: [`TypedStrategy`] is what a kind's module writes, [`Strategy`] is the same with
//! its type erased, for the machinery that serves every kind alike.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use schemars::SchemaGenerator;
use serde_json::Value;

use crate::decode::{self, Decoded, FieldValidation, Format};
use crate::field::FieldError;
use crate::meta::NameRule;
use crate::object::{Kind, Object};
use crate::patch::MergeSchema;
use crate::status::{self, Status};
use crate::table::Column;

/// How an object goes when it is deleted and no finalizer holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// At once.
    Immediate,
    /// It is marked, and goes when its keeper (a kubelet, for a pod) has let it go, at the latest after
    /// this many seconds.
    Seconds(i64),
}

/// The rules of one kind, typed. Everything but the type has a default, which is that of a plain kind such
/// as ConfigMap: no defaults, no status, only its metadata to validate.
///
/// ObjectMeta is prepared and validated for every kind by [`crate::lifecycle`]; a kind says only which
/// names it allows.
pub trait TypedStrategy: Send + Sync + 'static {
    /// The stored type. Where a kind is served in several versions, all strategies share one stored type.
    type Object: Kind;

    /// The names that `metadata.name` may have.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Fills in what the client left out.
    fn default(&self, object: &mut Self::Object) {
        let _ = object;
    }

    /// Clears what a client may not set at creation (status, as a rule).
    fn prepare_create(&self, object: &mut Self::Object) {
        let _ = object;
    }

    /// Checks everything below the metadata of a new object.
    fn validate_create(&self, object: &Self::Object) -> Vec<FieldError> {
        let _ = object;
        Vec::new()
    }

    /// Puts back what an update of the object, or of one of its subresources, may not change.
    fn prepare_update(&self, subresource: Option<&str>, new: &mut Self::Object, old: &Self::Object) {
        let _ = (subresource, new, old);
    }

    /// Checks an update: the new object, and what may change from the old.
    fn validate_update(&self, subresource: Option<&str>, new: &Self::Object, old: &Self::Object) -> Vec<FieldError> {
        let _ = (subresource, new, old);
        Vec::new()
    }

    /// Whether a PUT on a name that is not there creates the object.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may leave the resourceVersion out.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// How the object goes when it is deleted.
    fn graceful_deletion(&self, object: &Self::Object, options: &DeleteOptions) -> Grace {
        let _ = (object, options);
        Grace::Immediate
    }

    /// Whether something other than `metadata.finalizers` keeps a deleted object (a namespace has finalizers
    /// in its spec).
    fn is_held(&self, object: &Self::Object) -> bool {
        let _ = object;
        false
    }

    /// Changes an object that was marked as deleted and stays for now.
    fn mark_deleted(&self, object: &mut Self::Object) {
        let _ = object;
    }

    /// The object as its `scale` subresource shows it, for a kind that has one.
    fn scale(&self, object: &Self::Object) -> Option<Scale> {
        let _ = object;
        None
    }

    /// Wishes for another number of replicas.
    fn set_replicas(&self, object: &mut Self::Object, replicas: i32) {
        let _ = (object, replicas);
    }

    /// The columns of its table, those of `-o wide` with priority 1.
    fn columns(&self) -> &'static [Column] {
        crate::table::NAME_AND_CREATED
    }

    /// The cells of one row, as many as columns.
    fn row(&self, object: &Self::Object, now: Timestamp) -> Vec<Value> {
        crate::table::name_and_created(k8s_openapi::Metadata::metadata(object), now)
    }

    /// The paths, beside `metadata.name` and `metadata.namespace`, that a field selector may name.
    fn fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value at one of [`Self::fields`].
    fn field(&self, object: &Self::Object, path: &str) -> Option<String> {
        let _ = (object, path);
        None
    }

    /// What to warn the client of when it creates (`old` is none) or updates the object.
    fn warnings(&self, new: &Self::Object, old: Option<&Self::Object>) -> Vec<String> {
        let _ = (new, old);
        Vec::new()
    }

    /// What to tell whoever asks for the kind at all: that it is going, and what comes in its place.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }

    /// Reads a request body. Only a version that is stored as another has its own.
    fn decode(
        &self,
        body: &[u8],
        format: Format,
        validation: FieldValidation,
    ) -> Result<(Self::Object, Vec<String>), Status> {
        decode::body(body, format, validation)
    }

    /// As [`Self::decode`], from a JSON value.
    fn decode_value(
        &self,
        value: Value,
        validation: FieldValidation,
        origin: decode::Origin<'_>,
    ) -> Result<(Self::Object, Vec<String>), Status> {
        decode::value_as(value, validation, origin)
    }

    /// Adds the JSON schema of the kind, as clients see it, to a generator.
    fn schema(&self, generator: &mut SchemaGenerator) {
        generator.subschema_for::<Self::Object>();
    }

    /// The object as clients of this version see it.
    fn wire_value(&self, object: &Self::Object) -> Result<Value, Status> {
        object.to_value().map_err(status::internal)
    }

    /// Stored bytes as clients of this version see them: the same bytes, but for a version that is stored
    /// as another.
    fn wire<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, Status> {
        Ok(Cow::Borrowed(stored))
    }
}

/// The rules of one kind, for machinery that serves every kind. Objects passed in have to be of the
/// strategy's type: they come from its own [`Strategy::decode`] and [`Strategy::load`].
#[allow(missing_docs, reason = "each method is that of TypedStrategy, documented there")]
pub trait Strategy: Send + Sync {
    fn name_rule(&self) -> NameRule;
    fn decode(&self, body: &[u8], format: Format, validation: FieldValidation) -> Result<Decoded, Status>;
    fn decode_value(
        &self,
        value: Value,
        validation: FieldValidation,
        origin: decode::Origin<'_>,
    ) -> Result<Decoded, Status>;
    /// Reads bytes of the store, which were checked when they were written.
    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, Status>;
    fn wire_value(&self, object: &dyn Object) -> Result<Value, Status>;
    fn wire<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, Status>;
    fn default(&self, object: &mut dyn Object);
    fn prepare_create(&self, object: &mut dyn Object);
    fn validate_create(&self, object: &dyn Object) -> Vec<FieldError>;
    fn prepare_update(&self, subresource: Option<&str>, new: &mut dyn Object, old: &dyn Object);
    fn validate_update(&self, subresource: Option<&str>, new: &dyn Object, old: &dyn Object) -> Vec<FieldError>;
    fn allow_create_on_update(&self) -> bool;
    fn allow_unconditional_update(&self) -> bool;
    fn graceful_deletion(&self, object: &dyn Object, options: &DeleteOptions) -> Grace;
    fn is_held(&self, object: &dyn Object) -> bool;
    fn mark_deleted(&self, object: &mut dyn Object);
    fn scale(&self, object: &dyn Object) -> Option<Scale>;
    fn set_replicas(&self, object: &mut dyn Object, replicas: i32);
    fn columns(&self) -> &'static [Column];
    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    fn fields(&self) -> &'static [&'static str];
    /// The value of a selectable field, `metadata.name` and `metadata.namespace` included; none when the
    /// field is not selectable.
    fn field(&self, object: &dyn Object, path: &str) -> Option<String>;
    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    fn deprecation(&self) -> Option<&'static str>;
    fn merge_schema(&self) -> &MergeSchema;
    /// Adds the JSON schema of the kind, and of all that it uses, to a generator.
    fn schema(&self, generator: &mut SchemaGenerator);
}

/// A [`TypedStrategy`] with its type erased.
pub struct Typed<S> {
    strategy: S,
    merge: MergeSchema,
}

impl<S: TypedStrategy> Typed<S> {
    /// Erases the type of `strategy`; `schema` is its type's name in OpenAPI, such as `io.k8s.api.core.v1.Pod`.
    pub const fn new(strategy: S, schema: &'static str) -> Self {
        Typed {
            strategy,
            merge: MergeSchema::of(schema),
        }
    }
}

/// The typed object. Callers only pass objects of the strategy's own making, so the type always fits.
fn typed<T: Kind>(object: &dyn Object) -> &T {
    object
        .as_any()
        .downcast_ref()
        .expect("the object is of its strategy's type")
}

fn typed_mut<T: Kind>(object: &mut dyn Object) -> &mut T {
    object
        .as_any_mut()
        .downcast_mut()
        .expect("the object is of its strategy's type")
}

impl<S: TypedStrategy> Strategy for Typed<S> {
    fn name_rule(&self) -> NameRule {
        self.strategy.name_rule()
    }

    fn decode(&self, body: &[u8], format: Format, validation: FieldValidation) -> Result<Decoded, Status> {
        let (object, warnings) = self.strategy.decode(body, format, validation)?;
        Ok(Decoded {
            object: Box::new(object),
            warnings,
        })
    }

    fn decode_value(
        &self,
        value: Value,
        validation: FieldValidation,
        origin: decode::Origin<'_>,
    ) -> Result<Decoded, Status> {
        let (object, warnings) = self.strategy.decode_value(value, validation, origin)?;
        Ok(Decoded {
            object: Box::new(object),
            warnings,
        })
    }

    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, Status> {
        let object: S::Object = serde_json::from_slice(stored).map_err(status::internal)?;
        Ok(Box::new(object))
    }

    fn wire_value(&self, object: &dyn Object) -> Result<Value, Status> {
        self.strategy.wire_value(typed(object))
    }

    fn wire<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, Status> {
        self.strategy.wire(stored)
    }

    fn default(&self, object: &mut dyn Object) {
        self.strategy.default(typed_mut(object));
    }

    fn prepare_create(&self, object: &mut dyn Object) {
        self.strategy.prepare_create(typed_mut(object));
    }

    fn validate_create(&self, object: &dyn Object) -> Vec<FieldError> {
        self.strategy.validate_create(typed(object))
    }

    fn prepare_update(&self, subresource: Option<&str>, new: &mut dyn Object, old: &dyn Object) {
        self.strategy.prepare_update(subresource, typed_mut(new), typed(old));
    }

    fn validate_update(&self, subresource: Option<&str>, new: &dyn Object, old: &dyn Object) -> Vec<FieldError> {
        self.strategy.validate_update(subresource, typed(new), typed(old))
    }

    fn allow_create_on_update(&self) -> bool {
        self.strategy.allow_create_on_update()
    }

    fn allow_unconditional_update(&self) -> bool {
        self.strategy.allow_unconditional_update()
    }

    fn graceful_deletion(&self, object: &dyn Object, options: &DeleteOptions) -> Grace {
        self.strategy.graceful_deletion(typed(object), options)
    }

    fn is_held(&self, object: &dyn Object) -> bool {
        self.strategy.is_held(typed(object))
    }

    fn mark_deleted(&self, object: &mut dyn Object) {
        self.strategy.mark_deleted(typed_mut(object));
    }

    fn scale(&self, object: &dyn Object) -> Option<Scale> {
        self.strategy.scale(typed(object))
    }

    fn set_replicas(&self, object: &mut dyn Object, replicas: i32) {
        self.strategy.set_replicas(typed_mut(object), replicas);
    }

    fn columns(&self) -> &'static [Column] {
        self.strategy.columns()
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        self.strategy.row(typed(object), now)
    }

    fn fields(&self) -> &'static [&'static str] {
        self.strategy.fields()
    }

    fn field(&self, object: &dyn Object, path: &str) -> Option<String> {
        match path {
            "metadata.name" => Some(object.metadata().name.clone().unwrap_or_default()),
            "metadata.namespace" => Some(object.metadata().namespace.clone().unwrap_or_default()),
            _ => self.strategy.field(typed(object), path),
        }
    }

    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        self.strategy.warnings(typed(new), old.map(typed))
    }

    fn deprecation(&self) -> Option<&'static str> {
        self.strategy.deprecation()
    }

    fn merge_schema(&self) -> &MergeSchema {
        &self.merge
    }

    fn schema(&self, generator: &mut SchemaGenerator) {
        self.strategy.schema(generator);
    }
}
