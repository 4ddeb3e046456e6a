//! What the proxy counts. Every label value exists at 0 from the start, so that a rate over nothing is 0 and not absent.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use selextract_telemetry::{Container, render};

use crate::answer::Failure;

/// The proxy's metrics in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    cuts: IntCounterVec,
    /// Bytes written to origins.
    pub bytes_sent: IntCounter,
    /// Bytes read from origins.
    pub bytes_received: IntCounter,
    /// Client connections that are open now, tunnels too.
    pub connections: IntGauge,
    /// Seconds from a request to a connected origin, resolving included.
    pub connect_seconds: Histogram,
    reloads: IntCounterVec,
    through: IntCounterVec,
    resting: IntGaugeVec,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An HTTP response came back.
    Forwarded,
    /// A CONNECT tunnel was opened.
    Tunnelled,
    /// Turned away, because as many connections as allowed were open.
    Busy,
    /// Not forwarded.
    Failed(Failure),
}

/// Why an open connection to an origin was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It carried more bytes than allowed.
    Bytes,
    /// Nothing moved for too long.
    Idle,
    /// It was open for too long.
    Total,
}

impl Outcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Tunnelled => "tunnelled",
            Self::Busy => "busy",
            Self::Failed(failure) => failure.label(),
        }
    }
}

impl Cut {
    const ALL: [Self; 3] = [Self::Bytes, Self::Idle, Self::Total];

    const fn label(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Idle => "idle",
            Self::Total => "total",
        }
    }
}

impl Metrics {
    /// All metrics at 0.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        Container::register(&registry)?;
        let bytes = counters(
            &registry,
            "selextract_egress_bytes_total",
            "Bytes exchanged with origins.",
            "direction",
        )?;
        let connections = IntGauge::new("selextract_egress_connections", "Client connections that are open now.")?;
        registry.register(Box::new(connections.clone()))?;
        let connect_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "selextract_egress_connect_seconds",
                "Time to resolve and connect to an origin.",
            )
            .buckets(vec![0.005, 0.025, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]),
        )?;
        registry.register(Box::new(connect_seconds.clone()))?;
        let through = IntCounterVec::new(
            Opts::new(
                "selextract_egress_upstream_connections_total",
                "Connections asked of upstream proxies.",
            ),
            &["pool", "result"],
        )?;
        registry.register(Box::new(through.clone()))?;
        let resting = IntGaugeVec::new(
            Opts::new(
                "selextract_egress_upstreams_resting",
                "Upstream proxies that rest after failures.",
            ),
            &["pool"],
        )?;
        registry.register(Box::new(resting.clone()))?;
        let metrics = Self {
            through,
            resting,
            requests: counters(
                &registry,
                "selextract_egress_requests_total",
                "Requests by their result.",
                "result",
            )?,
            cuts: counters(
                &registry,
                "selextract_egress_cut_total",
                "Open connections to origins that were cut.",
                "reason",
            )?,
            bytes_sent: bytes.with_label_values(&["sent"]),
            bytes_received: bytes.with_label_values(&["received"]),
            connections,
            connect_seconds,
            reloads: counters(
                &registry,
                "selextract_egress_config_reloads_total",
                "Changed configurations read.",
                "result",
            )?,
            registry,
        };
        metrics.touch();
        Ok(metrics)
    }

    /// Counts a request's end.
    pub fn ended(&self, outcome: Outcome) {
        self.requests.with_label_values(&[outcome.label()]).inc();
    }

    /// Counts a connection that was cut.
    pub fn cut(&self, cut: Cut) {
        self.cuts.with_label_values(&[cut.label()]).inc();
    }

    /// Counts a changed configuration that was taken or refused.
    pub fn reloaded(&self, taken: bool) {
        self.reloads
            .with_label_values(&[if taken { "taken" } else { "refused" }])
            .inc();
    }

    /// Counts a connection that an upstream proxy of a pool was asked for.
    pub fn through(&self, pool: &str, result: &str) {
        self.through.with_label_values(&[pool, result]).inc();
    }

    /// How many proxies of a pool rest.
    pub fn resting(&self, pool: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.resting.with_label_values(&[pool]).set(count);
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        render(&self.registry)
    }

    fn touch(&self) {
        let failures = Failure::ALL.map(Outcome::Failed);
        for outcome in [Outcome::Forwarded, Outcome::Tunnelled, Outcome::Busy]
            .into_iter()
            .chain(failures)
        {
            self.requests.with_label_values(&[outcome.label()]);
        }
        for cut in Cut::ALL {
            self.cuts.with_label_values(&[cut.label()]);
        }
        for result in ["taken", "refused"] {
            self.reloads.with_label_values(&[result]);
        }
    }
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_there_at_zero_from_the_start() {
        let text = Metrics::new().unwrap().render();
        for line in [
            r#"selextract_egress_requests_total{result="refused"} 0"#,
            r#"selextract_egress_requests_total{result="busy"} 0"#,
            r#"selextract_egress_cut_total{reason="bytes"} 0"#,
            r#"selextract_egress_bytes_total{direction="received"} 0"#,
            r#"selextract_egress_config_reloads_total{result="refused"} 0"#,
            "selextract_egress_connections 0",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
