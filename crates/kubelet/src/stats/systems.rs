//! The file systems of pods' volumes, asked with patience: of what a server exports only the server can tell how full it is, and one that is
//! dead keeps the thread that asks. No caller waits for it for long, and no more than one thread does for each pod.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use super::machine::FileSystem;

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// File systems by the name of the volume.
pub type Found = HashMap<String, FileSystem>;

type Look = Shared<BoxFuture<'static, Found>>;

/// Who is being asked.
#[derive(Default)]
pub struct Systems {
    /// The looks that go on, by the pod's uid.
    looks: Arc<Mutex<HashMap<String, Look>>>,
}

impl Systems {
    /// What a look at a pod's volumes finds; nothing where that takes too long. While one goes on, its result is waited for again, and no
    /// other begins.
    pub async fn of(&self, uid: &str, look: impl Future<Output = Found> + Send + 'static) -> Found {
        let going_on = {
            let mut looks = self.looks.lock();
            let begin = || Self::begin(self.looks.clone(), uid.to_owned(), look);
            looks.entry(uid.to_owned()).or_insert_with(begin).clone()
        };
        tokio::time::timeout(PATIENCE, going_on).await.unwrap_or_default()
    }

    /// A look that goes on by itself, and is none of those that go on when it has ended.
    fn begin(
        looks: Arc<Mutex<HashMap<String, Look>>>,
        uid: String,
        look: impl Future<Output = Found> + Send + 'static,
    ) -> Look {
        let task = tokio::spawn(async move {
            let found = look.await;
            looks.lock().remove(&uid);
            found
        });
        async { task.await.unwrap_or_default() }.boxed().shared()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::future::ready;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dead_server_is_asked_once() {
        let systems = Systems::default();
        let found = |free: u64| {
            let system = FileSystem {
                available: free,
                ..FileSystem::default()
            };
            Found::from([("v".to_owned(), system)])
        };
        let never_begun = || async { unreachable!("another look goes on") };
        assert_eq!(systems.of("other", ready(found(1))).await, found(1));
        let (answer, server) = oneshot::channel();
        let dead = systems.of("pod", async { server.await.unwrap() });
        assert_eq!(dead.await, Found::new());
        assert_eq!(systems.of("pod", never_begun()).await, Found::new());
        answer.send(found(2)).unwrap();
        assert_eq!(systems.of("pod", never_begun()).await, found(2));
        assert_eq!(systems.of("pod", ready(found(3))).await, found(3));
    }
}
