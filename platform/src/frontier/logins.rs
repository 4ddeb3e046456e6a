//! What came of logins by credentials, shared by all workers: sites lock accounts at whose door a wrong password is shown again and again.
//! Told by the id of the write that stored the credentials, so what is stored anew is tried at once.

use std::time::Duration;

use redis::AsyncCommands;
use snafu::ResultExt;
use uuid::Uuid;

use super::{Frontier, FrontierError, FrontierSnafu};

/// How long credentials that a site refused are not tried again.
pub const REFUSED: Duration = Duration::from_mins(15);
/// How long credentials that let somebody in are believed to do so.
const GOOD: Duration = Duration::from_hours(24);
/// How long others wait for who tries first; whoever it was may have died.
const TRIAL: Duration = Duration::from_secs(15);

const IN_TRIAL: &str = "?";
const IS_GOOD: &str = "+";

/// What is known of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Nothing. It is the caller's to try, and to tell what came of it.
    Yours,
    /// Somebody else tries them at the moment.
    UnderWay,
    /// They let somebody in lately.
    Good,
    /// The site refused them lately, for this reason.
    Refused(String),
}

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'v> {
    /// The site let somebody in.
    Good,
    /// The site refused the credentials, for this reason.
    Refused(&'v str),
    /// The site said nothing about them.
    None,
}

impl Frontier {
    /// What is known of credentials before a login by them.
    pub async fn try_credentials(&self, written: Uuid) -> Result<Trial, FrontierError> {
        let mut connection = self.connection("try_credentials").await?;
        let known: Option<String> = redis::cmd("SET")
            .arg(key(written))
            .arg(IN_TRIAL)
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(TRIAL.as_millis().to_string())
            .query_async(&mut connection)
            .await
            .context(FrontierSnafu {
                doing: "asking about a login in",
            })?;
        Ok(match known.as_deref() {
            None => Trial::Yours,
            Some(IN_TRIAL) => Trial::UnderWay,
            Some(IS_GOOD) => Trial::Good,
            Some(why) => Trial::Refused(why.to_owned()),
        })
    }

    /// Remembers what came of a login by these credentials.
    pub async fn tried_credentials(&self, written: Uuid, verdict: Verdict<'_>) -> Result<(), FrontierError> {
        let mut connection = self.connection("tried_credentials").await?;
        let told = match verdict {
            Verdict::Good => connection.set_ex(key(written), IS_GOOD, GOOD.as_secs()).await,
            Verdict::Refused(why) => connection.set_ex(key(written), why, REFUSED.as_secs()).await,
            Verdict::None => connection.del(key(written)).await,
        };
        told.context(FrontierSnafu {
            doing: "telling of a login to",
        })
    }
}

fn key(written: Uuid) -> String {
    format!("sx:login:{written}")
}
