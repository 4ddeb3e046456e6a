//! A Redis of the platform, reached when it is needed, whose commands are timed. Does I/O; knows no command.

use std::{sync::Arc, time::Duration};

use prometheus::Histogram;
use redis::{
    Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::OnceCell;

use crate::{
    ledger::Secret,
    timings::{RedisTimings, timed},
};

/// A Redis with one connection that comes back by itself. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RedisStore {
    pub(crate) client: redis::Client,
    manager: Arc<OnceCell<ConnectionManager>>,
    timeout: Duration,
    timings: Option<RedisTimings>,
}

/// A connection for one operation, which is timed.
pub(crate) struct Timed {
    manager: ConnectionManager,
    time: Option<Histogram>,
}

impl RedisStore {
    /// Over a connection that is made when it is needed, whose commands end within `timeout`. Fails only on a URL that is none.
    pub(crate) fn connect_lazy(url: &Secret, timeout: Duration) -> RedisResult<Self> {
        Ok(Self {
            client: redis::Client::open(url.0.as_str())?,
            manager: Arc::default(),
            timeout,
            timings: None,
        })
    }

    /// The same, measured.
    pub(crate) fn timed(self, timings: RedisTimings) -> Self {
        Self {
            timings: Some(timings),
            ..self
        }
    }

    /// A connection for an operation of this name.
    pub(crate) async fn connection(&self, operation: &'static str) -> RedisResult<Timed> {
        Ok(Timed {
            manager: self.manager().await?,
            time: self.timings.as_ref().map(|timings| timings.operation(operation)),
        })
    }

    /// Whether it answers. It is the probe of the way there, and no operation.
    pub(crate) async fn ping(&self) -> RedisResult<()> {
        let mut connection = Timed {
            manager: self.manager().await?,
            time: self.timings.as_ref().map(|timings| timings.round_trip.clone()),
        };
        redis::cmd("PING").query_async(&mut connection).await
    }

    async fn manager(&self) -> RedisResult<ConnectionManager> {
        let config = || {
            ConnectionManagerConfig::new()
                .set_connection_timeout(Some(self.timeout))
                .set_response_timeout(Some(self.timeout))
                .set_number_of_retries(1)
        };
        self.manager
            .get_or_try_init(|| self.client.get_connection_manager_with_config(config()))
            .await
            .cloned()
    }
}

impl ConnectionLike for Timed {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(timed(
            self.time.clone(),
            RedisError::is_timeout,
            self.manager.send_packed_command(command),
        ))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(timed(
            self.time.clone(),
            RedisError::is_timeout,
            self.manager.send_packed_commands(pipeline, offset, count),
        ))
    }

    fn get_db(&self) -> i64 {
        self.manager.get_db()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use prometheus::HistogramOpts;

    use super::*;

    async fn counted(answer: impl Future<Output = RedisResult<()>>) -> u64 {
        let histogram = Histogram::with_opts(HistogramOpts::new("time", "A test's.")).unwrap();
        let waiting = timed(Some(histogram.clone()), RedisError::is_timeout, answer);
        let _ = tokio::time::timeout(Duration::from_millis(10), waiting).await;
        histogram.get_sample_count()
    }

    #[tokio::test]
    async fn what_is_waited_for_in_vain_counts_and_what_fails_at_once_does_not() {
        let failed = |kind: io::ErrorKind| async move { Err(io::Error::from(kind).into()) };
        assert_eq!(counted(async { Ok(()) }).await, 1);
        assert_eq!(counted(std::future::pending()).await, 1);
        assert_eq!(counted(failed(io::ErrorKind::TimedOut)).await, 1);
        assert_eq!(counted(failed(io::ErrorKind::ConnectionRefused)).await, 0);
    }
}
