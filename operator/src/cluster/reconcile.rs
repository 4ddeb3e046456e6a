//! One reconcile of one cluster, step by step. Errors are handled here: logged once, counted, tried again with backoff.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{Resource, ResourceExt, runtime::events::EventType};
use selextract_crds::SelextractCluster;
use snafu::Snafu;
use tokio::time::Instant;

use super::{
    Tools, account,
    apply::{ApplyError, Owner, Refused, Writer},
    bucket,
    conclude::{conclude, unreadable},
    dereference::{self, Observed, ReadError, SandboxNodes},
    external, idlest, migration, monitoring,
    objects::{self, Key, Live},
    scaler::Overruled,
    secrets,
    sizing::{self, Sizes},
    status::{Fault, MonitoringFound},
    workload::{self, Progress},
};
use crate::{
    accounts::Due,
    build::{self, Child, Component, Facts, Inputs, Names, Stage},
    context::GuardedCluster,
    measure::Decisions,
    queue::Next,
    validated::{Defaults, Refusal, ValidatedCluster, secrets_of, validate},
};

/// Why a reconcile broke off.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(super)))]
pub enum ClusterError {
    /// Reading.
    #[snafu(transparent)]
    Read {
        /// What went wrong.
        source: ReadError,
    },
    /// Applying.
    #[snafu(transparent)]
    Apply {
        /// What went wrong.
        source: ApplyError,
    },
    /// The status.
    #[snafu(display("cannot write the status"))]
    Status {
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

/// Reconciles one cluster.
pub async fn reconcile(guarded: &GuardedCluster, tools: &Tools) -> Next {
    let started = Instant::now();
    let (namespace, name) = objects::namespace_and_name(guarded);
    let uid = guarded.uid().unwrap_or_default();
    let outcome = match &guarded.0 {
        Ok(cluster) if cluster.meta().deletion_timestamp.is_some() => Ok(Next::OnNews),
        Ok(cluster) => drive(cluster, tools).await,
        Err(invalid) => {
            unreadable(
                &namespace,
                &name,
                &invalid.error,
                invalid.metadata.generation.unwrap_or_default(),
                tools,
            )
            .await
        }
    };
    tools.context.telemetry.reconciled(
        "SelextractCluster",
        &namespace,
        &name,
        started.elapsed(),
        outcome.is_err(),
    );
    match outcome {
        Ok(next) => {
            tools.context.backoffs.reset(&uid);
            next
        }
        Err(error) => {
            let wait = tools.context.backoffs.after_failure(&uid);
            tracing::warn!(error = %chain(&error), namespace, name, ?wait, "A reconcile broke off; it is tried again.");
            Next::After(wait)
        }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    [error.to_string()]
        .into_iter()
        .chain(causes.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(": ")
}

/// dereference → validate → build → apply → status.
async fn drive(cluster: &SelextractCluster, tools: &Tools) -> Result<Next, ClusterError> {
    let (namespace, name) = objects::namespace_and_name(cluster);
    let names = Names::of(&name, &namespace);
    let users = user_secrets(cluster);
    let client = &tools.context.client;
    let served = tools.discovered.fetch(client).await;
    let mut observed = dereference::dereference(client, &names, (&namespace, &name), &users, served).await?;
    if cluster.spec.monitoring.prometheus.managed.kubelet_metrics {
        observed.kubelet_right = monitoring::fetch_kubelet_right(client, &names, &namespace).await;
    }
    let validated = validate(cluster, &defaults(tools));
    let outcome = match &validated {
        Ok(validated) => pursue(cluster, validated, &mut observed, tools).await?,
        Err(refusals) => Pursued::refused(refusals.iter().map(|refusal| (None, refusal)).collect()),
    };
    conclude(cluster, validated.as_ref().ok(), &observed, outcome, tools).await
}

/// The Secrets of the user's own that the spec names.
pub(super) fn user_secrets(cluster: &SelextractCluster) -> Vec<String> {
    let external = cluster.spec.postgres.external.as_ref();
    let external = external.map(|external| external.secret_name.clone());
    let bucket = cluster.spec.artifacts.s3.as_ref().map(secrets_of).unwrap_or_default();
    let prometheus = cluster.spec.monitoring.prometheus.external.as_ref();
    let prometheus = prometheus.and_then(|external| external.secret_name.clone());
    let upstreams = build::upstream_secrets(&cluster.spec.egress.upstreams);
    let all = external.into_iter().chain(bucket).chain(prometheus).chain(upstreams);
    all.collect()
}

fn defaults(tools: &Tools) -> Defaults {
    let settings = &tools.context.settings;
    Defaults {
        registry: settings.image_registry.clone(),
        tag: settings.image_tag.clone(),
        namespace: settings.namespace.clone(),
        subject: settings.subject(),
    }
}

/// What became of the attempt to make a cluster what it should be.
pub struct Pursued {
    /// What should exist; empty where nothing was built.
    pub children: Vec<(Stage, Child)>,
    /// The last stage that was applied.
    pub reached: Stage,
    /// What a person must mend before anything is built.
    pub faults: Vec<Fault>,
    /// What the API server refused.
    pub refused: Vec<Refused>,
    /// What was found about monitoring.
    pub monitoring: MonitoringFound,
    /// How many pods were decided, and why.
    pub decisions: Decisions,
    /// What the status is to say about promises and costs.
    pub due: Due,
}

impl Pursued {
    /// Nothing was built: what runs is left as it is.
    fn refused(refusals: Vec<(Option<&'static str>, &Refusal)>) -> Self {
        let faults = refusals.into_iter().map(|(condition, refusal)| Fault {
            condition,
            reason: refusal.reason.to_owned(),
            message: refusal.message.clone(),
        });
        Self {
            children: Vec::new(),
            reached: Stage::Foundation,
            faults: faults.collect(),
            refused: Vec::new(),
            monitoring: MonitoringFound::default(),
            decisions: Decisions::default(),
            due: Due::default(),
        }
    }
}

async fn pursue(
    cluster: &SelextractCluster,
    validated: &ValidatedCluster,
    observed: &mut Observed,
    tools: &Tools,
) -> Result<Pursued, ClusterError> {
    let external = match &validated.postgres.external {
        None => None,
        Some(spec) => match external::parse(spec, observed.users.get(&spec.secret_name)) {
            Ok(external) => Some(external),
            Err(refusal) => return Ok(Pursued::refused(vec![(Some("DatabaseReady"), &refusal)])),
        },
    };
    if let Some(bucket) = &validated.artifacts.bucket
        && let Err(refusal) = bucket::check(&bucket.spec, &observed.users)
    {
        return Ok(Pursued::refused(vec![(None, &refusal)]));
    }
    let mut facts = Facts {
        secrets: BTreeMap::new(),
        sandbox_nodes: observed.sandbox_nodes == SandboxNodes::Present,
        external,
        jwks: observed.jwks.clone(),
        issuer: observed.issuer.clone(),
        streaming_replicas: streaming(validated, &observed.live),
        served: observed.served,
        kubelet_right: observed.kubelet_right,
    };
    let secrets = secrets::ensure(tools, cluster, validated, facts.external.as_ref(), observed).await?;
    if let Some(fault) = secrets.fault {
        return Ok(Pursued {
            children: Vec::new(),
            reached: Stage::Foundation,
            faults: vec![fault],
            refused: Vec::new(),
            monitoring: MonitoringFound::default(),
            decisions: Decisions::default(),
            due: Due::default(),
        });
    }
    facts.secrets = secrets.hashes;
    add_user_secrets(validated, observed, &mut facts);
    let mut children = build::desired(Inputs {
        cluster: validated,
        facts: &facts,
    });
    let (endpoint, fault) = match monitoring::endpoint(validated, &observed.users) {
        Ok(endpoint) => (endpoint, None),
        Err(fault) => (None, Some(fault)),
    };
    let due = account::follow(cluster, validated, endpoint.clone(), (&observed.live, tools));
    let sizes = sizing::decide(
        cluster,
        validated,
        endpoint.clone(),
        &mut children,
        (&observed.live, tools),
    );
    idlest::tell(&sizes.decisions, endpoint.as_ref(), validated, tools).await;
    let mut pursued = apply(cluster, validated, (children, sizes), &mut observed.live, tools).await?;
    pursued.due = due;
    pursued.monitoring = MonitoringFound {
        fault,
        served: observed.served,
        kubelet_right: observed.kubelet_right,
        silence: tools.context.measures.silence(&validated.uid),
    };
    Ok(pursued)
}

/// The user's own Secrets count too: pods that read them roll when they change.
fn add_user_secrets(validated: &ValidatedCluster, observed: &Observed, facts: &mut Facts) {
    let salt = secrets::salt(observed, &validated.name);
    let hashes = observed
        .users
        .iter()
        .map(|(name, data)| (name.clone(), secrets::hash(&salt, data)));
    facts.secrets.extend(hashes);
}

/// The replicas whose pods are ready: their probe says that they stream within `maxLag`.
fn streaming(cluster: &ValidatedCluster, live: &Live) -> Vec<u32> {
    let names = Names::new(cluster);
    let ready = |number: &u32| {
        let key = Key {
            kind: "StatefulSet".to_owned(),
            name: names.replica(*number),
        };
        live.get(&key)
            .and_then(workload::count)
            .is_some_and(|count| count.ready > 0)
    };
    (0..u32::from(cluster.postgres.read_replicas)).filter(ready).collect()
}

/// Applies stage by stage as far as the earlier ones are ready, sets replicas, and takes away what is no longer wanted.
async fn apply(
    cluster: &SelextractCluster,
    validated: &ValidatedCluster,
    (children, sizes): (Vec<(Stage, Child)>, Sizes),
    live: &mut Live,
    tools: &Tools,
) -> Result<Pursued, ClusterError> {
    let owner = Owner {
        namespace: &validated.namespace,
        name: &validated.name,
        uid: &validated.uid,
        adopts: validated.adopt_foreign_data,
    };
    let context = &tools.context;
    let writer = Writer {
        client: &context.client,
        answers: &tools.answers,
        telemetry: &context.telemetry,
    };
    run_migration_again(&writer, &owner, validated, &children, live).await?;
    let (mut refused, mut reached) = (Vec::new(), Stage::Foundation);
    for stage in [
        Stage::Foundation,
        Stage::Data,
        Stage::Pooling,
        Stage::Migration,
        Stage::Programs,
    ] {
        reached = stage;
        for (_, child) in children.iter().filter(|(of, _)| *of == stage) {
            refused.extend(writer.apply(&owner, child, live).await?);
            let key = Key {
                kind: child.kind().to_owned(),
                name: child.name().to_owned(),
            };
            if let Some(replicas) = child.replicas
                && !sizes.leaves(child)
                && let Some(overruled) = writer.scale(&owner, &key, replicas, live).await?
            {
                tell_overruled(cluster, &overruled, tools).await;
            }
        }
        if !is_ready(&children, stage, live) {
            break;
        }
    }
    let decisions = sizing::settle(cluster, validated, sizes, reached, tools).await;
    writer
        .prune(&owner, live, |key| {
            children
                .iter()
                .any(|(_, child)| child.kind() == key.kind && child.name() == key.name)
        })
        .await?;
    Ok(Pursued {
        children,
        reached,
        faults: Vec::new(),
        refused,
        monitoring: MonitoringFound::default(),
        decisions,
        due: Due::default(),
    })
}

/// Takes away a migration Job that is to run again, so that it is made anew.
async fn run_migration_again(
    writer: &Writer<'_>,
    owner: &Owner<'_>,
    validated: &ValidatedCluster,
    children: &[(Stage, Child)],
    live: &mut Live,
) -> Result<(), ClusterError> {
    let job = migration::job(children).map(|job| Key {
        kind: job.kind().to_owned(),
        name: job.name().to_owned(),
    });
    let api = Key {
        kind: "Deployment".to_owned(),
        name: Names::new(validated).component(Component::Api),
    };
    let api = live.get(&api).filter(|_| !validated.postgres.is_managed());
    if let Some((key, job)) = job.and_then(|key| live.get_key_value(&key))
        && migration::is_to_run_again(job, api, Timestamp::now())
    {
        let (key, job) = (key.clone(), job.clone());
        writer.delete(owner.namespace, &key, &job).await?;
        live.remove(&key);
    }
    Ok(())
}

/// Whether the next stage may begin: its workloads run. What the API server refused holds up nothing else, nor does a read replica
/// that is being cloned: reads go elsewhere.
fn is_ready(children: &[(Stage, Child)], stage: Stage, live: &Live) -> bool {
    let replica = Component::PostgresReplica.as_str();
    let component = |child: &Child| {
        child
            .object
            .pointer("/metadata/labels/app.kubernetes.io~1component")
            .cloned()
    };
    children
        .iter()
        .filter(|(of, child)| *of == stage && (child.replicas.is_some() || child.kind() == "Job"))
        .filter(|(_, child)| component(child).as_ref().and_then(|c| c.as_str()) != Some(replica))
        .all(|(_, child)| {
            let key = Key {
                kind: child.kind().to_owned(),
                name: child.name().to_owned(),
            };
            live.get(&key)
                .is_some_and(|object| workload::progress(object) == Progress::Done)
        })
}

async fn tell_overruled(cluster: &SelextractCluster, overruled: &Overruled, tools: &Tools) {
    let Overruled {
        key,
        manager,
        found,
        replicas,
    } = overruled;
    let note = format!(
        "{manager} set the replicas of {key} to {found}; they are {replicas} again. Change them in the spec of the SelextractCluster."
    );
    tools
        .context
        .event(cluster, EventType::Warning, "ReplicasOverruled", "Scale", note)
        .await;
}
