//! promtool plays a healthy platform and what goes wrong with it: each alert fires then, and no other does.

use std::collections::BTreeSet;

use selextract_operator::monitoring::alerts::names;
use selextract_test_services::promtool;
use serde_json::{Value, json};

use super::{
    files, files_of,
    series::{POOLER, Series, growing, healthy, histogram, name, route, steady},
};

const ALL: [&str; 3] = ["info", "warning", "critical"];
const FAST_BURN: (&str, &[&str]) = ("ErrorBudgetFastBurn", &["critical"]);
const SLOW_BURN: (&str, &[&str]) = ("ErrorBudgetSlowBurn", &["warning"]);

/// Something that goes wrong: what differs from a healthy platform (nothing is a series that is gone), and which alerts fire.
struct Case {
    changed: Vec<(String, Option<String>)>,
    fires: Vec<(&'static str, &'static [&'static str])>,
}

fn case(
    changed: impl IntoIterator<Item = (String, String)>,
    fires: &[(&'static str, &'static [&'static str])],
) -> Case {
    Case {
        changed: changed.into_iter().map(|(name, values)| (name, Some(values))).collect(),
        fires: fires.to_vec(),
    }
}

fn one(metric: &str, labels: &str, values: String, fires: &[(&'static str, &'static [&'static str])]) -> Case {
    case([(name(metric, labels), values)], fires)
}

/// A part whose pods are gone: Prometheus finds no target any more.
fn gone(component: &str, fires: &[(&'static str, &'static [&'static str])]) -> Case {
    let own = |series: &&String| series.contains(&format!("component=\"{component}\""));
    Case {
        changed: healthy()
            .keys()
            .filter(own)
            .map(|series| (series.clone(), None))
            .collect(),
        fires: fires.to_vec(),
    }
}

fn api_cases() -> Vec<Case> {
    let errors = |share: f64| growing(30_000.0 * share);
    let labels = "component=\"api\",code=\"5xx\"";
    let slow = |method: &str, path: &str, seconds: f64, fires: &[(&'static str, &'static [&'static str])]| {
        case(
            histogram("http_request_duration_seconds", &route(method, path), seconds),
            fires,
        )
    };
    // A quarter of the requests is beyond a second, so the API's own P95 is, too.
    vec![
        one("http_requests_total", labels, errors(0.0005), &[]),
        one(
            "http_requests_total",
            labels,
            errors(0.005),
            &[("ApiErrorRate", &["info"])],
        ),
        one(
            "http_requests_total",
            labels,
            errors(0.02),
            &[("ApiErrorRate", &["info", "warning"])],
        ),
        one("http_requests_total", labels, errors(0.1), &[("ApiErrorRate", &ALL)]),
        slow("POST", "/api/v1/auth/login", 0.1, &[]),
        slow("POST", "/api/v1/auth/login", 0.3, &[("LoginSlow", &["info"])]),
        slow(
            "POST",
            "/api/v1/auth/login",
            0.8,
            &[("LoginSlow", &["info", "warning"]), ("ApiResponseTime", &["info"])],
        ),
        slow("GET", "/api/v1/dashboard/stats", 0.5, &[("DashboardSlow", &["info"])]),
        slow(
            "POST",
            "/api/v1/tasks",
            0.8,
            &[("TaskCreationSlow", &["info"]), ("ApiResponseTime", &["info"])],
        ),
        slow(
            "GET",
            "/api/v1/tasks/{id}/results",
            0.5,
            &[("TaskResultsSlow", &["info"])],
        ),
        slow(
            "GET",
            "/api/v1/tasks/{id}/results",
            10.0,
            &[("TaskResultsSlow", &ALL), ("ApiResponseTime", &ALL)],
        ),
        slow(
            "POST",
            "/api/v1/tasks",
            10.0,
            &[("TaskCreationSlow", &ALL), ("ApiResponseTime", &ALL)],
        ),
        slow(
            "GET",
            "/api/v1/dashboard/stats",
            10.0,
            &[("DashboardSlow", &ALL), ("ApiResponseTime", &ALL)],
        ),
        slow(
            "POST",
            "/api/v1/auth/login",
            10.0,
            &[("LoginSlow", &ALL), ("ApiResponseTime", &ALL)],
        ),
    ]
}

fn budget_cases() -> Vec<Case> {
    let slow = |metric: &str, labels: &str, seconds: f64, alert: &'static str, severities: &'static [&'static str]| {
        case(histogram(metric, labels, seconds), &[(alert, severities)])
    };
    let (query, redis) = (
        "component=\"api\",operation=\"select\"",
        "component=\"api\",redis=\"queue\",operation=\"offer\"",
    );
    let wait = |seconds: f64| {
        (
            name("selextract_queue_wait_seconds", "component=\"keeper\""),
            steady(seconds),
        )
    };
    vec![
        slow(
            "selextract_task_duration_seconds",
            "component=\"worker\"",
            60.0,
            "TaskProcessingSlow",
            &["info"],
        ),
        slow(
            "selextract_task_duration_seconds",
            "component=\"worker\"",
            120.0,
            "TaskProcessingSlow",
            &["info", "warning"],
        ),
        slow(
            "selextract_task_duration_seconds",
            "component=\"worker\"",
            180.0,
            "TaskProcessingSlow",
            &ALL,
        ),
        slow(
            "selextract_database_query_duration_seconds",
            query,
            0.2,
            "DatabaseQueriesSlow",
            &["info"],
        ),
        slow(
            "selextract_database_query_duration_seconds",
            query,
            1.5,
            "DatabaseQueriesSlow",
            &ALL,
        ),
        slow(
            "selextract_redis_operation_duration_seconds",
            redis,
            0.025,
            "RedisSlow",
            &["info"],
        ),
        slow(
            "selextract_redis_operation_duration_seconds",
            redis,
            0.2,
            "RedisSlow",
            &ALL,
        ),
        case([wait(6.0)], &[("QueueWait", &["info"])]),
        case([wait(40.0)], &[("QueueWait", &["info", "warning"])]),
        case([wait(70.0)], &[("QueueWait", &ALL)]),
        slow(
            "selextract_round_trip_seconds",
            "component=\"api\",to=\"postgres\"",
            0.01,
            "RoundTripSlow",
            &["info"],
        ),
        slow(
            "selextract_round_trip_seconds",
            "component=\"api\",to=\"redis-queue\"",
            0.0025,
            "RoundTripSlow",
            &["info"],
        ),
        slow(
            "selextract_round_trip_seconds",
            "component=\"worker\",to=\"redis-queue\"",
            0.2,
            "RoundTripSlow",
            &["info"],
        ),
    ]
}

fn presence_cases() -> Vec<Case> {
    let critical: &[&str] = &["critical"];
    let up = |component: &str| format!("component=\"{component}\",pod=\"shop-{component}-0\"");
    let mut nothing = healthy();
    nothing.values_mut().for_each(String::clear);
    vec![
        Case {
            changed: nothing.into_keys().map(|series| (series, None)).collect(),
            fires: vec![("PlatformNotMeasured", critical)],
        },
        gone("api", &[("ApiDown", critical)]),
        one(
            "up",
            &up("api"),
            steady(0.0),
            &[("ApiDown", critical), ("PodNotMeasured", &["warning"])],
        ),
        // Whom no Service leads to counts no request that fails.
        one(
            "selextract_api_ready",
            &up("api"),
            steady(0.0),
            &[("ApiDown", critical)],
        ),
        // One lost scrape pages nobody.
        one("up", &up("api"), "1x100 0x0 1x150".to_owned(), &[]),
        one("up", &up("api"), "1x197 0x1 1x50".to_owned(), &[]),
        gone(
            "keeper",
            &[
                ("KeeperDown", critical),
                ("NoActiveKeeper", critical),
                ("ExporterSilent", critical),
            ],
        ),
        gone("egress", &[("EgressDown", critical)]),
        gone("worker", &[("WorkersDown", critical)]),
        one(
            "selextract_keeper_active",
            "component=\"keeper\"",
            steady(0.0),
            &[("NoActiveKeeper", critical)],
        ),
        Case {
            changed: vec![(name("pg_settings_max_connections", "component=\"keeper\""), None)],
            fires: vec![("ExporterSilent", critical)],
        },
        one(
            "process_start_time_seconds",
            &up("worker"),
            growing(7.0),
            &[("ProgramRestarts", &["warning"])],
        ),
    ]
}

fn store_cases() -> Vec<Case> {
    let down = |dependency: &str| format!("component=\"keeper\",dependency=\"{dependency}\"");
    let connections = "component=\"keeper\",datname=\"selextract\"";
    let lag = "component=\"keeper\",replica=\"0\"";
    let queue = "component=\"keeper\",redis=\"queue\"";
    let cache = "component=\"keeper\",redis=\"cache\"";
    vec![
        one(
            "selextract_dependency_up",
            &down("postgres"),
            steady(0.0),
            &[("DatabaseDown", &["critical"])],
        ),
        one(
            "selextract_dependency_up",
            &down("pgbouncer"),
            steady(0.0),
            &[("DatabaseDown", &["critical"])],
        ),
        one(
            "selextract_dependency_up",
            &down("redis-queue"),
            steady(0.0),
            &[("QueueDown", &["critical"])],
        ),
        one(
            "selextract_dependency_up",
            &down("redis-cache"),
            steady(0.0),
            &[("CacheDown", &["warning"])],
        ),
        one(
            "pg_replication_lag_seconds",
            lag,
            steady(20.0),
            &[("ReplicationLag", &["info"])],
        ),
        one(
            "pg_replication_lag_seconds",
            lag,
            steady(400.0),
            &[("ReplicationLag", &ALL)],
        ),
        one(
            "pg_replication_slots_active",
            "component=\"keeper\",slot_name=\"replica_0\"",
            steady(0.0),
            &[("ReplicaDown", &["warning"])],
        ),
        one(
            "pg_stat_database_numbackends",
            connections,
            steady(75.0),
            &[("DatabaseConnections", &["info"])],
        ),
        one(
            "pg_stat_database_numbackends",
            connections,
            steady(97.0),
            &[("DatabaseConnections", &ALL)],
        ),
        one(
            "redis_memory_used_bytes",
            queue,
            steady(92.0),
            &[("QueueMemory", &["info", "warning"])],
        ),
        // A full cache is as it should be.
        one("redis_memory_used_bytes", cache, steady(100.0), &[]),
        one(
            "redis_evicted_keys_total",
            cache,
            growing(5.0),
            &[("CacheEvictions", &["info"])],
        ),
        one(
            "pgbouncer_pools_client_maxwait_seconds",
            POOLER,
            steady(1.5),
            &[("PoolerFull", &["warning"])],
        ),
        one(
            "pg_stat_database_deadlocks_total",
            connections,
            growing(1.0),
            &[("DatabaseDeadlocks", &["info"])],
        ),
    ]
}

fn resource_cases() -> Vec<Case> {
    let worker = "component=\"worker\",pod=\"shop-worker-0\"";
    let cpu = |share: f64| growing(30.0 * share);
    let memory = |share: f64| steady(1000.0 * share);
    let (cpu_name, memory_name) = (
        "selextract_container_cpu_seconds_total",
        "selextract_container_memory_working_set_bytes",
    );
    let (sent, volume) = (
        "selextract_container_network_transmitted_bytes_total",
        "component=\"keeper\",volume=\"postgres\"",
    );
    vec![
        one(cpu_name, worker, cpu(0.65), &[("CpuUsage", &["info"])]),
        one(cpu_name, worker, cpu(0.85), &[("CpuUsage", &["info", "warning"])]),
        one(cpu_name, worker, cpu(0.98), &[("CpuUsage", &ALL)]),
        one(memory_name, worker, memory(0.75), &[("MemoryUsage", &["info"])]),
        one(memory_name, worker, memory(0.88), &[("MemoryUsage", &["info"])]),
        one(
            memory_name,
            worker,
            memory(0.92),
            &[("MemoryUsage", &["info", "warning"])],
        ),
        one(memory_name, worker, memory(0.97), &[("MemoryUsage", &ALL)]),
        one(
            "selextract_storage_used_bytes",
            volume,
            steady(75e9),
            &[("DiskUsage", &["info"])],
        ),
        one(
            "selextract_storage_used_bytes",
            volume,
            steady(90e9),
            &[("DiskUsage", &["info", "warning"])],
        ),
        one(
            "selextract_storage_used_bytes",
            volume,
            steady(97e9),
            &[("DiskUsage", &ALL)],
        ),
        one(
            "selextract_storage_used_bytes",
            volume,
            format!("{}+{}x260", 30e9, 1e7),
            &[("DiskFillsUp", &["info"])],
        ),
        one(
            sent,
            worker,
            growing(125e6 * 30.0 * 0.6),
            &[("NetworkBandwidth", &["info"])],
        ),
        one(
            sent,
            worker,
            growing(125e6 * 30.0 * 0.97),
            &[("NetworkBandwidth", &ALL)],
        ),
        one(
            "selextract_container_oom_kills_total",
            worker,
            growing(1.0),
            &[("OutOfMemoryKills", &["warning"])],
        ),
        one(
            "selextract_queue_runnable_tasks",
            "component=\"keeper\"",
            steady(150.0),
            &[("TaskBacklog", &["info"])],
        ),
    ]
}

fn cases() -> Vec<Case> {
    let healthy = Case {
        changed: Vec::new(),
        fires: Vec::new(),
    };
    std::iter::once(healthy)
        .chain(api_cases())
        .chain(budget_cases())
        .chain(presence_cases())
        .chain(store_cases())
        .chain(resource_cases())
        .collect()
}

fn played(interval: &str, series: &Series, at: &str, fires: &[(&str, &[&str])]) -> Value {
    let input: Vec<_> = series
        .iter()
        .map(|(series, values)| json!({ "series": series, "values": values }))
        .collect();
    let expected = fires.iter().flat_map(|(alert, severities)| {
        severities
            .iter()
            .map(move |severity| json!({ "labels": format!("{{alertname=\"{alert}\",severity=\"{severity}\"}}"), "value": 1 }))
    });
    json!({
        "interval": interval,
        "input_series": input,
        "promql_expr_test": [{
            "expr": "group by (alertname, severity) (ALERTS{alertstate=\"firing\"})",
            "eval_time": at,
            "exp_samples": expected.collect::<Vec<_>>(),
        }],
    })
}

fn test_of(case: &Case) -> Value {
    let mut series = healthy();
    for (name, values) in &case.changed {
        match values {
            Some(values) => series.insert(name.clone(), values.clone()),
            None => series.remove(name),
        };
    }
    played("30s", &series, "100m", &case.fires)
}

/// Where nothing is promised: what the budget burns is played by itself, over hours.
fn judge(every: &str, tests: &[Value]) {
    let spec = json!({ "profile": "Small", "slo": { "profile": "Development" } });
    judge_of(&spec, &["alerts.yml"], every, tests);
}

/// Where availability is promised; what is recorded is recorded every minute.
fn judge_promises(tests: &[Value]) {
    judge_of(
        &json!({ "profile": "Small" }),
        &["records.yml", "alerts.yml"],
        "1m",
        tests,
    );
}

fn judge_of(spec: &Value, files: &[&str], every: &str, tests: &[Value]) {
    let (_, rules) = files_of(spec);
    let suite = json!({ "rule_files": files, "evaluation_interval": every, "tests": tests }).to_string();
    let files = files.iter().map(|file| (*file, rules[*file].as_str()));
    let files: Vec<_> = files.chain([("suite.yml", suite.as_str())]).collect();
    promtool(&files, &["test", "rules", "suite.yml"]).unwrap();
}

#[test]
fn each_alert_fires_when_it_should_and_no_other_does() {
    let tests: Vec<_> = cases().iter().map(test_of).collect();
    judge("30s", &tests);
}

/// A counter or a value over eight days in steps of ten minutes, `before` for seven days and `after` on the last.
fn week(before: f64, after: f64, grows: bool) -> String {
    let (first, then) = (7 * 144, 144);
    if grows {
        format!(
            "0+{before}x{first} {}+{after}x{then}",
            before * f64::from(first) + after
        )
    } else {
        format!("{before}x{first} {after}x{then}")
    }
}

/// Of an API alone: what it uses on the last day as a multiple of the days before, and the shares of requests below each edge then.
fn grown(cpu: f64, memory: f64, shares: [f64; 4]) -> Series {
    let pod = "component=\"api\",pod=\"shop-api-0\"";
    let mut series = Series::new();
    series.insert(name("up", pod), "1x1200".to_owned());
    series.insert(
        name("selextract_container_cpu_seconds_total", pod),
        week(60.0, 60.0 * cpu, true),
    );
    let memory = week(400.0, 400.0 * memory, false);
    series.insert(name("selextract_container_memory_working_set_bytes", pod), memory);
    for ((edge, before), after) in EDGES.into_iter().zip(QUICK).zip(shares) {
        let labels = format!("component=\"api\",method=\"GET\",route=\"/api/v1/tasks\",le=\"{edge}\"");
        let values = week(600.0 * before, 600.0 * after, true);
        series.insert(name("http_request_duration_seconds_bucket", &labels), values);
    }
    series
}

const EDGES: [&str; 4] = ["0.1", "0.2", "0.5", "+Inf"];
/// P95 at 192 ms.
const QUICK: [f64; 4] = [0.5, 0.99, 1.0, 1.0];

#[test]
fn what_grew_since_last_week_is_told_and_what_did_not_is_not() {
    // Only the API is there, so that the others are missing is told, too.
    let missing =
        ["KeeperDown", "NoActiveKeeper", "EgressDown", "ExporterSilent"].map(|alert| (alert, &["critical"][..]));
    let with = |more: &'static str| -> Vec<(&str, &[&str])> {
        let more = (!more.is_empty()).then_some((more, &["info"][..]));
        missing.into_iter().chain(more).collect()
    };
    let tests = [
        (grown(1.1, 1.1, [0.1, 0.99, 1.0, 1.0]), ""),
        (grown(1.5, 1.0, QUICK), "ResourceUsageTrend"),
        (grown(1.0, 1.5, QUICK), "ResourceUsageTrend"),
        (grown(1.0, 1.0, [0.0, 0.5, 0.99, 1.0]), "ResponseTimeTrend"),
    ];
    let tests = tests.map(|(series, told)| played("10m", &series, "190h", &with(told)));
    judge("10m", &tests);
}

/// Ten hours of an API alone, minute by minute: no pod of it is up between two of the minutes, and so many requests of 10,000 fail.
fn ten_hours(down: Option<(u32, u32)>, failed: u32) -> Series {
    let values = match down {
        None => "1x600".to_owned(),
        Some((0, to)) => format!("0x{} 1x{}", to - 1, 600 - to),
        Some((from, to)) => format!("1x{} 0x{} 1x{}", from - 1, to - from - 1, 600 - to),
    };
    let growing = |step: u32| format!("0+{step}x600");
    let requests = |code: &str| name("http_requests_total", &format!("component=\"api\",code=\"{code}\""));
    [
        (name("up", "component=\"api\",pod=\"shop-api-0\""), values),
        (
            name("up", "component=\"prometheus\",pod=\"shop-prometheus-0\""),
            "1x600".to_owned(),
        ),
        (requests("2xx"), growing(10_000 - failed)),
        (requests("5xx"), growing(failed)),
    ]
    .into()
}

#[test]
fn a_budget_that_burns_fast_pages_and_one_that_burns_slowly_warns() {
    type Fires<'a> = (&'a str, &'a [&'a str]);
    let critical: &[&str] = &["critical"];
    // Only the API is there, so that the others are missing is told, too.
    let missing = ["KeeperDown", "NoActiveKeeper", "EgressDown", "ExporterSilent"].map(|alert| (alert, critical));
    let play = |down: Option<(u32, u32)>, failed: u32, at: &str, fires: &[Fires<'static>]| {
        let fires: Vec<_> = missing.iter().chain(fires).copied().collect();
        played("1m", &ten_hours(down, failed), at, &fires)
    };
    let (info, warned) = (("ApiErrorRate", &ALL[..1]), ("ApiErrorRate", &ALL[..2]));
    let tests = [
        play(None, 0, "10h", &[]),
        play(None, 9, "10h", &[]),
        play(None, 50, "10h", &[info, SLOW_BURN]),
        play(None, 200, "10h", &[warned, FAST_BURN, SLOW_BURN]),
        // Of half an hour and of six hours, six minutes are 20 % and 1.7 %, and two minutes 6.7 % and 0.6 %.
        play(Some((570, 576)), 0, "590m", &[FAST_BURN, SLOW_BURN]),
        play(Some((570, 572)), 0, "590m", &[SLOW_BURN]),
        play(Some((480, 486)), 0, "590m", &[SLOW_BURN]),
        // A platform that is being made, soon after and later.
        play(Some((0, 10)), 0, "30m", &[]),
        play(Some((0, 10)), 0, "9h", &[]),
    ];
    judge_promises(&tests);
    let unpromised = [play(Some((570, 576)), 200, "590m", &[warned])];
    judge("5m", &unpromised);
}

#[test]
fn every_alert_is_played() {
    let played: BTreeSet<&str> = cases()
        .iter()
        .flat_map(|case| case.fires.iter().map(|(alert, _)| *alert))
        .collect();
    let known: BTreeSet<&str> = names().collect();
    let missing: Vec<_> = known.difference(&played).collect();
    assert_eq!(
        missing,
        [
            &"ErrorBudgetFastBurn",
            &"ErrorBudgetSlowBurn",
            &"ResourceUsageTrend",
            &"ResponseTimeTrend",
        ],
        "those are played over hours or a week"
    );
}

#[test]
fn promtool_finds_nothing_wrong_with_rules_and_configuration() {
    let alertmanagers = json!({ "alerts": { "alertmanagers": ["http://alertmanager.monitoring.svc:9093", "https://alerts.example.org/team"] } });
    let kubelets = json!({ "prometheus": { "managed": { "kubeletMetrics": true } } });
    for monitoring in [
        json!({}),
        alertmanagers,
        kubelets,
        json!({ "alerts": { "enabled": false } }),
    ] {
        let (configuration, rules) = files(&monitoring);
        let syntax = ["check", "config", "--syntax-only", "prometheus.yml"];
        promtool(&[("prometheus.yml", &configuration)], &syntax).unwrap();
        for (file, rules) in &rules {
            promtool(
                &[(file, rules)],
                &["check", "rules", "--lint=all", "--lint-fatal", file],
            )
            .unwrap();
        }
    }
}
