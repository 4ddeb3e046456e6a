//! Previews: one page, read by a worker while its caller waits, and stored nowhere.
//!
//! A request waits in a bounded list of the queue's Redis until a worker takes it; the answer comes back under a key of its own. Both end
//! by themselves. Nobody repeats a preview: what is lost is asked for again by the caller.

use std::{sync::Arc, time::Duration};

use redis::{AsyncCommands, AsyncConnectionConfig, Script, aio::MultiplexedConnection};
use selextract_task::{TaskSpec, feed::RunError};
use serde::{Deserialize, Serialize};
use snafu::{ResultExt, Snafu};
use uuid::Uuid;

use crate::{
    ledger::{Secret, UserId, claims::Record},
    redis_store::{RedisStore, Timed},
    timings::Timings,
};

/// How long a preview may take, from the request to the answer.
pub const LONGEST: Duration = Duration::from_secs(10);
/// Requests that wait for a worker.
const MOST: usize = 64;
/// How long a worker listens before it listens again.
const LISTEN: Duration = Duration::from_secs(5);
/// How long requests and answers are kept, in seconds.
const KEPT: u64 = 30;
const TIMEOUT: Duration = Duration::from_secs(2);
const REQUESTS: &str = "sx:previews";
/// Somebody wants a preview and no worker is there; `size.lua` counts it as work for one.
const WANTED: &str = "sx:previews:wanted";
/// How long a worker may take to come: a pod, on a node that has its image.
const WAKE: u64 = 60;

/// A page to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Under which the answer is left.
    pub id: Uuid,
    /// When nobody waits for the answer any more, in milliseconds since the epoch.
    pub deadline_milliseconds: i64,
    /// What to extract; its spec compiled.
    pub spec: TaskSpec,
    /// Whose credentials it may use.
    #[serde(default)]
    pub owner: Option<UserId>,
}

/// What became of a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Where the page came from in the end.
    pub url: String,
    /// Its records; the first of them when they are many.
    pub records: Vec<Record>,
    /// How many it has.
    pub found: u64,
    /// Records left out for a missing required field.
    pub warnings: u32,
    /// Where a run would go on.
    pub next_url: Option<String>,
    /// Why there is none of it.
    pub error: Option<RunError>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A worker read the page, or says why not.
    Answered(Box<Answer>),
    /// Too many requests wait.
    Full,
    /// No worker answered in time.
    Unanswered,
}

/// The queue did not answer.
#[derive(Debug, Snafu)]
#[snafu(display("{doing}: {source}"))]
pub struct PreviewError {
    doing: &'static str,
    source: redis::RedisError,
}

/// The way from the API to a worker and back. Cheap to clone.
#[derive(Clone)]
pub struct Previews {
    redis: RedisStore,
    ask: Arc<Script>,
}

/// A worker's ear; it has a connection of its own, since listening holds it.
pub struct Listener(MultiplexedConnection);

impl Previews {
    /// Over a connection that is made when it is needed. Fails only on a URL that is none.
    pub fn connect_lazy(url: &Secret) -> Result<Self, PreviewError> {
        let doing = "reading the queue's URL";
        Ok(Self {
            redis: RedisStore::connect_lazy(url, TIMEOUT).context(PreviewSnafu { doing })?,
            ask: Arc::new(Script::new(include_str!("previews/ask.lua"))),
        })
    }

    /// The same way, measured; the waits on it are not.
    #[must_use]
    pub fn timed(self, timings: &Timings) -> Self {
        Self {
            redis: self.redis.timed(timings.queue()),
            ..self
        }
    }

    /// Asks for a page and waits for the answer, at most so long.
    pub async fn ask(&self, request: &Request, wait: Duration) -> Result<Asked, PreviewError> {
        let doing = "asking for a preview";
        let text = serde_json::to_string(request).unwrap_or_default();
        let mut connection = self.connection("ask_preview").await?;
        let mut call = self.ask.prepare_invoke();
        call.key(REQUESTS).arg(MOST).arg(text).arg(KEPT);
        let taken: u8 = call
            .invoke_async(&mut connection)
            .await
            .context(PreviewSnafu { doing })?;
        if taken == 0 {
            return Ok(Asked::Full);
        }
        let mut waiting = self.blocking(wait).await?;
        let answer: Option<(String, String)> = waiting
            .blpop(answer_key(request.id), wait.as_secs_f64())
            .await
            .context(PreviewSnafu { doing })?;
        let answer = answer.and_then(|(_, text)| serde_json::from_str(&text).ok());
        Ok(answer.map_or(Asked::Unanswered, |answer| Asked::Answered(Box::new(answer))))
    }

    /// Has a worker come where none is: whoever wants a preview comes back for it.
    pub async fn want_worker(&self) -> Result<(), PreviewError> {
        let mut connection = self.connection("want_worker").await?;
        let wanted = connection.set_ex(WANTED, 1, WAKE).await;
        wanted.context(PreviewSnafu {
            doing: "asking for a worker",
        })
    }

    /// Opens an ear.
    pub async fn listen(&self) -> Result<Listener, PreviewError> {
        self.blocking(LISTEN).await.map(Listener)
    }

    /// Leaves an answer for whoever asked.
    pub async fn answer(&self, id: Uuid, answer: &Answer) -> Result<(), PreviewError> {
        let text = serde_json::to_string(answer).unwrap_or_default();
        let mut connection = self.connection("answer_preview").await?;
        let key = answer_key(id);
        redis::pipe()
            .atomic()
            .rpush(&key, text)
            .ignore()
            .expire(&key, i64::try_from(KEPT).unwrap_or(i64::MAX))
            .ignore()
            .query_async::<()>(&mut connection)
            .await
            .context(PreviewSnafu {
                doing: "answering a preview",
            })
    }

    async fn connection(&self, operation: &'static str) -> Result<Timed, PreviewError> {
        let connection = self.redis.connection(operation).await;
        connection.context(PreviewSnafu {
            doing: "reaching the queue",
        })
    }

    /// A connection on which one command may take `wait`.
    async fn blocking(&self, wait: Duration) -> Result<MultiplexedConnection, PreviewError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(wait + TIMEOUT));
        let connection = self
            .redis
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        connection.context(PreviewSnafu {
            doing: "reaching the queue",
        })
    }
}

impl Listener {
    /// The next request, if one comes within some seconds.
    pub async fn next(&mut self) -> Result<Option<Request>, PreviewError> {
        let request: Option<(String, String)> =
            self.0
                .blpop(REQUESTS, LISTEN.as_secs_f64())
                .await
                .context(PreviewSnafu {
                    doing: "listening for previews",
                })?;
        Ok(request.and_then(|(_, text)| serde_json::from_str(&text).ok()))
    }
}

fn answer_key(id: Uuid) -> String {
    format!("sx:preview:{id}")
}
