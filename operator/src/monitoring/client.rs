//! Asks a Prometheus. I/O; what is asked and what the answers mean stands elsewhere.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use reqwest::{Certificate, Client, redirect::Policy};
use serde::{Deserialize, de::DeserializeOwned};
use snafu::{ResultExt, Snafu, ensure};

use crate::validated::{Credentials, PrometheusEndpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer about now may take: one that takes longer says nothing about now.
pub const SOON: Duration = Duration::from_secs(4);
/// How long an answer about days may take, which is also what the managed Prometheus gives a query.
pub const PATIENTLY: Duration = Duration::from_secs(30);
/// The most that an answer may hold: 5,000 series, or an hour of one cluster.
const MAX_ANSWER: usize = 4 << 20;

/// Why there is no answer. The text is for logs and status: it holds no credentials.
#[derive(Debug, Snafu)]
pub enum PrometheusError {
    /// The client could not be made.
    #[snafu(display("no client can be made for Prometheus: its certificate authority cannot be read"))]
    Build {
        /// Why.
        source: reqwest::Error,
    },
    /// No answer.
    #[snafu(display("Prometheus does not answer"))]
    Send {
        /// Why.
        source: reqwest::Error,
    },
    /// It refuses.
    #[snafu(display("Prometheus answers with {status}"))]
    Refused {
        /// The answer's status.
        status: u16,
    },
    /// The answer is too long.
    #[snafu(display("Prometheus answers with more than {MAX_ANSWER} bytes"))]
    TooLong,
    /// The answer is none.
    #[snafu(display("Prometheus' answer cannot be read"))]
    Answer {
        /// Why.
        source: serde_json::Error,
    },
}

/// One value of a query, with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its moment, in seconds since 1970.
    pub at: f64,
    /// The value; may be `NaN`.
    pub value: f64,
}

impl Value {
    /// Its moment; `None` where that is none.
    pub fn moment(&self) -> Option<Timestamp> {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970")]
        let milliseconds = (self.at * 1000.0).round() as i64;
        Timestamp::from_millisecond(milliseconds)
            .ok()
            .filter(|_| self.at.is_finite())
    }
}

/// A Prometheus.
pub struct Prometheus {
    silent: AtomicBool,
    http: Client,
    endpoint: PrometheusEndpoint,
}

impl Prometheus {
    /// One that is asked at this endpoint about now.
    ///
    /// # Errors
    /// When its certificate authority cannot be read.
    pub fn new(endpoint: PrometheusEndpoint) -> Result<Self, PrometheusError> {
        Self::within(SOON, endpoint)
    }

    /// One that may take so long to answer.
    ///
    /// # Errors
    /// As [`Prometheus::new`].
    pub fn within(timeout: Duration, endpoint: PrometheusEndpoint) -> Result<Self, PrometheusError> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            // Credentials go to the server that was named and to no other.
            .redirect(Policy::none())
            .no_proxy();
        if let Some(pem) = &endpoint.authority {
            let authority = Certificate::from_pem(pem.as_bytes()).context(BuildSnafu)?;
            builder = builder.tls_certs_only([authority]);
        }
        Ok(Self {
            silent: AtomicBool::new(false),
            http: builder.build().context(BuildSnafu)?,
            endpoint,
        })
    }

    /// Whether it is asked at this endpoint, with these credentials.
    pub fn is_at(&self, endpoint: &PrometheusEndpoint) -> bool {
        self.endpoint == *endpoint
    }

    /// Notes whether it answered, and says whether that is news: what stays silent is told once.
    pub fn is_news(&self, answered: bool) -> bool {
        self.silent.swap(!answered, Ordering::Relaxed) == answered
    }

    /// The values of a query now.
    ///
    /// # Errors
    /// When there is no good answer in time.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, PrometheusError> {
        let body = self.post("query", &[("query", query)]).await?;
        read::<Found>(&body, |found| vec![found.value]).context(AnswerSnafu)
    }

    /// The values of a query from `start` to `end`, both in seconds since 1970, every `step` seconds: each with its moment.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub async fn query_range(
        &self,
        query: &str,
        (start, end): (i64, i64),
        step: u32,
    ) -> Result<Vec<Value>, PrometheusError> {
        let (start, end, step) = (start.to_string(), end.to_string(), step.to_string());
        let form = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        let body = self.post("query_range", &form).await?;
        read::<Series>(&body, |series| series.values).context(AnswerSnafu)
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Vec<u8>, PrometheusError> {
        let base = self.endpoint.url.as_str().trim_end_matches('/');
        let mut request = self.http.post(format!("{base}/api/v1/{path}")).form(form);
        request = match &self.endpoint.credentials {
            Credentials::None => request,
            Credentials::Token(token) => request.bearer_auth(token),
            Credentials::Basic { username, password } => request.basic_auth(username, Some(password)),
        };
        let mut answer = request.send().await.context(SendSnafu)?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            RefusedSnafu {
                status: status.as_u16()
            }
        );
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.context(SendSnafu)? {
            ensure!(body.len() + part.len() <= MAX_ANSWER, TooLongSnafu);
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Data<T>,
}

#[derive(Deserialize)]
struct Data<T> {
    result: Vec<T>,
}

/// A moment in seconds since 1970, and a value as text.
type Point = (f64, String);

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    value: Point,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<Point>,
}

/// Series of either form.
trait Labelled {
    fn labels(&self) -> BTreeMap<String, String>;
}

impl Labelled for Found {
    fn labels(&self) -> BTreeMap<String, String> {
        self.metric.clone()
    }
}

impl Labelled for Series {
    fn labels(&self) -> BTreeMap<String, String> {
        self.metric.clone()
    }
}

fn read<T: Labelled + DeserializeOwned>(
    body: &[u8],
    points: impl Fn(T) -> Vec<Point>,
) -> Result<Vec<Value>, serde_json::Error> {
    let answer: Answer<T> = serde_json::from_slice(body)?;
    let mut values = Vec::new();
    for series in answer.data.result {
        let labels = series.labels();
        values.extend(points(series).into_iter().map(|(at, value)| Value {
            labels: labels.clone(),
            at,
            value: value.parse().unwrap_or(f64::NAN),
        }));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_labels_and_what_is_no_number() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"cluster":"shop","signal":"backlog"},"value":[1764140000.1,"12"]},
            {"metric":{"cluster":"shop","signal":"http_error_ratio"},"value":[1764140000.1,"NaN"]}]}}"#;
        let values = read::<Found>(body.as_bytes(), |found| vec![found.value]).unwrap();
        assert_eq!(
            (values[0].labels["signal"].as_str(), values[0].value),
            ("backlog", 12.0)
        );
        assert!(values[1].value.is_nan());
        assert!(read::<Found>(b"<html>", |found| vec![found.value]).is_err());
    }
}
