//! Times each statement from what sqlx tells of it (ADR 34), and how long its pools took to give a connection. Prints nothing.

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::Context,
};

use super::Timings;

const STATEMENT: &str = "sqlx::query";
const ACQUIRED: &str = "sqlx::pool::acquire";
/// What statements begin with; a transaction's BEGIN travels with its first statement. Everything else is `other`.
const OPERATIONS: [&str; 6] = ["select", "insert", "update", "delete", "with", "commit"];
/// sqlx's ping is a comment. It is a probe, which is told on its own, and not a statement.
const COMMENT: &str = "/*";

/// Hears of statements and acquired connections.
pub(super) struct Statements(Timings);

impl Statements {
    pub(super) fn new(timings: &Timings) -> Self {
        Self(timings.clone())
    }

    /// What it must hear: sqlx tells of statements at DEBUG, and of slow ones at WARN.
    pub(super) fn filter() -> Targets {
        Targets::new()
            .with_target(STATEMENT, LevelFilter::DEBUG)
            .with_target(ACQUIRED, LevelFilter::DEBUG)
    }
}

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        let Some(seconds) = told.seconds else { return };
        match (event.metadata().target(), told.operation) {
            (STATEMENT, Some(operation)) => self.0.statements.with_label_values(&[operation]).observe(seconds),
            (ACQUIRED, _) => self.0.acquiring.observe(seconds),
            _ => {}
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Told {
    operation: Option<&'static str>,
    seconds: Option<f64>,
}

impl Visit for Told {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if matches!(field.name(), "elapsed_secs" | "acquired_after_secs") {
            self.seconds = Some(value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "summary" {
            self.operation = operation(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

fn operation(statement: &str) -> Option<&'static str> {
    let first = statement.split_whitespace().next().unwrap_or_default();
    if first == COMMENT {
        return None;
    }
    let known = OPERATIONS.into_iter().find(|name| first.eq_ignore_ascii_case(name));
    Some(known.unwrap_or("other"))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn an_operation_is_the_statements_first_word() {
        assert_eq!(operation("SELECT id FROM tasks …"), Some("select"));
        assert_eq!(operation("with due as (select …"), Some("with"));
        assert_eq!(operation("VACUUM tasks"), Some("other"));
        assert_eq!(operation(""), Some("other"));
        assert_eq!(operation("/* SQLx ping */"), None);
    }

    #[test]
    fn what_sqlx_tells_is_counted_whatever_the_logs_print() {
        let timings = Timings::new().unwrap();
        let layer = Statements::new(&timings).with_filter(Statements::filter());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::debug!(target: STATEMENT, summary = "INSERT INTO tasks …".to_owned(), elapsed_secs = 0.25);
            tracing::warn!(target: STATEMENT, summary = "INSERT INTO tasks …".to_owned(), elapsed_secs = 2.0);
            tracing::debug!(target: STATEMENT, summary = "/* SQLx ping */".to_owned(), elapsed_secs = 0.25);
            tracing::debug!(target: ACQUIRED, acquired_after_secs = 0.5);
            tracing::debug!(target: "elsewhere", summary = "SELECT 1".to_owned(), elapsed_secs = 0.25);
        });
        let inserts = timings.statements.with_label_values(&["insert"]);
        assert_eq!((inserts.get_sample_count(), inserts.get_sample_sum()), (2, 2.25));
        assert_eq!(timings.statements.with_label_values(&["select"]).get_sample_count(), 0);
        assert_eq!(timings.acquiring.get_sample_count(), 1);
    }
}
