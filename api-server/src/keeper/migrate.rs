//! The migration job: roles, database, schema and the first administrator. It ends with one sentence when it fails.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use selextract_platform::{
    bootstrap::{self, RolePasswords},
    ledger::Secret,
};
use tracing::{info, warn};

use super::MigrateSettings;
use crate::auth::password::hash_once;

/// Runs the migration; it may be run again at any time.
pub async fn run(settings: MigrateSettings) -> Result<()> {
    let owner = Secret(settings.database_direct_url);
    if let Some(superuser) = settings.database_superuser_url {
        let missing = "goes with SELEXTRACT_DATABASE_SUPERUSER_URL and is missing";
        let passwords = RolePasswords {
            owner: Secret(
                settings
                    .owner_password
                    .with_context(|| format!("SELEXTRACT_DATABASE_OWNER_PASSWORD {missing}"))?,
            ),
            app: Secret(
                settings
                    .app_password
                    .with_context(|| format!("SELEXTRACT_DATABASE_APP_PASSWORD {missing}"))?,
            ),
            replication: Secret(
                settings
                    .replication_password
                    .with_context(|| format!("SELEXTRACT_DATABASE_REPLICATION_PASSWORD {missing}"))?,
            ),
        };
        bootstrap::prepare_server(&Secret(superuser), &bootstrap::database_of(&owner)?, &passwords).await?;
        info!("Roles and database are there.");
    }
    bootstrap::migrate(&owner, Timestamp::now()).await?;
    info!("The schema is at this version.");
    bootstrap::ensure_admin(&owner, &hash_once(&settings.admin_password)?).await?;
    info!("The administrator is there.");
    if let Some(file) = settings.report
        && let Err(error) = report(&owner, &file).await
    {
        // The migration is done; that it cannot be told does not undo it.
        warn!(%error, file = %file.display(), "The server's version cannot be reported.");
    }
    Ok(())
}

async fn report(owner: &Secret, file: &Path) -> Result<()> {
    let version = bootstrap::server_version(owner).await?;
    Ok(tokio::fs::write(file, version).await?)
}
