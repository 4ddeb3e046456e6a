//! A platform's metrics by the names of docs/monitoring.md, after some traffic: what a small server answers Prometheus with.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::Path, routing};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What is measured: the components, and the operator, which tells of clusters by labels of its own.
const COMPONENTS: [&str; 5] = ["api", "keeper", "worker", "egress", "operator"];

const EDGES: [&str; 6] = ["0.001", "0.01", "0.1", "1", "10", "+Inf"];

/// Every counter grows with each scrape.
static SCRAPES: AtomicU64 = AtomicU64::new(0);

/// Serves every component's metrics under `/<component>` and returns the port.
pub async fn serve() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route(
        "/{component}",
        routing::get(|Path(component): Path<String>| async move { text(&component) }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// A configuration that scrapes them once a second, with the labels that the managed Prometheus gives.
pub fn configuration(port: u16) -> String {
    let scrapes = COMPONENTS.map(|component| {
        let labels = match component {
            "operator" => json!({ "namespace": "operators" }),
            _ => json!({
                "namespace": "web", "cluster": "shop", "component": component, "pod": format!("shop-{component}-0"),
            }),
        };
        json!({
            "job_name": component,
            "honor_labels": component == "operator",
            "metrics_path": format!("/{component}"),
            "static_configs": [{ "targets": [format!("127.0.0.1:{port}")], "labels": labels }],
        })
    });
    let all: Value =
        json!({ "global": { "scrape_interval": "1s", "scrape_timeout": "1s" }, "scrape_configs": scrapes });
    all.to_string()
}

fn text(component: &str) -> String {
    let count = SCRAPES.fetch_add(1, Ordering::Relaxed) + 1;
    let mut out = Writer {
        out: String::new(),
        count,
    };
    if component != "operator" {
        out.own_resources();
    }
    match component {
        "api" => out.api(),
        "keeper" => out.keeper(),
        "worker" => out.worker(),
        "operator" => out.operator(),
        _ => out.egress(),
    }
    out.out
}

struct Writer {
    out: String,
    count: u64,
}

impl Writer {
    fn gauge(&mut self, name: &str, labels: &str, value: f64) {
        writeln!(self.out, "{name}{{{labels}}} {value}").unwrap();
    }

    fn counter(&mut self, name: &str, labels: &str) {
        let count = self.count;
        writeln!(self.out, "{name}{{{labels}}} {count}").unwrap();
    }

    fn histogram(&mut self, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        for edge in EDGES {
            self.counter(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{edge}\""));
        }
        self.counter(&format!("{name}_sum"), labels);
        self.counter(&format!("{name}_count"), labels);
    }

    fn own_resources(&mut self) {
        for name in [
            "cpu_seconds",
            "cpu_throttled_seconds",
            "oom_kills",
            "disk_read_bytes",
            "disk_written_bytes",
            "disk_reads",
            "disk_writes",
            "disk_waiting_seconds",
            "network_received_bytes",
            "network_transmitted_bytes",
            "tcp_segments_sent",
            "tcp_retransmits",
        ] {
            self.counter(&format!("selextract_container_{name}_total"), "");
        }
        self.gauge("selextract_container_cpu_capacity_cores", "", 1.0);
        self.gauge("selextract_container_memory_working_set_bytes", "", 1e6);
        self.gauge("selextract_container_memory_capacity_bytes", "", 1e9);
        self.gauge("process_start_time_seconds", "", 1e9);
        self.gauge("process_open_fds", "", 12.0);
        for to in ["postgres", "redis-queue", "redis-cache"] {
            self.histogram("selextract_round_trip_seconds", &format!("to=\"{to}\""));
        }
        self.histogram("selextract_database_query_duration_seconds", "operation=\"select\"");
        for redis in ["queue", "cache"] {
            self.histogram(
                "selextract_redis_operation_duration_seconds",
                &format!("redis=\"{redis}\",operation=\"take\""),
            );
        }
        for state in ["idle", "used"] {
            self.gauge(
                "selextract_database_pool_connections",
                &format!("pool=\"primary\",state=\"{state}\""),
                2.0,
            );
        }
        self.gauge("selextract_database_pool_limit", "pool=\"primary\"", 20.0);
    }

    fn api(&mut self) {
        self.gauge("selextract_api_ready", "", 1.0);
        for (method, route) in [
            ("POST", "/api/v1/auth/login"),
            ("GET", "/api/v1/dashboard/stats"),
            ("POST", "/api/v1/tasks"),
            ("GET", "/api/v1/tasks/{id}/results"),
        ] {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            self.histogram("http_request_duration_seconds", &labels);
            for code in ["2xx", "3xx", "4xx", "5xx"] {
                self.counter("http_requests_total", &format!("{labels},code=\"{code}\""));
            }
        }
        for outcome in ["succeeded", "failed", "refused"] {
            self.counter("selextract_logins_total", &format!("outcome=\"{outcome}\""));
        }
    }

    fn keeper(&mut self) {
        self.gauge("selextract_keeper_active", "", 1.0);
        self.gauge("selextract_queue_runnable_tasks", "", 3.0);
        self.gauge("selextract_queue_held_tasks", "reason=\"DomainLimited\"", 1.0);
        self.gauge("selextract_queue_oldest_runnable_seconds", "", 4.0);
        self.gauge("selextract_queue_wait_seconds", "", 2.0);
        self.counter("selextract_tasks_accepted_total", "");
        for outcome in ["succeeded", "failed", "canceled"] {
            self.counter("selextract_tasks_ended_total", &format!("outcome=\"{outcome}\""));
        }
        self.gauge("selextract_active_users", "", 2.0);
        for dependency in ["postgres", "pgbouncer", "redis-queue", "redis-cache"] {
            self.gauge("selextract_dependency_up", &format!("dependency=\"{dependency}\""), 1.0);
        }
        for volume in ["postgres", "redis-queue"] {
            self.counter("selextract_storage_used_bytes", &format!("volume=\"{volume}\""));
        }
        for volume in ["postgres", "redis-queue"] {
            self.gauge(
                "selextract_storage_capacity_bytes",
                &format!("volume=\"{volume}\""),
                1e9,
            );
        }
        self.exporters();
    }

    fn exporters(&mut self) {
        let database = "datname=\"selextract\"";
        self.gauge("pg_up", "", 1.0);
        self.gauge("pg_settings_max_connections", "", 100.0);
        self.gauge("pg_stat_database_numbackends", database, 9.0);
        self.gauge("pg_replication_lag_seconds", "replica=\"0\"", 0.1);
        self.gauge("pg_replication_slots_active", "slot_name=\"replica_0\"", 1.0);
        self.gauge("pg_database_size_bytes", database, 1e7);
        for name in ["blks_hit", "blks_read", "xact_commit", "xact_rollback", "deadlocks"] {
            self.counter(&format!("pg_stat_database_{name}_total"), database);
        }
        for name in [
            "io_reads",
            "io_read_seconds",
            "io_writes",
            "io_write_seconds",
            "wal_syncs",
            "wal_sync_seconds",
        ] {
            self.counter(&format!("pg_stat_{name}_total"), "");
        }
        for redis in ["queue", "cache"] {
            let labels = format!("redis=\"{redis}\"");
            self.gauge("redis_up", &labels, 1.0);
            self.gauge("redis_memory_used_bytes", &labels, 1e6);
            self.gauge("redis_memory_max_bytes", &labels, 1e7);
            self.gauge("redis_connected_clients", &labels, 5.0);
            for name in ["evicted_keys", "keyspace_hits", "keyspace_misses"] {
                self.counter(&format!("redis_{name}_total"), &labels);
            }
        }
        let pod = "pooler=\"rw\",address=\"10.0.0.7\"";
        let database = format!("{pod},database=\"selextract\"");
        self.gauge("pgbouncer_up", pod, 1.0);
        self.gauge("pgbouncer_databases_pool_size", &database, 20.0);
        self.counter("pgbouncer_stats_client_wait_seconds_total", &database);
        for name in [
            "client_waiting_connections",
            "server_active_connections",
            "client_maxwait_seconds",
        ] {
            let labels = format!("{database},user=\"selextract_app\"");
            self.gauge(&format!("pgbouncer_pools_{name}"), &labels, 0.0);
        }
    }

    fn worker(&mut self) {
        self.gauge("selextract_worker_busy", "", 1.0);
        self.gauge("selextract_worker_concurrency", "", 4.0);
        for name in ["task_duration", "task_wait", "page_duration", "browser_page_load"] {
            self.histogram(&format!("selextract_{name}_seconds"), "");
        }
        self.counter("selextract_worker_tasks_total", "outcome=\"succeeded\"");
        self.counter("selextract_pages_total", "engine=\"http\",outcome=\"committed\"");
        self.counter("selextract_browser_ends_total", "reason=\"retired\"");
    }

    fn operator(&mut self) {
        let cluster = "namespace=\"web\",cluster=\"shop\"";
        for (target, signals) in [
            ("api", ["cpu", "latencyP95", "errors"]),
            ("worker", ["queue", "wait", "cpu"]),
        ] {
            let labels = format!("{cluster},target=\"{target}\"");
            self.gauge("selextract_scaling_desired_replicas", &labels, 2.0);
            self.counter(
                "selextract_scaling_decisions_total",
                &format!("{labels},reason=\"CpuHigh\""),
            );
            for signal in signals {
                let labels = format!("{labels},signal=\"{signal}\"");
                self.gauge("selextract_scaling_signal_threshold", &labels, 0.7);
            }
        }
    }

    fn egress(&mut self) {
        self.counter("selextract_egress_requests_total", "result=\"forwarded\"");
        for direction in ["sent", "received"] {
            self.counter("selextract_egress_bytes_total", &format!("direction=\"{direction}\""));
        }
        self.histogram("selextract_egress_connect_seconds", "");
    }
}
