//! The one place of every `PromQL` text: rules, dashboards and the operator render theirs from here. Pure.
//!
//! Every query answers with the labels `namespace` and `cluster`, so that one query serves many clusters at once. A ratio without anything
//! to divide by is `NaN` or absent, never 0: a lost scrape must not look like calm.

pub mod api;
pub mod recorded;
pub mod resources;
pub mod scaling;
pub mod slo;
pub mod stores;
pub mod targets;
pub mod work;

use std::time::Duration;

/// What a query's value is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A share of a whole: 0.05 is 5 %.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Events a second.
    PerSecond,
    /// Cores.
    Cores,
    /// A number of things.
    Count,
    /// 1 for yes, 0 for no.
    Flag,
}

/// A query with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its name, one of its own.
    pub name: &'static str,
    /// What it tells, in one sentence.
    pub help: &'static str,
    /// What its value is measured in.
    pub unit: Unit,
    /// `PromQL`: `$scope` stands inside a selector after its own matchers and a comma, `$window` for the range.
    template: &'static str,
}

/// Which clusters a query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every cluster that the server knows.
    All,
    /// One.
    Cluster {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
}

/// The range where none is asked for (guide: "Prometheus Queries").
pub const WINDOW: Duration = Duration::from_mins(5);

impl Query {
    /// The query as `PromQL`, over `window` or else [`WINDOW`].
    pub fn render(&self, scope: &Scope<'_>, window: Option<Duration>) -> String {
        self.fill(&scope.matchers(), &range(window.unwrap_or(WINDOW)))
    }

    /// The query for a dashboard with the variables `namespace` and `cluster`, over the range that fits the dashboard's resolution.
    pub fn render_for_dashboard(&self) -> String {
        self.fill("namespace=~\"$namespace\",cluster=~\"$cluster\"", "$__rate_interval")
    }

    /// Whether it answers only when something is missing.
    pub fn tells_absence(&self) -> bool {
        self.template.starts_with("absent(")
    }

    /// Whether it looks over a range of time.
    pub fn has_window(&self) -> bool {
        self.template.contains("$window")
    }

    /// The labels that it groups by besides `namespace` and `cluster`.
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        let grouped = self
            .template
            .split_once("by (namespace, cluster")
            .and_then(|(_, rest)| rest.split_once(')'));
        let inner = grouped.map_or("", |(inner, _)| inner);
        inner
            .split(',')
            .map(str::trim)
            .filter(|label| !label.is_empty() && *label != "le")
    }

    fn fill(&self, matchers: &str, range: &str) -> String {
        self.template.replace("$scope", matchers).replace("$window", range)
    }
}

impl Scope<'_> {
    fn matchers(&self) -> String {
        match self {
            // Another application's series have no such label.
            Self::All => "cluster!=\"\"".to_owned(),
            Self::Cluster { namespace, name } => format!("namespace={namespace:?},cluster={name:?}"),
        }
    }
}

/// A duration as `PromQL` writes it, in the largest unit that fits.
pub fn range(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let fitting = units
        .iter()
        .find(|(_, size)| millis >= *size && millis.is_multiple_of(*size));
    fitting.map_or_else(
        || format!("{millis}ms"),
        |(unit, size)| format!("{}{unit}", millis / size),
    )
}

/// The label by which the answers of one [`together`] are told apart.
pub const SIGNAL: &str = "signal";

/// Many queries as one, so that one request answers them all; each answer carries its query's name in the label [`SIGNAL`].
pub fn together(queries: &[Query], scope: &Scope<'_>, window: Duration) -> String {
    let named = queries.iter().map(|query| {
        let text = query.render(scope, Some(window));
        format!("label_replace({text}, \"{SIGNAL}\", \"{}\", \"\", \"\")", query.name)
    });
    named.collect::<Vec<_>>().join(" or ")
}

/// Every query of the catalogue.
pub fn all() -> impl Iterator<Item = &'static Query> {
    [
        api::ALL,
        work::ALL,
        stores::ALL,
        resources::ALL,
        targets::ALL,
        scaling::ALL,
        slo::ALL,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_queries_have_one_name() {
        let names: BTreeSet<_> = all().map(|query| query.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn every_selector_is_scoped_and_every_query_groups_by_cluster() {
        for query in all() {
            let selectors = query.template.matches('{').count();
            // A route's template holds a brace of its own.
            let literal = query.template.matches("{id}").count();
            assert_eq!(
                selectors - literal,
                query.template.matches("$scope}").count(),
                "{}",
                query.name
            );
            let grouped = query.template.contains("by (namespace, cluster");
            assert!(grouped || query.tells_absence(), "{}", query.name);
            assert!(!query.template.contains("vector(0)"), "{}", query.name);
        }
    }

    #[test]
    fn a_query_is_rendered_for_one_cluster_for_all_and_for_a_dashboard() {
        let query = api::REQUEST_RATE;
        let one = Scope::Cluster {
            namespace: "web",
            name: "shop",
        };
        assert_eq!(
            query.render(&one, Some(Duration::from_secs(30))),
            "sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",namespace=\"web\",cluster=\"shop\"}[30s]))"
        );
        assert_eq!(
            query.render(&Scope::All, None),
            "sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",cluster!=\"\"}[5m]))"
        );
        assert!(
            query
                .render_for_dashboard()
                .contains("cluster=~\"$cluster\"}[$__rate_interval]")
        );
    }

    #[test]
    fn a_range_is_written_in_the_largest_unit_that_fits() {
        for (seconds, text) in [(30, "30s"), (90, "90s"), (300, "5m"), (7200, "2h"), (2_592_000, "30d")] {
            assert_eq!(range(Duration::from_secs(seconds)), text);
        }
        assert_eq!(range(Duration::from_millis(1500)), "1500ms");
    }
}
