//! What is measured about each request, under the guide's names: `http_request_duration_seconds` and `http_requests_total`.
//!
//! Labels are bounded: the method, the route's template, the class of the status. Every class of every route stands at 0 from the start, so
//! that a missing series means a lost scrape and never calm. A streamed answer counts the time to its first byte. The internal listener,
//! whose long polls wait for half a minute by design, has names of its own: what users wait for is measured alone.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use selextract_telemetry::SECONDS;

/// The label `code`; the guide's `code=~"5.."` selects the last.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
/// The route of a request that no route takes.
const UNMATCHED: &str = "unmatched";

/// The request metrics of one listener's router.
#[derive(Clone, Debug)]
pub struct HttpMetrics(Arc<Inner>);

/// Whose requests are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The users'.
    Public,
    /// The operator's.
    Internal,
}

impl Listener {
    /// The names of duration and count.
    const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Public => ["http_request_duration_seconds", "http_requests_total"],
            Self::Internal => [
                "selextract_internal_request_duration_seconds",
                "selextract_internal_requests_total",
            ],
        }
    }
}

#[derive(Debug)]
struct Inner {
    duration: HistogramVec,
    requests: IntCounterVec,
}

impl HttpMetrics {
    /// Registers the metrics and sets every class of the given routes (method, template) to 0.
    pub fn register(
        registry: &Registry,
        listener: Listener,
        routes: &[(String, String)],
    ) -> Result<Self, prometheus::Error> {
        let [duration, requests] = listener.names();
        let duration = HistogramVec::new(
            HistogramOpts::new(duration, "Time from a request's head to its answer's first byte.")
                .buckets(SECONDS.to_vec()),
            &["method", "route"],
        )?;
        let requests = IntCounterVec::new(
            Opts::new(requests, "Requests answered, by class of status."),
            &["method", "route", "code"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        for (method, route) in routes {
            duration.with_label_values(&[method, route]);
            for class in CLASSES {
                requests.with_label_values(&[method.as_str(), route, class]);
            }
        }
        Ok(Self(Arc::new(Inner { duration, requests })))
    }

    fn record(&self, method: &str, route: &str, status: u16, seconds: f64) {
        let class = CLASSES[usize::from((status / 100).clamp(2, 5) - 2)];
        self.0.duration.with_label_values(&[method, route]).observe(seconds);
        self.0.requests.with_label_values(&[method, route, class]).inc();
    }
}

/// Measures each request.
pub async fn measure(State(metrics): State<HttpMetrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = METHODS
        .into_iter()
        .find(|name| *name == request.method().as_str())
        .unwrap_or("OTHER");
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    metrics.record(
        method,
        route,
        response.status().as_u16(),
        started.elapsed().as_secs_f64(),
    );
    response
}

#[cfg(test)]
mod tests {
    use selextract_telemetry::render;

    use super::*;

    #[test]
    fn every_class_stands_at_zero_before_the_first_request() {
        let registry = Registry::new();
        let routes = [("GET".to_owned(), "/api/v1/health".to_owned())];
        let metrics = HttpMetrics::register(&registry, Listener::Public, &routes).unwrap();
        for class in CLASSES {
            let line = format!("http_requests_total{{code=\"{class}\",method=\"GET\",route=\"/api/v1/health\"}} 0");
            assert!(render(&registry).contains(&line), "{line}");
        }
        metrics.record("GET", "/api/v1/health", 503, 0.1);
        assert!(render(&registry).contains("code=\"5xx\",method=\"GET\",route=\"/api/v1/health\"} 1"));
    }

    #[test]
    fn every_threshold_of_the_guide_is_an_edge() {
        for threshold in [0.2, 0.3, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0] {
            assert!(SECONDS.contains(&threshold), "{threshold}");
        }
    }
}
