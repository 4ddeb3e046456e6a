//! A configuration for Alertmanager: who is told by severity (guide: "Alerting Strategy"). Pure.

use selextract_crds::RoutingSpec;
use serde_json::{Value, json};

/// The configuration, which Alertmanager reads as YAML: JSON is YAML.
pub fn configuration(routing: &RoutingSpec) -> Value {
    json!({
        "route": {
            "receiver": "summary",
            "group_by": ["namespace", "cluster", "alertname"],
            "routes": [
                {
                    "matchers": ["severity=\"critical\""],
                    "receiver": "page",
                    "group_wait": "10s",
                    "group_interval": "1m",
                    "repeat_interval": "1h",
                },
                {
                    "matchers": ["severity=\"warning\""],
                    "receiver": "business-hours",
                    "group_wait": "1m",
                    "group_interval": "5m",
                    "repeat_interval": "12h",
                    "active_time_intervals": ["business-hours"],
                },
                {
                    "matchers": ["severity=\"info\""],
                    "receiver": "summary",
                    // One message for everything.
                    "group_by": ["severity"],
                    "group_wait": "5m",
                    "group_interval": routing.summary_interval.to_string(),
                    "repeat_interval": routing.summary_interval.to_string(),
                },
            ],
        },
        // Whoever is told of the worse is not told of the lesser of the same kind.
        "inhibit_rules": [inhibit("critical", "warning|info"), inhibit("warning", "info")],
        "time_intervals": [{
            "name": "business-hours",
            "time_intervals": [{
                "weekdays": [routing.business_days],
                "times": [{ "start_time": routing.business_begins, "end_time": routing.business_ends }],
                "location": routing.time_zone,
            }],
        }],
        "receivers": [
            receiver("page", &routing.page_webhook),
            receiver("business-hours", &routing.business_hours_webhook),
            receiver("summary", &routing.summary_webhook),
        ],
    })
}

fn inhibit(worse: &str, lesser: &str) -> Value {
    json!({
        "source_matchers": [format!("severity=\"{worse}\"")],
        "target_matchers": [format!("severity=~\"{lesser}\"")],
        "equal": ["alertname", "namespace", "cluster", "component", "pod", "redis", "replica", "slot_name", "to", "volume"],
    })
}

/// A URL that is a secret itself lies in a file beside Alertmanager.
fn receiver(name: &str, webhook: &str) -> Value {
    let key = if webhook.starts_with('/') { "url_file" } else { "url" };
    json!({ "name": name, "webhook_configs": [{ key: webhook, "send_resolved": true }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_severity_has_its_receiver_and_its_hours() {
        let routing: RoutingSpec = serde_json::from_value(json!({
            "pageWebhook": "/etc/alertmanager/secrets/pager/url", "businessHoursWebhook": "https://chat.example.org/b",
            "summaryWebhook": "https://mail.example.org/c", "timeZone": "Europe/Berlin",
        }))
        .unwrap();
        insta::assert_json_snapshot!(configuration(&routing));
    }
}
