//! Grafana's dashboards (guide: "Grafana Dashboards"), drawn from the catalogue of queries. Pure.

use serde_json::{Value, json};

use super::queries::{Query, Unit, api, resources, scaling, stores, targets, work};

/// A dashboard: panels in rows.
pub struct Dashboard {
    /// What it is called in names of objects and files.
    pub slug: &'static str,
    title: &'static str,
    rows: &'static [Row],
}

struct Row {
    title: &'static str,
    panels: &'static [Panel],
}

/// One panel: what it is called and the queries that it draws.
struct Panel(&'static str, Kind, &'static [Query]);

#[derive(Clone, Copy)]
enum Kind {
    /// The last value, large.
    Stat,
    /// A line for each series.
    Lines,
}

use Kind::{Lines, Stat};

/// How wide Grafana's grid is.
const GRID: usize = 24;

const OVERVIEW: Dashboard = Dashboard {
    slug: "system-overview",
    title: "System Overview",
    rows: &[
        Row {
            title: "Now",
            panels: &[
                Panel("Request rate", Stat, &[api::REQUEST_RATE]),
                Panel("Response time P95", Stat, &[api::RESPONSE_P95]),
                Panel("Error rate", Stat, &[api::ERROR_RATIO]),
                Panel("Tasks that wait for a worker", Stat, &[work::BACKLOG]),
                Panel("Task success rate", Stat, &[work::TASK_SUCCESS_RATIO]),
                Panel("Active users", Stat, &[work::ACTIVE_USERS]),
            ],
        },
        Row {
            title: "Parts",
            panels: &[
                Panel("Pods that answer", Lines, &[targets::TARGETS]),
                Panel("Stores that answer", Lines, &[stores::DEPENDENCIES]),
            ],
        },
        Row {
            title: "Traffic",
            panels: &[
                Panel("Requests and throughput", Lines, &[api::REQUEST_RATE, api::THROUGHPUT]),
                Panel("Tasks", Lines, &[work::TASKS_ACCEPTED, work::TASKS_ENDED]),
            ],
        },
    ],
};

const PERFORMANCE: Dashboard = Dashboard {
    slug: "performance-deep-dive",
    title: "Performance Deep Dive",
    rows: &[
        Row {
            title: "API",
            panels: &[
                Panel(
                    "Response times",
                    Lines,
                    &[api::RESPONSE_P50, api::RESPONSE_P95, api::RESPONSE_P99],
                ),
                Panel("P95 by route", Lines, &[api::RESPONSE_P95_BY_ROUTE]),
                Panel(
                    "Response Time Budget",
                    Lines,
                    &[
                        api::LOGIN_P95,
                        api::DASHBOARD_P95,
                        api::TASK_CREATION_P95,
                        api::TASK_RESULTS_P95,
                    ],
                ),
                Panel("Requests by route", Lines, &[api::REQUEST_RATE_BY_ROUTE]),
            ],
        },
        Row {
            title: "Tasks",
            panels: &[
                Panel("From claim to end", Lines, &[work::TASK_P95, work::TASK_MEAN]),
                Panel("Wait for a worker", Lines, &[work::TASK_WAIT_P95, work::BACKLOG_WAIT]),
                Panel("Pages", Lines, &[work::PAGES]),
                Panel(
                    "Loading pages and reaching sites",
                    Lines,
                    &[work::PAGE_LOAD_P95, work::EGRESS_CONNECT_P95],
                ),
            ],
        },
        Row {
            title: "Stores",
            panels: &[
                Panel("Statements P95", Lines, &[stores::QUERY_P95_BY_OPERATION]),
                Panel("Redis P95", Lines, &[stores::REDIS_P95]),
                Panel("Round trips P95", Lines, &[stores::ROUND_TRIP_P95]),
                Panel(
                    "Cache hits",
                    Lines,
                    &[stores::DATABASE_HIT_RATIO, stores::REDIS_HIT_RATIO],
                ),
            ],
        },
    ],
};

