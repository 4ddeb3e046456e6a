//! What a reconcile tells the accounts about its cluster, measured or not, and what they have for its status.

use jiff::Timestamp;
use selextract_crds::SelextractCluster;

use super::{Tools, objects::Live, status::belongs_to, workload};
use crate::{
    accounts::{Due, Followed},
    build::Component,
    cost,
    validated::{PrometheusEndpoint, ValidatedCluster},
};

/// Follows a cluster, and says what of its status is due.
pub fn follow(
    cluster: &SelextractCluster,
    validated: &ValidatedCluster,
    endpoint: Option<PrometheusEndpoint>,
    (live, tools): (&Live, &Tools),
) -> Due {
    let pods = |component: Component| {
        let of_it = live.values().filter(|object| belongs_to(object, component));
        let wanted = of_it.filter_map(|object| object.pointer("/spec/replicas")?.as_u64());
        u32::try_from(wanted.sum::<u64>()).unwrap_or(u32::MAX)
    };
    let most = |component: Component| match component {
        Component::Api => validated.scaling.api.policy().map(|policy| policy.limits.max),
        Component::Worker => validated.scaling.worker.policy().map(|policy| policy.limits.max),
        _ => None,
    };
    let api = live.values().filter(|object| belongs_to(object, Component::Api));
    let ready = api.filter_map(workload::count).any(|count| count.ready > 0);
    let followed = Followed {
        place: (validated.namespace.clone(), validated.name.clone()),
        endpoint,
        slo: validated.slo.clone(),
        cost: validated.cost.clone(),
        parts: cost::parts(validated, pods, most),
        ready,
    };
    let status = cluster.status.as_ref();
    let stored = Due {
        slo: status.and_then(|status| status.slo.clone()),
        cost: status.and_then(|status| status.cost.clone()),
    };
    let accounts = &tools.context.accounts;
    accounts.follow(&validated.uid, followed, stored, Timestamp::now())
}
