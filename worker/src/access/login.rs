//! The login of a run. Its claims in this worker share it: one of them makes it while the others wait, and then they go on with its
//! cookies. What sites set later is each claim's own.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use selextract_task::credentials::FormLogin;
use tokio::sync::{Mutex, MutexGuard};
use url::Url;
use uuid::Uuid;

use super::{Access, jar::Kept};

/// How long a session is believed, however it is used: a site that has forgotten one may go on as if nobody had ever logged in.
const LIVES: Duration = Duration::from_mins(15);
/// The most runs whose logins a worker remembers.
const MOST: u64 = 1000;

/// The logins of this worker's runs, by run and by the write of their credentials: what is stored anew is used at once.
#[derive(Clone)]
pub(super) struct Logins(Cache<(Uuid, Uuid), Arc<Login>>);

impl Default for Logins {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(LIVES).build())
    }
}

impl Logins {
    /// The one that these claims share.
    pub(super) async fn of(&self, run: Uuid, credentials: Uuid) -> Arc<Login> {
        self.0.get_with((run, credentials), async { Arc::default() }).await
    }
}

/// One login, made at most by one claim at a time.
#[derive(Default)]
pub(super) struct Login(Mutex<Made>);

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
    /// Where the form is.
    pub page: &'a Url,
    /// How it is filled in.
    pub form: &'a FormLogin,
}

impl Access {
    /// Begins a login where one is due. `None` when there is none to make: perhaps another claim of the run has made it meanwhile, and the
    /// jar has its cookies now.
    pub async fn begin_login(&self) -> Option<Entering<'_>> {
        let (page, form) = self.due_login()?;
        let made = self.login.0.lock().await;
        let is_lost = self.session().lost == Some(made.times);
        if let Some(cookies) = made.cookies.as_ref().filter(|_| !is_lost) {
            self.jar().extend(cookies);
            self.session().enter(made.times);
            return None;
        }
        Some(Entering {
            access: self,
            made,
            page,
            form,
        })
    }
}

impl Entering<'_> {
    /// It went well, and the jar has the session: both engines and the run's other claims go on with it.
    pub fn done(mut self) {
        self.made.times += 1;
        self.made.cookies = Some(self.access.cookies());
        self.access.session().enter(self.made.times);
    }

    /// It went well, but the session is in one tab alone.
    pub fn done_in_a_tab(self) {
        self.access.session().has_entered = true;
    }
}
