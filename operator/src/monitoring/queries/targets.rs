//! Whether the programs are there to be asked at all.
//!
//! Pods that are gone are no targets any more: then `up` is not 0 but missing. What is missing beside others counts as 0 here, which is the
//! opposite of calm.

use super::{Query, Unit};

/// API pods that answer.
pub const API_TARGETS: Query = Query {
    name: "api_targets",
    help: "API pods that answer Prometheus.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (up{component=\"api\",$scope}) or 0 * group by (namespace, cluster) (up{$scope})",
};

/// API pods that take requests.
pub const API_READY: Query = Query {
    name: "api_ready",
    help: "API pods that take requests: the database answers them. Without one users are refused a connection, and no request fails that could be counted.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (selextract_api_ready{component=\"api\",$scope})",
};

/// Keepers that answer.
pub const KEEPER_TARGETS: Query = Query {
    name: "keeper_targets",
    help: "Keepers that answer Prometheus.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (up{component=\"keeper\",$scope}) or 0 * group by (namespace, cluster) (up{$scope})",
};

/// Worker pods that answer.
pub const WORKER_TARGETS: Query = Query {
    name: "worker_targets",
    help: "Worker pods that answer Prometheus.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (up{component=\"worker\",$scope}) or 0 * group by (namespace, cluster) (up{$scope})",
};

/// Pods of the egress proxy that answer.
pub const EGRESS_TARGETS: Query = Query {
    name: "egress_targets",
    help: "Pods of the egress proxy that answer Prometheus.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (up{component=\"egress\",$scope}) or 0 * group by (namespace, cluster) (up{$scope})",
};

/// Pods that answer by component.
pub const TARGETS: Query = Query {
    name: "targets",
    help: "Pods that answer Prometheus, by component.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, component) (up{$scope})",
};

/// Pods that do not answer by component.
pub const TARGETS_DOWN: Query = Query {
    name: "targets_down",
    help: "Pods that are there and do not answer Prometheus, by component.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, component) (1 - up{$scope})",
};

/// Keepers that hold the lease.
pub const ACTIVE_KEEPERS: Query = Query {
    name: "active_keepers",
    help: "Keepers that hold the lease: one, and none for the moment of a handover.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (selextract_keeper_active{component=\"keeper\",$scope}) or 0 * group by (namespace, cluster) (up{$scope})",
};

/// 1 when no pod of the cluster is known.
pub const NOTHING_SCRAPED: Query = Query {
    name: "nothing_scraped",
    help: "1 when Prometheus knows no pod of the cluster.",
    unit: Unit::Flag,
    template: "absent(up{component!=\"prometheus\",$scope})",
};

/// What the exporters measure.
pub const EXPORTED: Query = Query {
    name: "exported",
    help: "Stores of which the exporter, the active keeper, tells whether they answer.",
    unit: Unit::Count,
    template: "count by (namespace, cluster) (selextract_dependency_up{component=\"keeper\",$scope}) or 0 * group by (namespace, cluster) (up{$scope})",
};

/// Whether the database is measured.
pub const DATABASE_EXPORTED: Query = Query {
    name: "database_exported",
    help: "Databases whose connections are measured.",
    unit: Unit::Count,
    template: "count by (namespace, cluster) (pg_settings_max_connections{$scope}) or 0 * group by (namespace, cluster) (up{$scope})",
};

pub(super) const ALL: &[Query] = &[
    EXPORTED,
    DATABASE_EXPORTED,
    API_TARGETS,
    API_READY,
    KEEPER_TARGETS,
    WORKER_TARGETS,
    EGRESS_TARGETS,
    TARGETS,
    TARGETS_DOWN,
    ACTIVE_KEEPERS,
    NOTHING_SCRAPED,
];
