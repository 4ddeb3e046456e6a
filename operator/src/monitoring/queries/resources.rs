//! What the programs and volumes use of what they have (guide: "Infrastructure Metrics", "Resource Budget").

use super::{Query, Unit};

/// The share of its CPU that a component uses.
pub const CPU_RATIO: Query = Query {
    name: "cpu_ratio",
    help: "The share of its CPU, limit or else request, that a component uses, stores included with kubeletMetrics (guide: CPU Usage).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_cpu_seconds_total{$scope}[$window])) \
               / sum by (namespace, cluster, component) (selextract_container_cpu_capacity_cores{$scope}) \
               or avg by (namespace, cluster, component) (sum by (namespace, cluster, component, pod) (rate(container_cpu_usage_seconds_total{$scope}[$window]))) \
               / max by (namespace, cluster, component) (selextract:pod_cpu_capacity_cores{$scope})",
};

/// The share of its CPU that the platform as a whole uses.
pub const CPU_OVERALL: Query = Query {
    name: "cpu_overall",
    help: "The share of its CPU, limit or else request, that the platform as a whole uses (guide: CPU utilization, overall).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (rate(selextract_container_cpu_seconds_total{$scope}[$window])) \
               / sum by (namespace, cluster) (selextract_container_cpu_capacity_cores{$scope})",
};

/// Cores that a component uses.
pub const CPU: Query = Query {
    name: "cpu",
    help: "Cores that a component uses.",
    unit: Unit::Cores,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_cpu_seconds_total{$scope}[$window]))",
};

/// Seconds a second that a component was held back.
pub const CPU_THROTTLED: Query = Query {
    name: "cpu_throttled",
    help: "Seconds a second that a component was held back at its CPU limit.",
    unit: Unit::Cores,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_cpu_throttled_seconds_total{$scope}[$window]))",
};

/// The share of its memory that a pod uses.
pub const MEMORY_RATIO: Query = Query {
    name: "memory_ratio",
    help: "The share of its memory that a pod uses (guide: Memory Usage).",
    unit: Unit::Ratio,
    template: "max by (namespace, cluster, component, pod) (selextract_container_memory_working_set_bytes{$scope}) \
               / max by (namespace, cluster, component, pod) (selextract_container_memory_capacity_bytes{$scope})",
};

/// Memory that a component uses.
pub const MEMORY: Query = Query {
    name: "memory",
    help: "Memory that a component uses.",
    unit: Unit::Bytes,
    template: "sum by (namespace, cluster, component) (selextract_container_memory_working_set_bytes{$scope})",
};

/// Processes killed for memory. A container that goes as a whole takes its count with it: there the start that followed full memory tells.
pub const OOM_KILLS: Query = Query {
    name: "oom_kills",
    help: "Processes that were killed because memory was full, within the window, and programs that began anew after memory was full.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, component) (\
               (increase(selextract_container_oom_kills_total{$scope}[$window]) > 0) \
               or (changes(process_start_time_seconds{$scope}[$window]) > 0 and on (namespace, cluster, pod) \
               max_over_time((selextract_container_memory_working_set_bytes{$scope} / selextract_container_memory_capacity_bytes{$scope})[$window:15s]) > 0.9) \
               or 0 * increase(selextract_container_oom_kills_total{$scope}[$window]))",
};

/// CPU of a pod over that a week ago.
pub const CPU_TREND: Query = Query {
    name: "cpu_trend",
    help: "CPU of a component's average pod over that at the same time a week ago.",
    unit: Unit::Ratio,
    template: "avg by (namespace, cluster, component) (rate(selextract_container_cpu_seconds_total{$scope}[$window])) \
               / avg by (namespace, cluster, component) (rate(selextract_container_cpu_seconds_total{$scope}[$window] offset 1w))",
};

