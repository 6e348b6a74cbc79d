//! Reviews: questions that are created, answered at once, and never stored.

use std::marker::PhantomData;

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};

use crate::catalogue::{Resource, Verb};
use crate::meta::NameRule;
use crate::object::Kind;
use crate::strategy::{Strategy, Typed, TypedStrategy};

struct Review<T>(PhantomData<fn() -> T>);

impl<T: Kind> TypedStrategy for Review<T> {
    type Object = T;

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    schema: &'static str,
    strategy: &'static dyn Strategy,
) -> Resource {
    Resource {
        group,
        version: "v1",
        kind,
        list_kind: "",
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: false,
        verbs: &[Verb::Create],
        subresources: &[],
        storage: "",
        schema,
        strategy,
    }
}

macro_rules! reviews {
    ($($name:ident: $ty:ident, $group:literal, $plural:literal, $singular:literal, $package:literal;)*) => {
        $(static $name: Resource = review(
            $group,
            stringify!($ty),
            $plural,
            $singular,
            concat!("io.k8s.api.", $package, ".v1.", stringify!($ty)),
            &Typed::new(
                Review::<$ty>(PhantomData),
                concat!("io.k8s.api.", $package, ".v1.", stringify!($ty)),
            ),
        );)*
    };
}

reviews! {
    TOKEN: TokenReview, "authentication.k8s.io", "tokenreviews", "tokenreview", "authentication";
    SELF_SUBJECT: SelfSubjectReview, "authentication.k8s.io", "selfsubjectreviews", "selfsubjectreview", "authentication";
    SUBJECT_ACCESS: SubjectAccessReview, "authorization.k8s.io", "subjectaccessreviews", "subjectaccessreview", "authorization";
    SELF_ACCESS: SelfSubjectAccessReview, "authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectaccessreview", "authorization";
    SELF_RULES: SelfSubjectRulesReview, "authorization.k8s.io", "selfsubjectrulesreviews", "selfsubjectrulesreview", "authorization";
}

static LOCAL_ACCESS: Resource = Resource {
    namespaced: true,
    ..review(
        "authorization.k8s.io",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        &Typed::new(
            Review::<LocalSubjectAccessReview>(PhantomData),
            "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        ),
    )
};

/// Every review.
pub static RESOURCES: [&Resource; 6] = [
    &TOKEN,
    &SELF_SUBJECT,
    &SUBJECT_ACCESS,
    &SELF_ACCESS,
    &SELF_RULES,
    &LOCAL_ACCESS,
];
