//! What a program's container uses: CPU and memory from its cgroup (version 2 or 1), bytes and segments from its network namespace.
//!
//! A worker's browsers run in the same cgroup and count. What cannot be read is absent, never 0. Read at each scrape: some ten small files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};

use crate::{Figure, families};

/// What the operator gives each container: its limit, else its request.
const CPU_CAPACITY: &str = "SELEXTRACT_CPU_CAPACITY";
/// The same for memory.
const MEMORY_CAPACITY: &str = "SELEXTRACT_MEMORY_CAPACITY";
/// A limit of cgroup v1 above this is none.
const UNLIMITED: f64 = 9e18;

/// The metrics of this process' container.
pub struct Container {
    description: Desc,
    cgroup: PathBuf,
    net: PathBuf,
    cpu_capacity: Option<f64>,
    memory_capacity: Option<f64>,
}

impl Container {
    /// Registers the metrics of this process' container, and those of the process itself (`process_open_fds` and its like).
    ///
    /// # Errors
    /// When a name is taken in the registry.
    pub fn register(registry: &Registry) -> prometheus::Result<()> {
        let capacity = |name| std::env::var(name).ok().and_then(|text| text.parse::<f64>().ok());
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(Self {
            description: crate::description("selextract_container_cpu_seconds_total")?,
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            net: PathBuf::from("/proc/self/net"),
            cpu_capacity: capacity(CPU_CAPACITY).map(|millicores| millicores / 1000.0),
            memory_capacity: capacity(MEMORY_CAPACITY),
        }))
    }

    fn figures(&self) -> Vec<Figure> {
        let cores = || {
            std::thread::available_parallelism()
                .ok()
                .and_then(|cores| u32::try_from(cores.get()).ok())
        };
        let cpu_capacity = self
            .cpu_capacity
            .or_else(|| cpu_limit(&self.cgroup))
            .or_else(|| cores().map(f64::from));
        let memory_capacity = self.memory_capacity.or_else(|| memory_limit(&self.cgroup));
        let gauge = |name, help, value: Option<f64>| value.map(|value| Figure::gauge(name, help, value));
        let counter = |name, help, value: Option<f64>| value.map(|value| Figure::counter(name, help, value));
        let (read, written) = disk(&self.cgroup).unzip();
        let (reads, writes) = disk_operations(&self.cgroup).unzip();
        let (received, sent) = network(&self.net).unzip();
        let (segments, again) = tcp(&self.net).unzip();
        [
            counter(
                "selextract_container_cpu_seconds_total",
                "CPU time of the container, browsers included.",
                cpu_seconds(&self.cgroup),
            ),
            gauge(
                "selextract_container_cpu_capacity_cores",
                "CPU that the container may use: its limit, else its request.",
                cpu_capacity,
            ),
            counter(
                "selextract_container_cpu_throttled_seconds_total",
                "Time for which the container was held at its CPU limit.",
                throttled(&self.cgroup),
            ),
            gauge(
                "selextract_container_memory_working_set_bytes",
                "Memory of the container that cannot simply be dropped.",
                memory(&self.cgroup),
            ),
            gauge(
                "selextract_container_memory_capacity_bytes",
                "Memory that the container may use: its limit, else its request.",
                memory_capacity,
            ),
            counter(
                "selextract_container_oom_kills_total",
                "Processes of the container that were killed because its memory was full.",
                oom_kills(&self.cgroup),
            ),
            counter(
                "selextract_container_disk_read_bytes_total",
                "Bytes that the container read from disks.",
                read,
            ),
            counter(
                "selextract_container_disk_written_bytes_total",
                "Bytes that the container wrote to disks.",
                written,
            ),
            counter(
                "selextract_container_disk_reads_total",
                "Times that the container read from disks.",
                reads,
            ),
            counter(
                "selextract_container_disk_writes_total",
                "Times that the container wrote to disks.",
                writes,
            ),
            counter(
                "selextract_container_disk_waiting_seconds_total",
                "Time for which something of the container waited for a disk.",
                disk_waiting(&self.cgroup),
            ),
            counter(
                "selextract_container_network_received_bytes_total",
                "Bytes that the pod received.",
                received,
            ),
            counter(
                "selextract_container_network_transmitted_bytes_total",
                "Bytes that the pod sent.",
                sent,
            ),
            counter(
                "selextract_container_tcp_segments_sent_total",
                "TCP segments that the pod sent.",
                segments,
            ),
            counter(
                "selextract_container_tcp_retransmits_total",
                "TCP segments that the pod sent again.",
                again,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Collector for Container {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families(&self.figures())
    }
}

fn number(path: &Path) -> Option<f64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The value behind a key, one of which stands on each line.
fn keyed(path: &Path, key: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

fn cpu_seconds(cgroup: &Path) -> Option<f64> {
    let version_2 = keyed(&cgroup.join("cpu.stat"), "usage_usec").map(|micros| micros / 1e6);
    version_2.or_else(|| number(&cgroup.join("cpuacct/cpuacct.usage")).map(|nanos| nanos / 1e9))
}

fn throttled(cgroup: &Path) -> Option<f64> {
    let version_2 = keyed(&cgroup.join("cpu.stat"), "throttled_usec").map(|micros| micros / 1e6);
    version_2.or_else(|| keyed(&cgroup.join("cpu/cpu.stat"), "throttled_time").map(|nanos| nanos / 1e9))
}

/// The CPU limit in cores.
fn cpu_limit(cgroup: &Path) -> Option<f64> {
    if let Ok(text) = fs::read_to_string(cgroup.join("cpu.max")) {
        let (quota, period) = text.trim().split_once(' ')?;
        return Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?);
    }
    let quota = number(&cgroup.join("cpu/cpu.cfs_quota_us")).filter(|quota| *quota > 0.0)?;
    Some(quota / number(&cgroup.join("cpu/cpu.cfs_period_us"))?)
}

/// What is used, without file pages that nobody looked at lately (as the kubelet counts it).
fn memory(cgroup: &Path) -> Option<f64> {
    let (used, inactive) = match number(&cgroup.join("memory.current")) {
        Some(used) => (used, keyed(&cgroup.join("memory.stat"), "inactive_file")),
        None => (
            number(&cgroup.join("memory/memory.usage_in_bytes"))?,
            keyed(&cgroup.join("memory/memory.stat"), "total_inactive_file"),
        ),
    };
    Some((used - inactive.unwrap_or(0.0)).max(0.0))
}

fn memory_limit(cgroup: &Path) -> Option<f64> {
    let limit = number(&cgroup.join("memory.max")).or_else(|| number(&cgroup.join("memory/memory.limit_in_bytes")))?;
    (limit < UNLIMITED).then_some(limit)
}

/// Since the container began; a version 1 that does not count them has no such line.
fn oom_kills(cgroup: &Path) -> Option<f64> {
    keyed(&cgroup.join("memory.events"), "oom_kill")
        .or_else(|| keyed(&cgroup.join("memory/memory.oom_control"), "oom_kill"))
}

/// Bytes read from and written to all block devices. What stays in the page cache, and what a memory file system holds, is not in it.
fn disk(cgroup: &Path) -> Option<(f64, f64)> {
    devices(cgroup, ["rbytes=", "wbytes="], "blkio.throttle.io_service_bytes")
}

/// How often was read and written.
fn disk_operations(cgroup: &Path) -> Option<(f64, f64)> {
    devices(cgroup, ["rios=", "wios="], "blkio.throttle.io_serviced")
}

/// What reads and writes come to over all block devices: by the keys of version 2, or by a file of version 1.
fn devices(cgroup: &Path, keys: [&str; 2], version_1: &str) -> Option<(f64, f64)> {
    if let Ok(text) = fs::read_to_string(cgroup.join("io.stat")) {
        // 259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0
        let sum = |key: &str| {
            let words = text.split_whitespace();
            words
                .filter_map(|word| word.strip_prefix(key)?.parse::<f64>().ok())
                .sum()
        };
        return Some((sum(keys[0]), sum(keys[1])));
    }
    let text = fs::read_to_string(cgroup.join("blkio").join(version_1)).ok()?;
    // 259:0 Read 4096
    let sum = |direction: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(direction));
        lines.filter_map(|(_, bytes)| bytes.trim().parse::<f64>().ok()).sum()
    };
    Some((sum(" Read "), sum(" Write ")))
}

