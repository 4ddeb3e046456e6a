//! What the operator remembers of each `ScrapeTask`, by uid: little, so that ten thousand fit in a few megabytes. No I/O.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use selextract_crds::ScrapeTaskStatus;
use selextract_task::feed::{Change, KnownTask};
use uuid::Uuid;

use super::status::{self, ENDED, phase, waiting_code};
use crate::telemetry::Telemetry;

/// `metadata.uid` of a task.
pub type Uid = Arc<str>;

/// Namespace and name of a cluster.
pub type Place = (String, String);

/// A task as a watch told it.
pub struct Sighting<'a> {
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
    /// Namespace and name of its cluster; empty where the object cannot be read.
    pub cluster: (&'a str, &'a str),
    /// `metadata.resourceVersion`.
    pub version: &'a str,
    /// A hash of everything that calls for a look when it changes; status does not.
    pub mark: u64,
    /// Counts the lists of its watch; see [`Registry::end_list`].
    pub round: u32,
}

/// What a sighting tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The task was not known.
    New(Uid),
    /// More than its status changed.
    Changed(Uid),
    /// Nothing that matters.
    Same,
}

/// A look that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: String,
    /// How much news there were so far: a look that began before some does not settle the task.
    pub news: u32,
    /// Nothing is left to do.
    pub settled: bool,
}

#[derive(Debug)]
struct Entry {
    namespace: Arc<str>,
    name: Box<str>,
    cluster: (Arc<str>, Arc<str>),
    mark: u64,
    /// A hash of the resource version that was seen last, and of the one at which all was done.
    version: u64,
    settled: Option<u64>,
    /// The cluster (by uid) that has accepted this generation since the operator started.
    accepted: Option<(Arc<str>, i64)>,
    /// The run that the status tells of, how far it is there, and why it waits.
    mirrored: Option<(Uuid, u8, u8)>,
    /// The status tells of a tick that waits.
    has_held_tick: bool,
    /// Its status was believed at the operator's start; the cluster itself was not asked yet.
    believed: bool,
    news: u32,
    round: u32,
    state: Option<&'static str>,
}

impl Entry {
    fn unsettle(&mut self) {
        self.settled = None;
        self.news = self.news.wrapping_add(1);
    }

    fn is_of(&self, cluster: &Place) -> bool {
        *self.cluster.0 == *cluster.0 && *self.cluster.1 == *cluster.1
    }
}

#[derive(Default)]
struct Known {
    entries: HashMap<Uid, Entry>,
    /// Names of namespaces and clusters, each kept once.
    names: HashSet<Arc<str>>,
    /// The namespaces whose watch has listed all there is; `None` is all of them.
    listed: HashSet<Option<String>>,
}

impl Known {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }

    fn uids(&self, of: impl Fn(&Entry) -> bool) -> Vec<Uid> {
        let found = self.entries.iter().filter(|(_, entry)| of(entry));
        found.map(|(uid, _)| uid.clone()).collect()
    }

    fn unsettle(&mut self, of: impl Fn(&Entry) -> bool) -> Vec<Uid> {
        let found = self.entries.iter_mut().filter(|(_, entry)| of(entry));
        found
            .map(|(uid, entry)| {
                entry.unsettle();
                uid.clone()
            })
            .collect()
    }
}

/// All tasks that exist.
pub struct Registry {
    known: Mutex<Known>,
    telemetry: Telemetry,
}

impl Registry {
    /// An empty one.
    pub fn new(telemetry: Telemetry) -> Self {
        Self {
            known: Mutex::default(),
            telemetry,
        }
    }

    /// A watch told of a task.
    pub fn see(&self, seen: &Sighting<'_>) -> Sight {
        let version = hash(seen.version);
        self.with(|known| {
            let cluster = (known.name(seen.cluster.0), known.name(seen.cluster.1));
            if let Some(entry) = known.entries.get_mut(seen.uid) {
                (entry.version, entry.round, entry.cluster) = (version, seen.round, cluster);
                let changed = std::mem::replace(&mut entry.mark, seen.mark) != seen.mark;
                return if changed {
                    Sight::Changed(seen.uid.into())
                } else {
                    Sight::Same
                };
            }
            let (uid, namespace): (Uid, _) = (seen.uid.into(), known.name(seen.namespace));
            let entry = Entry {
                namespace,
                name: seen.name.into(),
                cluster,
                mark: seen.mark,
                version,
                settled: None,
                accepted: None,
                mirrored: None,
                has_held_tick: false,
                believed: false,
                news: 0,
                round: seen.round,
                state: None,
            };
            known.entries.insert(uid.clone(), entry);
            Sight::New(uid)
        })
    }

