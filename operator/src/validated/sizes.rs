//! The two size profiles: what holds where a section of the spec gives nothing. The only place of these figures.

use selextract_crds::{Compute, Profile, Quantity};

/// CPU and memory of one component's container.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    cpu: &'static str,
    memory: &'static str,
    cpu_limit: Option<&'static str>,
    memory_limit: &'static str,
}

impl Size {
    /// What the scheduler keeps free.
    pub fn requests(&self) -> Compute {
        Compute {
            cpu: Some(Quantity::new(self.cpu)),
            memory: Some(Quantity::new(self.memory)),
        }
    }

    /// What cannot be exceeded. CPU is not limited in the profile Small: throttling an idle machine helps nobody.
    pub fn limits(&self) -> Compute {
        Compute {
            cpu: self.cpu_limit.map(Quantity::new),
            memory: Some(Quantity::new(self.memory_limit)),
        }
    }
}

/// Everything that a profile gives.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Pods of the API.
    pub api_replicas: u8,
    /// Worker pods.
    pub worker_replicas: u8,
    /// Pods of each pooler.
    pub pgbouncer_replicas: u8,
    /// Pods of the egress proxy.
    pub egress_replicas: u8,
    /// The API.
    pub api: Size,
    /// The keeper.
    pub keeper: Size,
    /// A worker with its browser.
    pub worker: Size,
    /// PostgreSQL.
    pub postgres: Size,
    /// The pooler.
    pub pgbouncer: Size,
    /// The queue and the cache.
    pub redis: Size,
    /// The egress proxy.
    pub egress: Size,
    /// Prometheus.
    pub prometheus: Size,
    /// The volume of PostgreSQL.
    pub postgres_storage: &'static str,
    /// The volume of the queue.
    pub queue_storage: &'static str,
    /// The volume of Prometheus.
    pub prometheus_storage: &'static str,
}

/// The guide's column "Current" ("Vertical Scaling Guidelines") and its replicas ("Horizontal Scaling Strategy").
const CURRENT: Sizes = Sizes {
    api_replicas: 3,
    worker_replicas: 5,
    pgbouncer_replicas: 2,
    egress_replicas: 2,
    api: Size {
        cpu: "1",
        memory: "1Gi",
        cpu_limit: Some("2"),
        memory_limit: "2Gi",
    },
    keeper: Size {
        cpu: "100m",
        memory: "128Mi",
        cpu_limit: Some("1"),
        memory_limit: "512Mi",
    },
    worker: Size {
        cpu: "1",
        memory: "1Gi",
        cpu_limit: Some("2"),
        memory_limit: "2Gi",
    },
    postgres: Size {
        cpu: "1",
        memory: "2Gi",
        cpu_limit: Some("2"),
        memory_limit: "2Gi",
    },
    pgbouncer: Size {
        cpu: "100m",
        memory: "64Mi",
        cpu_limit: Some("1"),
        memory_limit: "256Mi",
    },
    redis: Size {
        cpu: "100m",
        memory: "1Gi",
        cpu_limit: Some("1"),
        memory_limit: "1Gi",
    },
    egress: Size {
        cpu: "100m",
        memory: "128Mi",
        cpu_limit: Some("1"),
        memory_limit: "512Mi",
    },
    prometheus: Size {
        cpu: "100m",
        memory: "512Mi",
        cpu_limit: Some("1"),
        memory_limit: "1Gi",
    },
    postgres_storage: "100Gi",
    queue_storage: "10Gi",
    prometheus_storage: "10Gi",
};

/// One machine of two cores and a few gigabytes.
const SMALL: Sizes = Sizes {
    api_replicas: 2,
    worker_replicas: 1,
    pgbouncer_replicas: 1,
    egress_replicas: 1,
    api: Size {
        cpu: "20m",
        memory: "64Mi",
        cpu_limit: None,
        memory_limit: "512Mi",
    },
    keeper: Size {
        cpu: "10m",
        memory: "32Mi",
        cpu_limit: None,
        memory_limit: "256Mi",
    },
    worker: Size {
        cpu: "50m",
        memory: "192Mi",
        cpu_limit: None,
        memory_limit: "1536Mi",
    },
    postgres: Size {
        cpu: "50m",
        memory: "192Mi",
        cpu_limit: None,
        memory_limit: "768Mi",
    },
    pgbouncer: Size {
        cpu: "10m",
        memory: "16Mi",
        cpu_limit: None,
        memory_limit: "128Mi",
    },
    redis: Size {
        cpu: "10m",
        memory: "32Mi",
        cpu_limit: None,
        memory_limit: "128Mi",
    },
    egress: Size {
        cpu: "10m",
        memory: "16Mi",
        cpu_limit: None,
        memory_limit: "256Mi",
    },
    prometheus: Size {
        cpu: "50m",
        memory: "96Mi",
        cpu_limit: None,
        memory_limit: "512Mi",
    },
    postgres_storage: "2Gi",
    queue_storage: "1Gi",
    prometheus_storage: "2Gi",
};

/// What a profile gives.
pub fn of(profile: Profile) -> &'static Sizes {
    match profile {
        Profile::Current => &CURRENT,
        Profile::Small => &SMALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_profile_requests_more_than_its_limits() {
        for profile in [Profile::Current, Profile::Small] {
            let sizes = of(profile);
            let all = [
                &sizes.api,
                &sizes.keeper,
                &sizes.worker,
                &sizes.postgres,
                &sizes.pgbouncer,
                &sizes.redis,
            ];
            for size in all.into_iter().chain([&sizes.egress, &sizes.prometheus]) {
                let (requests, limits) = (size.requests(), size.limits());
                let amount = |quantity: Option<Quantity>| quantity.map(|q| q.millis().unwrap());
                assert!(amount(requests.memory) <= amount(limits.memory), "{size:?}");
                assert!(
                    limits.cpu.is_none() || amount(requests.cpu) <= amount(limits.cpu),
                    "{size:?}"
                );
            }
        }
    }
}
