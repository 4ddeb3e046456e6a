//! From a `SelextractCluster` to a [`ValidatedCluster`], or everything that is wrong with it. Pure.

use std::fmt::Display;

use kube::ResourceExt;
use selextract_crds::{ApiSpec, ImageSpec, Profile, PrometheusProvider, Quantity, SelextractCluster, WorkerSpec};
use selextract_task::Duration;

use super::{
    Admission, Api, Defaults, Images, Keeper, Refusal, ValidatedCluster, Worker,
    sizes::{self, Sizes},
};

/// Reads a cluster as the builders need it.
///
/// # Errors
/// Everything that is wrong, in the order of the spec's fields.
pub fn validate(cluster: &SelextractCluster, defaults: &Defaults) -> Result<ValidatedCluster, Vec<Refusal>> {
    let spec = &cluster.spec;
    let mut check = Check {
        sizes: sizes::of(spec.profile),
        profile: spec.profile,
        refusals: Vec::new(),
    };
    let name = check.name(&cluster.name_any());
    let validated = ValidatedCluster {
        name,
        namespace: cluster.namespace().unwrap_or_default(),
        uid: cluster.uid().unwrap_or_default(),
        operator_namespace: defaults.namespace.clone(),
        operator_subject: defaults.subject.clone(),
        images: check.images(&spec.image, defaults),
        deletion_policy: spec.deletion_policy,
        adopt_foreign_data: spec.adopt_foreign_data,
        admission: admission(&spec.allowed_namespaces),
        api: check.api(&spec.api),
        keeper: check.keeper(&spec.keeper),
        worker: check.worker(&spec.worker),
        postgres: check.postgres(&spec.postgres),
        pgbouncer: check.pgbouncer(&spec.pgbouncer, &spec.postgres),
        queue: check.queue(&spec.redis),
        cache: check.cache(&spec.redis),
        egress: check.egress(&spec.egress),
        artifacts: check.artifacts(&spec.artifacts),
        monitoring: check.monitoring(&spec.monitoring),
        scaling: check.scaling(
            &spec.scaling,
            spec.worker.concurrency,
            spec.monitoring.prometheus.provider != PrometheusProvider::None,
        ),
        slo: check.slo(&spec.slo, &spec.monitoring.alerts),
        cost: check.cost(&spec.cost),
    };
    if check.refusals.is_empty() {
        Ok(validated)
    } else {
        Err(check.refusals)
    }
}

fn admission(names: &[String]) -> Admission {
    if names.iter().any(|name| name == "*") {
        Admission::All
    } else {
        Admission::Named(names.to_vec())
    }
}

/// What is gone through, field by field.
pub(super) struct Check {
    pub(super) sizes: &'static Sizes,
    profile: Profile,
    refusals: Vec<Refusal>,
}

impl Check {
    pub(super) fn refuse(&mut self, reason: &'static str, field: &str, value: impl Display, cure: impl Display) {
        self.refusals.push(Refusal {
            reason,
            message: format!("{field} is {value:?}: {cure}", value = value.to_string()),
        });
    }

