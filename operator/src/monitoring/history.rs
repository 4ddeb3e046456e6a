//! What a Prometheus answered about clusters, by cluster and moment; and what it knows of the time before anybody looked (ADR 33).

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    client::{Prometheus, PrometheusError, Value},
    queries::{self, SIGNAL, Scope, scaling},
};
use crate::scaling::readings::Answers;

/// Namespace and name of a cluster.
pub type Place = (String, String);

/// What was measured of a cluster, oldest first.
pub type Moments = BTreeMap<Timestamp, Answers>;

/// What lies between two moments of the past, in seconds: as often as the slowest part is scraped, and half of what would be a hole.
const STEP: u32 = 15;
/// The most that is looked back, in seconds: no window is longer.
const LONGEST: u64 = 3600;
/// The most values that one answer may hold: some three megabytes, of the four that are read.
const VALUES: u64 = 60_000;
/// The values that a cluster has at one moment, each signal and four dependencies.
const SERIES: u64 = scaling::SIGNALS.len() as u64 + 3;

/// Sorts the answers of [`scaling::SIGNALS`]. What is about no cluster, or at no moment, is left out.
pub fn sort(values: Vec<Value>) -> HashMap<Place, Moments> {
    let mut found: HashMap<Place, Moments> = HashMap::new();
    for value in values {
        let Some(at) = value.moment() else { continue };
        let Value { mut labels, value, .. } = value;
        let (Some(namespace), Some(cluster), Some(signal)) =
            (labels.remove("namespace"), labels.remove("cluster"), labels.get(SIGNAL))
        else {
            continue;
        };
        let dependency = labels.get("dependency").map(String::as_str);
        let moments = found.entry((namespace, cluster)).or_default();
        moments.entry(at).or_default().add(signal, dependency, value);
    }
    found
}

/// Asks for the last `memory` before `now`, of so many clusters in one request. Of many clusters less is asked for: the newest.
///
/// # Errors
/// When there is no good answer within four seconds, or it is too long.
pub async fn fetch_past(
    client: &Prometheus,
    (scope, clusters): (&Scope<'_>, usize),
    memory: Duration,
    now: Timestamp,
) -> Result<HashMap<Place, Moments>, PrometheusError> {
    let query = queries::together(&scaling::SIGNALS, scope, scaling::WINDOW);
    let values = client.query_range(&query, span(memory, clusters, now), STEP).await?;
    Ok(sort(values))
}

/// From when to when: whole steps, one more than the time needs, for a window is covered from the sample before its begin.
fn span(memory: Duration, clusters: usize, now: Timestamp) -> (i64, i64) {
    let step = u64::from(STEP);
    let fit = VALUES / (SERIES * u64::try_from(clusters).unwrap_or(u64::MAX).max(1));
    let steps = (memory.as_secs().min(LONGEST).div_ceil(step) + 1).min(fit);
    let end = now.as_second();
    (end - i64::try_from(steps * step).unwrap_or_default(), end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::properties::at;

    const FIVE: Duration = Duration::from_mins(5);

    fn value(cluster: &str, second: f64) -> Value {
        let labels = [("namespace", "web"), ("cluster", cluster), (SIGNAL, "backlog")];
        Value {
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            at: second,
            value: 1.0,
        }
    }

    #[test]
    fn answers_are_sorted_by_cluster_and_moment() {
        let found = sort(vec![value("shop", 15.0), value("market", 0.0), value("shop", 0.0)]);
        assert_eq!(found.len(), 2);
        let moments: Vec<_> = found[&("web".to_owned(), "shop".to_owned())].keys().collect();
        let second = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(moments, [&second(0), &second(15)]);
        let mut nobodys = value("shop", 0.0);
        nobodys.labels.remove("cluster");
        assert!(sort(vec![nobodys, value("shop", f64::NAN)]).is_empty());
    }

    #[test]
    fn the_past_covers_the_window_and_is_bounded() {
        let now = at(10_000);
        let length = |memory, clusters| {
            let (start, end) = span(memory, clusters, now);
            assert_eq!(end, now.as_second());
            end - start
        };
        assert_eq!(length(FIVE, 1), 315);
        assert_eq!(length(Duration::from_secs(301), 1), 330, "whole steps");
        assert_eq!(length(Duration::from_hours(24), 1), 3615, "an hour is the longest");
        let many = length(Duration::from_hours(1), 50);
        assert!((900..3600).contains(&many), "{many}");
        assert_eq!(length(FIVE, 1_000_000), 0);
    }
}
