//! The alerts of the guide ("Alerting Strategy", "Performance Budgets") and those of what the guide cannot know, as Prometheus' rules. Pure.
//!
//! One alert has one name and one runbook, and up to three severities. Every alert waits (`for`), so that one lost scrape pages nobody.

mod texts;

use std::time::Duration;

use serde_json::{Value, json};

use self::texts::Text;
use super::queries::{Query, Scope, api, range, resources, stores, targets, work};
use crate::{
    slo::Burn,
    validated::{Alerts, Levels, Slo},
};

/// Who is told, and when (guide: "Alerting Strategy").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Comes as a summary.
    Info,
    /// During business hours.
    Warning,
    /// At once.
    Critical,
}

impl Severity {
    const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// As in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// How long what is measured must hold: the worse, the sooner somebody must know.
    const fn patience(self) -> Duration {
        match self {
            Self::Info => Duration::from_mins(15),
            Self::Warning => Duration::from_mins(5),
            Self::Critical => Duration::from_mins(2),
        }
    }
}

/// The groups of rules of one cluster, as in a rule file's `groups`.
pub fn groups(alerts: &Alerts, slo: &Slo, scope: Scope<'_>) -> Value {
    let of = |name: &str, every: Option<Duration>, fill: fn(&mut Group<'_>)| {
        let mut group = Group {
            alerts,
            slo,
            scope,
            rules: Vec::new(),
        };
        fill(&mut group);
        let mut told = json!({ "name": format!("selextract-{name}"), "rules": group.rules });
        if let Some(every) = every {
            told["interval"] = json!(range(every));
        }
        (!group.rules.is_empty()).then_some(told)
    };
    // What looks over hours and days is dear, and does not change in seconds.
    let (minute, minutes) = (Some(Duration::from_mins(1)), Some(Duration::from_mins(5)));
    let all = [
        of("api", None, api_alerts),
        of("budgets", None, budget_alerts),
        of("fast-burn", minute, fast_burn_alert),
        of("slow-burn", minutes, slow_burn_alert),
        of("presence", None, presence_alerts),
        of("stores", None, store_alerts),
        of("resources", None, resource_alerts),
        of("trends", None, trend_alerts),
    ];
    all.into_iter().flatten().collect()
}

/// The name of every alert, once.
pub fn names() -> impl Iterator<Item = &'static str> {
    Text::ALL.iter().map(|text| text.name)
}

/// Rules in the making.
struct Group<'a> {
    alerts: &'a Alerts,
    slo: &'a Slo,
    scope: Scope<'a>,
    rules: Vec<Value>,
}

impl Group<'_> {
    fn query(&self, query: &Query) -> String {
        query.render(&self.scope, None)
    }

    fn over(&self, query: &Query, window: Duration) -> String {
        query.render(&self.scope, Some(window))
    }

    fn add(&mut self, text: &Text, severity: Severity, expression: &str) {
        self.add_after(text, severity, severity.patience(), expression);
    }

    fn add_after(&mut self, text: &Text, severity: Severity, patience: Duration, expression: &str) {
        let mut labels = json!({ "severity": severity.as_str() });
        // What is absent has no labels of its own but those that were asked for.
        if let Scope::Cluster { namespace, name } = self.scope {
            labels["namespace"] = json!(namespace);
            labels["cluster"] = json!(name);
        }
        // Two causes of one alert are one rule: two of the same name and labels would be one series.
        let same = |rule: &&mut Value| rule["alert"] == text.name && rule["labels"] == labels;
        if let Some(rule) = self.rules.iter_mut().find(same) {
            let before = rule["expr"].as_str().unwrap_or_default();
            rule["expr"] = json!(format!("({before}) or ({expression})"));
            return;
        }
        self.rules.push(json!({
            "alert": text.name,
            "expr": expression,
            "for": range(patience),
            "labels": labels,
            "annotations": {
                "summary": text.summary,
                "description": text.description,
                "runbook_url": format!("{}/{}.md", self.alerts.runbooks, text.name),
            },
        }));
    }

    /// One alert of three severities.
    fn levels(&mut self, text: &Text, expression: &str, levels: Levels) {
        for (severity, level) in Severity::ALL.into_iter().zip(levels) {
            self.add(text, severity, &above(expression, level));
        }
    }
}

