//! Figures that are read at the moment of a scrape, and so need no metric that lives between two.

use prometheus::{Counter, Gauge, Opts, core::Collector, proto::MetricFamily};

/// A figure with its name and labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    name: &'static str,
    help: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
    counts: bool,
}

impl Figure {
    /// A value of now. `help` says what it is.
    pub const fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self {
            name,
            help,
            labels: Vec::new(),
            value,
            counts: false,
        }
    }

    /// A value that only grows; `name` ends in `_total`.
    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self {
            counts: true,
            ..Self::gauge(name, help, value)
        }
    }

    /// With one more label.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }

    /// The metric's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its value.
    pub const fn value(&self) -> f64 {
        self.value
    }

    fn family(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let opts = self
            .labels
            .iter()
            .fold(Opts::new(self.name, self.help), |opts, (label, value)| {
                opts.const_label(*label, value)
            });
        Ok(if self.counts {
            let counter = Counter::with_opts(opts)?;
            counter.inc_by(self.value.max(0.0));
            counter.collect()
        } else {
            let gauge = Gauge::with_opts(opts)?;
            gauge.set(self.value);
            gauge.collect()
        })
    }
}

/// The figures as families, those of one name together.
pub fn families(figures: &[Figure]) -> Vec<MetricFamily> {
    let mut families: Vec<MetricFamily> = Vec::new();
    for found in figures.iter().filter_map(|figure| figure.family().ok()).flatten() {
        match families.iter_mut().find(|family| family.name() == found.name()) {
            Some(family) => family.mut_metric().extend(found.get_metric().iter().cloned()),
            None => families.push(found),
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_name_are_one_family() {
        let both =
            ["queue", "cache"].map(|name| Figure::gauge("redis_up", "Whether it answers.", 1.0).with("redis", name));
        let families = families(&both);
        assert_eq!((families.len(), families[0].get_metric().len()), (1, 2));
    }
}
