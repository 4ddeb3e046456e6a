//! Metrics of promises and costs: what the last look found of each cluster, replaced as a whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};
use selextract_telemetry::{Figure, description, families};

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
        Ok(Self {
            description: description("selextract_slo_availability_ratio")?,
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
}

fn figure(live: &Live, (namespace, name): &Place) -> Figure {
    let figure = Figure::gauge(live.name, "What docs/slo-and-cost.md says of it.", live.value)
        .with("namespace", namespace)
        .with("cluster", name);
    let labels = live.labels.iter();
    labels.fold(figure, |figure, (label, value)| figure.with(label, value))
}

impl Collector for Accounts {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let all = figures
            .iter()
            .flat_map(|(place, all)| all.iter().map(move |live| figure(live, place)));
        families(&all.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use selextract_telemetry::render;

    use super::*;

    #[test]
    fn the_figures_of_all_clusters_are_one_family_and_go_with_their_cluster() {
        let (registry, accounts) = (Registry::new(), Accounts::new().unwrap());
        registry.register(Box::new(accounts.clone())).unwrap();
        let text = || render(&registry);
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
