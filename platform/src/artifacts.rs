//! Where artifacts are kept and how many bytes of them an owner may have: the settings that workers, API and keeper share.

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};
use snafu::{ResultExt, Snafu};

use crate::{
    ledger::Secret,
    objects::{Bucket, ObjectError, Objects},
};

/// The most bytes of artifacts, for an owner about whom nobody said anything: 10 GiB.
pub const DEFAULT_BYTES_PER_OWNER: i64 = 10 << 30;

const REGION: &str = "us-east-1";
const PREFIX: &str = "selextract";

/// The settings cannot be used.
#[derive(Debug, Snafu)]
pub enum ArtifactSettingsError {
    /// Something is missing.
    #[snafu(display("{missing} is not set, and SELEXTRACT_S3_BUCKET or SELEXTRACT_ARTIFACT_STORE=s3 ask for it"))]
    Missing {
        /// The variable.
        missing: &'static str,
    },
    /// The file with the certificate authority cannot be read.
    #[snafu(display("SELEXTRACT_S3_CA: {} cannot be read: {source}", path.display()))]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bucket cannot be opened like that.
    #[snafu(display("{source}"))]
    Objects {
        /// Why.
        source: ObjectError,
    },
}

/// Where new artifacts are kept, and where those of before may lie. Secrets come by environment only.
#[derive(Clone, Debug, Args)]
pub struct ArtifactSettings {
    /// Where new artifacts are kept
    #[arg(long, env = "SELEXTRACT_ARTIFACT_STORE", default_value = "database")]
    pub artifact_store: Store,
    /// The most bytes of artifacts of one owner, unless an administrator set another number for him
    #[arg(long, env = "SELEXTRACT_ARTIFACT_BYTES_PER_OWNER", default_value_t = DEFAULT_BYTES_PER_OWNER, value_parser = clap::value_parser!(i64).range(0..))]
    pub artifact_bytes_per_owner: i64,
    /// The bucket; artifacts of before are read and removed there too when new ones go to the database
    #[arg(long, env = "SELEXTRACT_S3_BUCKET")]
    pub s3_bucket: Option<String>,
    /// The region that requests are signed for
    #[arg(long, env = "SELEXTRACT_S3_REGION", default_value = REGION)]
    pub s3_region: String,
    /// http(s)://host[:port] of a store that is not Amazon's
    #[arg(long, env = "SELEXTRACT_S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,
    /// Whether the bucket's name stands in the path, not in the host
    #[arg(long, env = "SELEXTRACT_S3_FORCE_PATH_STYLE", default_value_t = false, action = clap::ArgAction::Set)]
    pub s3_force_path_style: bool,
    /// What every key begins with
    #[arg(long, env = "SELEXTRACT_S3_PREFIX", default_value = PREFIX)]
    pub s3_prefix: String,
    /// A file with the certificate authority (PEM) that signed the endpoint's certificate
    #[arg(long, env = "SELEXTRACT_S3_CA")]
    pub s3_ca: Option<PathBuf>,
    /// Who opens the bucket
    #[arg(long, env = "SELEXTRACT_S3_ACCESS_KEY_ID", hide_env_values = true)]
    pub s3_access_key_id: Option<Secret>,
    /// With what
    #[arg(long, env = "SELEXTRACT_S3_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub s3_secret_access_key: Option<Secret>,
}

/// A place for artifacts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// The ledger's own database.
    #[default]
    Database,
    /// A bucket that speaks S3.
    S3,
}

impl Default for ArtifactSettings {
    fn default() -> Self {
        Self {
            artifact_store: Store::Database,
            artifact_bytes_per_owner: DEFAULT_BYTES_PER_OWNER,
            s3_bucket: None,
            s3_region: REGION.to_owned(),
            s3_endpoint: None,
            s3_force_path_style: false,
            s3_prefix: PREFIX.to_owned(),
            s3_ca: None,
            s3_access_key_id: None,
            s3_secret_access_key: None,
        }
    }
}

