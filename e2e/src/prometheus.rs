//! A cluster's Prometheus, asked as Grafana asks it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::world::World;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A Prometheus behind a Service.
pub struct Prometheus {
    base: String,
    http: reqwest::Client,
}

impl Prometheus {
    /// The one of a cluster of this name.
    ///
    /// # Errors
    /// When its Service is not there or not reached.
    pub fn of(world: &World, cluster: &str) -> Result<Self> {
        Self::at(&world.service_address(&format!("{cluster}-prometheus"))?)
    }

    /// The one at this address, such as `10.0.0.7:9090`.
    ///
    /// # Errors
    /// When there is no client.
    pub fn at(address: &str) -> Result<Self> {
        Ok(Self {
            base: format!("http://{address}/api/v1"),
            http: reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?,
        })
    }

    /// The `data` of what it answers.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = format!("{}/{path}", self.base);
        let mut answer: Value = self.http.get(url).query(parameters).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{parameters:?}: {answer}");
        Ok(answer["data"].take())
    }

    /// The one value of a query now.
    ///
    /// # Errors
    /// When it does not answer, or with nothing that is a number.
    pub async fn number(&self, query: &str) -> Result<f64> {
        let found = self.ask("query", &[("query", query)]).await?;
        let value = found["result"][0]["value"][1].as_str();
        let value = value.with_context(|| format!("{query} has no value"))?;
        Ok(value.parse()?)
    }
}