fn above(expression: &str, threshold: f64) -> String {
    format!("({expression}) > {threshold}")
}

fn is_zero(expression: &str) -> String {
    format!("({expression}) == 0")
}

fn api_alerts(group: &mut Group<'_>) {
    let thresholds = &group.alerts.thresholds;
    for (text, query, levels) in [
        (&texts::API_ERRORS, &api::ERROR_RATIO, thresholds.error_rate),
        (&texts::API_SLOW, &api::RESPONSE_P95, thresholds.response_time),
    ] {
        let expression = group.query(query);
        group.levels(text, &expression, levels);
    }
}

fn budget_alerts(group: &mut Group<'_>) {
    let thresholds = &group.alerts.thresholds;
    for (text, query, levels) in [
        (&texts::LOGIN_SLOW, &api::LOGIN_P95, thresholds.login),
        (&texts::DASHBOARD_SLOW, &api::DASHBOARD_P95, thresholds.dashboard),
        (&texts::CREATION_SLOW, &api::TASK_CREATION_P95, thresholds.task_creation),
        (&texts::RESULTS_SLOW, &api::TASK_RESULTS_P95, thresholds.task_results),
        (&texts::TASKS_SLOW, &work::TASK_P95, thresholds.task_processing),
        (&texts::QUERIES_SLOW, &stores::QUERY_P95, thresholds.database_query),
        (&texts::REDIS_SLOW, &stores::REDIS_P95, thresholds.redis),
        (&texts::QUEUE_WAIT, &work::BACKLOG_WAIT, thresholds.queue_wait),
    ] {
        let expression = group.query(query);
        group.levels(text, &expression, levels);
    }
    for (query, budget) in [
        (&stores::API_TO_DATABASE_P95, thresholds.api_to_database),
        (&stores::API_TO_REDIS_P95, thresholds.api_to_redis),
        (&stores::WORKER_TO_QUEUE_P95, thresholds.worker_to_queue),
    ] {
        let expression = above(&group.query(query), budget);
        group.add(&texts::ROUND_TRIP, Severity::Info, &expression);
    }
}

fn fast_burn_alert(group: &mut Group<'_>) {
    if let Some(expression) = Burn::Fast.expression(group.slo, &group.scope) {
        group.add(&texts::FAST_BURN, Severity::Critical, &expression);
    }
}

fn slow_burn_alert(group: &mut Group<'_>) {
    if let Some(expression) = Burn::Slow.expression(group.slo, &group.scope) {
        let patience = Duration::from_mins(15);
        group.add_after(&texts::SLOW_BURN, Severity::Warning, patience, &expression);
    }
}

fn presence_alerts(group: &mut Group<'_>) {
    let nothing = group.query(&targets::NOTHING_SCRAPED);
    group.add(&texts::NOT_MEASURED, Severity::Critical, &nothing);
    for (text, query) in [
        (&texts::API_DOWN, &targets::API_TARGETS),
        (&texts::API_DOWN, &targets::API_READY),
        (&texts::KEEPER_DOWN, &targets::KEEPER_TARGETS),
        (&texts::NO_ACTIVE_KEEPER, &targets::ACTIVE_KEEPERS),
        (&texts::EGRESS_DOWN, &targets::EGRESS_TARGETS),
        (&texts::EXPORTER_SILENT, &targets::EXPORTED),
        (&texts::EXPORTER_SILENT, &targets::DATABASE_EXPORTED),
    ] {
        let expression = is_zero(&group.query(query));
        group.add(text, Severity::Critical, &expression);
    }
    // No worker is right where there is nothing to do.
    let workers = is_zero(&group.query(&targets::WORKER_TARGETS));
    let waiting = format!("({}) > 0", group.query(&work::BACKLOG));
    let expression = format!("({workers}) and on (namespace, cluster) ({waiting})");
    group.add(&texts::WORKERS_DOWN, Severity::Critical, &expression);
    let silent = format!("({}) > 0", group.query(&targets::TARGETS_DOWN));
    group.add(&texts::POD_SILENT, Severity::Warning, &silent);
    let restarts = format!("({}) > 3", group.over(&resources::RESTARTS, Duration::from_mins(15)));
    group.add_after(&texts::RESTARTS, Severity::Warning, Duration::from_mins(1), &restarts);
}