    /// Reads something again whose refusals are told already.
    pub(super) fn again<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let told = self.refusals.len();
        let value = read(self);
        self.refusals.truncate(told);
        value
    }

    fn name(&mut self, name: &str) -> String {
        let bytes = name.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let label = bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.iter().all(inner)
            && bytes.last().is_some_and(|b| *b != b'-');
        if !label || name.len() > 30 {
            let cure =
                "it must be a DNS label of at most 30 characters that begins with a letter; choose a shorter name";
            self.refuse("InvalidName", "metadata.name", name, cure);
        }
        name.to_owned()
    }

    fn images(&mut self, image: &ImageSpec, defaults: &Defaults) -> Images {
        let registry = image
            .registry
            .as_deref()
            .unwrap_or(&defaults.registry)
            .trim_end_matches('/');
        let tag = image.tag.as_deref().unwrap_or(&defaults.tag);
        let name = |name: &str| {
            if registry.is_empty() {
                format!("{name}:{tag}")
            } else {
                format!("{registry}/{name}:{tag}")
            }
        };
        let full = |own: &Option<String>, part: &str| own.clone().unwrap_or_else(|| name(part));
        if tag.is_empty() {
            let cure = "no image can be named without a tag; set it, or start the operator with --image-tag";
            self.refuse("InvalidImage", "spec.image.tag", tag, cure);
        }
        Images {
            platform: full(&image.platform, "platform"),
            browser: full(&image.browser, "browser"),
            data: full(&image.data, "data"),
            pull_policy: image.pull_policy,
        }
    }

    fn api(&mut self, api: &ApiSpec) -> Api {
        self.at_least(
            "spec.api.pool.acquireTimeout",
            api.pool.acquire_timeout,
            Duration::from_millis(100),
        );
        self.at_least(
            "spec.api.pool.maxLifetime",
            api.pool.max_lifetime,
            Duration::from_secs(10),
        );
        Api {
            replicas: api.replicas.unwrap_or(self.sizes.api_replicas).into(),
            ingress: api.ingress.clone(),
            pool: api.pool,
            pod: self.pod("spec.api.pod", &api.pod, &self.sizes.api),
        }
    }

    fn keeper(&mut self, keeper: &selextract_crds::KeeperSpec) -> Keeper {
        self.at_least(
            "spec.keeper.refillInterval",
            keeper.refill_interval,
            Duration::from_millis(100),
        );
        self.at_least(
            "spec.keeper.sweepInterval",
            keeper.sweep_interval,
            Duration::from_millis(100),
        );
        self.at_least("spec.keeper.retention", keeper.retention, Duration::from_secs(86_400));
        Keeper {
            spec: keeper.clone(),
            pod: self.pod("spec.keeper.pod", &keeper.pod, &self.sizes.keeper),
        }
    }

    fn worker(&mut self, worker: &WorkerSpec) -> Worker {
        self.at_least("spec.worker.lease", worker.lease, Duration::from_secs(3));
        self.at_least(
            "spec.worker.browser.maxAge",
            worker.browser.max_age,
            Duration::from_secs(10),
        );
        let bytes = self.bytes("spec.worker.browser.maxMemory", &worker.browser.max_memory);
        if bytes < 64_000_000 {
            let cure = "Chromium needs more to start; give at least 64M";
            self.refuse(
                "InvalidQuantity",
                "spec.worker.browser.maxMemory",
                worker.browser.max_memory.as_str(),
                cure,
            );
        }
        Worker {
            replicas: worker.replicas.unwrap_or(self.sizes.worker_replicas).into(),
            concurrency: worker.concurrency,
            lease: worker.lease,
            max_tasks: worker.max_tasks,
            contact: worker.contact.clone(),
            browser: worker.browser.clone(),
            browser_memory_mb: bytes / 1_000_000,
            pod: self.pod("spec.worker.pod", &worker.pod, &self.sizes.worker),
        }
    }

    pub(super) fn bytes(&mut self, field: &str, quantity: &Quantity) -> u64 {
        quantity.units().unwrap_or_else(|| {
            self.refuse(
                "InvalidQuantity",
                field,
                quantity.as_str(),
                "write a quantity such as 500m, 512Mi or 2Gi",
            );
            0
        })
    }

    pub(super) fn at_least_bytes(&mut self, field: &str, quantity: &Quantity, least: u64) {
        if self.bytes(field, quantity) < least {
            let cure = format!(
                "it must be at least {}Mi; raise it (the profile {:?} has a default)",
                least >> 20,
                self.profile
            );
            self.refuse("InvalidQuantity", field, quantity.as_str(), cure);
        }
    }

    pub(super) fn at_least(&mut self, field: &str, duration: Duration, least: Duration) {
        if duration < least {
            self.refuse(
                "InvalidDuration",
                field,
                duration,
                format!("it must be at least {least}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            registry: "example.org/selextract".into(),
            tag: "1.2.3".into(),
            namespace: "operators".into(),
            subject: "system:serviceaccount:operators:selextract-operator".into(),
        }
    }

    fn read(spec: &serde_json::Value) -> Result<ValidatedCluster, Vec<Refusal>> {
        let cluster = json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
            "metadata": { "name": "shop", "namespace": "web", "uid": "u-1" }, "spec": spec,
        });
        validate(&serde_json::from_value(cluster).unwrap(), &defaults())
    }

    #[test]
    fn an_empty_spec_is_the_guides_column_current() {
        let cluster = read(&json!({})).unwrap();
        assert_eq!(
            (
                cluster.api.replicas,
                cluster.worker.replicas,
                cluster.worker.concurrency
            ),
            (3, 5, 4)
        );
        assert_eq!(cluster.api.pod.limits.cpu, Some(Quantity::new("2")));
        assert_eq!(cluster.postgres.memory_mb, 2048);
        assert_eq!(cluster.images.platform, "example.org/selextract/platform:1.2.3");
    }

    #[test]
    fn an_image_in_full_stands_in_place_of_registry_and_tag() {
        let cluster = read(&json!({ "image": { "tag": "9", "data": "other/data@sha256:00" } })).unwrap();
        assert_eq!(cluster.images.data, "other/data@sha256:00");
        assert_eq!(cluster.images.browser, "example.org/selextract/browser:9");
    }

    #[test]
    fn a_limit_below_the_profiles_request_lowers_the_request() {
        let pod = json!({ "resources": { "limits": { "memory": "512Mi" } } });
        let cluster = read(&json!({ "api": { "pod": pod } })).unwrap();
        assert_eq!(cluster.api.pod.requests.memory, Some(Quantity::new("512Mi")));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_field_value_and_cure() {
        let refusals = read(&json!({
            "keeper": { "retention": "1h" },
            "postgres": { "provider": "External" },
            "redis": { "cache": { "maxMemory": "9Gi" } },
            "egress": { "allow": [{ "cidr": "10.0.0.0/99" }] },
            "worker": { "pod": { "labels": { "selextract.io/x": "y" } } },
            "artifacts": { "store": "S3", "maxBytesPerOwner": "much" },
        }))
        .unwrap_err();
        let told: Vec<_> = refusals
            .iter()
            .map(|r| r.message.split(" is ").next().unwrap())
            .collect();
        assert_eq!(
            told,
            [
                "spec.keeper.retention",
                "spec.worker.pod.labels",
                "spec.postgres.provider",
                "spec.redis.cache.maxMemory",
                "spec.egress.allow[0].cidr",
                "spec.artifacts.store",
                "spec.artifacts.maxBytesPerOwner",
            ]
        );
    }

    #[test]
    fn poolers_that_could_exhaust_the_server_are_refused() {
        let refusals = read(&json!({ "pgbouncer": { "replicas": 3, "defaultPoolSize": 20 } })).unwrap_err();
        assert_eq!(refusals[0].reason, "TooFewConnections");
        assert!(refusals[0].message.contains("135"), "{}", refusals[0]);
        let refusals =
            read(&json!({ "pgbouncer": { "replicas": 8 }, "postgres": { "maxConnections": 30 } })).unwrap_err();
        assert_eq!(refusals[0].reason, "TooFewConnections", "not even one for each pod");
    }

    #[test]
    fn pools_follow_from_the_connections_that_the_database_admits_and_the_poolers_pods() {
        let size = |spec| read(&spec).unwrap().pgbouncer.default_pool_size;
        assert_eq!(size(json!({})), 20, "the guide's");
        assert_eq!(size(json!({ "pgbouncer": { "replicas": 4 } })), 10);
        assert_eq!(
            size(json!({ "pgbouncer": { "replicas": 4 }, "postgres": { "maxConnections": 400 } })),
            20
        );
        assert_eq!(
            size(json!({ "pgbouncer": { "defaultPoolSize": 7 } })),
            7,
            "as it is asked for"
        );
        let external = json!({ "provider": "External", "external": { "secretName": "db" }, "maxConnections": 50 });
        assert_eq!(size(json!({ "postgres": external })), 8);
    }

    #[test]
    fn a_bucket_has_a_host_and_a_port_and_an_authority_only_with_https() {
        let s3 = |endpoint: &str| {
            let s3 = json!({
                "endpoint": endpoint, "bucket": "shots",
                "credentialsSecretRef": { "name": "s3" }, "caSecretRef": { "name": "ca" },
            });
            read(&json!({ "artifacts": { "store": "S3", "s3": s3 } }))
        };
        let cluster = s3("https://minio.storage.svc:9000").unwrap();
        assert_eq!(cluster.artifacts.bucket.as_ref().unwrap().port, 9000);
        assert_eq!(cluster.artifacts.bytes_per_owner, 10 << 30);
        assert_eq!(cluster.bucket_secrets(), ["s3", "ca"]);
        for bad in ["http://minio:9000", "https://minio/shots"] {
            let refusals = s3(bad).unwrap_err();
            assert!(refusals[0].message.contains(bad), "{}", refusals[0]);
        }
    }

    #[test]
    fn a_star_admits_every_namespace() {
        assert!(
            read(&json!({ "allowedNamespaces": ["*"] }))
                .unwrap()
                .admission
                .admits("any")
        );
        assert!(
            !read(&json!({ "allowedNamespaces": ["a"] }))
                .unwrap()
                .admission
                .admits("b")
        );
    }
}