/// Memory of a pod over that a week ago.
pub const MEMORY_TREND: Query = Query {
    name: "memory_trend",
    help: "Memory of a component's average pod over that at the same time a week ago.",
    unit: Unit::Ratio,
    template: "avg by (namespace, cluster, component) (avg_over_time(selextract_container_memory_working_set_bytes{$scope}[$window])) \
               / avg by (namespace, cluster, component) (avg_over_time(selextract_container_memory_working_set_bytes{$scope}[$window] offset 1w))",
};

/// The share of a volume that is used.
pub const STORAGE_RATIO: Query = Query {
    name: "storage_ratio",
    help: "The share of a volume that is used (guide: Disk Usage).",
    unit: Unit::Ratio,
    template: "max by (namespace, cluster, volume) (selextract_storage_used_bytes{$scope}) / max by (namespace, cluster, volume) (selextract_storage_capacity_bytes{$scope})",
};

/// Bytes of a volume that are used.
pub const STORAGE: Query = Query {
    name: "storage",
    help: "Bytes of a volume that are used.",
    unit: Unit::Bytes,
    template: "max by (namespace, cluster, volume) (selextract_storage_used_bytes{$scope})",
};

/// What the managed Prometheus holds.
pub const PROMETHEUS_STORAGE: Query = Query {
    name: "prometheus_storage",
    help: "Bytes that the managed Prometheus holds: its blocks, its log and what it writes out of memory.",
    unit: Unit::Bytes,
    template: "sum by (namespace, cluster) ({__name__=~\"prometheus_tsdb_(storage_blocks|wal_storage_size|head_chunks_storage_size)_bytes\",$scope})",
};

/// The share of a volume that is used in four days.
pub const STORAGE_IN_FOUR_DAYS: Query = Query {
    name: "storage_in_four_days",
    help: "The share of a volume that is used in four days if it goes on as within the window.",
    unit: Unit::Ratio,
    template: "max by (namespace, cluster, volume) (predict_linear(selextract_storage_used_bytes{$scope}[$window], 4 * 86400)) \
               / max by (namespace, cluster, volume) (selextract_storage_capacity_bytes{$scope})",
};

/// Bytes read a second.
pub const DISK_READ: Query = Query {
    name: "disk_read_rate",
    help: "Bytes a second that a component reads from disks.",
    unit: Unit::BytesPerSecond,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_disk_read_bytes_total{$scope}[$window]))",
};

/// Bytes written a second.
pub const DISK_WRITTEN: Query = Query {
    name: "disk_written_rate",
    help: "Bytes a second that a component writes to disks.",
    unit: Unit::BytesPerSecond,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_disk_written_bytes_total{$scope}[$window]))",
};

/// Reads a second.
pub const DISK_READS: Query = Query {
    name: "disk_reads_rate",
    help: "Times a second that a component reads from disks (guide: Disk I/O).",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_disk_reads_total{$scope}[$window]))",
};

/// Writes a second.
pub const DISK_WRITES: Query = Query {
    name: "disk_writes_rate",
    help: "Times a second that a component writes to disks (guide: Disk I/O).",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_disk_writes_total{$scope}[$window]))",
};

/// The share of time that something waits for a disk.
pub const DISK_WAITING: Query = Query {
    name: "disk_waiting_ratio",
    help: "The share of time in which something of a pod waits for a disk, the most of a component's pods; of nodes with cgroup version 2 (guide: Disk I/O, latency).",
    unit: Unit::Ratio,
    template: "max by (namespace, cluster, component) (rate(selextract_container_disk_waiting_seconds_total{$scope}[$window]))",
};

/// Bytes received a second.
pub const NETWORK_RECEIVED: Query = Query {
    name: "network_received_rate",
    help: "Bytes a second that a component receives.",
    unit: Unit::BytesPerSecond,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_network_received_bytes_total{$scope}[$window]))",
};

/// Bytes sent a second.
pub const NETWORK_TRANSMITTED: Query = Query {
    name: "network_transmitted_rate",
    help: "Bytes a second that a component sends.",
    unit: Unit::BytesPerSecond,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_network_transmitted_bytes_total{$scope}[$window]))",
};

