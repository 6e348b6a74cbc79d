//! What the server itself stands for is made again when somebody deletes or changes it, as upstream's controllers of the
//! `kubernetes` Service and of the system's namespaces do: `kubectl delete all --all` cuts no pod off from the API.

use std::{sync::Weak, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream::select_all};
use store::Store;

use crate::{
    bootstrap,
    registry::key,
    server::{ApiServer, Server},
};

/// The least time between two looks, so that whoever insists on another state costs little.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches the objects and mends them, as long as the server is there.
pub(crate) async fn run(server: Weak<Server>) {
    let Some(strong) = server.upgrade() else { return };
    let keys: Vec<String> = bootstrap::OWN
        .iter()
        .filter_map(|(group, plural, namespace, name)| {
            let resource = strong.catalogue.find(group, "v1", plural)?;
            Some(key(resource, *namespace, name))
        })
        .collect();
    let (store, ending) = (strong.store.clone(), strong.ending.clone());
    drop(strong);
    let kept = async {
        loop {
            match follow(&*store, &keys, &server).await {
                // It fell behind the store's history, and looks anew.
                Err(store::Error::Compacted { .. }) => {}
                Err(error) => return tracing::error!(%error, "keeping the server's own objects"),
                Ok(()) => return,
            }
        }
    };
    ending.run_until_cancelled(kept).await;
}

async fn follow(store: &dyn Store, keys: &[String], server: &Weak<Server>) -> Result<(), store::Error> {
    let from = store.revision().await?;
    let mut watches = Vec::with_capacity(keys.len());
    for key in keys {
        watches.push(store.watch(key, from).await?);
    }
    let mut changes = select_all(watches);
    // What changed before the watches began has to be found too.
    loop {
        let Some(server) = ApiServer::upgrade(server) else {
            return Ok(());
        };
        let mended = bootstrap::mend(&server).await;
        drop(server);
        tokio::time::sleep(PAUSE).await;
        if let Err(error) = mended {
            tracing::warn!(%error, "an object of the server's own is not made again yet");
            continue;
        }
        match changes.next().await {
            Some(change) => drop(change?),
            None => return Ok(()),
        }
        while let Some(Some(change)) = changes.next().now_or_never() {
            change?;
        }
    }
}
