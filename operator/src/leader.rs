//! One replica works at a time: the lease that makes it the leader, renewed while it works and released when it stops.

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::settings::Settings;

/// A lease is given up by others after this long without a renewal, which is done every 15 seconds.
const LEASE_SECONDS: u64 = 30;
const GRACE_SECONDS: u64 = 15;
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A candidate for the lease, and later its holder.
pub struct Leadership {
    holds: watch::Receiver<bool>,
    task: JoinHandle<kube_lease_manager::Result<kube_lease_manager::LeaseManager>>,
}

impl Leadership {
    /// Begins to try for the lease.
    ///
    /// # Errors
    /// When the lease can neither be read nor created.
    pub async fn start(client: Client, settings: &Settings) -> anyhow::Result<Self> {
        let identity = settings
            .identity
            .clone()
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let manager = LeaseManagerBuilder::new(client, &settings.lease_name)
            .with_namespace(&settings.namespace)
            .with_field_manager(format!("{}-{identity}", settings.lease_name))
            .with_identity(identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(GRACE_SECONDS)
            .build()
            .await
            .with_context(|| format!("cannot use Lease {}/{}", settings.namespace, settings.lease_name))?;
        let (holds, task) = manager.watch().await;
        Ok(Self { holds, task })
    }

    /// Waits until this replica leads.
    ///
    /// # Errors
    /// When the lease's own loop ended.
    pub async fn won(&mut self) -> anyhow::Result<()> {
        self.holds
            .wait_for(|holds| *holds)
            .await
            .context("the lease's loop ended")?;
        Ok(())
    }

    /// Waits until this replica leads no longer.
    pub async fn lost(&mut self) {
        // An ended loop renews nothing: that is a lost lease too.
        let _ = self.holds.wait_for(|holds| !*holds).await;
    }

    /// Gives the lease back, so that another replica takes over at once.
    pub async fn release(self) {
        drop(self.holds);
        match timeout(RELEASE_TIMEOUT, self.task).await {
            Ok(Ok(Ok(_))) => tracing::info!("The lease was released."),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "The lease was not released; it runs out by itself."),
            Ok(Err(_)) | Err(_) => tracing::warn!("The lease was not released in time; it runs out by itself."),
        }
    }
}
