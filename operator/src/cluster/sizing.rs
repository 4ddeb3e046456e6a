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
    validated::{PrometheusEndpoint, Sizing, ValidatedCluster, server_connections},
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
    let policies = Policies {
        api: validated.scaling.api.policy().cloned(),
        worker: validated.scaling.worker.policy().cloned(),
    };
    let measures = &tools.context.measures;
    let (known_api, known_worker) = measures.states(&validated.uid);
    let mut api = state(cluster, validated, Target::Api, known_api, live);
    let admitted = measures.admitted(&validated.uid);
    api.ceilings
        .extend(admitted.and_then(|admitted| database(validated, admitted)));
    let worker = state(cluster, validated, Target::Worker, known_worker, live);
    let mut sizes = Sizes::default();
    match endpoint.filter(|_| policies.any()) {
        Some(endpoint) => {
            let followed = Followed {
                place: (validated.namespace.clone(), validated.name.clone()),
                made: cluster.metadata.creation_timestamp.as_ref().map(|made| made.0),
                endpoint,
                policies,
                api: api.clone(),
                worker: worker.clone(),
                told: (told(cluster, Target::Api), told(cluster, Target::Worker)),
            };
            sizes.decisions = measures.follow(&validated.uid, followed, Timestamp::now());
        }
        None => measures.forget(&validated.uid),
    }
    for (target, state) in [(Target::Api, api), (Target::Worker, worker)] {
        let decided = sizes.decisions.of(target).map(|decision| decision.to);
        if decided.is_none() {
            let telemetry = &tools.context.telemetry;
            telemetry.forget_sizing(&validated.namespace, &validated.name, target);
        }
        let mode = mode(validated, target);
        if mode == Mode::External {
            sizes.left.push(component(target));
        }
        // Where nobody can be asked, such as without a Secret that opens Prometheus, the number stays.
        let number = decided.or((mode != Mode::Fixed).then_some(state.current));
        if let Some(number) = number {
            set(children, &Names::new(validated).component(component(target)), number);
        }
    }
    sizes
}

/// Writes the number into the child that has it.
fn set(children: &mut [(Stage, Child)], name: &str, number: u32) {
    let mut children = children.iter_mut().map(|(_, child)| child);
    if let Some(child) = children.find(|child| child.kind() == "Deployment" && child.name() == name) {
        child.replicas = Some(i32::try_from(number).unwrap_or(i32::MAX));
    }
}

/// Who sets a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Fixed,
    Operator,
    External,
}

impl<P> From<&Sizing<P>> for Mode {
    fn from(sizing: &Sizing<P>) -> Self {
        match sizing {
            Sizing::Fixed => Self::Fixed,
            Sizing::Operator(_) => Self::Operator,
            Sizing::External => Self::External,
        }
    }
}

fn mode(validated: &ValidatedCluster, target: Target) -> Mode {
    match target {
        Target::Api => Mode::from(&validated.scaling.api),
        Target::Worker => Mode::from(&validated.scaling.worker),
    }
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

/// What is now. Where somebody else sets the number it is the object's; else what this process set itself is known best, then what the
/// scaler set, then what is stored, then where the profile begins.
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
    let set = match mode(validated, target) {
        Mode::External => found.and_then(replicas),
        Mode::Fixed | Mode::Operator => known
            .as_ref()
            .map(|known| known.current)
            .or_else(|| found.and_then(set_by_us)),
    };
    State {
        current: set
            .or_else(|| stored.map(|stored| number(stored.desired)))
            .unwrap_or_else(|| number(first)),
        ready: number(found.and_then(workload::count).unwrap_or_default().ready),
        changed: known.map_or_else(|| stored.and_then(changed), |known| known.changed),
        ceilings: ceilings(validated, target, found),
    }
}

/// The number that the scaler set, if nobody set another since.
fn set_by_us(live: &Value) -> Option<u32> {
    let ours = owners_of_replicas(live).iter().any(|manager| manager == SCALER);
    replicas(live).filter(|_| ours)
}

