//! The links to all clusters that have tasks, and the way of their news to the controllers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kube::{Client, ResourceExt};
use selextract_crds::SelextractCluster;
use tokio_util::sync::CancellationToken;

use super::{
    client::{ApiClient, Target},
    link::{Link, Notice, Surroundings},
    registry::{Place, Registry, Uid},
};
use crate::{queue::Queue, settings::Settings};

/// The links, by the cluster's uid.
pub struct Links {
    client: Client,
    settings: Settings,
    registry: Arc<Registry>,
    stop: CancellationToken,
    running: Mutex<HashMap<String, (Place, Arc<Link>)>>,
    queue: Arc<Queue<Uid>>,
}

impl Links {
    /// No links yet. Tasks that have to be looked at again go to `queue`.
    pub fn new(
        client: Client,
        settings: Settings,
        registry: Arc<Registry>,
        stop: CancellationToken,
        queue: Arc<Queue<Uid>>,
    ) -> Self {
        Self {
            client,
            settings,
            registry,
            stop,
            running: Mutex::default(),
            queue,
        }
    }

    /// The link to a cluster, started when it is the first time.
    pub fn to(&self, cluster: &SelextractCluster) -> Arc<Link> {
        let place = (cluster.namespace().unwrap_or_default(), cluster.name_any());
        let uid = cluster.uid().unwrap_or_default();
        let mut links = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, link)) = links.get(&uid) {
            return link.clone();
        }
        let link = self.start(&place, &uid);
        links.insert(uid, (place, link.clone()));
        link
    }

    /// Ends the links to clusters of this place that are not `uid`: they are gone.
    pub fn keep_only(&self, place: &Place, uid: Option<&str>) {
        let mut links = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|known, (at, link)| {
            let stays = at != place || Some(known.as_str()) == uid;
            if !stays {
                link.stop();
            }
            stays
        });
    }

    /// Ends the run of a task that is gone, at the cluster of this place. A cluster that is gone too has nothing to end.
    pub fn end(&self, cluster: &Place, uid: &str) {
        let links = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, link)) = links.values().find(|(at, _)| at == cluster) {
            link.end(uid);
        }
    }

    /// Every link, with its cluster's uid and place.
    pub fn all(&self) -> Vec<(String, Place, Arc<Link>)> {
        let links = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let all = links
            .iter()
            .map(|(uid, (place, link))| (uid.clone(), place.clone(), link.clone()));
        all.collect()
    }

    /// Has every feed read from its start.
    pub fn rewind(&self) {
        let links = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        links.values().for_each(|(_, link)| link.rewind());
    }

    fn start(&self, place: &Place, uid: &str) -> Arc<Link> {
        let target = Target {
            namespace: place.0.clone(),
            name: place.1.clone(),
            uid: uid.to_owned(),
            own_namespace: self.settings.namespace.clone(),
            service_account: self.settings.service_account.clone(),
        };
        let (known, present, registry, queue, place) = (
            self.registry.clone(),
            self.registry.clone(),
            self.registry.clone(),
            self.queue.clone(),
            place.clone(),
        );
        let around = Surroundings {
            wants: Box::new(move |change| known.wants(change)),
            exists: Box::new(move |task| present.exists(task)),
            tell: Box::new(move |notice| {
                queue.extend(match notice {
                    Notice::Changed(uid) => registry.unsettle_one(&uid).into_iter().collect(),
                    Notice::Reached => registry.unsettled(&place),
                });
            }),
        };
        Link::start(
            Arc::new(ApiClient::new(self.client.clone(), target)),
            self.stop.child_token(),
            around,
        )
    }
}
