//! Which hosts' pages need a browser, as tasks with render Auto found it; shared by all workers. A key of a host that nobody visits ends.

use std::{sync::LazyLock, time::Duration};

use redis::{AsyncCommands, Script};
use snafu::ResultExt;

use super::{Frontier, FrontierError, FrontierSnafu};

/// How long it is believed that a host's pages need a browser.
const SCRIPTED_LIVES: Duration = Duration::from_hours(7 * 24);
/// How long it is suspected: long enough for a page's turn in the browser.
const SUSPECTED_LIVES: Duration = Duration::from_mins(10);
/// Pages until a scripted host is tried by HTTP again; it doubles with each time, up to [`MOST`].
const FIRST: u32 = 4;
const MOST: u32 = 64;

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// Nothing.
    Unknown,
    /// Its pages need a browser.
    Scripted,
    /// Its pages needed a browser, and it is time to try one by HTTP.
    TryAgain,
}

/// What was found about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// By HTTP something was missing; whether a browser helps is not known yet.
    Suspected,
    /// A browser found what was missing.
    Scripted,
    /// HTTP has everything, or a browser does not help.
    Plain,
}

/// A hash with `every` is a scripted host's; one without it a suspected host's.
static ASK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local every = tonumber(redis.call('HGET', KEYS[1], 'every') or '')
         if not every then return redis.call('EXISTS', KEYS[1]) end
         if redis.call('HINCRBY', KEYS[1], 'pages', 1) < every then return 1 end
         redis.call('HSET', KEYS[1], 'pages', 0, 'every', math.min(every * 2, tonumber(ARGV[1])))
         return 2",
    )
});

static SUSPECT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HSETNX', KEYS[1], 'pages', 0) == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
         return 0",
    )
});

static BELIEVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('HSETNX', KEYS[1], 'every', ARGV[2])
         redis.call('EXPIRE', KEYS[1], ARGV[1])
         return 0",
    )
});

impl Frontier {
    /// What is known of a host; each call counts as one of its pages.
    pub async fn rendering(&self, host: &str) -> Result<Remembered, FrontierError> {
        let mut connection = self.connection("rendering").await?;
        let answer: u32 = ASK
            .key(key(host))
            .arg(MOST)
            .invoke_async(&mut connection)
            .await
            .context(FrontierSnafu {
                doing: "asking how a host is rendered in",
            })?;
        Ok(match answer {
            0 => Remembered::Unknown,
            1 => Remembered::Scripted,
            _ => Remembered::TryAgain,
        })
    }

    /// Remembers what was found about a host.
    pub async fn found_rendering(&self, host: &str, finding: Finding) -> Result<(), FrontierError> {
        let mut connection = self.connection("found_rendering").await?;
        let told: Result<u32, _> = match finding {
            Finding::Suspected => {
                SUSPECT
                    .key(key(host))
                    .arg(SUSPECTED_LIVES.as_secs())
                    .invoke_async(&mut connection)
                    .await
            }
            Finding::Scripted => {
                BELIEVE
                    .key(key(host))
                    .arg(SCRIPTED_LIVES.as_secs())
                    .arg(FIRST)
                    .invoke_async(&mut connection)
                    .await
            }
            Finding::Plain => connection.del(key(host)).await,
        };
        told.map(drop).context(FrontierSnafu {
            doing: "telling how a host is rendered to",
        })
    }
}

fn key(host: &str) -> String {
    format!("sx:render:{host}")
}
