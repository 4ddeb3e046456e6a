//! Watches as streams of what to reconcile. A broken watch is logged and begins again, with backoff; it never ends the stream.

use std::{collections::HashMap, fmt::Debug};

use futures::{
    Stream, StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{Lookup, ObjectRef, store::Writer},
        watcher::{self, Config, watcher},
    },
};
use serde::de::DeserializeOwned;

/// What a watch of main objects tells besides the objects.
pub enum Told<'a, K: Lookup<DynamicType = ()>> {
    /// An object is gone: the one with this uid, under whose name there may be another.
    Gone(&'a ObjectRef<K>, &'a str),
    /// The store holds everything that there is.
    Listed,
}

/// The main objects of a controller, kept in its store; yields those in which more changed than their status, and those that went.
pub fn main_objects<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    writer: Writer<K>,
    trim: impl FnMut(&mut K) + Send + 'static,
    tell: impl Fn(Told<'_, K>) + Send + 'static,
) -> BoxStream<'static, ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let mut seen = Seen {
        marks: HashMap::new(),
        round: 0,
        listing: Vec::new(),
    };
    events
        .default_backoff()
        .modify(trim)
        .reflect(writer)
        .filter_map(|event| ready(logged(event)))
        .flat_map(move |event| stream::iter(seen.news(&event, &tell)))
        .boxed()
}

/// What of each object was seen last.
struct Seen<K: Lookup<DynamicType = ()>> {
    marks: HashMap<ObjectRef<K>, Mark>,
    /// The number of the last list. What went while a watch was broken is told by nobody: a whole list lacks it.
    round: u64,
    /// Objects of a list that is still coming: the store has them when it is complete.
    listing: Vec<ObjectRef<K>>,
}

struct Mark {
    fingerprint: u64,
    uid: String,
    round: u64,
}

impl<K> Seen<K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()>,
{
    fn news(&mut self, event: &watcher::Event<K>, tell: &impl Fn(Told<'_, K>)) -> Vec<ObjectRef<K>> {
        match event {
            watcher::Event::Init => {
                self.round += 1;
                self.listing.clear();
            }
            watcher::Event::InitApply(object) => {
                let new = self.is_new(object, tell);
                self.listing.extend(new);
            }
            watcher::Event::InitDone => {
                let mut news = std::mem::take(&mut self.listing);
                for (key, mark) in self.marks.extract_if(|_, mark| mark.round != self.round) {
                    tell(Told::Gone(&key, &mark.uid));
                    news.push(key);
                }
                tell(Told::Listed);
                return news;
            }
            watcher::Event::Apply(object) => return self.is_new(object, tell).into_iter().collect(),
            watcher::Event::Delete(object) => {
                let key = ObjectRef::from_obj(object);
                self.marks.remove(&key);
                tell(Told::Gone(&key, uid(object)));
                return vec![key];
            }
        }
        Vec::new()
    }

    /// The object's key if anything but status changed. Deletion, finalizers and annotations count: the generation alone misses them.
    fn is_new(&mut self, object: &K, tell: &impl Fn(Told<'_, K>)) -> Option<ObjectRef<K>> {
        let meta = object.meta();
        let fingerprint = fingerprint(&format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            meta.uid, meta.generation, meta.deletion_timestamp, meta.finalizers, meta.annotations, meta.labels
        ));
        let key = ObjectRef::from_obj(object);
        let mark = Mark {
            fingerprint,
            uid: uid(object).to_owned(),
            round: self.round,
        };
        let Some(before) = self.marks.insert(key.clone(), mark) else {
            return Some(key);
        };
        if before.uid != uid(object) {
            tell(Told::Gone(&key, &before.uid));
        }
        (before.fingerprint != fingerprint).then_some(key)
    }
}

fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// What belongs to main objects, seen by its metadata alone.
pub fn metadata<K>(api: Api<PartialObjectMeta<K>>, labels: &str) -> BoxStream<'static, PartialObjectMeta<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, Config::default().labels(labels))
        .default_backoff()
        .touched_objects()
        .filter_map(|object| ready(logged(object)))
        .boxed()
}

fn logged<K>(object: watcher::Result<K>) -> Option<K> {
    object
        .inspect_err(|error| tracing::warn!(%error, "A watch broke off and begins again."))
        .ok()
}

fn fingerprint(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::store;
    use watcher::Event;

    use super::*;

    fn object(name: &str, uid: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("web".to_owned());
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(uid.to_owned());
        object
    }

    fn list(objects: &[(&str, &str)]) -> Vec<Event<ConfigMap>> {
        let objects = objects.iter().map(|(name, uid)| Event::InitApply(object(name, uid)));
        [Event::Init]
            .into_iter()
            .chain(objects)
            .chain([Event::InitDone])
            .collect()
    }

    /// Whom the events tell to reconcile, and what else they tell.
    async fn outcome(events: Vec<Event<ConfigMap>>) -> (Vec<String>, Vec<String>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (_, writer) = store();
        let listener = told.clone();
        let tell = move |told: Told<'_, ConfigMap>| {
            listener.lock().unwrap().push(match told {
                Told::Gone(key, uid) => format!("{} {uid} is gone", key.name),
                Told::Listed => "listed".to_owned(),
            });
        };
        let events = stream::iter(events.into_iter().map(Ok));
        let news = main_objects(events, writer, |_| (), tell)
            .map(|key| key.name)
            .collect()
            .await;
        let told = told.lock().unwrap().clone();
        (news, told)
    }

    #[tokio::test]
    async fn what_went_while_the_watch_was_broken_is_told_when_it_is_listed_again() {
        let (first, again) = (list(&[("shop", "1"), ("market", "2")]), list(&[("market", "2")]));
        let (news, told) = outcome([first, again].concat()).await;
        assert_eq!(news, ["shop", "market", "shop"]);
        assert_eq!(told, ["listed", "shop 1 is gone", "listed"]);
    }

    #[tokio::test]
    async fn what_was_made_again_while_the_watch_was_broken_is_another_one() {
        let (news, told) = outcome([list(&[("shop", "1")]), list(&[("shop", "2")])].concat()).await;
        assert_eq!(news, ["shop", "shop"]);
        assert_eq!(told, ["listed", "shop 1 is gone", "listed"]);
    }

    #[tokio::test]
    async fn a_list_that_holds_everything_tells_nothing_new() {
        let all = list(&[("shop", "1"), ("market", "2")]);
        let deleted = vec![Event::Delete(object("shop", "1"))];
        let (news, told) = outcome([all.clone(), all, deleted].concat()).await;
        assert_eq!(news, ["shop", "market", "shop"]);
        assert_eq!(told, ["listed", "listed", "shop 1 is gone"]);
    }
}
