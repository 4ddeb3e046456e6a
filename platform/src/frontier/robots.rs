//! What is known of robots.txt, shared by all workers. The bytes are the worker's; every entry has an end.

use std::time::Duration;

use redis::AsyncCommands;
use snafu::ResultExt;

use super::{Frontier, FrontierError, FrontierSnafu};
use crate::cache::{pack, unpack};

impl Frontier {
    /// What was kept for an origin, if it has not expired.
    pub async fn robots(&self, origin: &str) -> Result<Option<Vec<u8>>, FrontierError> {
        let mut connection = self.connection("robots").await?;
        let bytes: Option<Vec<u8>> = connection.get(key(origin)).await.context(FrontierSnafu {
            doing: "reading a robots.txt from",
        })?;
        Ok(bytes.and_then(|bytes| unpack(&bytes)))
    }

    /// Keeps something for an origin, large ones compressed.
    pub async fn keep_robots(&self, origin: &str, bytes: Vec<u8>, lives: Duration) -> Result<(), FrontierError> {
        let Some(packed) = pack(bytes) else { return Ok(()) };
        let mut connection = self.connection("keep_robots").await?;
        connection
            .set_ex(key(origin), packed, lives.as_secs().max(1))
            .await
            .context(FrontierSnafu {
                doing: "keeping a robots.txt in",
            })
    }
}

fn key(origin: &str) -> String {
    format!("sx:robots:{origin}")
}
