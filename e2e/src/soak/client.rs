//! A user who does not give up: a request that failed is sent again, a token that ended is asked for anew, and a task is posted under a key,
//! so that a lost answer makes no second one.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::sync::RwLock;

use super::sites::{Kind, Sites};
use crate::{api::Api, bench::WHOLE, world::World};

/// How long one request is tried again, and how long a task may take, with everything that is killed on the way.
const PATIENCE: Duration = Duration::from_mins(3);
const END: Duration = Duration::from_mins(6);
const AGAIN: Duration = Duration::from_millis(500);

/// A signed-in client.
#[derive(Clone)]
pub struct Client {
    address: Arc<str>,
    password: Arc<str>,
    api: Arc<RwLock<Api>>,
}

/// What became of one task.
pub struct Outcome {
    /// Its kind.
    pub kind: Kind,
    /// The state that it ended in; `None` when it did not end in its time.
    pub state: Option<String>,
    /// What the API said of its failure.
    pub error: Option<String>,
    /// Records that are missing, and that are there more than once.
    pub difference: Option<(usize, usize)>,
    /// How many requests had to be sent again.
    pub repeated: u32,
    /// From posting to its end.
    pub took: Duration,
}

impl Client {
    /// Logs in as the administrator.
    pub async fn login(world: &World) -> Result<Self> {
        let secret = format!("{WHOLE}-api");
        let (address, password) = (
            world.service_address(&secret)?,
            world.secret(&secret, "admin-password")?,
        );
        let api = Api::login(&address, "admin", &password).await?;
        Ok(Self {
            address: address.into(),
            password: password.into(),
            api: Arc::new(RwLock::new(api)),
        })
    }

    /// Posts one task, follows it to its end and compares its records with the site.
    pub async fn run_one(&self, sites: &Sites, kind: Kind, key: &str) -> Result<Outcome> {
        let (started, mut repeated) = (Instant::now(), 0);
        let task = sites.task(kind)?;
        let id = self
            .until_answered(&mut repeated, |api| {
                let (task, key) = (task.clone(), key.to_owned());
                async move { api.create_task_once(&task, &key).await }
            })
            .await?;
        let ended = self.follow(&id, &mut repeated).await?;
        let took = started.elapsed();
        let state = ended
            .as_ref()
            .and_then(|task| task["status"].as_str())
            .map(str::to_owned);
        let difference = if state.as_deref() == Some("succeeded") {
            let id = id.clone();
            let ask = |api: Api| {
                let id = id.clone();
                async move { api.records(&id).await }
            };
            Some(sites.compare(kind, &self.until_answered(&mut repeated, ask).await?)?)
        } else {
            None
        };
        let error = ended
            .map(|task| task["error"].to_string())
            .filter(|error| error != "null");
        Ok(Outcome {
            kind,
            state,
            error,
            difference,
            repeated,
            took,
        })
    }

    async fn follow(&self, id: &str, repeated: &mut u32) -> Result<Option<Value>> {
        let started = Instant::now();
        while started.elapsed() < END {
            let ask = |api: Api| {
                let path = format!("tasks/{id}");
                async move { api.get(&path).await }
            };
            let task = self.until_answered(repeated, ask).await?;
            if !matches!(task["status"].as_str(), Some("pending" | "running")) {
                return Ok(Some(task));
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(None)
    }

    async fn until_answered<T, F>(&self, repeated: &mut u32, ask: impl Fn(Api) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let started = Instant::now();
        loop {
            let api = self.api.read().await.clone();
            match ask(api).await {
                Ok(answer) => return Ok(answer),
                Err(error) if started.elapsed() > PATIENCE => {
                    return Err(error).context("the API did not answer for minutes");
                }
                Err(_) => *repeated += 1,
            }
            tokio::time::sleep(AGAIN).await;
            // Tokens end after a while; an API that is just away refuses the login too.
            if let Ok(api) = Api::login(&self.address, "admin", &self.password).await {
                *self.api.write().await = api;
            }
        }
    }
}
