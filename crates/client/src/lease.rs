//! Heartbeats: a Lease that its holder renews.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};
use tracing::warn;

/// Whose heartbeat it is and how fast it beats.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Where the Lease lives, such as `kube-node-lease`.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// After how long without renewal the holder counts as gone.
    pub duration: Duration,
    /// How often it is renewed.
    pub every: Duration,
}

/// Renews the lease at once and then at every interval, until the future is dropped. `owner` is asked when the Lease is created.
pub async fn keep<F>(client: Client, heartbeat: Heartbeat, owner: impl Fn() -> F)
where
    F: Future<Output = Option<OwnerReference>>,
{
    let api = Api::<Lease>::namespaced(client, &heartbeat.namespace);
    let mut held: Option<Lease> = None;
    let mut beat = tokio::time::interval(heartbeat.every);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        held = match renew(&api, &heartbeat, held, &owner).await {
            Ok(lease) => Some(lease),
            Err(error) => {
                warn!(lease = %heartbeat.name, %error, "heartbeat not written");
                None
            }
        };
    }
}

async fn renew<F>(
    api: &Api<Lease>,
    heartbeat: &Heartbeat,
    held: Option<Lease>,
    owner: &impl Fn() -> F,
) -> Result<Lease, kube::Error>
where
    F: Future<Output = Option<OwnerReference>>,
{
    let known = match held {
        Some(lease) => Some(lease),
        None => api.get_opt(&heartbeat.name).await?,
    };
    let now = Timestamp::now();
    match known {
        Some(mut lease) => {
            // One that was made while the owner was not there gets it later.
            if lease.metadata.owner_references.is_none() {
                lease.metadata.owner_references = owner().await.map(|owner| vec![owner]);
            }
            let renewed = renewed(heartbeat, lease, now);
            match api.replace(&heartbeat.name, &PostParams::default(), &renewed).await {
                // Somebody else wrote it, or deleted it: the next beat looks first. This one must still be seen.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    match api.get_opt(&heartbeat.name).await? {
                        Some(lease) => {
                            api.replace(
                                &heartbeat.name,
                                &PostParams::default(),
                                &self::renewed(heartbeat, lease, now),
                            )
                            .await
                        }
                        None => {
                            api.create(&PostParams::default(), &fresh(heartbeat, owner().await, now))
                                .await
                        }
                    }
                }
                answer => answer,
            }
        }
        None => {
            api.create(&PostParams::default(), &fresh(heartbeat, owner().await, now))
                .await
        }
    }
}

fn fresh(heartbeat: &Heartbeat, owner: Option<OwnerReference>, now: Timestamp) -> Lease {
    let metadata = ObjectMeta {
        name: Some(heartbeat.name.clone()),
        namespace: Some(heartbeat.namespace.clone()),
        owner_references: owner.map(|owner| vec![owner]),
        ..Default::default()
    };
    renewed(heartbeat, Lease { metadata, spec: None }, now)
}

fn renewed(heartbeat: &Heartbeat, mut lease: Lease, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(heartbeat.holder.clone());
    spec.lease_duration_seconds = Some(i32::try_from(heartbeat.duration.as_secs()).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(now));
    lease
}
