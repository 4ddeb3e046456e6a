//! What tasks, queue, workers and the egress proxy do (guide: "Business Metrics", "Worker Queue Congestion").

use super::{Query, Unit};

/// Tasks accepted a second.
pub const TASKS_ACCEPTED: Query = Query {
    name: "tasks_accepted_rate",
    help: "Tasks accepted a second.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster) (rate(selextract_tasks_accepted_total{$scope}[$window]))",
};

/// Tasks ended a second by outcome.
pub const TASKS_ENDED: Query = Query {
    name: "tasks_ended_rate",
    help: "Tasks ended a second by outcome.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, outcome) (rate(selextract_tasks_ended_total{$scope}[$window]))",
};

/// The share of ended tasks that succeeded.
pub const TASK_SUCCESS_RATIO: Query = Query {
    name: "task_success_ratio",
    help: "The share of tasks that ended well, canceled ones left out (guide: Task Success Rate).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (rate(selextract_tasks_ended_total{outcome=\"succeeded\",$scope}[$window])) \
               / sum by (namespace, cluster) (rate(selextract_tasks_ended_total{outcome=~\"succeeded|failed\",$scope}[$window]))",
};

/// P95 of a task's time.
pub const TASK_P95: Query = Query {
    name: "task_processing_p95",
    help: "95 % of tasks are worked through within it, from claim to end (guide: Task Processing Time).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(selextract_task_duration_seconds_bucket{component=\"worker\",$scope}[$window])))",
};

/// The mean of a task's time.
pub const TASK_MEAN: Query = Query {
    name: "task_processing_mean",
    help: "How long a task takes on average, from claim to end.",
    unit: Unit::Seconds,
    template: "sum by (namespace, cluster) (rate(selextract_task_duration_seconds_sum{component=\"worker\",$scope}[$window])) \
               / sum by (namespace, cluster) (rate(selextract_task_duration_seconds_count{component=\"worker\",$scope}[$window]))",
};

/// P95 of the wait before a claim.
pub const TASK_WAIT_P95: Query = Query {
    name: "task_wait_p95",
    help: "95 % of tasks are claimed within it after they could have begun (guide: Worker Queue Latency).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(selextract_task_wait_seconds_bucket{component=\"worker\",$scope}[$window])))",
};

/// Tasks that could begin now.
pub const BACKLOG: Query = Query {
    name: "backlog",
    help: "Tasks and pages of crawls that a worker could begin now if it were free.",
    unit: Unit::Count,
    template: "max by (namespace, cluster) (selextract_queue_runnable_tasks{component=\"keeper\",$scope})",
};

/// Tasks that wait for something else than a worker.
pub const BACKLOG_HELD: Query = Query {
    name: "backlog_held",
    help: "Tasks and pages of crawls that more workers would not begin, by what holds them.",
    unit: Unit::Count,
    template: "max by (namespace, cluster, reason) (selextract_queue_held_tasks{component=\"keeper\",$scope})",
};

/// The longest wait for a worker.
pub const BACKLOG_OLDEST: Query = Query {
    name: "backlog_oldest",
    help: "How long the oldest task that could begin has waited.",
    unit: Unit::Seconds,
    template: "max by (namespace, cluster) (selextract_queue_oldest_runnable_seconds{component=\"keeper\",$scope})",
};

/// The mean wait for a worker.
pub const BACKLOG_WAIT: Query = Query {
    name: "backlog_wait",
    help: "How long the tasks that could begin have waited on average (guide: Average task wait time).",
    unit: Unit::Seconds,
    template: "max by (namespace, cluster) (selextract_queue_wait_seconds{component=\"keeper\",$scope})",
};

/// The share of the workers' places that are taken.
pub const WORKERS_BUSY: Query = Query {
    name: "workers_busy_ratio",
    help: "The share of the workers' places that are taken.",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (selextract_worker_busy{component=\"worker\",$scope}) / sum by (namespace, cluster) (selextract_worker_concurrency{component=\"worker\",$scope})",
};

/// Pages a second by engine and outcome.
pub const PAGES: Query = Query {
    name: "pages_rate",
    help: "Pages a second by engine and outcome.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, engine, outcome) (rate(selextract_pages_total{component=\"worker\",$scope}[$window]))",
};

/// P95 of loading a page in the browser.
pub const PAGE_LOAD_P95: Query = Query {
    name: "page_load_p95",
    help: "95 % of pages are loaded in the browser within it (guide: page load times).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(selextract_browser_page_load_seconds_bucket{component=\"worker\",$scope}[$window])))",
};

/// Browsers that ended, by reason.
pub const BROWSERS_ENDED: Query = Query {
    name: "browsers_ended_rate",
    help: "Browsers that ended a second, by reason: retired ones are replaced on purpose.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, reason) (rate(selextract_browser_ends_total{component=\"worker\",$scope}[$window]))",
};

/// Owners that were active.
pub const ACTIVE_USERS: Query = Query {
    name: "active_users",
    help: "Owners with a sign-in or an accepted task within 30 days.",
    unit: Unit::Count,
    template: "max by (namespace, cluster) (selextract_active_users{component=\"keeper\",$scope})",
};

/// Requests through the egress proxy by result.
pub const EGRESS_REQUESTS: Query = Query {
    name: "egress_requests_rate",
    help: "Requests a second through the egress proxy by result.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, result) (rate(selextract_egress_requests_total{component=\"egress\",$scope}[$window]))",
};

/// P95 of reaching an origin.
pub const EGRESS_CONNECT_P95: Query = Query {
    name: "egress_connect_p95",
    help: "95 % of connections to sites stand within it, names resolved.",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(selextract_egress_connect_seconds_bucket{component=\"egress\",$scope}[$window])))",
};

/// Bytes exchanged with sites by direction.
pub const EGRESS_BYTES: Query = Query {
    name: "egress_bytes_rate",
    help: "Bytes a second exchanged with sites by direction.",
    unit: Unit::BytesPerSecond,
    template: "sum by (namespace, cluster, direction) (rate(selextract_egress_bytes_total{component=\"egress\",$scope}[$window]))",
};

pub(super) const ALL: &[Query] = &[
    TASKS_ACCEPTED,
    TASKS_ENDED,
    TASK_SUCCESS_RATIO,
    TASK_P95,
    TASK_MEAN,
    TASK_WAIT_P95,
    BACKLOG,
    BACKLOG_HELD,
    BACKLOG_OLDEST,
    BACKLOG_WAIT,
    WORKERS_BUSY,
    PAGES,
    PAGE_LOAD_P95,
    BROWSERS_ENDED,
    ACTIVE_USERS,
    EGRESS_REQUESTS,
    EGRESS_CONNECT_P95,
    EGRESS_BYTES,
];
