//! How many pods API and workers are to have in this reconcile: what is now, what the surroundings admit, what is decided.

use jiff::Timestamp;
use kube::runtime::events::EventType;
use selextract_crds::{ScaleStatus, SelextractCluster};
use serde_json::Value;

use super::{
    Tools,
    objects::{Key, Live},
    scaler::{SCALER, owners_of_replicas},
    status::belongs,
    workload,
};
use crate::{
    build::{Child, Component, Names, Stage},
    measure::{Decisions, Followed},
    scaling::{Constraint, Decision, Policies, Reason, State, Target, changed},
    validated::{PrometheusEndpoint, Sizing, ValidatedCluster},
};

/// Connections to the pooler that are not the API's: keeper, migration, operator.
const OTHERS: u32 = 10;
/// Connections of one worker to the pooler (docs/ARCHITECTURE.md, `SELEXTRACT_POOL_SIZE`).
const WORKER_CONNECTIONS: u32 = 4;

/// What was decided, and whose numbers are left alone.
#[derive(Debug, Default)]
pub struct Sizes {
    /// The decisions.
    pub decisions: Decisions,
    /// The components whose number somebody else sets.
    pub left: Vec<Component>,
}

/// Decides, and writes the numbers into the children that are scaled.
pub fn decide(
    cluster: &SelextractCluster,
    validated: &ValidatedCluster,
    endpoint: Option<PrometheusEndpoint>,
    children: &mut [(Stage, Child)],
    (live, tools): (&Live, &Tools),
) -> Sizes {
    let measures = &tools.context.measures;
    let policies = Policies {
        api: validated.scaling.api.policy().cloned(),
        worker: validated.scaling.worker.policy().cloned(),
    };
    let mut sizes = Sizes::default();
    let known = measures.states(&validated.uid);
    let (known_api, known_worker) = known.unzip();
    let api = state(cluster, validated, Target::Api, known_api, live);
    let worker = state(cluster, validated, Target::Worker, known_worker, live);
    match endpoint.filter(|_| policies.any()) {
        Some(endpoint) => {
            let followed = Followed {
                place: (validated.namespace.clone(), validated.name.clone()),
                made: cluster.metadata.creation_timestamp.as_ref().map(|made| made.0),
                endpoint,
                policies: policies.clone(),
                api: api.clone(),
                worker: worker.clone(),
                told: (told(cluster, Target::Api), told(cluster, Target::Worker)),
            };
            sizes.decisions = measures.follow(&validated.uid, followed, Timestamp::now());
        }
        None => measures.forget(&validated.uid),
    }
    let external = [
        (Component::Api, matches!(validated.scaling.api, Sizing::External)),
        (Component::Worker, matches!(validated.scaling.worker, Sizing::External)),
    ];
    sizes.left = external
        .into_iter()
        .filter(|(_, left)| *left)
        .map(|(component, _)| component)
        .collect();
    // Where nobody can be asked, such as without a Secret that opens Prometheus, the number stays.
    let kept = |sized: bool, state: &State| sized.then_some(state.current);
    let numbers = [
        (
            Component::Api,
            sizes
                .decisions
                .api
                .as_ref()
                .map(|decision| decision.to)
                .or(kept(policies.api.is_some() || external[0].1, &api)),
        ),
        (
            Component::Worker,
            sizes
                .decisions
                .worker
                .as_ref()
                .map(|decision| decision.to)
                .or(kept(policies.worker.is_some() || external[1].1, &worker)),
        ),
    ];
    for (component, number) in numbers {
        let name = Names::new(validated).component(component);
        let child = children
            .iter_mut()
            .find(|(_, child)| child.kind() == "Deployment" && child.name() == name);
        if let (Some((_, child)), Some(number)) = (child, number) {
            child.replicas = Some(i32::try_from(number).unwrap_or(i32::MAX));
        }
    }
    sizes
}

impl Sizes {
    /// Whether somebody else sets this child's number.
    pub fn leaves(&self, child: &Child) -> bool {
        child.kind() == "Deployment" && self.left.iter().any(|component| belongs(child, &[*component]))
    }
}

