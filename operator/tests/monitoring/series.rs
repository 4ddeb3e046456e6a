//! A healthy platform as series of promtool's notation, and what is changed about it.

use std::collections::BTreeMap;

use selextract_telemetry::{LONG_SECONDS, SECONDS, SHORT_SECONDS};

/// How long a healthy platform is played, in steps of half a minute.
const STEPS: u32 = 260;

/// The labels of a pool of the pooler in front of the primary.
pub const POOLER: &str =
    "component=\"keeper\",pooler=\"rw\",address=\"10.0.0.7\",database=\"selextract\",user=\"selextract_app\"";

/// Series by their selector.
pub type Series = BTreeMap<String, String>;

/// A value that stays.
pub fn steady(value: f64) -> String {
    format!("{value}+0x{STEPS}")
}

/// A counter that grows by so much in half a minute.
pub fn growing(step: f64) -> String {
    format!("0+{step}x{STEPS}")
}

/// A series of the cluster; `labels` without braces.
pub fn name(metric: &str, labels: &str) -> String {
    format!("{metric}{{namespace=\"web\",cluster=\"shop\",{labels}}}")
}

/// A histogram in which everything takes `seconds`, as series that replace others of the name and labels.
pub fn histogram(metric: &str, labels: &str, seconds: f64) -> Series {
    let edges = edges(metric).iter().copied().chain([f64::INFINITY]);
    edges
        .map(|edge| {
            let count = if edge >= seconds { 30.0 } else { 0.0 };
            let le = if edge.is_finite() {
                edge.to_string()
            } else {
                "+Inf".to_owned()
            };
            (
                name(&format!("{metric}_bucket"), &format!("{labels},le=\"{le}\"")),
                growing(count),
            )
        })
        .collect()
}

/// The edges that the programs themselves give this histogram.
fn edges(metric: &str) -> &'static [f64] {
    match metric {
        "selextract_task_duration_seconds" | "selextract_task_wait_seconds" => &LONG_SECONDS,
        "http_request_duration_seconds" => &SECONDS,
        _ => &SHORT_SECONDS,
    }
}

/// The labels of a route's histogram.
pub fn route(method: &str, route: &str) -> String {
    format!("component=\"api\",method=\"{method}\",route=\"{route}\"")
}

/// Everything that the alerts look at, on a platform where all is well.
#[expect(clippy::too_many_lines, reason = "a list")]
pub fn healthy() -> Series {
    let mut series = Series::new();
    let mut put = |metric: &str, labels: &str, values: String| {
        series.insert(name(metric, labels), values);
    };
    for component in ["api", "keeper", "worker", "egress"] {
        let pod = format!("component=\"{component}\",pod=\"shop-{component}-0\"");
        put("up", &pod, steady(1.0));
        put("process_start_time_seconds", &pod, steady(1000.0));
        put("selextract_container_cpu_seconds_total", &pod, growing(3.0));
        put("selextract_container_cpu_capacity_cores", &pod, steady(1.0));
        put("selextract_container_memory_working_set_bytes", &pod, steady(400.0));
        put("selextract_container_memory_capacity_bytes", &pod, steady(1000.0));
        put("selextract_container_oom_kills_total", &pod, steady(0.0));
        put("selextract_container_network_received_bytes_total", &pod, growing(1e6));
        put(
            "selextract_container_network_transmitted_bytes_total",
            &pod,
            growing(1e6),
        );
    }
    put(
        "http_requests_total",
        "component=\"api\",code=\"2xx\"",
        growing(30_000.0),
    );
    put("http_requests_total", "component=\"api\",code=\"5xx\"", growing(0.0));
    put(
        "selextract_api_ready",
        "component=\"api\",pod=\"shop-api-0\"",
        steady(1.0),
    );
    put("selextract_keeper_active", "component=\"keeper\"", steady(1.0));
    put("selextract_queue_runnable_tasks", "component=\"keeper\"", steady(3.0));
    put("selextract_queue_wait_seconds", "component=\"keeper\"", steady(1.0));
    for dependency in ["postgres", "pgbouncer", "redis-queue", "redis-cache"] {
        let labels = format!("component=\"keeper\",dependency=\"{dependency}\"");
        put("selextract_dependency_up", &labels, steady(1.0));
    }
    put("pg_settings_max_connections", "component=\"keeper\"", steady(100.0));
    put(
        "pg_stat_database_numbackends",
        "component=\"keeper\",datname=\"selextract\"",
        steady(20.0),
    );
    put(
        "pg_replication_lag_seconds",
        "component=\"keeper\",replica=\"0\"",
        steady(0.5),
    );
    put(
        "pg_replication_slots_active",
        "component=\"keeper\",slot_name=\"replica_0\"",
        steady(1.0),
    );
    put(
        "pg_stat_database_deadlocks_total",
        "component=\"keeper\",datname=\"selextract\"",
        steady(0.0),
    );
    put("pgbouncer_pools_client_maxwait_seconds", POOLER, steady(0.0));
    for redis in ["queue", "cache"] {
        let labels = format!("component=\"keeper\",redis=\"{redis}\"");
        put("redis_memory_used_bytes", &labels, steady(40.0));
        put("redis_memory_max_bytes", &labels, steady(100.0));
        put("redis_evicted_keys_total", &labels, steady(0.0));
    }
    put(
        "selextract_storage_used_bytes",
        "component=\"keeper\",volume=\"postgres\"",
        steady(50e9),
    );
    put(
        "selextract_storage_capacity_bytes",
        "component=\"keeper\",volume=\"postgres\"",
        steady(100e9),
    );
    for (method, path) in [
        ("POST", "/api/v1/auth/login"),
        ("GET", "/api/v1/dashboard/stats"),
        ("POST", "/api/v1/tasks"),
        ("GET", "/api/v1/tasks/{id}/results"),
    ] {
        series.extend(histogram("http_request_duration_seconds", &route(method, path), 0.05));
    }
    for (metric, labels, seconds) in [
        ("selextract_task_duration_seconds", "component=\"worker\"", 10.0),
        (
            "selextract_database_query_duration_seconds",
            "component=\"api\",operation=\"select\"",
            0.005,
        ),
        (
            "selextract_redis_operation_duration_seconds",
            "component=\"api\",redis=\"queue\",operation=\"offer\"",
            0.001,
        ),
        (
            "selextract_round_trip_seconds",
            "component=\"api\",to=\"postgres\"",
            0.0025,
        ),
        (
            "selextract_round_trip_seconds",
            "component=\"api\",to=\"redis-queue\"",
            0.001,
        ),
        (
            "selextract_round_trip_seconds",
            "component=\"worker\",to=\"redis-queue\"",
            0.0025,
        ),
    ] {
        series.extend(histogram(metric, labels, seconds));
    }
    series
}
