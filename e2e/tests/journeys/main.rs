//! Journeys on the real cluster, named as sentences. They run one after another (`--test-threads=1`), because they share two cores. Those
//! that leave a platform as they found it share one; the others enter a namespace of their own.

mod changes;
mod data;
mod engine;
mod external;
mod ground;
mod guarantees;
mod load;
mod measured_elsewhere;
mod monitoring;
mod operator;
mod outside;
mod platform;
mod prometheus_operator;
mod refusals;
mod scaling;
mod scraping;
mod survival;
mod triggers;
mod two_nodes;
mod whole_life;
