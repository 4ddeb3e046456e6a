//! What promises and costs are held against (guide: "SLA and Performance Targets", "Cost-Performance Optimization"). docs/slo-and-cost.md defines each.
//!
//! Those over days are meant to be asked once an hour.

use super::{Query, Unit};

/// Whether the API answers: a pod was up within half a minute and took requests, and it is not so that five requests failed within a minute
/// and none was answered. Where scrapes are further apart than that the last one counts.
///
/// A lost scrape or a pod that is replaced is no outage: seen at a whole minute, either would count as that minute.
///
/// A part that is gone is no target any more; beside others that are still scraped it counts as 0. Where nothing is scraped, nothing is told.
macro_rules! answers {
    () => {
        "((max by (namespace, cluster) (max_over_time(up{component=\"api\",$scope}[30s]) or up{component=\"api\",$scope}) > bool 0) \
         unless (max by (namespace, cluster) (max_over_time(selextract_api_ready{component=\"api\",$scope}[30s])) == 0) \
         unless ((sum by (namespace, cluster) (increase(http_requests_total{component=\"api\",code=~\"5..\",$scope}[1m])) >= 5) \
         unless (sum by (namespace, cluster) (increase(http_requests_total{component=\"api\",code!~\"5..\",$scope}[1m])) > 0))) \
         or 0 * group by (namespace, cluster) (up{$scope})"
    };
}

/// The share of requests that failed.
pub const BAD_REQUEST_RATIO: Query = Query {
    name: "slo_bad_request_ratio",
    help: "The share of requests that were answered with 5xx; unknown without requests (guide: Availability, Error Rate).",
    unit: Unit::Ratio,
    template: "(sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",code=~\"5..\",$scope}[$window])) \
               or 0 * sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",$scope}[$window]))) \
               / sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",$scope}[$window]))",
};

/// Requests that fail a second.
pub const FAILED_REQUEST_RATE: Query = Query {
    name: "slo_failed_request_rate",
    help: "Requests a second that were answered with 5xx; 0 where requests are counted and none was.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",code=~\"5..\",$scope}[$window])) \
               or 0 * sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",$scope}[$window]))",
};

/// Whether the API answers.
pub const API_ANSWERS: Query = Query {
    name: "slo_api_answers",
    help: "Whether the API answers: a pod took requests within half a minute, and not all requests of the last minute (five at least) were answered with 5xx (guide: uptime).",
    unit: Unit::Flag,
    template: answers!(),
};

/// The share of the time in which the API did not answer.
pub const DOWNTIME_RATIO: Query = Query {
    name: "slo_downtime_ratio",
    help: "The share of the measured time in which the API did not answer, minute by minute (guide: uptime).",
    unit: Unit::Ratio,
    template: concat!("1 - avg_over_time((", answers!(), ")[$window:1m])"),
};

/// The same over days.
pub const DOWNTIME_RATIO_OF_DAYS: Query = Query {
    name: "slo_downtime_ratio_of_days",
    help: "The share of the measured time in which the API did not answer, looked at every five minutes: over days every minute would be millions of samples.",
    unit: Unit::Ratio,
    template: concat!("1 - avg_over_time((", answers!(), ")[$window:5m])"),
};

/// The hours of which anything is known.
pub const MEASURED_HOURS: Query = Query {
    name: "slo_measured_hours",
    help: "The hours within the window of which Prometheus knows anything of the cluster.",
    unit: Unit::Count,
    template: "count_over_time((group by (namespace, cluster) (up{$scope}))[$window:1h])",
};

/// The mean number of pods.
pub const MEAN_PODS: Query = Query {
    name: "cost_mean_pods",
    help: "The mean number of pods that answered while the cluster was measured, by component.",
    unit: Unit::Count,
    template: "sum_over_time((sum by (namespace, cluster, component) (up{$scope}))[$window:5m]) \
               / on (namespace, cluster) group_left count_over_time((group by (namespace, cluster) (up{$scope}))[$window:5m])",
};

/// The cores that the busiest pod needs.
pub const CPU_P95: Query = Query {
    name: "cost_cpu_p95",
    help: "Cores that the busiest pod of a component uses, P95 over the window.",
    unit: Unit::Cores,
    template: "max by (namespace, cluster, component) (quantile_over_time(0.95, rate(selextract_container_cpu_seconds_total{$scope}[5m])[$window:5m]) \
               or quantile_over_time(0.95, rate(container_cpu_usage_seconds_total{$scope}[5m])[$window:5m]))",
};

