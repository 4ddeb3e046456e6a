//! Follows the configuration file. A file that cannot be read or understood leaves what held before, and says so.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use snafu::{ResultExt, Snafu};
use tokio::{
    fs::File,
    io::AsyncReadExt,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info};

use crate::{
    metrics::Metrics,
    policy::{Policy, PolicyError},
};

/// A larger file is refused.
const MAX_FILE: u64 = 1024 * 1024;

/// Why the file was not taken.
#[derive(Debug, Snafu)]
pub enum LoadError {
    /// It could not be read.
    #[snafu(display("cannot read {}: {source}", path.display()))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It means nothing.
    #[snafu(display("{}: {source}", path.display()))]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PolicyError,
    },
}

/// A configuration file that is read again and again.
pub struct Watched {
    path: PathBuf,
    seen: Vec<u8>,
    policy: watch::Sender<Arc<Policy>>,
    metrics: Arc<Metrics>,
}

impl Watched {
    /// Reads the file for the first time; a bad one is an error here.
    pub async fn load(path: PathBuf, metrics: Arc<Metrics>) -> Result<Self, LoadError> {
        let seen = fetch(&path).await?;
        let policy = Policy::parse(&seen).context(ParseSnafu { path: &path })?;
        info!(path = %path.display(), entries = policy.entries(), "The egress configuration was read.");
        Ok(Self {
            path,
            seen,
            policy: watch::Sender::new(Arc::new(policy)),
            metrics,
        })
    }

    /// The policy, and its changes.
    pub fn policy(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    /// Looks at the file for ever. The content decides, not its time: a `ConfigMap` changes by a symbolic link.
    pub async fn run(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut readable = true;
        loop {
            ticks.tick().await;
            match fetch(&self.path).await {
                Ok(content) => {
                    readable = true;
                    self.take(content);
                }
                Err(error) => {
                    // Said once, not at every look.
                    if readable {
                        self.refuse(&error);
                    }
                    readable = false;
                }
            }
        }
    }

    fn take(&mut self, content: Vec<u8>) {
        if content == self.seen {
            return;
        }
        let parsed = Policy::parse(&content).context(ParseSnafu { path: &self.path });
        self.seen = content;
        match parsed {
            Ok(policy) => {
                info!(path = %self.path.display(), entries = policy.entries(), "The changed egress configuration holds now.");
                self.policy.send_replace(Arc::new(policy));
                self.metrics.reloaded(true);
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&self, error: &LoadError) {
        error!(%error, "The changed egress configuration was refused; the one before still holds.");
        self.metrics.reloaded(false);
    }
}

async fn fetch(path: &Path) -> Result<Vec<u8>, LoadError> {
    let read = async {
        let mut content = Vec::new();
        File::open(path)
            .await?
            .take(MAX_FILE + 1)
            .read_to_end(&mut content)
            .await?;
        if content.len() as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(content)
    };
    read.await.context(ReadSnafu { path })
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const TICK: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_changed_file_holds_and_a_broken_one_leaves_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.json");
        std::fs::write(&path, r#"{"allow":[{"host":"a.example"}]}"#).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let watched = Watched::load(path.clone(), metrics.clone()).await.unwrap();
        let mut policy = watched.policy();
        assert_eq!(policy.borrow_and_update().entries(), 1);
        let running = tokio::spawn(watched.run(TICK));

        replace(&path, r#"{"allow":[{"host":"a.example"},{"host":"b.example"}]}"#);
        timeout(LONG, policy.changed()).await.unwrap().unwrap();
        assert_eq!(policy.borrow_and_update().entries(), 2);

        replace(&path, r#"{"allow": nonsense"#);
        until_rendered(&metrics, r#"reloads_total{result="refused"} 1"#).await;
        assert_eq!(policy.borrow().entries(), 2);

        std::fs::remove_file(&path).unwrap();
        until_rendered(&metrics, r#"reloads_total{result="refused"} 2"#).await;
        replace(&path, "{}");
        timeout(LONG, policy.changed()).await.unwrap().unwrap();
        assert_eq!(policy.borrow_and_update().entries(), 0);
        running.abort();
    }

    #[tokio::test]
    async fn a_file_that_is_bad_from_the_start_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.json");
        let metrics = Arc::new(Metrics::new().unwrap());
        assert!(Watched::load(path.clone(), metrics.clone()).await.is_err());
        std::fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
        assert!(Watched::load(path, metrics).await.is_err());
    }

    fn replace(path: &Path, content: &str) {
        let next = path.with_extension("next");
        std::fs::write(&next, content).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    async fn until_rendered(metrics: &Metrics, line: &str) {
        timeout(LONG, async {
            while !metrics.render().contains(line) {
                tokio::time::sleep(TICK).await;
            }
        })
        .await
        .unwrap();
    }
}
