//! ServiceAccount: an identity for pods. Its tokens are asked for by the `token` subresource.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::Value;

use crate::catalogue::{ALL_VERBS, Resource, Subresource, Verb};
use crate::strategy::{Typed, TypedStrategy};
use crate::table::{AGE, Column, NAME, age_cell, name_cell};

const SCHEMA: &str = "io.k8s.api.core.v1.ServiceAccount";

/// `serviceaccounts`
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "token",
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        verbs: &[Verb::Create],
    }],
    storage: "serviceaccounts",
    schema: SCHEMA,
    strategy: &Typed::new(ServiceAccounts, SCHEMA),
};

struct ServiceAccounts;

impl TypedStrategy for ServiceAccounts {
    type Object = ServiceAccount;

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::new(
                "Secrets",
                "string",
                "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use. Pods are only limited to this list if this service account has a \"kubernetes.io/enforce-mountable-secrets\" annotation set to \"true\". The \"kubernetes.io/enforce-mountable-secrets\" annotation is deprecated since v1.32. Prefer separate namespaces to isolate access to mounted secrets. This field should not be used to find auto-generated service account token secrets for use outside of pods. Instead, tokens can be requested directly using the TokenRequest API, or service account token secrets can be manually created. More info: https://kubernetes.io/docs/concepts/configuration/secret",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
        let secrets = account.secrets.as_ref().map_or(0, Vec::len);
        vec![
            name_cell(&account.metadata),
            secrets.into(),
            age_cell(&account.metadata, now),
        ]
    }
}