    /// A watch has listed all there is, in this round: what it did not name is gone, and is told with its cluster. `namespace` is the
    /// watch's, `None` is all.
    pub fn end_list(&self, namespace: Option<&str>, round: u32) -> Vec<(Uid, Place)> {
        let gone = self.with(|known| {
            known.uids(|entry| entry.round != round && namespace.is_none_or(|namespace| *entry.namespace == *namespace))
        });
        let gone = gone.into_iter();
        let gone = gone
            .filter_map(|uid| self.forget(&uid).map(|cluster| (uid, cluster)))
            .collect();
        self.with(|known| {
            known.names.retain(|name| Arc::strong_count(name) > 1);
            known.listed.insert(namespace.map(str::to_owned));
        });
        gone
    }

    /// Whether a task that a ledger knows exists; `None` where no watch can tell: its namespace is not watched, or not listed yet.
    pub fn exists(&self, task: &KnownTask) -> Option<bool> {
        self.with(|known| {
            let is_listed = known.listed.contains(&None) || known.listed.contains(&Some(task.namespace.clone()));
            is_listed.then(|| known.entries.contains_key(task.uid.as_str()))
        })
    }

    /// Whether a watch has listed all there is in this namespace.
    pub fn has_listed(&self, namespace: &str) -> bool {
        self.with(|known| known.listed.contains(&None) || known.listed.contains(&Some(namespace.to_owned())))
    }

    /// The clusters that tasks name.
    pub fn clusters(&self) -> BTreeSet<Place> {
        let place = |entry: &Entry| (entry.cluster.0.to_string(), entry.cluster.1.to_string());
        self.with(|known| known.entries.values().map(place).collect())
    }

    /// The status of a task says that its cluster has accepted it as it is: that is believed for now, nothing is sent.
    pub fn believe(&self, uid: &str, status: &ScrapeTaskStatus) {
        self.with(|known| {
            if let Some(entry) = known.entries.get_mut(uid) {
                entry.believed = true;
                entry.settled = Some(entry.version);
                self.mirror(entry, status);
            }
        });
    }

    /// At most `most` tasks whose status is only believed; from now on they are to be looked at.
    pub fn doubt(&self, most: usize) -> Vec<Uid> {
        self.with(|known| {
            let believed = known.entries.iter_mut().filter(|(_, entry)| entry.believed).take(most);
            believed
                .map(|(uid, entry)| {
                    entry.believed = false;
                    entry.unsettle();
                    uid.clone()
                })
                .collect()
        })
    }

    /// A look at a task begins; `None` when there is no such task any more.
    pub fn begin(&self, uid: &str) -> Option<Beginning> {
        self.with(|known| {
            let entry = known.entries.get(uid)?;
            Some(Beginning {
                namespace: entry.namespace.clone(),
                name: entry.name.to_string(),
                news: entry.news,
                settled: entry.settled == Some(entry.version),
            })
        })
    }

    /// Whether this generation was accepted by this cluster since the operator started.
    pub fn is_accepted(&self, uid: &str, cluster_uid: &str, generation: i64) -> bool {
        self.with(|known| {
            let accepted = known.entries.get(uid).and_then(|entry| entry.accepted.as_ref());
            accepted.is_some_and(|(cluster, accepted)| **cluster == *cluster_uid && *accepted == generation)
        })
    }

    /// The cluster has accepted this generation.
    pub fn accept(&self, uid: &str, cluster_uid: &str, generation: i64) {
        self.with(|known| {
            let cluster = known.name(cluster_uid);
            if let Some(entry) = known.entries.get_mut(uid) {
                entry.accepted = Some((cluster, generation));
                entry.believed = false;
            }
        });
    }

    /// A look ended, and left this status: nothing is left to do at this version, or there is (`None`). News that came since it began
    /// ask for another one.
    pub fn settle(&self, uid: &str, news: u32, version: Option<&str>, status: &ScrapeTaskStatus) {
        self.with(|known| {
            if let Some(entry) = known.entries.get_mut(uid) {
                entry.settled = version.filter(|_| entry.news == news).map(hash);
                self.mirror(entry, status);
            }
        });
    }

