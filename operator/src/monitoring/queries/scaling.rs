//! What decisions about sizes are made from. Their names are the signals' names in [`crate::scaling::readings`].

use std::time::Duration;

use super::{Query, Unit, api, stores, work};

/// The range of rates: long enough for scrapes every 15 seconds, short enough to see a peak begin.
pub const WINDOW: Duration = Duration::from_mins(1);

/// Pods of a component that answered just now: a scrape that is lost thrice makes a pod silent.
macro_rules! pods {
    ($component:literal) => {
        concat!(
            "count by (namespace, cluster) (up{component=\"",
            $component,
            "\",$scope} == 1 and (time() - timestamp(up{component=\"",
            $component,
            "\",$scope})) < 20)"
        )
    };
}

/// CPU of a component's pods over their capacity.
macro_rules! cpu {
    ($component:literal) => {
        concat!(
            "avg by (namespace, cluster) (rate(selextract_container_cpu_seconds_total{component=\"",
            $component,
            "\",$scope}[$window]) / selextract_container_cpu_capacity_cores{component=\"",
            $component,
            "\",$scope})"
        )
    };
}

/// API pods that answered just now.
pub const API_PODS: Query = Query {
    name: "api_pods",
    help: "API pods that answered in the last 20 seconds.",
    unit: Unit::Count,
    template: pods!("api"),
};

/// Worker pods that answered just now.
pub const WORKER_PODS: Query = Query {
    name: "worker_pods",
    help: "Worker pods that answered in the last 20 seconds.",
    unit: Unit::Count,
    template: pods!("worker"),
};

/// Keepers that answered just now.
pub const KEEPER_PODS: Query = Query {
    name: "keeper_pods",
    help: "Keepers that answered in the last 20 seconds.",
    unit: Unit::Count,
    template: pods!("keeper"),
};

/// The API's CPU over its capacity.
pub const API_CPU: Query = Query {
    name: "api_cpu_ratio",
    help: "CPU of the API pods over what they may use, mean over the pods.",
    unit: Unit::Ratio,
    template: cpu!("api"),
};

/// The workers' CPU over their capacity, browsers included.
pub const WORKER_CPU: Query = Query {
    name: "worker_cpu_ratio",
    help: "CPU of the worker pods with their browsers over what they may use, mean over the pods.",
    unit: Unit::Ratio,
    template: cpu!("worker"),
};

/// Tasks that the workers are busy with.
pub const WORKER_BUSY: Query = Query {
    name: "worker_busy",
    help: "Tasks that the workers are busy with.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (selextract_worker_busy{component=\"worker\",$scope})",
};

/// Tasks that wait for their sites.
pub const LIMITED: Query = Query {
    name: "backlog_limited",
    help: "Tasks that wait for their sites, whatever the number of workers.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (selextract_queue_held_tasks{component=\"keeper\",reason=~\"DomainLimited|HostUnavailable\",$scope})",
};

/// Which of what the platform stands on answers. One keeper that reaches it is enough: another one that is cut off must not hold every
/// number, but is told by [`super::stores::DEPENDENCIES`].
pub const DEPENDENCIES: Query = Query {
    name: "scaling_dependencies",
    help: "Whether each store answers any keeper; one that does not holds every number.",
    unit: Unit::Flag,
    template: "max by (namespace, cluster, dependency) (selextract_dependency_up{component=\"keeper\",$scope})",
};

/// Tasks that each worker pod is busy with, from which the idlest are found when some go.
pub const BUSY_BY_POD: Query = Query {
    name: "worker_busy_by_pod",
    help: "Tasks that each worker pod is busy with.",
    unit: Unit::Count,
    template: "max by (namespace, cluster, pod) (selextract_worker_busy{component=\"worker\",$scope})",
};

/// Pods that the operator decided on.
macro_rules! decided {
    ($target:literal) => {
        concat!(
            "max by (namespace, cluster) (selextract_scaling_desired_replicas{target=\"",
            $target,
            "\",$scope})"
        )
    };
}

