//! Sees to it that each namespace has its ServiceAccount `default`.

use client::kube::api::{Api, PostParams};
use client::{Change, Informers, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller;

const DEFAULT: &str = "default";

/// Whether the account is to be made.
pub fn reconcile(namespace: Option<&Namespace>, account: Option<&ServiceAccount>) -> bool {
    namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none()) && account.is_none()
}

/// Runs until it is dropped.
pub async fn run(informers: &Informers) {
    let namespaces = informers.all::<Namespace>();
    let accounts = informers.all::<ServiceAccount>();
    namespaces.synced().await;
    accounts.synced().await;
    let queue = WorkQueue::<String>::default();
    let feed_namespaces = controller::feed(&namespaces, &queue, |change| change.object().metadata.name.clone());
    let feed_accounts = controller::feed(&accounts, &queue, |change| match change {
        Change::Deleted(account) if account.metadata.name.as_deref() == Some(DEFAULT) => {
            account.metadata.namespace.clone()
        }
        _ => None,
    });
    let work = controller::work("service-account", &queue, async |namespace: String| {
        if !reconcile(
            namespaces.get(None, &namespace).as_deref(),
            accounts.get(Some(&namespace), DEFAULT).as_deref(),
        ) {
            return Ok(());
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let api = Api::<ServiceAccount>::namespaced(informers.client().clone(), &namespace);
        match api.create(&PostParams::default(), &account).await {
            // Made by somebody else, or the namespace is ending.
            Err(client::kube::Error::Api(status)) if [403, 404, 409].contains(&status.code) => Ok(()),
            result => result.map(drop),
        }
    });
    tokio::join!(feed_namespaces, feed_accounts, work);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn only_a_living_namespace_without_one_gets_an_account() {
        let living = Namespace::default();
        let ending = Namespace {
            metadata: ObjectMeta {
                deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
                ..Default::default()
            },
            ..Default::default()
        };
        let account = ServiceAccount::default();
        assert!(reconcile(Some(&living), None));
        assert!(!reconcile(Some(&living), Some(&account)));
        assert!(!reconcile(Some(&ending), None));
        assert!(!reconcile(None, None));
    }
}