/// Only version 2 knows, where the kernel accounts for pressure.
fn disk_waiting(cgroup: &Path) -> Option<f64> {
    // some avg10=0.00 avg60=0.00 avg300=0.00 total=12345
    let text = fs::read_to_string(cgroup.join("io.pressure")).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let (_, total) = some.rsplit_once("total=")?;
    total.trim().parse::<f64>().ok().map(|micros| micros / 1e6)
}

/// Bytes in and out over all interfaces but the loopback.
fn network(net: &Path) -> Option<(f64, f64)> {
    let text = fs::read_to_string(net.join("dev")).ok()?;
    let mut sums = (0.0, 0.0);
    for (name, figures) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let figures: Vec<f64> = figures
            .split_whitespace()
            .filter_map(|figure| figure.parse().ok())
            .collect();
        sums.0 += figures.first()?;
        sums.1 += figures.get(8)?;
    }
    Some(sums)
}

/// TCP segments sent, and sent again.
fn tcp(net: &Path) -> Option<(f64, f64)> {
    let text = fs::read_to_string(net.join("snmp")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let place = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(place)?.parse::<f64>().ok()
    };
    Some((value("OutSegs")?, value("RetransSegs")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn read(files: &[(&str, &str)]) -> Vec<(&'static str, f64)> {
        let folder = folder(files);
        let container = Container {
            description: crate::description("selextract_container_cpu_seconds_total").unwrap(),
            cgroup: folder.path().to_owned(),
            net: folder.path().join("net"),
            cpu_capacity: Some(2.0),
            memory_capacity: None,
        };
        let figures = container.figures();
        figures.iter().map(|figure| (figure.name(), figure.value())).collect()
    }

    const NET: [(&str, &str); 2] = [
        (
            "net/dev",
            "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:     999       1    0    0    0     0          0         0     999       1    0    0    0     0       0          0\n  eth0: 1500      10    0    0    0     0          0         0    2500      12    0    0    0     0       0          0\n",
        ),
        (
            "net/snmp",
            "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs\nTcp: 1 200 120000 -1 10 5 0 0 2 100 90 3 0\n",
        ),
    ];

    #[test]
    fn a_container_is_read_from_cgroup_version_2() {
        let files = [
            (
                "cpu.stat",
                "usage_usec 2500000\nuser_usec 1\nnr_throttled 2\nthrottled_usec 500000\n",
            ),
            ("cpu.max", "150000 100000\n"),
            ("memory.current", "104857600\n"),
            ("memory.stat", "anon 1\ninactive_file 4857600\nactive_file 2\n"),
            ("memory.max", "536870912\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\n"),
            (
                "io.stat",
                "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:0 rbytes=4 wbytes=8 rios=1 wios=1 dbytes=0 dios=0\n",
            ),
            (
                "io.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=1250000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n",
            ),
        ];
        let figures = read(&[&files[..], &NET[..]].concat());
        assert_eq!(
            figures.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
            [
                2.5,
                2.0,
                0.5,
                1e8,
                536_870_912.0,
                2.0,
                4100.0,
                8200.0,
                2.0,
                3.0,
                1.25,
                1500.0,
                2500.0,
                90.0,
                3.0
            ]
        );
        assert_eq!(cpu_limit(folder(&files).path()), Some(1.5));
        assert_eq!(cpu_limit(folder(&[("cpu.max", "max 100000\n")]).path()), None);
    }

    #[test]
    fn a_container_is_read_from_cgroup_version_1() {
        let files = [
            ("cpuacct/cpuacct.usage", "2500000000\n"),
            (
                "cpu/cpu.stat",
                "nr_periods 5\nnr_throttled 2\nthrottled_time 500000000\n",
            ),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
            ("memory/memory.usage_in_bytes", "104857600\n"),
            ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 4857600\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
            (
                "blkio/blkio.throttle.io_service_bytes",
                "259:0 Read 4096\n259:0 Write 8192\n259:0 Sync 8192\n259:0 Total 12288\nTotal 12288\n",
            ),
            (
                "blkio/blkio.throttle.io_serviced",
                "259:0 Read 1\n259:0 Write 2\n259:0 Total 3\nTotal 3\n",
            ),
        ];
        let figures = read(&[&files[..], &NET[..]].concat());
        let names: Vec<_> = figures.iter().map(|(name, _)| *name).collect();
        assert!(
            !names.contains(&"selextract_container_memory_capacity_bytes"),
            "no limit"
        );
        assert_eq!(
            figures.iter().map(|(_, value)| *value).take(9).collect::<Vec<_>>(),
            [2.5, 2.0, 0.5, 1e8, 2.0, 4096.0, 8192.0, 1.0, 2.0]
        );
        assert_eq!(cpu_limit(folder(&files).path()), None);
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        assert_eq!(read(&[]), [("selextract_container_cpu_capacity_cores", 2.0)]);
    }

    #[test]
    fn this_machine_is_read_at_each_scrape() {
        let registry = Registry::new();
        Container::register(&registry).unwrap();
        let text = crate::render(&registry);
        for name in [
            "cpu_seconds_total",
            "cpu_capacity_cores",
            "memory_working_set_bytes",
            "tcp_segments_sent_total",
        ] {
            assert!(
                text.contains(&format!("\nselextract_container_{name} ")),
                "{name}: {text}"
            );
        }
    }
}
