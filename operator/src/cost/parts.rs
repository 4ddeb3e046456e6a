//! The parts of a cluster, from its spec. Pure.

use selextract_crds::{Compute, Quantity};

use super::{Amount, Measured, Part, Volume};
use crate::{
    build::Component,
    validated::{Pod, ValidatedCluster},
};

/// The parts of a cluster, unmeasured. `pods` says how many of each there are now, `most` how many scaling may hold.
pub fn parts(
    cluster: &ValidatedCluster,
    pods: impl Fn(Component) -> u32,
    most: impl Fn(Component) -> Option<u32>,
) -> Vec<Part> {
    let of = |component: Component, section: &'static str, pod: &Pod| Part {
        component: component.as_str(),
        section,
        pods: pods(component),
        most_pods: most(component),
        ..reserved(pod)
    };
    let mut parts = vec![
        of(Component::Api, "spec.api", &cluster.api.pod),
        of(Component::Keeper, "spec.keeper", &cluster.keeper.pod),
        of(Component::Worker, "spec.worker", &cluster.worker.pod),
        of(Component::Egress, "spec.egress", &cluster.egress.pod),
        of(Component::PgBouncerRw, "spec.pgbouncer", &cluster.pgbouncer.pod),
        of(Component::PgBouncerRo, "spec.pgbouncer", &cluster.pgbouncer.pod),
    ];
    if cluster.postgres.is_managed() {
        for component in [Component::Postgres, Component::PostgresReplica] {
            let part = of(component, "spec.postgres", &cluster.postgres.pod);
            parts.push(with(part, &cluster.postgres.storage, "spec.postgres.storage"));
        }
    }
    let queue = of(Component::RedisQueue, "spec.redis.queue", &cluster.queue.pod);
    parts.push(match &cluster.queue.volume {
        Some((quantity, _)) => with(queue, quantity, "spec.redis.queue.storage"),
        None => queue,
    });
    parts.push(of(Component::RedisCache, "spec.redis.cache", &cluster.cache.pod));
    if let Some(managed) = cluster.monitoring.managed() {
        let part = of(
            Component::Prometheus,
            "spec.monitoring.prometheus.managed",
            &managed.pod,
        );
        let field = "spec.monitoring.prometheus.managed.storage";
        parts.push(with(part, &managed.storage, field));
    }
    parts.retain(|part| part.pods > 0 || part.most_pods.is_some());
    parts
}

fn reserved(pod: &Pod) -> Part {
    Part {
        cpu: amount(pod, |compute| compute.cpu.as_ref(), millis),
        memory: amount(pod, |compute| compute.memory.as_ref(), bytes),
        measured: Measured::default(),
        ..Part::default()
    }
}

fn with(mut part: Part, quantity: &Quantity, field: &'static str) -> Part {
    part.volume = Some(Volume {
        bytes: bytes(quantity),
        field,
    });
    part
}

fn amount(pod: &Pod, of: fn(&Compute) -> Option<&Quantity>, read: fn(&Quantity) -> u64) -> Amount {
    Amount {
        request: of(&pod.requests).map(read).unwrap_or_default(),
        limit: of(&pod.limits).map(read),
    }
}

fn millis(quantity: &Quantity) -> u64 {
    let millis = quantity.millis().and_then(|millis| u64::try_from(millis).ok());
    millis.unwrap_or_default()
}

fn bytes(quantity: &Quantity) -> u64 {
    quantity.units().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::fixture;

    #[test]
    fn the_parts_reserve_what_the_profile_gives() {
        let most = |component| (component == Component::Worker).then_some(20);
        let parts = parts(&fixture::minimal(), |_| 3, most);
        let of = |name: &str| parts.iter().find(|part| part.component == name).unwrap();
        let api = of("api");
        assert_eq!((api.cpu.request, api.cpu.limit), (1000, Some(2000)));
        assert_eq!((api.memory.request, api.memory.limit), (1 << 30, Some(2 << 30)));
        assert_eq!(of("worker").most_pods, Some(20));
        let volume = of("postgres").volume.unwrap();
        assert_eq!((volume.bytes, volume.field), (100 << 30, "spec.postgres.storage"));
        assert_eq!(of("prometheus").section, "spec.monitoring.prometheus.managed");
    }

    #[test]
    fn what_is_not_there_costs_nothing() {
        let (cluster, _) = fixture::external();
        let parts = parts(&cluster, |component| u32::from(component == Component::Api), |_| None);
        let names: Vec<_> = parts.iter().map(|part| part.component).collect();
        assert_eq!(names, ["api"]);
    }
}
