//! Which `ScrapeTask`s exist, as the watches know it. No I/O.

use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use selextract_task::feed::KnownTask;

use super::TaskMeta;
use crate::settings::Scope;

/// The stores of all scopes.
#[derive(Default)]
pub struct Presence {
    stores: Mutex<Vec<(Scope, Store<TaskMeta>)>>,
}

impl Presence {
    /// The store that a scope's watch fills.
    pub fn add(&self, scope: Scope, store: Store<TaskMeta>) {
        self.stores
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((scope, store));
    }

    /// Whether a task exists and is not being deleted; `None` where no watch can tell: its namespace is not watched, or not listed yet.
    pub fn of(&self, task: &KnownTask) -> Option<bool> {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, store) = stores.iter().find(|(scope, _)| match scope {
            Scope::Namespace(namespace) => *namespace == task.namespace,
            Scope::All => true,
        })?;
        store.wait_until_ready().now_or_never()?.ok()?;
        let found = store.get(&ObjectRef::new(&task.name).within(&task.namespace));
        Some(found.is_some_and(|meta| {
            meta.uid().as_deref() == Some(task.uid.as_str()) && meta.metadata.deletion_timestamp.is_none()
        }))
    }
}

#[cfg(test)]
mod tests {
    use kube::{
        core::{ObjectMeta, PartialObjectMetaExt},
        runtime::{reflector::store, watcher::Event},
    };

    use super::*;

    fn meta(namespace: &str, name: &str, uid: &str) -> TaskMeta {
        let meta = ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            ..ObjectMeta::default()
        };
        meta.into_response_partial()
    }

    fn known(namespace: &str, name: &str, uid: &str) -> KnownTask {
        KnownTask {
            uid: uid.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    #[test]
    fn a_task_is_gone_only_where_a_complete_list_lacks_its_uid() {
        let presence = Presence::default();
        let (reader, mut writer) = store();
        presence.add(Scope::Namespace("team".into()), reader);
        assert_eq!(presence.of(&known("team", "docs", "1")), None, "nothing was listed yet");

        let docs = meta("team", "docs", "1");
        for event in [Event::Init, Event::InitApply(docs), Event::InitDone] {
            writer.apply_watcher_event(&event);
        }
        assert_eq!(presence.of(&known("team", "docs", "1")), Some(true));
        assert_eq!(
            presence.of(&known("team", "docs", "2")),
            Some(false),
            "one of the same name came after it"
        );
        assert_eq!(presence.of(&known("team", "prices", "3")), Some(false));
        assert_eq!(
            presence.of(&known("other", "docs", "4")),
            None,
            "nobody watches that namespace"
        );
    }
}
