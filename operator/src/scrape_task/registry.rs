//! What the operator remembers of each `ScrapeTask` between two looks, by uid: little, so that ten thousand fit. No I/O.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::telemetry::Telemetry;

/// What was seen of an object when all was said and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// `metadata.resourceVersion` as it was then: as long as it is the same, the object is.
    pub resource_version: String,
}

#[derive(Debug)]
struct Entry {
    namespace: String,
    name: String,
    cluster: (String, String),
    /// The generation that this cluster (by uid) has accepted.
    accepted: Option<(String, i64)>,
    settled: Option<Settled>,
    /// Counts what happened to the task besides its own object: a look that began before does not settle it.
    news: u64,
    state: Option<&'static str>,
}

impl Entry {
    fn unsettle(&mut self) -> Place {
        self.settled = None;
        self.news += 1;
        (self.namespace.clone(), self.name.clone())
    }
}

/// Namespace and name of a task.
pub type Place = (String, String);

/// All tasks that were looked at.
pub struct Registry {
    entries: Mutex<HashMap<String, Entry>>,
    telemetry: Telemetry,
}

impl Registry {
    /// An empty one.
    pub fn new(telemetry: Telemetry) -> Self {
        Self {
            entries: Mutex::default(),
            telemetry,
        }
    }

    /// A look at a task begins: from now on news about it find their way. Returns how much news there were so far.
    pub fn enter(&self, uid: &str, place: Place, cluster: (String, String)) -> u64 {
        let (namespace, name) = place;
        self.with(|entries| {
            let entry = entries.entry(uid.to_owned()).or_insert_with(|| Entry {
                namespace,
                name,
                cluster: cluster.clone(),
                accepted: None,
                settled: None,
                news: 0,
                state: None,
            });
            entry.cluster = cluster;
            entry.news
        })
    }

    /// Whether this generation was accepted by this cluster since the operator started.
    pub fn is_accepted(&self, uid: &str, cluster_uid: &str, generation: i64) -> bool {
        self.with(|entries| {
            let accepted = entries.get(uid).and_then(|entry| entry.accepted.as_ref());
            accepted.is_some_and(|(cluster, accepted)| cluster == cluster_uid && *accepted == generation)
        })
    }

    /// The cluster has accepted this generation.
    pub fn accept(&self, uid: &str, cluster_uid: &str, generation: i64) {
        self.with(|entries| {
            if let Some(entry) = entries.get_mut(uid) {
                entry.accepted = Some((cluster_uid.to_owned(), generation));
            }
        });
    }

    /// Whether nothing is left to do for the object as it is.
    pub fn is_settled(&self, uid: &str, resource_version: &str) -> bool {
        self.with(|entries| {
            let settled = entries.get(uid).and_then(|entry| entry.settled.as_ref());
            settled.is_some_and(|settled| settled.resource_version == resource_version)
        })
    }

    /// Something happened to this task: it is looked at again.
    pub fn unsettle_one(&self, uid: &str) -> Option<Place> {
        self.with(|entries| entries.get_mut(uid).map(Entry::unsettle))
    }

    /// A look ended: nothing is left to do, or there is (`None`). News that came since it began ask for another one.
    pub fn settle(&self, uid: &str, news: u64, settled: Option<Settled>, state: &'static str) {
        self.with(|entries| {
            if let Some(entry) = entries.get_mut(uid) {
                entry.settled = settled.filter(|_| entry.news == news);
                if entry.state != Some(state) {
                    self.telemetry.task_moved(&entry.namespace, entry.state, Some(state));
                    entry.state = Some(state);
                }
            }
        });
    }

    /// Where the task with this uid is; `None` when it is not known.
    pub fn place(&self, uid: &str) -> Option<Place> {
        self.with(|entries| {
            entries
                .get(uid)
                .map(|entry| (entry.namespace.clone(), entry.name.clone()))
        })
    }

    /// Something about a cluster changed: all of its tasks are looked at again, whatever was settled.
    pub fn unsettle(&self, cluster: &(String, String)) -> Vec<Place> {
        self.with(|entries| {
            entries
                .values_mut()
                .filter(|entry| entry.cluster == *cluster)
                .map(Entry::unsettle)
                .collect()
        })
    }

    /// The tasks of a cluster that are not settled.
    pub fn unsettled(&self, cluster: &(String, String)) -> Vec<Place> {
        self.with(|entries| {
            let waiting = entries
                .values()
                .filter(|entry| entry.cluster == *cluster && entry.settled.is_none());
            waiting
                .map(|entry| (entry.namespace.clone(), entry.name.clone()))
                .collect()
        })
    }

    /// Every task, after news were missed.
    pub fn unsettle_all(&self) -> Vec<Place> {
        self.with(|entries| entries.values_mut().map(Entry::unsettle).collect())
    }

    /// The task is gone; the cluster that it named.
    pub fn forget(&self, uid: &str) -> Option<(String, String)> {
        self.with(|entries| {
            let entry = entries.remove(uid)?;
            self.telemetry.task_moved(&entry.namespace, entry.state, None);
            Some(entry.cluster)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Entry>) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let registry = Registry::new(Telemetry::new().unwrap());
        registry.enter("u1", ("team".into(), "docs".into()), ("demo".into(), "shop".into()));
        registry
    }

    fn settled(version: &str) -> Settled {
        Settled {
            resource_version: version.into(),
        }
    }

    #[test]
    fn an_unchanged_object_is_settled_until_it_or_its_cluster_changes() {
        let registry = registry();
        registry.settle("u1", 0, Some(settled("5")), "pending");
        assert!(registry.is_settled("u1", "5"));
        assert!(!registry.is_settled("u1", "6"));
        assert_eq!(
            registry.unsettle(&("demo".into(), "shop".into())),
            [("team".to_owned(), "docs".to_owned())]
        );
        assert!(!registry.is_settled("u1", "5"));
    }

    #[test]
    fn news_that_come_during_a_look_are_not_lost() {
        let registry = registry();
        let news = registry.enter("u1", ("team".into(), "docs".into()), ("demo".into(), "shop".into()));
        registry.unsettle_one("u1");
        registry.settle("u1", news, Some(settled("5")), "pending");
        assert!(!registry.is_settled("u1", "5"));
    }

    #[test]
    fn a_cluster_made_anew_has_accepted_nothing() {
        let registry = registry();
        registry.accept("u1", "c1", 3);
        assert!(registry.is_accepted("u1", "c1", 3));
        assert!(!registry.is_accepted("u1", "c2", 3));
        assert!(!registry.is_accepted("u1", "c1", 4));
    }

    #[test]
    fn a_task_that_is_gone_is_not_found_by_news() {
        let registry = registry();
        registry.forget("u1");
        assert_eq!(registry.place("u1"), None);
    }
}