    fn mirror(&self, entry: &mut Entry, status: &ScrapeTaskStatus) {
        let id = status.run_id.as_deref().and_then(|id| id.parse().ok());
        let waiting = waiting_code(status.waiting.as_deref());
        entry.mirrored = id.map(|id| (id, status.state.map_or(0, phase), waiting));
        entry.has_held_tick = status::held_tick(status).is_some();
        let state = status::state_label(status);
        if entry.state != Some(state) {
            self.telemetry.task_moved(&entry.namespace, entry.state, Some(state));
            entry.state = Some(state);
        }
    }

    /// Whether a change of this task is news: the task is known, and its status does not tell as much yet.
    pub fn wants(&self, change: &Change) -> bool {
        let run = &change.run;
        self.with(|known| match known.entries.get(change.uid.as_str()) {
            None => false,
            Some(Entry { mirrored: None, .. }) => true,
            Some(entry) if entry.has_held_tick != change.held.is_some() => true,
            Some(Entry {
                mirrored: Some((id, told, waiting)),
                ..
            }) => match run.id.parse::<Uuid>() {
                // Ids are UUIDv7: they sort by time.
                Ok(newer) if newer == *id => {
                    let waits = waiting_code(run.waiting.as_deref()) != *waiting;
                    phase(run.state.into()) > *told || (*told < ENDED && waits)
                }
                Ok(newer) => newer > *id,
                Err(_) => true,
            },
        })
    }

    /// Something happened to this task: it is to be looked at again. `None` when there is no such task.
    pub fn unsettle_one(&self, uid: &str) -> Option<Uid> {
        self.with(|known| {
            let (uid, _) = known.entries.get_key_value(uid)?;
            let uid = uid.clone();
            known.entries.get_mut(&uid)?.unsettle();
            Some(uid)
        })
    }

    /// Something about a cluster changed: all of its tasks are to be looked at again, whatever was settled.
    pub fn unsettle(&self, cluster: &Place) -> Vec<Uid> {
        self.with(|known| known.unsettle(|entry| entry.is_of(cluster)))
    }

    /// Every task, after news were missed.
    pub fn unsettle_all(&self) -> Vec<Uid> {
        self.with(|known| known.unsettle(|_| true))
    }

    /// The tasks of a cluster that are not settled.
    pub fn unsettled(&self, cluster: &Place) -> Vec<Uid> {
        self.with(|known| known.uids(|entry| entry.settled.is_none() && entry.is_of(cluster)))
    }

    /// Every task that is not settled at the version that was seen last: the calm round's.
    pub fn left_over(&self) -> Vec<Uid> {
        self.with(|known| known.uids(|entry| entry.settled != Some(entry.version)))
    }

