//! Credentials that `ScrapeTask`s take from Secrets of their namespace: read by `get` of the named Secret alone, handed to the cluster's
//! API, which seals them, and looked at again every minute. Nothing of a Secret's data is kept, told or logged here.

mod secret;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, Resource, ResourceExt};
use selextract_crds::{CredentialsFrom, ScrapeTask};
use selextract_task::feed::{
    MAX_ITEMS,
    credentials::{KnownSecret, SecretCredentials, SecretRemovals},
};
use tokio::time::sleep;

use super::{
    Tools,
    judge::{self, Fault},
    link::Link,
    registry::{Place, Uid},
};

/// How often Secrets are looked at again.
const EVERY: Duration = Duration::from_secs(45);

/// A Secret: its namespace and its name.
pub type Named = (String, String);

/// What is known of the Secrets that tasks name.
#[derive(Default)]
pub struct Credentials(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The Secret of each task that takes its credentials from one, and its cluster.
    wanted: HashMap<Uid, (Place, Named)>,
    /// The version of each Secret that was seen last; `None` is one that is not there.
    seen: HashMap<Named, Option<String>>,
    /// The version that a cluster (by uid) has.
    told: HashMap<(String, Named), String>,
}

/// Whether a task's credentials are where its cluster finds them.
pub enum Brought {
    /// They are, or it has none from a Secret.
    Done,
    /// A person has to change something.
    Fault(Fault),
    /// The cluster has not taken them.
    NotTaken(String),
}

/// The Secret that a task takes its credentials from.
fn named(task: &ScrapeTask) -> Option<Named> {
    let name = task.spec.task.credentials.clone()?;
    let from_secret = task.spec.credentials_from == CredentialsFrom::Secret && task.meta().deletion_timestamp.is_none();
    from_secret.then(|| (task.namespace().unwrap_or_default(), name))
}

impl Credentials {
    /// A watch told of a task.
    pub fn see(&self, uid: &str, task: Option<&ScrapeTask>) {
        let wanted = task.and_then(|task| Some((judge::cluster_of(task), named(task)?)));
        let mut known = self.known();
        match wanted {
            Some(wanted) => drop(known.wanted.insert(uid.into(), wanted)),
            None => drop(known.wanted.remove(uid)),
        }
    }

    /// A task is gone.
    pub fn forget(&self, uid: &str) {
        self.known().wanted.remove(uid);
    }