/// Where artifacts are kept, as the ledger uses it.
#[derive(Clone, Debug)]
pub struct ArtifactHome {
    /// Where new ones go.
    pub(crate) store: Store,
    /// The bucket, where there is one.
    pub(crate) objects: Option<Objects>,
    /// The most bytes of an owner about whom nobody said anything.
    pub(crate) bytes_per_owner: i64,
}

impl Default for ArtifactHome {
    fn default() -> Self {
        Self {
            store: Store::Database,
            objects: None,
            bytes_per_owner: DEFAULT_BYTES_PER_OWNER,
        }
    }
}

impl ArtifactSettings {
    /// The home that they describe. Reads the certificate authority; reaches nothing.
    ///
    /// # Errors
    /// When something is missing or cannot be read; the message names the variable.
    pub fn home(&self) -> Result<ArtifactHome, ArtifactSettingsError> {
        let wanted = self.artifact_store == Store::S3 || self.s3_bucket.is_some();
        let objects = wanted.then(|| self.bucket()).transpose()?;
        let objects = objects.as_ref().map(Objects::connect_lazy).transpose();
        Ok(ArtifactHome {
            store: self.artifact_store,
            objects: objects.context(ObjectsSnafu)?,
            bytes_per_owner: self.artifact_bytes_per_owner,
        })
    }

    fn bucket(&self) -> Result<Bucket, ArtifactSettingsError> {
        let authority = self.s3_ca.as_ref().map(|path| {
            let read = fs::read(path);
            read.context(AuthoritySnafu { path })
        });
        Ok(Bucket {
            name: there(self.s3_bucket.as_ref(), "SELEXTRACT_S3_BUCKET")?,
            region: self.s3_region.clone(),
            endpoint: self.s3_endpoint.clone(),
            path_style: self.s3_force_path_style,
            access_key_id: there(self.s3_access_key_id.as_ref(), "SELEXTRACT_S3_ACCESS_KEY_ID")?,
            secret_access_key: there(self.s3_secret_access_key.as_ref(), "SELEXTRACT_S3_SECRET_ACCESS_KEY")?,
            authority: authority.transpose()?,
            prefix: self.s3_prefix.clone(),
        })
    }
}

fn there<T: Clone>(given: Option<&T>, missing: &'static str) -> Result<T, ArtifactSettingsError> {
    given.cloned().ok_or(ArtifactSettingsError::Missing { missing })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        artifacts: ArtifactSettings,
    }

    fn settings(arguments: &[&str]) -> ArtifactSettings {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Program::parse_from(["program"].iter().chain(arguments)).artifacts
    }

    #[test]
    fn without_a_word_artifacts_lie_in_the_database() {
        assert_eq!(
            format!("{:?}", settings(&[])),
            format!("{:?}", ArtifactSettings::default())
        );
        let home = settings(&[]).home().unwrap();
        assert!(home.store == Store::Database && home.objects.is_none());
        assert_eq!(home.bytes_per_owner, 10 << 30);
    }

    #[test]
    fn what_is_missing_for_a_bucket_is_named() {
        let missing = |arguments: &[&str]| settings(arguments).home().unwrap_err().to_string();
        assert!(missing(&["--artifact-store=s3"]).starts_with("SELEXTRACT_S3_BUCKET"));
        assert!(missing(&["--s3-bucket=b"]).starts_with("SELEXTRACT_S3_ACCESS_KEY_ID"));
        assert!(missing(&["--s3-bucket=b", "--s3-access-key-id=k"]).starts_with("SELEXTRACT_S3_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn a_bucket_of_before_stays_known_when_new_artifacts_go_to_the_database() {
        let given = [
            "--s3-bucket=b",
            "--s3-access-key-id=k",
            "--s3-secret-access-key=hunter2",
        ];
        let settings = settings(&given);
        assert!(!format!("{settings:?}").contains("hunter2"));
        let home = settings.home().unwrap();
        assert!(home.store == Store::Database && home.objects.is_some());
    }
}
