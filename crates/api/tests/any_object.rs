//! Objects of every kind with whatever their types allow in them: all rules look at them, none may panic.
//!
//! The objects follow the types' graph, so they pass decoding and reach defaults, validation, tables, fields
//! and merges, with values that no honest client would send.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use api::schema::{Type, Types};
use api::{Catalogue, FieldValidation, Format, patch};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Map, Value, json};

/// Texts at the edges of what fields hold: empty, names, numbers, addresses, other scripts, separators.
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "-",
    ".",
    "..",
    "/",
    "a/b",
    "a/b/c",
    "example.com/x",
    "0",
    "-1",
    "65536",
    "1Gi",
    "é",
    "日本",
    "a=b",
    "a,b",
    "$(X)",
    "$(",
    "10.0.0.1",
    "10.0.0.0/8",
    "::1",
    "fe80::/64",
    "None",
    "TCP",
    "ClusterIP",
    "Always",
    "Never",
    "RuntimeDefault",
    "Equal",
    "Exists",
    "In",
    "NoExecute",
    "Normal",
    "True",
    "kubernetes",
    "\u{0}",
    "\n",
    "100%",
    "2024-01-01T00:00:00Z",
    "kubernetes.io/tls",
    "hugepages-2Mi",
    "cpu",
    "spec.nodeName",
    "metadata.labels['a']",
];

/// Times that their types do not let be absent.
const ALWAYS: &[&str] = &["lastObservedTime", "lastTransitionTime"];

fn value_of(types: &Types, ty: &Type, rng: &mut StdRng, depth: usize) -> Value {
    let text = |rng: &mut StdRng| Value::from(*TEXTS.choose(rng).unwrap());
    match ty {
        Type::String => text(rng),
        Type::Boolean => rng.random_bool(0.5).into(),
        Type::Int32 => (*[0, 1, -1, 80, 65_535, 65_536, i32::MAX, i32::MIN].choose(rng).unwrap()).into(),
        Type::Int64 => (*[0, 1, -1, 30, i64::MAX, i64::MIN].choose(rng).unwrap()).into(),
        Type::Number => json!(0.5),
        Type::Bytes => "eHk=".into(),
        Type::Time => (*["2024-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-30T00:00:00Z"]
            .choose(rng)
            .unwrap())
        .into(),
        Type::Quantity => (*["0", "1", "-1", "100m", "1Gi", "0.5", "9Ei", "1n", "1e3"]
            .choose(rng)
            .unwrap())
        .into(),
        Type::IntOrString => {
            if rng.random_bool(0.5) {
                text(rng)
            } else {
                (-1).into()
            }
        }
        Type::Any => json!({"x": [1, "y", null]}),
        Type::List(item) => (0..rng.random_range(0..3))
            .map(|_| value_of(types, item, rng, depth + 1))
            .collect(),
        Type::Map(item) => (0..rng.random_range(0..3))
            .map(|_| {
                (
                    (*TEXTS.choose(rng).unwrap()).to_owned(),
                    value_of(types, item, rng, depth + 1),
                )
            })
            .collect(),
        Type::Struct(at) => {
            // Deep parts are filled seldom, so that objects stay small and recursive types end.
            let share = if depth < 3 { 0.7 } else { 0.9 / depth as f64 };
            let fields = types.fields(*at).fields();
            fields
                .filter(|field| !matches!(&*field.name, "apiVersion" | "kind") || depth > 0)
                .filter(|field| rng.random_bool(share) || ALWAYS.contains(&&*field.name))
                .map(|field| (field.name.to_string(), field))
                .collect::<Vec<_>>()
                .into_iter()
                .map(|(name, field)| (name, value_of(types, &field.ty, rng, depth + 1)))
                .collect::<Map<_, _>>()
                .into()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_panics(seed in any::<u64>()) {
        let mut rng = StdRng::seed_from_u64(seed);
        let types = Types::builtin();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for resource in Catalogue::builtin().resources() {
            let strategy = resource.strategy;
            let ty = types.find(resource.schema);
            let mut decode = || {
                let value = value_of(types, &ty, &mut rng, 0);
                strategy.decode(value.to_string().as_bytes(), Format::Json, FieldValidation::Strict)
            };
            let mut new = decode().unwrap().object;
            let old = decode().unwrap().object;
            strategy.default(&mut *new);
            strategy.prepare_create(&mut *new);
            strategy.validate_create(&*new);
            strategy.warnings(&*new, None);
            strategy.warnings(&*new, Some(&*old));
            strategy.row(&*new, now);
            strategy.graceful_deletion(&*new, &DeleteOptions::default());
            for field in strategy.fields() {
                strategy.field(&*new, field);
            }
            for subresource in [None].into_iter().chain(resource.subresources.iter().map(|s| Some(s.name))) {
                let mut new = new.clone_object();
                strategy.prepare_update(subresource, &mut *new, &*old);
                strategy.validate_update(subresource, &*new, &*old);
            }
            strategy.mark_deleted(&mut *new);
            // What was written is read again, and is the same.
            let bytes = new.encode().unwrap().stamped(1);
            let mut loaded = strategy.load(&bytes).unwrap();
            prop_assert_eq!(loaded.encode().unwrap().stamped(1), bytes);
            let current = strategy.wire_value(&*new).unwrap();
            let other = strategy.wire_value(&*old).unwrap();
            let _ = patch::strategic_merge(current.clone(), &other, strategy.merge_schema());
            let _ = patch::merge_patch(current, &other);
        }
    }
}
