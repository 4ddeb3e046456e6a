//! Asks a Prometheus. I/O; what is asked and what the answers mean stands elsewhere.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Certificate, Client, redirect::Policy};
use serde::Deserialize;
use snafu::{ResultExt, Snafu, ensure};

use crate::validated::{Credentials, PrometheusEndpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer that takes longer says nothing about now.
const TIMEOUT: Duration = Duration::from_secs(4);
/// The most that an answer may hold: 5,000 series.
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

/// One value of an instant query, with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The value; may be `NaN`.
    pub value: f64,
}

/// A Prometheus.
pub struct Prometheus {
    http: Client,
    endpoint: PrometheusEndpoint,
}

impl Prometheus {
    /// One that is asked at this endpoint.
    ///
    /// # Errors
    /// When its certificate authority cannot be read.
    pub fn new(endpoint: PrometheusEndpoint) -> Result<Self, PrometheusError> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // Credentials go to the server that was named and to no other.
            .redirect(Policy::none())
            .no_proxy();
        if let Some(pem) = &endpoint.authority {
            let authority = Certificate::from_pem(pem.as_bytes()).context(BuildSnafu)?;
            builder = builder.tls_certs_only([authority]);
        }
        Ok(Self {
            http: builder.build().context(BuildSnafu)?,
            endpoint,
        })
    }

    /// Whether it is asked at this endpoint, with these credentials.
    pub fn is_at(&self, endpoint: &PrometheusEndpoint) -> bool {
        self.endpoint == *endpoint
    }

    /// The values of a query now.
    ///
    /// # Errors
    /// When there is no good answer within four seconds.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, PrometheusError> {
        let base = self.endpoint.url.as_str().trim_end_matches('/');
        let mut request = self.http.post(format!("{base}/api/v1/query")).form(&[("query", query)]);
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
        read(&body).context(AnswerSnafu)
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

fn read(body: &[u8]) -> Result<Vec<Value>, serde_json::Error> {
    let answer: Answer = serde_json::from_slice(body)?;
    let values = answer.data.result.into_iter().map(|found| Value {
        labels: found.metric,
        value: found.value.1.parse().unwrap_or(f64::NAN),
    });
    Ok(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_labels_and_what_is_no_number() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"cluster":"shop","signal":"backlog"},"value":[1764140000.1,"12"]},
            {"metric":{"cluster":"shop","signal":"http_error_ratio"},"value":[1764140000.1,"NaN"]}]}}"#;
        let values = read(body.as_bytes()).unwrap();
        assert_eq!(
            (values[0].labels["signal"].as_str(), values[0].value),
            ("backlog", 12.0)
        );
        assert!(values[1].value.is_nan());
        assert!(read(b"<html>").is_err());
    }
}
