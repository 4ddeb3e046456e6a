//! One reconcile of one cluster, step by step. Errors are handled here: logged once, counted, tried again with backoff.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    discovery::ApiResource,
    runtime::{controller::Action, events::EventType},
};
use selextract_crds::{SelextractCluster, SelextractClusterStatus};
use serde_json::json;
use snafu::{ResultExt, Snafu};
use tokio::time::Instant;

use super::{
    Tools,
    apply::{ApplyError, Owner, Refused, Writer},
    dereference::{self, Observed, ReadError, SandboxNodes},
    external,
    objects::{self, Key, Live},
    pods,
    scaler::Overruled,
    secrets,
    status::{self, Fault, Outcome},
    workload::{self, Progress},
};
use crate::{
    backoff,
    build::{self, Child, Component, Facts, Inputs, Names, Stage},
    canonical,
    context::GuardedCluster,
    merge_patch,
    validated::{Defaults, ValidatedCluster, validate},
};

/// While something is not ready, changes trigger a look; this is the net below them, and the clock for what cannot be watched.
const UNSETTLED: Duration = Duration::from_secs(15);
/// Ready, but nodes may still get the label of the seccomp profile.
const WITHOUT_SANDBOX: Duration = Duration::from_mins(1);

/// Why a reconcile broke off.
#[derive(Debug, Snafu)]
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
pub async fn reconcile(guarded: Arc<GuardedCluster>, tools: Arc<Tools>) -> Result<Action, Infallible> {
    let started = Instant::now();
    let (namespace, name) = objects::namespace_and_name(guarded.as_ref());
    let uid = guarded.uid().unwrap_or_default();
    let outcome = match &guarded.0 {
        Ok(cluster) if cluster.meta().deletion_timestamp.is_some() => Ok(Action::await_change()),
        Ok(cluster) => drive(cluster, &tools).await,
        Err(invalid) => {
            unreadable(
                &namespace,
                &name,
                &invalid.error,
                invalid.metadata.generation.unwrap_or_default(),
                &tools,
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
    Ok(match outcome {
        Ok(action) => {
            tools.context.backoffs.reset(&uid);
            action
        }
        Err(error) => {
            let wait = tools.context.backoffs.after_failure(&uid);
            tracing::warn!(error = %chain(&error), namespace, name, ?wait, "A reconcile broke off; it is tried again.");
            Action::requeue(wait)
        }
    })
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
async fn drive(cluster: &SelextractCluster, tools: &Tools) -> Result<Action, ClusterError> {
    let (namespace, name) = objects::namespace_and_name(cluster);
    let names = Names::of(&name, &namespace);
    let secret = cluster
        .spec
        .postgres
        .external
        .as_ref()
        .map(|external| external.secret_name.as_str());
    let mut observed = dereference::dereference(&tools.context.client, &names, (&namespace, &name), secret).await?;
    let validated = validate(cluster, &defaults(tools));
    let outcome = match &validated {
        Ok(validated) => pursue(cluster, validated, &mut observed, tools).await?,
        Err(refusals) => Pursued::refused(refusals.iter().map(|refusal| (None, refusal)).collect()),
    };
    conclude(cluster, validated.as_ref().ok(), &observed, outcome, tools).await
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
struct Pursued {
    children: Vec<(Stage, Child)>,
    reached: Stage,
    faults: Vec<Fault>,
    refused: Vec<Refused>,
}

impl Pursued {
    /// Nothing was built: what runs is left as it is.
    fn refused(refusals: Vec<(Option<&'static str>, &crate::validated::Refusal)>) -> Self {
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
        Some(spec) => match external::parse(spec, observed.external.as_ref()) {
            Ok(external) => Some(external),
            Err(refusal) => return Ok(Pursued::refused(vec![(Some("DatabaseReady"), &refusal)])),
        },
    };
    let mut facts = Facts {
        secrets: BTreeMap::new(),
        sandbox_nodes: observed.sandbox_nodes == SandboxNodes::Present,
        external,
        jwks: observed.jwks.clone(),
        issuer: observed.issuer.clone(),
        streaming_replicas: streaming(validated, &observed.live),
    };
    let secrets = secrets::ensure(tools, cluster, validated, facts.external.as_ref(), observed).await?;
    if let Some(fault) = secrets.fault {
        return Ok(Pursued {
            children: Vec::new(),
            reached: Stage::Foundation,
            faults: vec![fault],
            refused: Vec::new(),
        });
    }
    facts.secrets = secrets.hashes;
    add_user_secret(validated, observed, &mut facts);
    let children = build::desired(Inputs {
        cluster: validated,
        facts: &facts,
    });
    apply(cluster, validated, children, &mut observed.live, tools).await
}

/// The external database's own Secret counts too: pods that mount its authority roll when it changes.
fn add_user_secret(validated: &ValidatedCluster, observed: &Observed, facts: &mut Facts) {
    if let (Some(spec), Some(data)) = (&validated.postgres.external, &observed.external) {
        let salt = secrets::salt(observed, &validated.name);
        facts
            .secrets
            .insert(spec.secret_name.clone(), secrets::hash(&salt, data));
    }
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
    children: Vec<(Stage, Child)>,
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
                && let Some(overruled) = writer.scale(&owner, &key, replicas, live).await?
            {
                tell_overruled(cluster, &overruled, tools).await;
            }
        }
        if !is_ready(&children, stage, live) {
            break;
        }
    }
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
    })
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

/// Computes the status, writes it if it differs, and says when to look again.
async fn conclude(
    cluster: &SelextractCluster,
    validated: Option<&ValidatedCluster>,
    observed: &Observed,
    pursued: Pursued,
    tools: &Tools,
) -> Result<Action, ClusterError> {
    let (namespace, name) = objects::namespace_and_name(cluster);
    let mut troubles = pods::troubles(&observed.pods);
    for (component, trouble) in dereference::fetch_refusals(&tools.context.client, &namespace, &observed.live).await {
        troubles.entry(component).or_insert(trouble);
    }
    let outcome = Outcome {
        cluster: validated,
        children: &pursued.children,
        live: &observed.live,
        reached: pursued.reached,
        faults: &pursued.faults,
        refused: &pursued.refused,
        troubles: &troubles,
        migration_failure: migration_failure(&pursued.children, observed),
        pooler_version: pods::version(&observed.pods, Component::PgBouncerRw.as_str()),
        server_version: pods::version(&observed.pods, Component::Postgres.as_str()),
        sandbox: observed.sandbox_nodes,
    };
    // The store may be behind the last write: what is compared is what the API server has.
    let old = fetch_status(cluster, tools).await?;
    let new = status::next(
        &old,
        cluster.meta().generation.unwrap_or_default(),
        &outcome,
        Timestamp::now(),
    );
    for component in &new.components {
        tools
            .context
            .telemetry
            .replicas(&namespace, &name, &component.name, component.desired, component.ready);
    }
    tools
        .context
        .telemetry
        .cluster(&namespace, &name, status::is_ready(&new));
    write_status(cluster, &old, &new, tools).await?;
    tell_summary(cluster, &old, &new, tools).await;
    Ok(Action::requeue(
        match (status::is_ready(&new), status::holds(&new, "BrowserSandbox")) {
            (true, true) => backoff::calm_round(),
            (true, false) => WITHOUT_SANDBOX,
            (false, _) => UNSETTLED,
        },
    ))
}

/// The last words of a failing migration: a Job that is given up, or one that failed and tries again.
fn migration_failure(children: &[(Stage, Child)], observed: &Observed) -> Option<String> {
    let (_, job) = children
        .iter()
        .find(|(stage, child)| *stage == Stage::Migration && child.kind() == "Job")?;
    let live = observed.live.get(&Key {
        kind: "Job".to_owned(),
        name: job.name().to_owned(),
    })?;
    let of_job = |pod: &&k8s_openapi::api::core::v1::Pod| {
        pod.labels()
            .get("batch.kubernetes.io/job-name")
            .is_some_and(|n| n == job.name())
    };
    let said = pods::last_failure(observed.pods.iter().filter(of_job));
    match workload::progress(live) {
        Progress::Done => None,
        Progress::Failed(why) => Some(said.unwrap_or(why)),
        Progress::Rolling => said,
    }
}

async fn fetch_status(cluster: &SelextractCluster, tools: &Tools) -> Result<SelextractClusterStatus, ClusterError> {
    let api: Api<SelextractCluster> =
        Api::namespaced(tools.context.client.clone(), &cluster.namespace().unwrap_or_default());
    let found = api
        .get_opt(&cluster.name_any())
        .await
        .map_err(Box::new)
        .context(StatusSnafu)?;
    Ok(found
        .filter(|found| found.uid() == cluster.uid())
        .and_then(|found| found.status)
        .unwrap_or_default())
}

async fn write_status(
    cluster: &SelextractCluster,
    old: &SelextractClusterStatus,
    new: &SelextractClusterStatus,
    tools: &Tools,
) -> Result<(), ClusterError> {
    let (old, new) = (canonical::sorted(&json!(old)), canonical::sorted(&json!(new)));
    let Some(patch) = merge_patch::between(&old, &new) else {
        return Ok(());
    };
    let api: Api<SelextractCluster> =
        Api::namespaced(tools.context.client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": cluster.uid()}, "status": patch});
    tools.context.telemetry.wrote("cluster status");
    match api
        .patch_status(
            &cluster.name_any(),
            &PatchParams::apply(super::FIELD_MANAGER),
            &Patch::Merge(&patch),
        )
        .await
    {
        Ok(_) => Ok(()),
        // It was deleted meanwhile, perhaps made anew: its own reconcile comes.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(Box::new(error)).context(StatusSnafu),
    }
}

/// An event when the summary's reason changes.
async fn tell_summary(
    cluster: &SelextractCluster,
    old: &SelextractClusterStatus,
    new: &SelextractClusterStatus,
    tools: &Tools,
) {
    let ready = |status: &SelextractClusterStatus| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .map(|c| (c.reason.clone(), c.message.clone()))
    };
    let (Some((reason, message)), before) = (ready(new), ready(old)) else {
        return;
    };
    if before.is_some_and(|(old_reason, _)| old_reason == reason)
        || ["Waiting", "Progressing"].contains(&reason.as_str())
    {
        return;
    }
    let kind = if status::is_ready(new) {
        EventType::Normal
    } else {
        EventType::Warning
    };
    tools.context.event(cluster, kind, &reason, "Reconcile", message).await;
}

/// A cluster that this version of the operator cannot read says so, and does not break the others.
async fn unreadable(
    namespace: &str,
    name: &str,
    error: &str,
    generation: i64,
    tools: &Tools,
) -> Result<Action, ClusterError> {
    let fault = Fault {
        condition: None,
        reason: "Unreadable".to_owned(),
        message: format!("The operator cannot read the object: {error}"),
    };
    let outcome = Outcome {
        cluster: None,
        children: &[],
        live: &Live::new(),
        reached: Stage::Foundation,
        faults: &[fault],
        refused: &[],
        troubles: &BTreeMap::new(),
        migration_failure: None,
        pooler_version: None,
        server_version: None,
        sandbox: SandboxNodes::Unknown,
    };
    // The same words at every try: the API server does not store what is the same.
    let status = status::next(
        &SelextractClusterStatus::default(),
        generation,
        &outcome,
        Timestamp::UNIX_EPOCH,
    );
    let resource = ApiResource::erase::<SelextractCluster>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(tools.context.client.clone(), namespace, &resource);
    let patch = json!({"status": {"observedGeneration": generation, "conditions": status.conditions}});
    api.patch_status(name, &PatchParams::apply(super::FIELD_MANAGER), &Patch::Merge(&patch))
        .await
        .map_err(Box::new)
        .context(StatusSnafu)?;
    Ok(Action::requeue(backoff::calm_round()))
}
