//! The rules that record what is looked back at over days. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use super::queries::{Scope, range, recorded};

/// How often is recorded: a month has 43,200 minutes.
const EVERY: Duration = Duration::from_mins(1);

/// The groups of rules of one cluster, as in a rule file's `groups`.
pub fn groups(scope: &Scope<'_>) -> Value {
    let one = |query: &super::queries::Query| json!({ "record": format!("selextract:{}", query.name), "expr": query.render(scope, None) });
    let rules: Vec<_> = recorded::RULES.iter().map(one).collect();
    json!([{ "name": "selextract-records", "interval": range(EVERY), "rules": rules }])
}