fn replicas(live: &Value) -> Option<u32> {
    let replicas = live.pointer("/spec/replicas").and_then(Value::as_u64)?;
    Some(u32::try_from(replicas).unwrap_or(u32::MAX))
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

/// What a database admits that takes less than the poolers may open: then the API stays at its minimum, or where it is. One that the
/// operator runs admits enough, or the spec is refused.
fn database(validated: &ValidatedCluster, admitted: u32) -> Option<(Constraint, u32)> {
    let pooler = &validated.pgbouncer;
    let needed = server_connections(pooler.default_pool_size, number(pooler.replicas));
    let least = validated.scaling.api.policy()?.limits.min;
    let message = format!(
        "the database admits {admitted} connections, and the poolers and others may take {needed}; lower \
         spec.pgbouncer.defaultPoolSize or spec.pgbouncer.replicas, or let the database admit more"
    );
    let constraint = Constraint {
        reason: Reason::ConnectionBudget,
        message,
    };
    (needed > admitted).then_some((constraint, least))
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
    use crate::{
        build::fixture,
        measure::Measures,
        scaling::{
            ApiSignals, Reading, Sample, Window, WorkerPolicy, decide_api,
            properties::{at, guide, quiet, steady},
        },
    };

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
    fn a_number_that_somebody_else_sets_is_the_one_that_is_there() {
        let mut validated = fixture::minimal();
        validated.scaling.worker = Sizing::External;
        let of = |validated: &ValidatedCluster, known| {
            state(
                &cluster(Some(7)),
                validated,
                Target::Worker,
                known,
                &live(7, "kube-controller-manager"),
            )
            .current
        };
        let old = State {
            current: 2,
            ..State::default()
        };
        assert_eq!(of(&validated, Some(old)), 7, "whatever was read before");
        assert_eq!(of(&validated, None), 7);
        // Taken over by the operator, it goes on from there: the status told it.
        validated.scaling.worker = Sizing::Operator(guide().1);
        assert_eq!(of(&validated, None), 7);
    }

    #[test]
    fn a_fixed_number_that_changed_is_where_the_operator_goes_on() {
        let measures = Measures::default();
        let (_, policy) = guide();
        let followed = |worker: Option<WorkerPolicy>| Followed {
            place: ("web".into(), "shop".into()),
            made: None,
            endpoint: PrometheusEndpoint {
                url: "http://prometheus.example.org".parse().unwrap(),
                credentials: crate::validated::Credentials::None,
                authority: None,
            },
            policies: Policies {
                api: Some(guide().0),
                worker,
            },
            api: State::default(),
            worker: State {
                current: 2,
                ..State::default()
            },
            told: (None, None),
        };
        // The API alone is sized, while the workers' number in the spec went from 2 to 6.
        measures.follow("u", followed(None), Timestamp::now());
        let (api, worker) = measures.states("u");
        assert!(api.is_some() && worker.is_none(), "{worker:?}");
        let now = state(
            &cluster(Some(6)),
            &fixture::minimal(),
            Target::Worker,
            worker,
            &live(6, SCALER),
        );
        assert_eq!(now.current, 6);
        measures.follow("u", followed(Some(policy)), Timestamp::now());
        assert!(measures.states("u").1.is_some());
    }

    #[test]
    fn a_quota_that_refuses_pods_is_a_ceiling_at_those_that_are_there() {
        let refusing = |message: &str| {
            json!({
                "kind": "Deployment",
                "spec": {"replicas": 6},
                "status": {"readyReplicas": 4, "conditions": [
                    {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
                ]},
            })
        };
        let validated = fixture::minimal();
        let quota = |object: &Value| {
            let all = ceilings(&validated, Target::Worker, Some(object));
            all.into_iter()
                .find(|(constraint, _)| constraint.reason == Reason::Quota)
        };
        let message = "pods \"shop-worker-6b\" is forbidden: exceeded quota: team, requested: limits.memory=4Gi";
        let (constraint, most) = quota(&refusing(message)).unwrap();
        assert!(
            constraint
                .message
                .contains("exceeded quota: team, requested: limits.memory=4Gi")
        );
        assert_eq!(most, 4);
        assert_eq!(quota(&refusing("pods is forbidden: no service account")), None);
        assert_eq!(quota(&json!({"kind": "Deployment", "spec": {"replicas": 6}})), None);
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
    fn a_database_that_admits_less_than_the_poolers_may_open_holds_the_api() {
        let mut cluster = fixture::minimal();
        assert_eq!(database(&cluster, 60), None, "nobody sizes the API");
        let (policy, _) = guide();
        cluster.scaling.api = Sizing::Operator(policy.clone());
        assert_eq!(database(&cluster, 100), None, "the guide's");
        let (constraint, most) = database(&cluster, 60).unwrap();
        assert_eq!(constraint.reason, Reason::ConnectionBudget);
        assert_eq!(most, policy.limits.min);
        assert!(constraint.message.contains("60") && constraint.message.contains("95"));
        let mut window = Window::default();
        let hot = Sample {
            api: ApiSignals {
                latency: Reading::Fresh(3.0),
                ..quiet(at(0)).api
            },
            ..quiet(at(0))
        };
        window.push(hot, std::time::Duration::from_mins(5));
        let state = State {
            ceilings: vec![(constraint, most)],
            ..steady(4)
        };
        let decision = decide_api(&policy, &window, &state, at(0));
        assert_eq!((decision.to, decision.reason), (4, Reason::ConnectionBudget));
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
