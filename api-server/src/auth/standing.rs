//! Whether the user of an access token is still let in. A token lives for 15 minutes; a user who was disabled stops within [`KEPT`].

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use selextract_platform::ledger::{Ledger, UserId};
use uuid::Uuid;

use super::Role;
use crate::problem::Problem;

/// How old the answer may be: the longest that a disabled user goes on. On the replica that disabled him he stops at once.
pub const KEPT: Duration = Duration::from_secs(2);
/// Users that are remembered; one read of a row for each further one.
const USERS: u64 = 10_000;

/// What is known about users, for a moment.
#[derive(Clone)]
pub struct Standings {
    ledger: Ledger,
    kept: Cache<Uuid, Option<Role>>,
}

impl Standings {
    /// With nobody known.
    pub fn new(ledger: Ledger) -> Self {
        let kept = Cache::builder().max_capacity(USERS).time_to_live(KEPT).build();
        Self { ledger, kept }
    }

    /// The user's role of now; `None` for one who is gone or disabled. Concurrent requests of a user read it once.
    pub async fn role(&self, user: Uuid) -> Result<Option<Role>, Problem> {
        let read = async {
            let found = self.ledger.user(UserId(user)).await?;
            Ok::<_, Problem>(found.filter(|user| !user.disabled).map(|user| Role::of(&user)))
        };
        let role = self.kept.try_get_with(user, read).await;
        role.map_err(|problem: Arc<Problem>| Problem::clone(&problem))
    }

    /// Forgets a user, whose next request is judged anew.
    pub async fn forget(&self, user: Uuid) {
        self.kept.invalidate(&user).await;
    }
}