/// What a signal is held against.
macro_rules! limit {
    ($target:literal, $signal:literal) => {
        concat!(
            "max by (namespace, cluster) (selextract_scaling_signal_threshold{target=\"",
            $target,
            "\",signal=\"",
            $signal,
            "\",$scope})"
        )
    };
}

/// API pods that the operator decided on. This and what follows is told by the operator itself (ADR 35).
pub const API_DECIDED: Query = Query {
    name: "api_decided_pods",
    help: "API pods that the operator decided on, where it sizes them and is measured itself.",
    unit: Unit::Count,
    template: decided!("api"),
};

/// Workers that the operator decided on.
pub const WORKER_DECIDED: Query = Query {
    name: "worker_decided_pods",
    help: "Workers that the operator decided on, where it sizes them and is measured itself.",
    unit: Unit::Count,
    template: decided!("worker"),
};

/// Changes of numbers.
pub const DECISIONS: Query = Query {
    name: "scaling_decisions",
    help: "Changes of a number of pods within the window, by target and reason, where the operator is measured itself.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, target, reason) (increase(selextract_scaling_decisions_total{$scope}[$window]))",
};

/// The API's CPU threshold.
pub const API_CPU_LIMIT: Query = Query {
    name: "api_cpu_limit",
    help: "CPU above which the API grows.",
    unit: Unit::Ratio,
    template: limit!("api", "cpu"),
};

/// The API's response time threshold.
pub const API_LATENCY_LIMIT: Query = Query {
    name: "api_latency_limit",
    help: "P95 above which the API grows.",
    unit: Unit::Seconds,
    template: limit!("api", "latencyP95"),
};

/// The API's error threshold.
pub const API_ERRORS_LIMIT: Query = Query {
    name: "api_errors_limit",
    help: "The share of 5xx above which the API grows.",
    unit: Unit::Ratio,
    template: limit!("api", "errors"),
};

/// The workers' CPU threshold.
pub const WORKER_CPU_LIMIT: Query = Query {
    name: "worker_cpu_limit",
    help: "CPU above which the workers grow.",
    unit: Unit::Ratio,
    template: limit!("worker", "cpu"),
};

/// The workers' threshold of tasks that could begin.
pub const WORKER_QUEUE_LIMIT: Query = Query {
    name: "worker_queue_limit",
    help: "Tasks that could begin above which the workers grow.",
    unit: Unit::Count,
    template: limit!("worker", "queue"),
};

/// The workers' threshold of the mean wait.
pub const WORKER_WAIT_LIMIT: Query = Query {
    name: "worker_wait_limit",
    help: "The mean wait above which the workers grow.",
    unit: Unit::Seconds,
    template: limit!("worker", "wait"),
};

pub(super) const ALL: &[Query] = &[
    API_PODS,
    WORKER_PODS,
    KEEPER_PODS,
    API_CPU,
    WORKER_CPU,
    WORKER_BUSY,
    LIMITED,
    DEPENDENCIES,
    BUSY_BY_POD,
    API_DECIDED,
    WORKER_DECIDED,
    DECISIONS,
    API_CPU_LIMIT,
    API_LATENCY_LIMIT,
    API_ERRORS_LIMIT,
    WORKER_CPU_LIMIT,
    WORKER_QUEUE_LIMIT,
    WORKER_WAIT_LIMIT,
];

/// Everything that one look at the platform asks.
pub const SIGNALS: [Query; 15] = [
    API_PODS,
    WORKER_PODS,
    KEEPER_PODS,
    API_CPU,
    api::RESPONSE_P95,
    api::ERROR_RATIO,
    api::REQUEST_RATE,
    WORKER_CPU,
    WORKER_BUSY,
    work::TASK_MEAN,
    work::BACKLOG,
    work::BACKLOG_WAIT,
    LIMITED,
    DEPENDENCIES,
    stores::MAX_CONNECTIONS,
];