fn store_alerts(group: &mut Group<'_>) {
    let thresholds = &group.alerts.thresholds;
    for (text, query, severity) in [
        (&texts::DATABASE_DOWN, &stores::DATABASE_REACHABLE, Severity::Critical),
        (&texts::QUEUE_DOWN, &stores::QUEUE_REACHABLE, Severity::Critical),
        (&texts::CACHE_DOWN, &stores::CACHE_REACHABLE, Severity::Warning),
    ] {
        let expression = is_zero(&group.query(query));
        group.add_after(text, severity, Duration::from_mins(1), &expression);
    }
    for (text, query, levels) in [
        (
            &texts::REPLICATION_LAG,
            &stores::REPLICATION_LAG,
            thresholds.replication_lag,
        ),
        (
            &texts::CONNECTIONS,
            &stores::CONNECTION_RATIO,
            thresholds.database_connections,
        ),
        (&texts::QUEUE_MEMORY, &stores::QUEUE_MEMORY_RATIO, thresholds.memory),
    ] {
        let expression = group.query(query);
        group.levels(text, &expression, levels);
    }
    // A replica that is no longer wanted has its slot for five minutes.
    let gone = is_zero(&group.query(&stores::REPLICA_CONNECTED));
    group.add_after(&texts::REPLICA_DOWN, Severity::Warning, Duration::from_mins(10), &gone);
    let evictions = format!("({}) > 0", group.query(&stores::REDIS_EVICTIONS));
    group.add(&texts::EVICTIONS, Severity::Info, &evictions);
    // A request gives up after two seconds without a connection.
    let waiting = format!("({}) > 1", group.query(&stores::POOLER_MAX_WAIT));
    group.add_after(&texts::POOLER_FULL, Severity::Warning, Duration::from_mins(1), &waiting);
    let deadlocks = format!("({}) > 0", group.query(&stores::DEADLOCKS));
    group.add(&texts::DEADLOCKS, Severity::Info, &deadlocks);
}

fn resource_alerts(group: &mut Group<'_>) {
    let thresholds = &group.alerts.thresholds;
    for (text, query, levels) in [
        (&texts::CPU, &resources::CPU_RATIO, thresholds.cpu),
        (&texts::MEMORY, &resources::MEMORY_RATIO, thresholds.memory),
        (&texts::DISK, &resources::STORAGE_RATIO, thresholds.disk),
    ] {
        let expression = group.query(query);
        group.levels(text, &expression, levels);
    }
    let busiest = group.query(&resources::NETWORK_BUSIEST);
    let share = format!("({busiest}) / {}", group.alerts.network_bytes);
    group.levels(&texts::NETWORK, &share, thresholds.network);
    let kills = format!("({}) > 0", group.query(&resources::OOM_KILLS));
    group.add_after(&texts::OOM, Severity::Warning, Duration::from_mins(1), &kills);
}

fn trend_alerts(group: &mut Group<'_>) {
    const HOUR: Duration = Duration::from_hours(1);
    let thresholds = &group.alerts.thresholds;
    let (response, resource) = (
        1.0 + thresholds.response_time_increase,
        1.0 + thresholds.resource_increase,
    );
    for (text, query, most) in [
        (&texts::RESPONSE_TREND, &api::RESPONSE_TREND, response),
        (&texts::RESOURCE_TREND, &resources::CPU_TREND, resource),
        (&texts::RESOURCE_TREND, &resources::MEMORY_TREND, resource),
    ] {
        let expression = above(&group.over(query, HOUR), most);
        group.add(text, Severity::Info, &expression);
    }
    let filling = group.over(&resources::STORAGE_IN_FOUR_DAYS, 6 * HOUR);
    group.add_after(&texts::DISK_FILLS, Severity::Info, HOUR, &above(&filling, 1.0));
    let backlog = above(&group.query(&work::BACKLOG), thresholds.backlog);
    group.add(&texts::BACKLOG, Severity::Info, &backlog);
}

#[cfg(test)]
mod tests;
