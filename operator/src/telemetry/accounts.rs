//! Metrics of promises and costs: what the last look found of each cluster, replaced as a whole.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::monitoring::live::Live;

/// Namespace and name of a cluster.
type Place = (String, String);

/// The figures of each cluster.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    description: Desc,
    figures: Arc<Mutex<BTreeMap<Place, Vec<Live>>>>,
}

impl Accounts {
    /// Nothing is known yet.
    pub(super) fn new() -> prometheus::Result<Self> {
        let name = "selextract_slo_availability_ratio".to_owned();
        Ok(Self {
            description: Desc::new(name, "Made at each scrape.".to_owned(), Vec::new(), HashMap::new())?,
            figures: Arc::default(),
        })
    }

    /// What is known of a cluster now; nothing takes its series away.
    pub(super) fn set(&self, namespace: &str, name: &str, all: &[Live]) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (namespace.to_owned(), name.to_owned());
        if all.is_empty() {
            figures.remove(&place);
        } else {
            figures.insert(place, all.to_vec());
        }
    }

    fn families(&self) -> prometheus::Result<Vec<MetricFamily>> {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families: BTreeMap<&'static str, MetricFamily> = BTreeMap::new();
        for ((namespace, name), all) in figures.iter() {
            for live in all {
                let mut opts = Opts::new(live.name, "What docs/slo-and-cost.md says of it.")
                    .const_label("namespace", namespace)
                    .const_label("cluster", name);
                for (label, value) in &live.labels {
                    opts = opts.const_label(*label, value);
                }
                let gauge = Gauge::with_opts(opts)?;
                gauge.set(live.value);
                for mut family in gauge.collect() {
                    match families.get_mut(live.name) {
                        Some(known) => known.mut_metric().extend(family.take_metric()),
                        None => {
                            families.insert(live.name, family);
                        }
                    }
                }
            }
        }
        Ok(families.into_values().collect())
    }
}

impl Collector for Accounts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.families().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    #[test]
    fn the_figures_of_all_clusters_are_one_family_and_go_with_their_cluster() {
        let (registry, accounts) = (Registry::new(), Accounts::new().unwrap());
        registry.register(Box::new(accounts.clone())).unwrap();
        let text = || {
            let mut out = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        for name in ["shop", "news"] {
            let live = Live::labeled("selextract_slo_burn_rate", "window", "5m", 2.0);
            accounts.set("web", name, &[live]);
        }
        assert_eq!(text().matches("# TYPE").count(), 1, "{}", text());
        assert!(text().contains("selextract_slo_burn_rate{cluster=\"news\",namespace=\"web\",window=\"5m\"} 2"));
        accounts.set("web", "news", &[]);
        assert!(!text().contains("news"));
    }
}
