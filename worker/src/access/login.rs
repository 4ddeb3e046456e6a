//! The login of a run. Its claims in this worker share it: one of them makes it while the others wait, and then they go on with its
//! cookies. What sites set later is each claim's own.
//!
//! Credentials that no worker has tried lately are tried by one, and those that a site refused are not tried again for a while, by no run of
//! any worker: a site locks the account otherwise.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use selextract_platform::frontier::{
    Frontier,
    logins::{REFUSED, Trial, Verdict},
};
use selextract_task::credentials::FormLogin;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::sleep,
};
use url::Url;
use uuid::Uuid;

use super::{Access, http_login::FAILED, jar::Kept};
use crate::{claims::jittered, failure::Failure};

/// How long a session is believed, however it is used: a site that has forgotten one may go on as if nobody had ever logged in.
const LIVES: Duration = Duration::from_mins(15);
/// The most runs whose logins a worker remembers.
const MOST: u64 = 1000;
/// How often it is asked what came of another's trial.
const POLL: Duration = Duration::from_millis(250);

/// The logins of this worker's runs, by run and by the write of their credentials: what is stored anew is used at once.
#[derive(Clone)]
pub(super) struct Logins {
    made: Cache<(Uuid, Uuid), Arc<Login>>,
    frontier: Option<Frontier>,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            made: Cache::builder().max_capacity(MOST).time_to_live(LIVES).build(),
            frontier: None,
        }
    }
}

impl Logins {
    /// With what the other workers know.
    pub(super) fn shared_by(frontier: Frontier) -> Self {
        Self {
            frontier: Some(frontier),
            ..Self::default()
        }
    }

    /// The one that these claims share.
    pub(super) async fn of(&self, run: Uuid, credentials: Uuid) -> Arc<Login> {
        let new = async {
            let trials = self.frontier.clone().map(|frontier| Trials {
                frontier,
                written: credentials,
            });
            Arc::new(Login {
                made: Mutex::default(),
                trials,
            })
        };
        self.made.get_with((run, credentials), new).await
    }
}

/// One login, made at most by one claim at a time.
#[derive(Default)]
pub(super) struct Login {
    made: Mutex<Made>,
    trials: Option<Trials>,
}

/// What all workers know of the credentials of this write.
struct Trials {
    frontier: Frontier,
    written: Uuid,
}

/// What came of it.
#[derive(Default)]
struct Made {
    /// How often it was made.
    times: u32,
    /// With which a request is the member's.
    cookies: Option<Vec<Kept>>,
}

/// A login that this claim is to make. Others of its run wait until it is done or given up.
pub struct Entering<'a> {
    access: &'a Access,
    made: MutexGuard<'a, Made>,
    /// Nobody knows of the credentials yet, and others wait for what comes of this.
    is_trial: bool,
    /// Where the form is.
    pub page: &'a Url,
    /// How it is filled in.
    pub form: &'a FormLogin,
}

/// What came of a login.
#[derive(Debug)]
pub enum Came {
    /// It went well, and the jar has the session: both engines and the run's other claims go on with it.
    In,
    /// It went well, but the session is in one tab alone.
    InATab,
    /// The site was shown the credentials, answered, and let nobody in.
    Refused(Failure),
}

impl Access {
    /// Begins a login where one is due. `None` when there is none to make: perhaps another claim of the run has made it meanwhile, and the
    /// jar has its cookies now.
    ///
    /// # Errors
    /// `LoginFailed` when the site refused the credentials lately.
    pub async fn begin_login(&self) -> Result<Option<Entering<'_>>, Failure> {
        let Some((page, form)) = self.due_login() else {
            return Ok(None);
        };
        let made = self.login.made.lock().await;
        let is_lost = self.session().lost == Some(made.times);
        if let Some(cookies) = made.cookies.as_ref().filter(|_| !is_lost) {
            self.jar().extend(cookies);
            self.session().enter(made.times);
            return Ok(None);
        }
        let is_trial = match &self.login.trials {
            Some(trials) => trials.begin().await?,
            None => false,
        };
        Ok(Some(Entering {
            access: self,
            made,
            is_trial,
            page,
            form,
        }))
    }
}

impl Trials {
    /// Waits for another's trial of the credentials, and says whether this is the first one.
    async fn begin(&self) -> Result<bool, Failure> {
        loop {
            match self.frontier.try_credentials(self.written).await {
                Ok(Trial::Yours) => return Ok(true),
                Ok(Trial::Good) => return Ok(false),
                Ok(Trial::UnderWay) => sleep(jittered(POLL)).await,
                Ok(Trial::Refused(why)) => {
                    let minutes = REFUSED.as_secs() / 60;
                    let message = format!(
                        "{why}; credentials that a site refused are not tried again for {minutes} minutes, unless they are stored anew"
                    );
                    return Err(Failure::permanent(FAILED, message));
                }
                Err(error) => {
                    tracing::warn!(%error, "What came of other logins cannot be read; this one is made.");
                    return Ok(false);
                }
            }
        }
    }

    async fn tell(&self, verdict: Verdict<'_>) {
        if let Err(error) = self.frontier.tried_credentials(self.written, verdict).await {
            tracing::warn!(%error, "What came of a login could not be shared with the other workers.");
        }
    }
}

impl Entering<'_> {
    /// Takes what came of it.
    ///
    /// # Errors
    /// When it did not go well.
    pub async fn ended<E: From<Failure>>(mut self, came: Result<Came, E>) -> Result<(), E> {
        let verdict = match &came {
            Ok(Came::In | Came::InATab) => Verdict::Good,
            Ok(Came::Refused(failure)) => Verdict::Refused(&failure.message),
            Err(_) => Verdict::None,
        };
        if let Some(trials) = &self.access.login.trials
            && (self.is_trial || verdict != Verdict::None)
        {
            trials.tell(verdict).await;
        }
        match came? {
            Came::In => {
                self.made.times += 1;
                self.made.cookies = Some(self.access.cookies());
                self.access.session().enter(self.made.times);
            }
            Came::InATab => self.access.session().has_entered = true,
            Came::Refused(failure) => return Err(failure.into()),
        }
        Ok(())
    }
}
