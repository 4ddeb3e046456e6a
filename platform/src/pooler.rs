//! What `PgBouncer` tells at its console, under the names of its usual exporter. Asks over a connection of its own for each of its processes.

use std::{net::SocketAddr, str::FromStr};

use selextract_telemetry::Figure;
use snafu::ResultExt;
use sqlx::{
    ConnectOptions, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow, PgSslMode},
};

use crate::{
    ledger::{
        LedgerError, Secret,
        error::{DatabaseSnafu, UrlSnafu},
    },
    stores::HELP,
};

/// The database that is the console. Its own row says nothing about ours.
const CONSOLE: &str = "pgbouncer";
/// The most rows of an answer that are told: a pool is a pair of database and role, and a cluster has one or two.
const ROWS: usize = 16;

/// What is asked, and what of the answer is told.
struct Question {
    statement: &'static str,
    /// The columns that become labels, under these names.
    labels: &'static [(&'static str, &'static str)],
    gauges: &'static [Told],
    counters: &'static [Told],
}

/// A figure, and the columns whose sum it is, each with what its 1 is.
struct Told {
    figure: &'static str,
    columns: &'static [(&'static str, f64)],
}

const QUESTIONS: [Question; 3] = [
    Question {
        statement: "SHOW POOLS",
        labels: &[("database", "database"), ("user", "user")],
        gauges: &[
            Told {
                figure: "pgbouncer_pools_client_active_connections",
                columns: &[("cl_active", 1.0)],
            },
            Told {
                figure: "pgbouncer_pools_client_waiting_connections",
                columns: &[("cl_waiting", 1.0)],
            },
            Told {
                figure: "pgbouncer_pools_server_active_connections",
                columns: &[("sv_active", 1.0)],
            },
            Told {
                figure: "pgbouncer_pools_server_idle_connections",
                columns: &[("sv_idle", 1.0)],
            },
            Told {
                figure: "pgbouncer_pools_client_maxwait_seconds",
                columns: &[("maxwait", 1.0), ("maxwait_us", 1e-6)],
            },
        ],
        counters: &[],
    },
    Question {
        statement: "SHOW DATABASES",
        labels: &[("name", "database")],
        gauges: &[Told {
            figure: "pgbouncer_databases_pool_size",
            columns: &[("pool_size", 1.0)],
        }],
        counters: &[],
    },
    // What waits for less than the time between two looks is seen here alone.
    Question {
        statement: "SHOW STATS_TOTALS",
        labels: &[("database", "database")],
        gauges: &[],
        counters: &[Told {
            figure: "pgbouncer_stats_client_wait_seconds_total",
            columns: &[("wait_time", 1e-6)],
        }],
    },
];

/// The console of one `PgBouncer`.
pub struct Console(PgConnection);

impl Console {
    /// Signs in at the process that listens at this address, with the role and the password of `url`, the pooler's URL of the programs.
    ///
    /// # Errors
    /// When the URL is none, or nobody answers who may.
    pub async fn open(url: &Secret, address: SocketAddr) -> Result<Self, LedgerError> {
        let options = PgConnectOptions::from_str(&url.0).context(UrlSnafu)?;
        // A pod has no name in the certificate. The cluster's authority signs its servers alone, and the password is not sent.
        let mode = match options.get_ssl_mode() {
            PgSslMode::VerifyFull => PgSslMode::VerifyCa,
            other => other,
        };
        let options = options
            .host(&address.ip().to_string())
            .port(address.port())
            .database(CONSOLE)
            .ssl_mode(mode)
            .application_name("selextract-keeper-console")
            // These are no statements of the platform: ADR 34.
            .disable_statement_logging();
        let connection = options.connect().await.context(DatabaseSnafu {
            doing: "signing in at the pooler's console",
        })?;
        Ok(Self(connection))
    }

    /// Its pools, what they may hold, and how long clients have waited.
    ///
    /// # Errors
    /// When it does not answer any more; then the console is of no more use.
    pub async fn figures(&mut self) -> Result<Vec<Figure>, LedgerError> {
        let mut figures = Vec::new();
        for question in &QUESTIONS {
            let rows = sqlx::raw_sql(question.statement).fetch_all(&mut self.0).await;
            let rows = rows.context(DatabaseSnafu {
                doing: "asking the pooler's console",
            })?;
            let rows = rows.iter().filter_map(|row| question.told(|column| text(row, column)));
            figures.extend(rows.take(ROWS).flatten());
        }
        Ok(figures)
    }
}

impl Question {
    /// What a row says. A column that this version of `PgBouncer` does not have is left out; a row without its labels is none of ours.
    fn told(&self, value: impl Fn(&str) -> Option<String>) -> Option<Vec<Figure>> {
        let labels = self.labels.iter().map(|(column, label)| Some((*label, value(column)?)));
        let labels: Vec<(&str, String)> = labels.collect::<Option<_>>()?;
        if labels
            .iter()
            .any(|(label, name)| *label == "database" && name == CONSOLE)
        {
            return None;
        }
        let sum = |told: &Told| {
            let parts = told.columns.iter();
            let parts = parts.map(|(column, unit)| Some(value(column)?.parse::<f64>().ok()? * unit));
            parts.sum::<Option<f64>>()
        };
        let labeled = |figure: Figure| {
            labels
                .iter()
                .fold(figure, |figure, (label, value)| figure.with(label, value))
        };
        let gauges = self.gauges.iter();
        let gauges = gauges.filter_map(|told| Some(Figure::gauge(told.figure, HELP, sum(told)?)));
        let counters = self.counters.iter();
        let counters = counters.filter_map(|told| Some(Figure::counter(told.figure, HELP, sum(told)?)));
        Some(gauges.chain(counters).map(labeled).collect())
    }
}

/// A value as the console writes it, whatever type it calls it.
fn text(row: &PgRow, column: &str) -> Option<String> {
    row.try_get_unchecked::<Option<String>, _>(column).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(column: &str, database: &str) -> Option<String> {
        let value = match column {
            "database" => database,
            "user" => "selextract_app",
            "cl_waiting" => "3",
            "maxwait" => "7",
            "maxwait_us" => "250000",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn a_pool_is_told_by_its_database_and_role_and_what_is_not_said_is_absent() {
        let told = QUESTIONS[0].told(|column| pool(column, "selextract")).unwrap();
        let one = |name, value| {
            Figure::gauge(name, HELP, value)
                .with("database", "selextract")
                .with("user", "selextract_app")
        };
        assert_eq!(
            told,
            [
                one("pgbouncer_pools_client_waiting_connections", 3.0),
                one("pgbouncer_pools_client_maxwait_seconds", 7.25)
            ]
        );
    }

    #[test]
    fn the_console_itself_is_no_pool() {
        assert_eq!(QUESTIONS[0].told(|column| pool(column, CONSOLE)), None);
    }

    #[test]
    fn waits_are_told_in_seconds() {
        let said = |column: &str| Some(if column == "database" { "selextract" } else { "2500000" }.to_owned());
        let told = QUESTIONS[2].told(said).unwrap();
        let seconds = Figure::counter("pgbouncer_stats_client_wait_seconds_total", HELP, 2.5);
        assert_eq!(told, [seconds.with("database", "selextract")]);
    }
}