    /// The task is gone; the cluster that it named.
    pub fn forget(&self, uid: &str) -> Option<Place> {
        self.with(|known| {
            let entry = known.entries.remove(uid)?;
            self.telemetry.task_moved(&entry.namespace, entry.state, None);
            self.telemetry.forget_task(&entry.namespace, &entry.name);
            Some((entry.cluster.0.to_string(), entry.cluster.1.to_string()))
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A hash of a text: of 64 bits, so that the texts of ten thousand objects do not meet.
pub fn hash(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use selextract_crds::RunState;

    use super::*;

    const OLD: &str = "0190a0f0-0000-7000-8000-000000000001";
    const NEW: &str = "0190a0f0-0000-7000-8000-000000000002";

    fn see(registry: &Registry, uid: &str, version: &str, mark: u64, round: u32) -> Sight {
        registry.see(&Sighting {
            uid,
            namespace: "team",
            name: "docs",
            cluster: ("demo", "shop"),
            version,
            mark,
            round,
        })
    }

    fn registry() -> Registry {
        let registry = Registry::new(Telemetry::new().unwrap());
        assert_eq!(see(&registry, "u1", "5", 1, 1), Sight::New("u1".into()));
        registry
    }

    fn is_settled(registry: &Registry) -> bool {
        registry.begin("u1").unwrap().settled
    }

    fn status(run: &str, state: RunState) -> ScrapeTaskStatus {
        ScrapeTaskStatus {
            run_id: Some(run.into()),
            state: Some(state),
            ..ScrapeTaskStatus::default()
        }
    }

    fn shop() -> Place {
        ("demo".into(), "shop".into())
    }

    #[test]
    fn ten_thousand_tasks_fit_in_five_megabytes() {
        // A bucket of the map holds the key and the entry, and up to half of the buckets are empty; uid and name lie beside them.
        let bucket = size_of::<Uid>() + size_of::<Entry>() + 1;
        assert!(2 * bucket + 64 + 32 <= 500, "{bucket} bytes in a bucket");
    }

    #[test]
    fn an_unchanged_object_is_settled_until_it_or_its_cluster_changes() {
        let registry = registry();
        registry.settle("u1", 0, Some("6"), &ScrapeTaskStatus::default());
        assert!(!is_settled(&registry), "the own write has not come back yet");
        assert_eq!(see(&registry, "u1", "6", 1, 1), Sight::Same, "a status is no news");
        assert!(is_settled(&registry));
        assert_eq!(registry.unsettle(&shop()), [Uid::from("u1")]);
        assert!(!is_settled(&registry));
        assert_eq!(see(&registry, "u1", "7", 2, 1), Sight::Changed("u1".into()));
        assert!(registry.unsettle(&("demo".into(), "other".into())).is_empty());
    }

    #[test]
    fn news_that_come_during_a_look_are_not_lost() {
        let registry = registry();
        let look = registry.begin("u1").unwrap();
        registry.unsettle_one("u1");
        registry.settle("u1", look.news, Some("5"), &ScrapeTaskStatus::default());
        assert!(!is_settled(&registry));
        assert_eq!(registry.left_over(), [Uid::from("u1")]);
    }

    #[test]
    fn a_status_that_is_believed_asks_for_nothing_until_it_is_doubted() {
        let registry = registry();
        registry.believe("u1", &status(OLD, RunState::Succeeded));
        assert!(is_settled(&registry) && registry.left_over().is_empty());
        assert!(!registry.is_accepted("u1", "c1", 3), "the cluster was not asked");
        assert_eq!(registry.doubt(10), [Uid::from("u1")]);
        assert!(!is_settled(&registry));
        registry.accept("u1", "c1", 3);
        assert!(registry.doubt(10).is_empty());
    }

    #[test]
    fn only_a_run_that_goes_further_than_the_status_is_wanted() {
        let registry = registry();
        let change = |uid: &str, id: &str, state: &str| -> Change {
            let run = serde_json::json!({
                "id": id, "specHash": "h", "state": state, "pages": 0, "records": 0, "createdAt": "2026-11-24T02:00:00Z",
            });
            serde_json::from_value(serde_json::json!({ "uid": uid, "run": run })).unwrap()
        };
        let wants = |id: &str, state: &str| registry.wants(&change("u1", id, state));
        assert!(wants(OLD, "pending") && !registry.wants(&change("u2", OLD, "pending")));
        registry.believe("u1", &status(OLD, RunState::Running));
        assert!(!wants(OLD, "running"), "told already");
        assert!(wants(OLD, "failed") && wants(NEW, "pending"));
        registry.settle("u1", 0, Some("6"), &status(NEW, RunState::Pending));
        assert!(!wants(OLD, "failed"), "an older run");
        let held = Change {
            held: Some("the quota queued is 1".into()),
            ..change("u1", NEW, "pending")
        };
        assert!(registry.wants(&held), "a tick waits, which the status does not tell");
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
    fn what_a_new_list_does_not_name_is_gone_in_its_own_namespace_only() {
        let registry = registry();
        let known = |uid: &str| KnownTask {
            uid: uid.to_owned(),
            namespace: "team".to_owned(),
            name: "docs".to_owned(),
        };
        assert!(registry.end_list(Some("other"), 2).is_empty());
        assert_eq!(registry.exists(&known("u3")), None, "its namespace was not listed yet");
        see(&registry, "u2", "8", 1, 2);
        let gone = registry.end_list(Some("team"), 2);
        assert_eq!(gone.iter().map(|(uid, _)| uid.as_ref()).collect::<Vec<_>>(), ["u1"]);
        assert_eq!(
            (registry.exists(&known("u2")), registry.exists(&known("u1"))),
            (Some(true), Some(false))
        );
        assert!(registry.begin("u1").is_none() && registry.begin("u2").is_some());
    }
}