/// After the numbers were written: they are what is now, and changes are told by event, log and metric. Before the programs' stage
/// nothing was written, and nothing was decided.
pub async fn settle(
    cluster: &SelextractCluster,
    validated: &ValidatedCluster,
    sizes: Sizes,
    reached: Stage,
    tools: &Tools,
) -> Decisions {
    let decisions = sizes.decisions;
    if reached < Stage::Programs {
        // A decision that needs no write is no news again in five seconds.
        tools.context.measures.set(&validated.uid, &decisions.held());
        return Decisions::default();
    }
    tools.context.measures.set(&validated.uid, &decisions);
    for decision in decisions.iter() {
        tools
            .context
            .telemetry
            .decided(&validated.namespace, &validated.name, decision);
        if decision.to != decision.from {
            tell(cluster, decision, tools).await;
        }
    }
    decisions
}

async fn tell(cluster: &SelextractCluster, decision: &Decision, tools: &Tools) {
    let Decision {
        target,
        from,
        to,
        reason,
        message,
        ..
    } = decision;
    let (what, action) = if to > from {
        ("ScaledOut", "ScaleOut")
    } else {
        ("ScaledIn", "ScaleIn")
    };
    let note = format!("{} {from} → {to}: {reason}: {message}", target.as_str());
    tracing::info!(of = target.as_str(), from, to, %reason, message, "Sized.");
    tools
        .context
        .event(cluster, EventType::Normal, what, action, note)
        .await;
}

fn component(target: Target) -> Component {
    match target {
        Target::Api => Component::Api,
        Target::Worker => Component::Worker,
    }
}

fn stored(cluster: &SelextractCluster, target: Target) -> Option<&ScaleStatus> {
    let scaling = cluster.status.as_ref()?.scaling.as_ref()?;
    match target {
        Target::Api => scaling.api.as_ref(),
        Target::Worker => scaling.worker.as_ref(),
    }
}

fn told(cluster: &SelextractCluster, target: Target) -> Option<String> {
    Some(stored(cluster, target)?.decision.as_ref()?.reason.clone())
}

/// What is now. What this process set itself is known best; else what the scaler set, else what is stored, else where the profile begins.
fn state(
    cluster: &SelextractCluster,
    validated: &ValidatedCluster,
    target: Target,
    known: Option<State>,
    live: &Live,
) -> State {
    let key = Key {
        kind: "Deployment".to_owned(),
        name: Names::new(validated).component(component(target)),
    };
    let found = live.get(&key);
    let first = match target {
        Target::Api => validated.api.replicas,
        Target::Worker => validated.worker.replicas,
    };
    let stored = stored(cluster, target);
    let current = match &known {
        Some(known) => known.current,
        None => found
            .and_then(set_by_us)
            .or_else(|| stored.map(|stored| number(stored.desired)))
            .unwrap_or_else(|| number(first)),
    };
    State {
        current,
        ready: number(found.and_then(workload::count).unwrap_or_default().ready),
        changed: known.map_or_else(|| stored.and_then(changed), |known| known.changed),
        ceilings: ceilings(validated, target, found),
    }
}

/// The number that the scaler set, if nobody set another since.
fn set_by_us(live: &Value) -> Option<u32> {
    let ours = owners_of_replicas(live).iter().any(|manager| manager == SCALER);
    let replicas = live.pointer("/spec/replicas").and_then(Value::as_u64)?;
    ours.then(|| u32::try_from(replicas).unwrap_or(u32::MAX))
}

fn number(pods: i32) -> u32 {
    u32::try_from(pods).unwrap_or_default()
}