const RESOURCES: Dashboard = Dashboard {
    slug: "resource-utilization",
    title: "Resource Utilization",
    rows: &[
        Row {
            title: "CPU and memory",
            panels: &[
                Panel(
                    "CPU of what is there",
                    Lines,
                    &[resources::CPU_RATIO, resources::CPU_OVERALL],
                ),
                Panel("Memory of what is there", Lines, &[resources::MEMORY_RATIO]),
                Panel("Cores", Lines, &[resources::CPU, resources::CPU_THROTTLED]),
                Panel("Memory", Lines, &[resources::MEMORY]),
                Panel("Cores, by the kubelets", Lines, &[resources::KUBELET_CPU]),
                Panel("Memory, by the kubelets", Lines, &[resources::KUBELET_MEMORY]),
                Panel(
                    "Memory of what is there, by the kubelets",
                    Lines,
                    &[resources::KUBELET_MEMORY_RATIO],
                ),
            ],
        },
        Row {
            title: "Disk and network",
            panels: &[
                Panel(
                    "Volumes",
                    Lines,
                    &[resources::STORAGE_RATIO, resources::STORAGE_IN_FOUR_DAYS],
                ),
                Panel("Disk I/O", Lines, &[resources::DISK_READ, resources::DISK_WRITTEN]),
                Panel(
                    "Disk operations",
                    Lines,
                    &[resources::DISK_READS, resources::DISK_WRITES],
                ),
                Panel("Waiting for disks", Lines, &[resources::DISK_WAITING]),
                Panel(
                    "The database's disk",
                    Lines,
                    &[
                        stores::DATABASE_READ_TIME,
                        stores::DATABASE_WRITE_TIME,
                        stores::DATABASE_SYNC_TIME,
                    ],
                ),
                Panel(
                    "Network I/O",
                    Lines,
                    &[resources::NETWORK_RECEIVED, resources::NETWORK_TRANSMITTED],
                ),
                Panel("TCP segments sent again", Lines, &[resources::RETRANSMIT_RATIO]),
            ],
        },
        Row {
            title: "Stores",
            panels: &[
                Panel("Database connections", Lines, &[stores::CONNECTION_RATIO]),
                Panel("Pools", Lines, &[stores::POOL_RATIO]),
                Panel(
                    "Connections of the poolers",
                    Lines,
                    &[stores::POOLER_ACTIVE, stores::POOLER_SIZE],
                ),
                Panel("Redis memory", Lines, &[stores::REDIS_MEMORY_RATIO]),
                Panel("Database size", Lines, &[stores::DATABASE_SIZE]),
                Panel("Replication lag", Lines, &[stores::REPLICATION_LAG]),
                Panel("Read replicas that follow", Lines, &[stores::REPLICA_CONNECTED]),
            ],
        },
    ],
};

const ERRORS: Dashboard = Dashboard {
    slug: "error-analysis",
    title: "Error Analysis",
    rows: &[
        Row {
            title: "API",
            panels: &[
                Panel("Error rates", Lines, &[api::ERROR_RATIO, api::CLIENT_ERROR_RATIO]),
                Panel("Answers by class", Lines, &[api::RATE_BY_CODE]),
                Panel("5xx by route", Lines, &[api::ERRORS_BY_ROUTE]),
                Panel("Sign-ins that succeed", Lines, &[api::LOGIN_SUCCESS_RATIO]),
            ],
        },
        Row {
            title: "Work",
            panels: &[
                Panel("Tasks by outcome", Lines, &[work::TASKS_ENDED]),
                Panel("Pages by outcome", Lines, &[work::PAGES]),
                Panel("Requests to sites by result", Lines, &[work::EGRESS_REQUESTS]),
                Panel("Browsers that ended", Lines, &[work::BROWSERS_ENDED]),
            ],
        },
        Row {
            title: "Parts",
            panels: &[
                Panel("Restarts", Lines, &[resources::RESTARTS]),
                Panel("Kills for memory", Lines, &[resources::OOM_KILLS]),
                Panel("Pods that do not answer", Lines, &[targets::TARGETS_DOWN]),
                Panel(
                    "Rollbacks and deadlocks",
                    Lines,
                    &[stores::ROLLBACKS, stores::DEADLOCKS],
                ),
            ],
        },
    ],
};