/// The busier direction of a pod's network.
pub const NETWORK_BUSIEST: Query = Query {
    name: "network_busiest",
    help: "Bytes a second of a pod in its busier direction (guide: Network Bandwidth).",
    unit: Unit::BytesPerSecond,
    template: "max by (namespace, cluster, component, pod) (label_replace(rate(selextract_container_network_received_bytes_total{$scope}[$window]), \"direction\", \"in\", \"\", \"\") \
               or label_replace(rate(selextract_container_network_transmitted_bytes_total{$scope}[$window]), \"direction\", \"out\", \"\", \"\"))",
};

/// The share of TCP segments that were sent again.
pub const RETRANSMIT_RATIO: Query = Query {
    name: "tcp_retransmit_ratio",
    help: "The share of TCP segments that were sent again (guide: packet loss).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster, component) (rate(selextract_container_tcp_retransmits_total{$scope}[$window])) \
               / sum by (namespace, cluster, component) (rate(selextract_container_tcp_segments_sent_total{$scope}[$window]))",
};

/// Files that a program has open.
pub const OPEN_FILES: Query = Query {
    name: "open_files",
    help: "The most files that a pod of a component has open.",
    unit: Unit::Count,
    template: "max by (namespace, cluster, component) (process_open_fds{$scope})",
};

/// Starts of a program; where a node goes many programs begin anew once.
pub const RESTARTS: Query = Query {
    name: "restarts",
    help: "Starts of a pod's program within the window, the most of a component's pods.",
    unit: Unit::Count,
    template: "max by (namespace, cluster, component) (changes(process_start_time_seconds{$scope}[$window]))",
};

/// Cores that a component uses, as the kubelets say.
pub const KUBELET_CPU: Query = Query {
    name: "kubelet_cpu",
    help: "Cores that a component uses, stores included; with kubeletMetrics only.",
    unit: Unit::Cores,
    template: "sum by (namespace, cluster, component) (rate(container_cpu_usage_seconds_total{$scope}[$window]))",
};

/// Memory that a component uses, as the kubelets say.
pub const KUBELET_MEMORY: Query = Query {
    name: "kubelet_memory",
    help: "Memory that a component uses, stores included; with kubeletMetrics only.",
    unit: Unit::Bytes,
    template: "sum by (namespace, cluster, component) (container_memory_working_set_bytes{$scope})",
};

/// The share of its memory that a pod uses, as the kubelets say.
pub const KUBELET_MEMORY_RATIO: Query = Query {
    name: "kubelet_memory_ratio",
    help: "The share of its memory, limit or else request, that a pod uses, stores included; with kubeletMetrics only. A database's holds what it read lately, \
           which is given up when memory is short: high is no trouble there, and no alert looks at it.",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster, component, pod) (container_memory_working_set_bytes{$scope}) \
               / on (namespace, cluster, component) group_left max by (namespace, cluster, component) (selextract:pod_memory_capacity_bytes{$scope})",
};

pub(super) const ALL: &[Query] = &[
    KUBELET_CPU,
    KUBELET_MEMORY,
    KUBELET_MEMORY_RATIO,
    CPU_RATIO,
    CPU_OVERALL,
    CPU,
    CPU_THROTTLED,
    MEMORY_RATIO,
    MEMORY,
    OOM_KILLS,
    CPU_TREND,
    MEMORY_TREND,
    STORAGE_RATIO,
    STORAGE,
    PROMETHEUS_STORAGE,
    STORAGE_IN_FOUR_DAYS,
    DISK_READ,
    DISK_WRITTEN,
    DISK_READS,
    DISK_WRITES,
    DISK_WAITING,
    NETWORK_RECEIVED,
    NETWORK_TRANSMITTED,
    NETWORK_BUSIEST,
    RETRANSMIT_RATIO,
    OPEN_FILES,
    RESTARTS,
];