/// What the pooler's clients and the namespace's quota admit.
fn ceilings(validated: &ValidatedCluster, target: Target, live: Option<&Value>) -> Vec<(Constraint, u32)> {
    let mut ceilings = Vec::new();
    if target == Target::Api {
        let most = api_pods_by_connections(validated);
        let message = format!(
            "the pooler admits clients of {most} API pods ({} connections each; spec.pgbouncer.maxClientConn)",
            connections(validated)
        );
        ceilings.push((
            Constraint {
                reason: Reason::ConnectionBudget,
                message,
            },
            most,
        ));
    }
    if let Some(refused) = live
        .and_then(workload::refused)
        .filter(|refused| refused.message.contains("exceeded quota"))
    {
        let ready = live.and_then(workload::count).unwrap_or_default().ready;
        let constraint = Constraint {
            reason: Reason::Quota,
            message: refused.message,
        };
        ceilings.push((constraint, number(ready)));
    }
    ceilings
}

fn connections(validated: &ValidatedCluster) -> u32 {
    u32::from(validated.api.pool.size) + u32::from(validated.api.pool.overflow)
}

/// API pods whose pools the poolers admit while the workers are as many as they may be (guide: `MAX_CLIENT_CONN` 1000).
fn api_pods_by_connections(validated: &ValidatedCluster) -> u32 {
    let pooler = &validated.pgbouncer;
    let admitted = number(pooler.replicas) * u32::from(pooler.max_client_conn);
    let workers = validated
        .scaling
        .worker
        .policy()
        .map_or_else(|| number(validated.worker.replicas), |policy| policy.limits.max);
    let left = admitted.saturating_sub(workers * WORKER_CONNECTIONS + OTHERS);
    (left / connections(validated).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::build::fixture;

    fn live(replicas: u32, manager: &str) -> Live {
        let key = Key {
            kind: "Deployment".to_owned(),
            name: "shop-worker".to_owned(),
        };
        let object = json!({
            "kind": "Deployment",
            "metadata": {"managedFields": [{"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}]},
            "spec": {"replicas": replicas},
        });
        [(key, object)].into()
    }

    fn cluster(desired: Option<i32>) -> SelextractCluster {
        let status = desired.map(|desired| {
            json!({"scaling": {"worker": {"desired": desired, "current": 1, "history": [
                {"time": "2026-11-23T00:00:00Z", "from": 1, "to": desired, "reason": "QueueLong", "message": ""}
            ]}}})
        });
        serde_json::from_value(json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster", "metadata": {"name": "shop"}, "spec": {},
            "status": status,
        }))
        .unwrap()
    }

    fn current(desired: Option<i32>, live: &Live) -> u32 {
        state(&cluster(desired), &fixture::minimal(), Target::Worker, None, live).current
    }

    #[test]
    fn a_new_operator_goes_on_with_what_the_scaler_set_last() {
        assert_eq!(
            current(Some(3), &live(4, SCALER)),
            4,
            "the status was not written any more"
        );
        assert_eq!(
            current(Some(3), &live(9, "kubectl")),
            3,
            "somebody else's number is put back"
        );
        assert_eq!(current(Some(3), &Live::new()), 3);
        let first = u32::try_from(fixture::minimal().worker.replicas).unwrap();
        assert_eq!(current(None, &Live::new()), first);
    }

    #[test]
    fn a_cooldown_survives_a_restart_of_the_operator() {
        let state = state(
            &cluster(Some(3)),
            &fixture::minimal(),
            Target::Worker,
            None,
            &Live::new(),
        );
        assert_eq!(state.changed, Some("2026-11-23T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn the_api_never_grows_past_what_the_pooler_admits() {
        let mut cluster = fixture::minimal();
        cluster.pgbouncer.replicas = 1;
        cluster.pgbouncer.max_client_conn = 200;
        let most = api_pods_by_connections(&cluster);
        let workers = u32::try_from(cluster.worker.replicas).unwrap() * WORKER_CONNECTIONS;
        assert!(most * 50 + workers + OTHERS <= 200, "{most}");
        cluster.pgbouncer.max_client_conn = 1000;
        assert!(
            api_pods_by_connections(&cluster) >= 10,
            "the guide's 1,000 clients carry the guide's 10 pods"
        );
    }
}
