//! Figures of what the platform stands on, as Prometheus' usual exporters name them. Pure.

use prometheus::{Counter, Gauge, Opts, core::Collector, proto::MetricFamily};

/// A figure with its name and labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The metric's name.
    pub name: &'static str,
    /// Its labels.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
    /// Whether it only grows.
    pub counts: bool,
}

impl Figure {
    /// A value of now.
    pub fn gauge(name: &'static str, value: f64) -> Self {
        Self {
            name,
            labels: Vec::new(),
            value,
            counts: false,
        }
    }

    /// A value that only grows.
    pub fn counter(name: &'static str, value: f64) -> Self {
        Self {
            counts: true,
            ..Self::gauge(name, value)
        }
    }

    /// With one more label.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }

    /// With another value.
    #[must_use]
    pub fn valued(self, value: f64) -> Self {
        Self { value, ..self }
    }
}

/// What Redis says about itself in `INFO`; `redis` is `queue` or `cache`.
pub fn redis(info: &str, redis: &str) -> Vec<Figure> {
    let value = |key: &str| -> Option<f64> {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    let gauge = |name, key: &str| Some(Figure::gauge(name, value(key)?).with("redis", redis));
    let counter = |name, key: &str| Some(Figure::counter(name, value(key)?).with("redis", redis));
    let figures = [
        gauge("redis_memory_used_bytes", "used_memory"),
        gauge("redis_memory_max_bytes", "maxmemory"),
        gauge("redis_connected_clients", "connected_clients"),
        counter("redis_evicted_keys_total", "evicted_keys"),
        counter("redis_keyspace_hits_total", "keyspace_hits"),
        counter("redis_keyspace_misses_total", "keyspace_misses"),
    ];
    figures.into_iter().flatten().collect()
}

/// The figures as families, those of one name together.
pub fn families(figures: &[Figure]) -> Vec<MetricFamily> {
    let mut families: Vec<MetricFamily> = Vec::new();
    for found in figures.iter().filter_map(|figure| family(figure).ok()).flatten() {
        match families.iter_mut().find(|family| family.name() == found.name()) {
            Some(family) => family.mut_metric().extend(found.get_metric().iter().cloned()),
            None => families.push(found),
        }
    }
    families
}

fn family(figure: &Figure) -> prometheus::Result<Vec<MetricFamily>> {
    let mut opts = Opts::new(figure.name, "As the usual exporter names it; docs/monitoring.md.");
    for (label, value) in &figure.labels {
        opts = opts.const_label(*label, value);
    }
    Ok(if figure.counts {
        let counter = Counter::with_opts(opts)?;
        counter.inc_by(figure.value.max(0.0));
        counter.collect()
    } else {
        let gauge = Gauge::with_opts(opts)?;
        gauge.set(figure.value);
        gauge.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_is_read_by_its_keys() {
        let info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory:2097152\r\n# Stats\r\nevicted_keys:3\r\n";
        let figures = redis(info, "cache");
        assert_eq!(figures.len(), 3, "what is not said is absent");
        assert_eq!(
            (figures[0].name, figures[0].value),
            ("redis_memory_used_bytes", 1_048_576.0)
        );
        assert!(figures[2].counts);
    }

    #[test]
    fn figures_of_one_name_are_one_family() {
        let both = ["queue", "cache"].map(|name| Figure::gauge("redis_up", 1.0).with("redis", name));
        let families = families(&both);
        assert_eq!((families.len(), families[0].get_metric().len()), (1, 2));
    }
}