const SCALING: Dashboard = Dashboard {
    slug: "scaling",
    title: "Scaling",
    rows: &[
        Row {
            title: "Pods",
            panels: &[
                Panel("API pods", Lines, &[targets::API_TARGETS, scaling::API_DECIDED]),
                Panel("Workers", Lines, &[targets::WORKER_TARGETS, scaling::WORKER_DECIDED]),
                Panel("Changes by reason", Lines, &[scaling::DECISIONS]),
            ],
        },
        Row {
            title: "What the API is scaled by",
            panels: &[
                Panel("CPU", Lines, &[scaling::API_CPU, scaling::API_CPU_LIMIT]),
                Panel(
                    "Response time P95",
                    Lines,
                    &[api::RESPONSE_P95, scaling::API_LATENCY_LIMIT],
                ),
                Panel("Error rate", Lines, &[api::ERROR_RATIO, scaling::API_ERRORS_LIMIT]),
            ],
        },
        Row {
            title: "What the workers are scaled by",
            panels: &[
                Panel(
                    "Tasks that could begin",
                    Lines,
                    &[work::BACKLOG, scaling::WORKER_QUEUE_LIMIT],
                ),
                Panel("Tasks that something else holds", Lines, &[work::BACKLOG_HELD]),
                Panel(
                    "Wait",
                    Lines,
                    &[work::BACKLOG_WAIT, work::BACKLOG_OLDEST, scaling::WORKER_WAIT_LIMIT],
                ),
                Panel("CPU", Lines, &[scaling::WORKER_CPU, scaling::WORKER_CPU_LIMIT]),
                Panel("Places that are taken", Lines, &[work::WORKERS_BUSY]),
            ],
        },
        Row {
            title: "What holds",
            panels: &[
                Panel("Stores that answer", Lines, &[scaling::DEPENDENCIES]),
                Panel("Database connections", Lines, &[stores::CONNECTION_RATIO]),
                Panel(
                    "Clients that wait at the pooler",
                    Lines,
                    &[stores::POOLER_WAITING, stores::POOLER_WAITED],
                ),
            ],
        },
    ],
};

/// Every dashboard.
pub const ALL: [Dashboard; 5] = [OVERVIEW, PERFORMANCE, RESOURCES, ERRORS, SCALING];

impl Dashboard {
    /// As Grafana imports it; `uid` is one of its own.
    pub fn render(&self, uid: &str) -> Value {
        json!({
            "uid": uid,
            "title": format!("Selextract / {}", self.title),
            "tags": ["selextract"],
            "schemaVersion": 39,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-3h", "to": "now" },
            "timezone": "browser",
            "annotations": { "list": [] },
            "links": [],
            "templating": { "list": variables() },
            "panels": self.panels(),
        })
    }

    fn panels(&self) -> Vec<Value> {
        let (mut panels, mut top) = (Vec::new(), 0);
        for row in self.rows {
            let id = panels.len() + 1;
            panels.push(json!({
                "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": top, "w": GRID, "h": 1 },
            }));
            top += 1;
            let stats = row.panels.iter().all(|panel| matches!(panel.1, Stat));
            let (width, height) = if stats {
                (GRID / row.panels.len(), 4)
            } else {
                (GRID / 2, 8)
            };
            let across = GRID / width;
            for (index, panel) in row.panels.iter().enumerate() {
                let (x, y) = (index % across * width, top + index / across * height);
                let place = json!({ "x": x, "y": y, "w": width, "h": height });
                panels.push(panel.render(panels.len() + 1, &place));
            }
            top += row.panels.len().div_ceil(across) * height;
        }
        panels
    }
}

