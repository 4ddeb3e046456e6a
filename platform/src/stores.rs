//! Figures of what the platform stands on, as Prometheus' usual exporters name them. Pure.

use selextract_telemetry::Figure;

/// All of them are described where those exporters are.
pub const HELP: &str = "As the usual exporter names it; docs/monitoring.md.";

/// What Redis says about itself in `INFO`; `redis` is `queue` or `cache`.
pub fn redis(info: &str, redis: &str) -> Vec<Figure> {
    let value = |key: &str| -> Option<f64> {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    let gauge = |name, key: &str| Some(Figure::gauge(name, HELP, value(key)?).with("redis", redis));
    let counter = |name, key: &str| Some(Figure::counter(name, HELP, value(key)?).with("redis", redis));
    let figures = [
        gauge("redis_memory_used_bytes", "used_memory"),
        gauge("redis_memory_max_bytes", "maxmemory"),
        gauge("redis_connected_clients", "connected_clients"),
        gauge("redis_aof_current_size_bytes", "aof_current_size"),
        counter("redis_evicted_keys_total", "evicted_keys"),
        counter("redis_keyspace_hits_total", "keyspace_hits"),
        counter("redis_keyspace_misses_total", "keyspace_misses"),
    ];
    figures.into_iter().flatten().collect()
}

/// How much of a volume is used.
pub fn storage_used(volume: &str, bytes: f64) -> Figure {
    Figure::gauge(
        "selextract_storage_used_bytes",
        "How much of the volume is used.",
        bytes,
    )
    .with("volume", volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_is_read_by_its_keys() {
        let info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory:2097152\r\n# Stats\r\nevicted_keys:3\r\n";
        let figures = redis(info, "cache");
        assert_eq!(figures.len(), 3, "what is not said is absent");
        assert_eq!(
            (figures[0].name(), figures[0].value()),
            ("redis_memory_used_bytes", 1_048_576.0)
        );
        assert_eq!(
            figures[2],
            Figure::counter("redis_evicted_keys_total", HELP, 3.0).with("redis", "cache")
        );
    }
}
