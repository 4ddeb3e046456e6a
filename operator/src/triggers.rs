//! Watches as streams of what to reconcile. A broken watch is logged and begins again, with backoff; it never ends the stream.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use futures::{Stream, StreamExt, future::ready, stream::BoxStream};
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
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const DRAIN: Duration = Duration::from_secs(2);

/// The main objects of a controller, kept in its store; yields those in which more changed than their status, and those that went.
pub fn main_objects<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    writer: Writer<K>,
    trim: impl FnMut(&mut K) + Send + 'static,
    gone: impl Fn(&K) + Send + 'static,
) -> BoxStream<'static, K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let mut seen: HashMap<ObjectRef<K>, u64> = HashMap::new();
    events
        .default_backoff()
        .modify(trim)
        .reflect(writer)
        .filter_map(|event| ready(logged(event)))
        .filter_map(move |event| ready(news(&mut seen, event, &gone)))
        .boxed()
}

fn news<K>(seen: &mut HashMap<ObjectRef<K>, u64>, event: watcher::Event<K>, gone: &impl Fn(&K)) -> Option<K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()>,
{
    match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => is_new(seen, &object).then_some(object),
        watcher::Event::Delete(object) => {
            seen.remove(&ObjectRef::from_obj(&object));
            gone(&object);
            Some(object)
        }
        watcher::Event::Init | watcher::Event::InitDone => None,
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

/// Ends a moment after the operator is told to stop: what is under way ends, what is scheduled for later does not run any more.
pub async fn drained(stop: CancellationToken) {
    stop.cancelled().await;
    sleep(DRAIN).await;
}

fn logged<K>(object: watcher::Result<K>) -> Option<K> {
    object
        .inspect_err(|error| tracing::warn!(%error, "A watch broke off and begins again."))
        .ok()
}

/// Whether anything but status changed. Deletion, finalizers and annotations count: a look at the generation alone misses them.
fn is_new<K: Resource<DynamicType = ()> + Lookup<DynamicType = ()>>(
    seen: &mut HashMap<ObjectRef<K>, u64>,
    object: &K,
) -> bool {
    let meta = object.meta();
    let text = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        meta.uid, meta.generation, meta.deletion_timestamp, meta.finalizers, meta.annotations, meta.labels
    );
    let mark = fingerprint(&text);
    seen.insert(ObjectRef::from_obj(object), mark) != Some(mark)
}

fn fingerprint(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}
