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
pub enum Told<'a, K> {
    /// An object is gone.
    Gone(&'a K),
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
    marks: HashMap<ObjectRef<K>, u64>,
    /// Objects of a list that is still coming: the store has them when it is complete.
    listing: Vec<ObjectRef<K>>,
}

impl<K> Seen<K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()>,
{
    fn news(&mut self, event: &watcher::Event<K>, tell: &impl Fn(Told<'_, K>)) -> Vec<ObjectRef<K>> {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(object) => {
                let new = self.is_new(object);
                self.listing.extend(new);
            }
            watcher::Event::InitDone => {
                tell(Told::Listed);
                return std::mem::take(&mut self.listing);
            }
            watcher::Event::Apply(object) => return self.is_new(object).into_iter().collect(),
            watcher::Event::Delete(object) => {
                let key = ObjectRef::from_obj(object);
                self.marks.remove(&key);
                tell(Told::Gone(object));
                return vec![key];
            }
        }
        Vec::new()
    }

    /// The object's key if anything but status changed. Deletion, finalizers and annotations count: the generation alone misses them.
    fn is_new(&mut self, object: &K) -> Option<ObjectRef<K>> {
        let meta = object.meta();
        let mark = fingerprint(&format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            meta.uid, meta.generation, meta.deletion_timestamp, meta.finalizers, meta.annotations, meta.labels
        ));
        let key = ObjectRef::from_obj(object);
        (self.marks.insert(key.clone(), mark) != Some(mark)).then_some(key)
    }
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