/// The memory that the largest pod needs.
pub const MEMORY_P95: Query = Query {
    name: "cost_memory_p95",
    help: "Memory that the largest pod of a component uses, P95 over the window.",
    unit: Unit::Bytes,
    template: "max by (namespace, cluster, component) (quantile_over_time(0.95, selextract_container_memory_working_set_bytes{$scope}[$window]) \
               or quantile_over_time(0.95, container_memory_working_set_bytes{$scope}[$window]))",
};

/// The data that a Redis holds.
pub const REDIS_MEMORY_P95: Query = Query {
    name: "cost_redis_memory_p95",
    help: "Memory that queue and cache hold, P95 over the window.",
    unit: Unit::Bytes,
    template: "max by (namespace, cluster, redis) (quantile_over_time(0.95, redis_memory_used_bytes{$scope}[$window]))",
};

/// The cores that a component uses on average.
pub const CPU_MEAN: Query = Query {
    name: "cost_cpu_mean",
    help: "Cores that a pod of a component uses on average over the window.",
    unit: Unit::Cores,
    template: "avg by (namespace, cluster, component) (rate(selextract_container_cpu_seconds_total{$scope}[$window])) \
               or avg by (namespace, cluster, component) (sum by (namespace, cluster, component, pod) (rate(container_cpu_usage_seconds_total{$scope}[$window])))",
};

/// The memory that a component uses on average.
pub const MEMORY_MEAN: Query = Query {
    name: "cost_memory_mean",
    help: "Memory that a pod of a component uses on average over the window.",
    unit: Unit::Bytes,
    template: "avg by (namespace, cluster, component) (avg_over_time(selextract_container_memory_working_set_bytes{$scope}[$window])) \
               or avg by (namespace, cluster, component) (sum by (namespace, cluster, component, pod) (avg_over_time(container_memory_working_set_bytes{$scope}[$window])))",
};

/// The cores that each pod uses.
pub const POD_CPU: Query = Query {
    name: "cost_pod_cpu",
    help: "Cores that each pod uses, as it counts itself, or else as its kubelet does.",
    unit: Unit::Cores,
    template: "sum by (namespace, cluster, component, pod) (rate(selextract_container_cpu_seconds_total{$scope}[$window])) \
               or sum by (namespace, cluster, component, pod) (rate(container_cpu_usage_seconds_total{$scope}[$window]))",
};

/// The memory that each pod uses.
pub const POD_MEMORY: Query = Query {
    name: "cost_pod_memory",
    help: "Memory that each pod uses, as it counts itself, or else as its kubelet does.",
    unit: Unit::Bytes,
    template: "sum by (namespace, cluster, component, pod) (selextract_container_memory_working_set_bytes{$scope}) \
               or sum by (namespace, cluster, component, pod) (container_memory_working_set_bytes{$scope})",
};

/// Tasks that end well.
pub const TASKS: Query = Query {
    name: "cost_tasks_rate",
    help: "Tasks that end well a second (guide: Tasks per Dollar).",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster) (rate(selextract_tasks_ended_total{outcome=\"succeeded\",$scope}[$window]))",
};

/// What is sent.
pub const SENT: Query = Query {
    name: "cost_sent_rate",
    help: "Bytes a second that API and egress proxy send. What they send within the Kubernetes cluster is in it: an upper bound of what is paid for.",
    unit: Unit::BytesPerSecond,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_network_transmitted_bytes_total{component=~\"api|egress\",$scope}[$window]))",
};

pub(super) const ALL: &[Query] = &[
    BAD_REQUEST_RATIO,
    FAILED_REQUEST_RATE,
    API_ANSWERS,
    DOWNTIME_RATIO,
    DOWNTIME_RATIO_OF_DAYS,
    MEASURED_HOURS,
    MEAN_PODS,
    CPU_P95,
    MEMORY_P95,
    REDIS_MEMORY_P95,
    CPU_MEAN,
    MEMORY_MEAN,
    POD_CPU,
    POD_MEMORY,
    TASKS,
    SENT,
];
