//! What `run`, `capture`, `merge`, `backfill` and `demo` share: signals, the admin interface, the process's metrics.

use crate::admin::{Admin, MetricsPage, bind};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::{Halves, Status, others_at_work, run};
use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// However short the commits' interval: a lag below this is ready.
const LEAST_ALLOWED_LAG: Duration = Duration::from_secs(30);

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at once, as an impatient operator wants.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    let failed = |error: std::io::Error| Error::config("signals can't be received").caused_by(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (sender, mut receiver) = watch::channel(false);
    tokio::spawn(async move {
        for is_first in [true, false] {
            let code = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if is_first {
                sender.send_replace(true);
            } else {
                tracing::warn!("stopped at the second signal; what wasn't committed is read again by the next run");
                std::process::exit(code);
            }
        }
    });
    Ok(async move {
        // the sender lives as long as the process
        let _ = receiver.wait_for(|stop| *stop).await;
    })
}

/// Runs the halves with the admin interface beside them until `shutdown`.
pub(super) async fn serve(config: Config, halves: Halves, status: Status, shutdown: impl Future<Output = ()>) -> Result<()> {
    let metrics = MetricsPage::install()?;
    let (stop_admin, admin_stopped) = watch::channel(false);
    let listener = match bind(&config.admin).await {
        Ok(listener) => listener,
        // who has the address may be a service of this very pipeline
        Err(taken) => return Err(others_at_work(&config, halves).await.unwrap_or(taken)),
    };
    let admin = match listener {
        None => None,
        Some(listener) => {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "admin interface");
            }
            let allowed_lag = LEAST_ALLOWED_LAG.max(config.lake.commit_interval() * 3);
            let admin = Admin { status: status.clone(), metrics, allowed_lag };
            let mut stopped = admin_stopped.clone();
            Some(tokio::spawn(admin.serve(listener, async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            })))
        }
    };
    let outcome = run(config, halves, status, shutdown).await;
    stop_admin.send_replace(true);
    if let Some(admin) = admin {
        // a client that keeps its connection open doesn't keep the process
        let _ = tokio::time::timeout(Duration::from_secs(1), admin).await;
    }
    outcome
}
