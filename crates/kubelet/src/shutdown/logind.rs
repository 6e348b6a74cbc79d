//! systemd-logind over D-Bus: the lock that delays a shutdown, and the news that one is coming.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use zbus::Connection;
use zbus::zvariant::OwnedFd;

/// Where logind is told to wait longer than it would.
const OVERRIDE: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";
/// So long logind may take to read its configuration.
const RELOAD: Duration = Duration::from_secs(10);

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    gen_blocking = false
)]
pub(super) trait Manager {
    /// Takes a lock; it is held until what comes back is closed.
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    /// The longest delay that a lock can bring about, in microseconds.
    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> zbus::Result<u64>;

    /// A shutdown is coming, or comes no more.
    #[zbus(signal)]
    fn prepare_for_shutdown(&self, start: bool) -> zbus::Result<()>;
}

/// Makes logind wait for as long as is needed; the error says why it does not.
pub(super) async fn allow_delay(
    connection: &Connection,
    manager: &ManagerProxy<'_>,
    needed: Duration,
) -> Result<(), String> {
    let said = |error: zbus::Error| format!("InhibitDelayMaxUSec: {error}");
    let current = async || {
        manager
            .inhibit_delay_max()
            .await
            .map(Duration::from_micros)
            .map_err(said)
    };
    if current().await? >= needed {
        return Ok(());
    }
    let file = Path::new(OVERRIDE);
    let text = format!(
        "# Podium's kubelet: shutdownGracePeriod\n[Login]\nInhibitDelayMaxSec={}\n",
        needed.as_secs()
    );
    let directory = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(file, text))
        .map_err(|error| format!("write {OVERRIDE}: {error}"))?;
    connection
        .call_method(
            Some("org.freedesktop.systemd1"),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            "KillUnit",
            &("systemd-logind.service", "all", Signal::SIGHUP as i32),
        )
        .await
        .map_err(|error| format!("have systemd-logind read {OVERRIDE}: {error}"))?;
    let begun = tokio::time::Instant::now();
    loop {
        let now = current().await?;
        if now >= needed {
            return Ok(());
        }
        if begun.elapsed() >= RELOAD {
            return Err(format!(
                "unable to update logind InhibitDelayMaxSec to {needed:?} (ShutdownGracePeriod), current value of InhibitDelayMaxSec ({now:?}) is less than requested ShutdownGracePeriod"
            ));
        }
        // logind says nothing when it has read its files.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