impl Panel {
    fn render(&self, id: usize, place: &Value) -> Value {
        let Self(title, kind, queries) = self;
        let targets = queries.iter().zip('A'..='Z').map(|(query, reference)| {
            json!({
                "refId": reference.to_string(),
                "datasource": datasource(),
                "expr": query.render_for_dashboard(),
                "legendFormat": legend(query, queries.len()),
                "editorMode": "code",
                "range": true,
            })
        });
        let help: Vec<&str> = queries.iter().map(|query| query.help).collect();
        json!({
            "id": id,
            "type": match kind { Stat => "stat", Lines => "timeseries" },
            "title": title,
            "description": help.join(" "),
            "datasource": datasource(),
            "gridPos": place,
            "targets": targets.collect::<Vec<_>>(),
            "fieldConfig": {
                "defaults": { "unit": unit(queries.first().map(|query| query.unit)), "min": 0 },
                "overrides": [],
            },
            "options": match kind {
                Stat => json!({ "reduceOptions": { "calcs": ["lastNotNull"] }, "colorMode": "value" }),
                Lines => json!({ "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi" } }),
            },
        })
    }
}

/// Grafana's name of a unit.
const fn unit(unit: Option<Unit>) -> &'static str {
    match unit {
        Some(Unit::Ratio) => "percentunit",
        Some(Unit::Seconds) => "s",
        Some(Unit::Bytes) => "bytes",
        Some(Unit::BytesPerSecond) => "Bps",
        Some(Unit::PerSecond) => "cps",
        Some(Unit::Cores | Unit::Count) | None => "short",
        Some(Unit::Flag) => "bool_yes_no",
    }
}

/// What tells the lines of one panel apart: the labels that the query groups by, and the query where there are several.
fn legend(query: &Query, of: usize) -> String {
    let mut parts = vec!["{{cluster}}".to_owned()];
    parts.extend(query.labels().map(|label| format!("{{{{{label}}}}}")));
    if of > 1 {
        parts.push(query.name.to_owned());
    }
    parts.join(" ")
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variables() -> Value {
    let of = |name: &str, query: &str| {
        json!({
            "name": name, "type": "query", "datasource": datasource(), "definition": query,
            "query": { "query": query, "refId": name }, "refresh": 2, "sort": 1, "multi": true, "includeAll": true,
            "allValue": ".+", "current": { "text": "All", "value": "$__all" }, "hide": 0, "options": [],
        })
    };
    json!([
        { "name": "datasource", "type": "datasource", "query": "prometheus", "hide": 0, "refresh": 1, "options": [], "multi": false },
        of("namespace", "label_values(selextract_container_memory_working_set_bytes, namespace)"),
        of("cluster", "label_values(selextract_container_memory_working_set_bytes{namespace=~\"$namespace\"}, cluster)"),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_dashboards_are_drawn_like_this() {
        for dashboard in ALL {
            insta::assert_json_snapshot!(dashboard.slug, dashboard.render("uid"));
        }
    }

    #[test]
    fn panels_do_not_overlap_and_stay_in_the_grid() {
        for dashboard in ALL {
            let mut taken = BTreeSet::new();
            for panel in dashboard.panels() {
                let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
                for x in at("x")..at("x") + at("w") {
                    assert!(x < GRID as u64, "{}", dashboard.slug);
                    for y in at("y")..at("y") + at("h") {
                        assert!(taken.insert((x, y)), "{} {}", dashboard.slug, panel["title"]);
                    }
                }
            }
        }
    }

    #[test]
    fn the_queries_of_a_panel_have_one_unit() {
        for dashboard in ALL {
            for Panel(title, _, queries) in dashboard.rows.iter().flat_map(|row| row.panels) {
                let first = unit(queries.first().map(|query| query.unit));
                let allowed = |query: &Query| unit(Some(query.unit)) == first || *title == "Rollbacks and deadlocks";
                assert!(queries.iter().all(allowed), "{title}");
            }
        }
    }
}