    /// Hands the Secret that a task names to its cluster, if that has not got it as it is.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn bring(
        &self,
        client: &Client,
        task: &ScrapeTask,
        (cluster_uid, link): (&str, &Link),
    ) -> Result<Brought, kube::Error> {
        let Some(of) = named(task) else {
            return Ok(Brought::Done);
        };
        let found = fetch(client, &of).await?;
        let version = found.as_ref().and_then(ResourceExt::resource_version);
        self.known().seen.insert(of.clone(), version.clone());
        let (Some(found), Some(version)) = (found, version) else {
            return Ok(Brought::Fault(secret::missing(&of)));
        };
        if self.known().told.get(&(cluster_uid.to_owned(), of.clone())) == Some(&version) {
            return Ok(Brought::Done);
        }
        let credentials = match secret::read(&of, &found) {
            Ok(credentials) => credentials,
            Err(fault) => return Ok(Brought::Fault(fault)),
        };
        let item = SecretCredentials {
            namespace: of.0.clone(),
            name: of.1.clone(),
            version: version.clone(),
            credentials,
        };
        let answer = match link.client().put_credentials(&item).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Brought::NotTaken(error.to_string())),
        };
        if let Some(why) = answer.refused {
            return Ok(Brought::Fault(secret::invalid(&of, &why)));
        }
        self.known().told.insert((cluster_uid.to_owned(), of), version);
        Ok(Brought::Done)
    }

    /// The Secrets that tasks name.
    fn secrets(&self) -> HashSet<Named> {
        self.known().wanted.values().map(|(_, of)| of.clone()).collect()
    }

    /// A Secret was looked at; the tasks that are to be looked at again, where it is another one than before.
    fn looked(&self, of: &Named, version: Option<String>) -> Vec<Uid> {
        let mut known = self.known();
        let before = known.seen.insert(of.clone(), version.clone());
        if before == Some(version) {
            return Vec::new();
        }
        let naming = known.wanted.iter().filter(|(_, (_, named))| named == of);
        naming.map(|(uid, _)| uid.clone()).collect()
    }

    /// Whether a cluster needs what it has of a Secret no more: no task of it names the Secret, or that is gone.
    fn is_over(&self, cluster: &Place, secret: &KnownSecret) -> bool {
        let known = self.known();
        let of = (secret.namespace.clone(), secret.name.clone());
        let is_named = known.wanted.values().any(|(at, named)| at == cluster && *named == of);
        !is_named || known.seen.get(&of) == Some(&None)
    }

    fn removed(&self, cluster_uid: &str, secrets: &[KnownSecret]) {
        let mut known = self.known();
        for secret in secrets {
            let of = (secret.namespace.clone(), secret.name.clone());
            known.told.remove(&(cluster_uid.to_owned(), of));
        }
    }

    /// What the cluster has is another version than it was told: somebody wrote over it, or it lost it.
    fn check_told(&self, cluster_uid: &str, has: &BTreeMap<Named, String>) -> Vec<Uid> {
        let mut known = self.known();
        let stale: Vec<Named> = known
            .told
            .iter()
            .filter(|((at, of), version)| at == cluster_uid && has.get(of) != Some(*version))
            .map(|((_, of), _)| of.clone())
            .collect();
        for of in &stale {
            known.told.remove(&(cluster_uid.to_owned(), of.clone()));
        }
        let naming = known.wanted.iter().filter(|(_, (_, named))| stale.contains(named));
        naming.map(|(uid, _)| uid.clone()).collect()
    }

    /// Forgets Secrets that no task names.
    fn tidy(&self) {
        let named = self.secrets();
        self.known().seen.retain(|of, _| named.contains(of));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch(client: &Client, (namespace, name): &Named) -> Result<Option<Secret>, kube::Error> {
    Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await
}

/// Looks at every Secret that tasks name, for ever, and at what the clusters still have of others.
pub async fn rounds(tools: Arc<Tools>) {
    loop {
        sleep(EVERY.mul_f64(0.9 + rand::random::<f64>() / 5.0)).await;
        for of in tools.credentials.secrets() {
            match fetch(&tools.context.client, &of).await {
                Ok(found) => {
                    let version = found.and_then(|found| found.resource_version());
                    look_again(&tools, &tools.credentials.looked(&of, version));
                }
                Err(error) => {
                    tracing::warn!(namespace = of.0, name = of.1, %error, "A Secret with credentials could not be read.");
                }
            }
        }
        for (cluster_uid, place, link) in tools.links.all() {
            if link.is_up()
                && let Err(error) = reconcile(&tools, &cluster_uid, &place, &link).await
            {
                tracing::warn!(cluster = place.1, %error, "The credentials that a cluster has of Secrets could not be gone through.");
            }
        }
        tools.credentials.tidy();
    }
}

fn look_again(tools: &Tools, uids: &[Uid]) {
    let known: Vec<Uid> = uids.iter().filter_map(|uid| tools.registry.unsettle_one(uid)).collect();
    tools.queue.extend(known);
}

/// Takes from a cluster what it needs no more. A namespace that was not listed yet may hold a task that names the Secret.
async fn reconcile(
    tools: &Tools,
    cluster_uid: &str,
    place: &Place,
    link: &Link,
) -> Result<(), super::client::ClientError> {
    let client = link.client();
    let (mut over, mut has, mut after) = (Vec::new(), BTreeMap::new(), Named::default());
    loop {
        let page = client.known_credentials(&after.0, &after.1).await?.items;
        let Some(last) = page.last() else { break };
        let next = (last.namespace.clone(), last.name.clone());
        if next <= after {
            break;
        }
        after = next;
        for secret in page {
            if tools.registry.has_listed(&secret.namespace) && tools.credentials.is_over(place, &secret) {
                over.push(secret);
            } else {
                has.insert((secret.namespace, secret.name), secret.version);
            }
        }
    }
    for items in over.chunks(MAX_ITEMS) {
        let removals = SecretRemovals { items: items.to_vec() };
        client.remove_credentials(&removals).await?;
        tools.credentials.removed(cluster_uid, items);
        tracing::info!(
            cluster = place.1,
            removed = items.len(),
            "Credentials of Secrets that no ScrapeTask names were taken away."
        );
    }
    look_again(tools, &tools.credentials.check_told(cluster_uid, &has));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(uid: &str, from: &str) -> ScrapeTask {
        serde_json::from_value(json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "ScrapeTask",
            "metadata": { "name": uid, "namespace": "team", "uid": uid },
            "spec": {
                "clusterRef": { "name": "blue" }, "credentialsFrom": from,
                "task": { "url": "https://shop.example/", "fields": [{ "name": "t" }], "credentials": "shop" },
            },
        }))
        .unwrap()
    }

    fn shop(version: &str) -> KnownSecret {
        KnownSecret {
            namespace: "team".into(),
            name: "shop".into(),
            version: version.into(),
        }
    }

    #[test]
    fn a_secret_that_changes_has_its_tasks_looked_at_again_and_no_others() {
        let known = Credentials::default();
        known.see("a", Some(&task("a", "Secret")));
        known.see("b", Some(&task("b", "Api")));
        let of: Named = ("team".into(), "shop".into());
        assert_eq!(known.secrets(), HashSet::from([of.clone()]));
        assert_eq!(known.looked(&of, Some("1".into())), [Uid::from("a")]);
        assert!(known.looked(&of, Some("1".into())).is_empty());
        assert_eq!(known.looked(&of, None), [Uid::from("a")], "it went");
        assert_eq!(known.looked(&of, Some("2".into())), [Uid::from("a")]);
    }

    #[test]
    fn what_no_task_names_or_whose_secret_is_gone_is_over() {
        let known = Credentials::default();
        let place: Place = ("team".into(), "blue".into());
        assert!(known.is_over(&place, &shop("1")));
        known.see("a", Some(&task("a", "Secret")));
        assert!(!known.is_over(&place, &shop("1")));
        assert!(
            known.is_over(&("team".into(), "green".into()), &shop("1")),
            "another cluster's"
        );
        known.looked(&("team".into(), "shop".into()), None);
        assert!(known.is_over(&place, &shop("1")));
        known.looked(&("team".into(), "shop".into()), Some("2".into()));
        known.see("a", Some(&task("a", "Api")));
        assert!(known.is_over(&place, &shop("1")));
    }

    #[test]
    fn a_cluster_that_has_another_version_is_told_again() {
        let known = Credentials::default();
        let of: Named = ("team".into(), "shop".into());
        known.see("a", Some(&task("a", "Secret")));
        known.known().told.insert(("c".into(), of.clone()), "2".into());
        assert!(
            known
                .check_told("c", &BTreeMap::from([(of.clone(), "2".to_owned())]))
                .is_empty()
        );
        assert_eq!(known.check_told("c", &BTreeMap::new()), [Uid::from("a")]);
        assert!(known.known().told.is_empty());
    }
}
