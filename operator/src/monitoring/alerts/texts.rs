//! What each alert is called and says. The pages in docs/runbooks bear the same names.

/// The words of one alert. Labels and values are filled in by Prometheus.
pub(super) struct Text {
    /// Its name, and its runbook's.
    pub name: &'static str,
    /// What was measured.
    pub summary: &'static str,
    /// What it means.
    pub description: &'static str,
}

impl Text {
    /// Every alert.
    pub(super) const ALL: &[Self] = &[
        API_ERRORS,
        API_SLOW,
        LOGIN_SLOW,
        DASHBOARD_SLOW,
        CREATION_SLOW,
        RESULTS_SLOW,
        TASKS_SLOW,
        QUERIES_SLOW,
        REDIS_SLOW,
        QUEUE_WAIT,
        ROUND_TRIP,
        FAST_BURN,
        SLOW_BURN,
        NOT_MEASURED,
        API_DOWN,
        KEEPER_DOWN,
        NO_ACTIVE_KEEPER,
        EGRESS_DOWN,
        EXPORTER_SILENT,
        WORKERS_DOWN,
        POD_SILENT,
        RESTARTS,
        DATABASE_DOWN,
        QUEUE_DOWN,
        CACHE_DOWN,
        REPLICATION_LAG,
        REPLICA_DOWN,
        CONNECTIONS,
        QUEUE_MEMORY,
        EVICTIONS,
        POOLER_FULL,
        DEADLOCKS,
        CPU,
        MEMORY,
        DISK,
        NETWORK,
        OOM,
        RESPONSE_TREND,
        RESOURCE_TREND,
        DISK_FILLS,
        BACKLOG,
    ];
}

pub(super) const API_ERRORS: Text = Text {
    name: "ApiErrorRate",
    summary: "{{ $value | humanizePercentage }} of the requests to {{ $labels.namespace }}/{{ $labels.cluster }} fail.",
    description: "The API answers requests with 5xx: clients see failures that are not their own.",
};

pub(super) const API_SLOW: Text = Text {
    name: "ApiResponseTime",
    summary: "95 % of the requests to {{ $labels.namespace }}/{{ $labels.cluster }} take up to {{ $value | humanizeDuration }}.",
    description: "The API is slow as a whole: every client waits.",
};

pub(super) const LOGIN_SLOW: Text = Text {
    name: "LoginSlow",
    summary: "Signing in at {{ $labels.namespace }}/{{ $labels.cluster }} takes up to {{ $value | humanizeDuration }}.",
    description: "Sign-ins are beyond their budget: people wait before they can begin. Hashing passwords takes CPU by design.",
};

pub(super) const DASHBOARD_SLOW: Text = Text {
    name: "DashboardSlow",
    summary: "The dashboard of {{ $labels.namespace }}/{{ $labels.cluster }} takes up to {{ $value | humanizeDuration }}.",
    description: "The statistics are beyond their budget: the cache misses, or the database is slow in counting.",
};

pub(super) const CREATION_SLOW: Text = Text {
    name: "TaskCreationSlow",
    summary: "Creating a task at {{ $labels.namespace }}/{{ $labels.cluster }} takes up to {{ $value | humanizeDuration }}.",
    description: "Accepting tasks is beyond its budget: each is committed to the ledger before it is acknowledged.",
};

pub(super) const RESULTS_SLOW: Text = Text {
    name: "TaskResultsSlow",
    summary: "Reading results from {{ $labels.namespace }}/{{ $labels.cluster }} takes up to {{ $value | humanizeDuration }}.",
    description: "Reading results is beyond its budget.",
};

pub(super) const TASKS_SLOW: Text = Text {
    name: "TaskProcessingSlow",
    summary: "Tasks of {{ $labels.namespace }}/{{ $labels.cluster }} take up to {{ $value | humanizeDuration }}.",
    description: "Tasks take long from claim to end: sites are slow, browsers are short of CPU, or the tasks have become larger.",
};

pub(super) const QUERIES_SLOW: Text = Text {
    name: "DatabaseQueriesSlow",
    summary: "Statements of {{ $labels.namespace }}/{{ $labels.cluster }} take up to {{ $value | humanizeDuration }}.",
    description: "The database is slow in answering the platform; the API and the workers follow.",
};

pub(super) const REDIS_SLOW: Text = Text {
    name: "RedisSlow",
    summary: "{{ $labels.redis }} of {{ $labels.namespace }}/{{ $labels.cluster }} takes up to {{ $value | humanizeDuration }}.",
    description: "Operations on queue or cache are slow: CPU, memory or the network between is short.",
};

pub(super) const QUEUE_WAIT: Text = Text {
    name: "QueueWait",
    summary: "Tasks of {{ $labels.namespace }}/{{ $labels.cluster }} wait {{ $value | humanizeDuration }} for a worker.",
    description: "Tasks that could begin do not, because no worker is free. What waits for its host or its quota does not count.",
};

pub(super) const ROUND_TRIP: Text = Text {
    name: "RoundTripSlow",
    summary: "A round trip within {{ $labels.namespace }}/{{ $labels.cluster }} takes up to {{ $value | humanizeDuration }}.",
    description: "The way between two parts is longer than its budget: the network, or the CPU of either end.",
};

pub(super) const FAST_BURN: Text = Text {
    name: "ErrorBudgetFastBurn",
    summary: "{{ $labels.namespace }}/{{ $labels.cluster }} fails at a pace that spends its error budget in days or hours.",
    description: "2 % of the month's error budget went within an hour, or 5 % within six, and it goes on.",
};

pub(super) const SLOW_BURN: Text = Text {
    name: "ErrorBudgetSlowBurn",
    summary: "{{ $labels.namespace }}/{{ $labels.cluster }} fails at a pace that spends its error budget before the month is over.",
    description: "10 % of the month's error budget went within three days, and it goes on.",
};

pub(super) const NOT_MEASURED: Text = Text {
    name: "PlatformNotMeasured",
    summary: "No pod of {{ $labels.namespace }}/{{ $labels.cluster }} is known to Prometheus.",
    description: "Nothing is measured: either the whole platform is gone, or Prometheus cannot find it. No other alert can be trusted meanwhile.",
};

pub(super) const API_DOWN: Text = Text {
    name: "ApiDown",
    summary: "No API pod of {{ $labels.namespace }}/{{ $labels.cluster }} takes requests.",
    description: "The service is completely down for its users: no API pod answers Prometheus, or none reaches the database and so none takes requests.",
};

pub(super) const KEEPER_DOWN: Text = Text {
    name: "KeeperDown",
    summary: "No keeper of {{ $labels.namespace }}/{{ $labels.cluster }} answers.",
    description: "Without the keeper nothing is refilled, swept or scheduled, and database and Redis are not measured: it is their exporter.",
};

pub(super) const NO_ACTIVE_KEEPER: Text = Text {
    name: "NoActiveKeeper",
    summary: "No keeper of {{ $labels.namespace }}/{{ $labels.cluster }} holds the lease.",
    description: "A keeper answers, but none is active: schedules do not tick, and what it measures is missing.",
};

pub(super) const EGRESS_DOWN: Text = Text {
    name: "EgressDown",
    summary: "No egress proxy of {{ $labels.namespace }}/{{ $labels.cluster }} answers.",
    description: "Nothing can be fetched: the egress proxy is the only way out, for webhooks too.",
};

pub(super) const EXPORTER_SILENT: Text = Text {
    name: "ExporterSilent",
    summary: "The stores of {{ $labels.namespace }}/{{ $labels.cluster }} are not measured.",
    description: "The keeper answers without telling of the stores: their alerts are blind.",
};

pub(super) const WORKERS_DOWN: Text = Text {
    name: "WorkersDown",
    summary: "No worker of {{ $labels.namespace }}/{{ $labels.cluster }} answers, and tasks wait.",
    description: "Tasks could begin and there is no worker to begin them.",
};

pub(super) const POD_SILENT: Text = Text {
    name: "PodNotMeasured",
    summary: "{{ $value }} pods of {{ $labels.component }} of {{ $labels.namespace }}/{{ $labels.cluster }} do not answer Prometheus.",
    description: "Pods run that Prometheus cannot read: they hang, or a NetworkPolicy stands in the way.",
};

pub(super) const RESTARTS: Text = Text {
    name: "ProgramRestarts",
    summary: "{{ $labels.component }} of {{ $labels.namespace }}/{{ $labels.cluster }} started {{ $value | humanize }} times within 15 minutes.",
    description: "Programs end and start again and again; the pod's last words say why.",
};

pub(super) const DATABASE_DOWN: Text = Text {
    name: "DatabaseDown",
    summary: "{{ $labels.dependency }} of {{ $labels.namespace }}/{{ $labels.cluster }} does not answer.",
    description: "The ledger cannot be reached: no task is accepted and no page committed. What was acknowledged is safe.",
};

pub(super) const QUEUE_DOWN: Text = Text {
    name: "QueueDown",
    summary: "The queue of {{ $labels.namespace }}/{{ $labels.cluster }} does not answer.",
    description: "Workers find nothing to do. No task is lost: the ledger has them, and the queue is rebuilt from it.",
};

pub(super) const CACHE_DOWN: Text = Text {
    name: "CacheDown",
    summary: "The cache of {{ $labels.namespace }}/{{ $labels.cluster }} does not answer.",
    description: "Statistics are counted anew for each request, and limits of requests are counted by each pod alone.",
};

pub(super) const REPLICATION_LAG: Text = Text {
    name: "ReplicationLag",
    summary: "Replica {{ $labels.replica }} of {{ $labels.namespace }}/{{ $labels.cluster }} is {{ $value | humanizeDuration }} behind.",
    description: "The read replica shows an old state; beyond maxLag reads go to the primary, which then carries them.",
};

pub(super) const REPLICA_DOWN: Text = Text {
    name: "ReplicaDown",
    summary: "Nobody follows the primary of {{ $labels.namespace }}/{{ $labels.cluster }} as {{ $labels.slot_name }}.",
    description: "A read replica is gone or cannot connect: reads go to the others and to the primary, which keeps its log for the replica meanwhile.",
};

pub(super) const CONNECTIONS: Text = Text {
    name: "DatabaseConnections",
    summary: "{{ $value | humanizePercentage }} of the database connections of {{ $labels.namespace }}/{{ $labels.cluster }} are taken.",
    description: "When none is left, programs are refused with \"too many connections\".",
};

pub(super) const QUEUE_MEMORY: Text = Text {
    name: "QueueMemory",
    summary: "The queue of {{ $labels.namespace }}/{{ $labels.cluster }} uses {{ $value | humanizePercentage }} of its memory.",
    description: "The queue evicts nothing: when it is full it refuses writes, and new tasks wait for the keeper's refill.",
};

pub(super) const EVICTIONS: Text = Text {
    name: "CacheEvictions",
    summary: "{{ $labels.redis }} of {{ $labels.namespace }}/{{ $labels.cluster }} evicts {{ $value | humanize }} keys a second.",
    description: "Cached answers are thrown away before their time, so more of them are computed again.",
};

pub(super) const POOLER_FULL: Text = Text {
    name: "PoolerFull",
    summary: "Clients of the pooler {{ $labels.pooler }} of {{ $labels.namespace }}/{{ $labels.cluster }} wait {{ $value | humanizeDuration }}.",
    description: "All server connections of one of its pods are busy; requests are answered with 503 after two seconds.",
};

pub(super) const DEADLOCKS: Text = Text {
    name: "DatabaseDeadlocks",
    summary: "{{ $value | humanize }} deadlocks in the database of {{ $labels.namespace }}/{{ $labels.cluster }} within five minutes.",
    description: "Transactions stood in each other's way; the losing ones are tried again.",
};

pub(super) const CPU: Text = Text {
    name: "CpuUsage",
    summary: "{{ $labels.component }} of {{ $labels.namespace }}/{{ $labels.cluster }} uses {{ $value | humanizePercentage }} of its CPU.",
    description: "The component is short of CPU and will be throttled or slow.",
};

pub(super) const MEMORY: Text = Text {
    name: "MemoryUsage",
    summary: "{{ $labels.pod }} uses {{ $value | humanizePercentage }} of its memory.",
    description: "Beyond its limit the pod is killed; what it worked on is taken up by others.",
};

pub(super) const DISK: Text = Text {
    name: "DiskUsage",
    summary: "Volume {{ $labels.volume }} of {{ $labels.namespace }}/{{ $labels.cluster }} is {{ $value | humanizePercentage }} full.",
    description: "On a full volume the database stops accepting writes, and the queue's log cannot be written.",
};

pub(super) const NETWORK: Text = Text {
    name: "NetworkBandwidth",
    summary: "{{ $labels.pod }} uses {{ $value | humanizePercentage }} of its network.",
    description: "The pod is near what its network carries; everything through it becomes slower.",
};

pub(super) const OOM: Text = Text {
    name: "OutOfMemoryKills",
    summary: "Processes of {{ $labels.component }} of {{ $labels.namespace }}/{{ $labels.cluster }} were killed for memory.",
    description: "The kernel killed processes because the container's memory was full.",
};

pub(super) const RESPONSE_TREND: Text = Text {
    name: "ResponseTimeTrend",
    summary: "Response times of {{ $labels.namespace }}/{{ $labels.cluster }} are {{ $value | humanize }} times those of a week ago.",
    description: "Performance degrades: 95 % of requests took less at the same hour a week ago.",
};

pub(super) const RESOURCE_TREND: Text = Text {
    name: "ResourceUsageTrend",
    summary: "A pod of {{ $labels.component }} of {{ $labels.namespace }}/{{ $labels.cluster }} uses {{ $value | humanize }} times what it used a week ago.",
    description: "Resource usage increases; CPU or memory of an average pod was less at the same hour a week ago.",
};

pub(super) const DISK_FILLS: Text = Text {
    name: "DiskFillsUp",
    summary: "Volume {{ $labels.volume }} of {{ $labels.namespace }}/{{ $labels.cluster }} is full within four days.",
    description: "At the pace of the last six hours the volume does not last four days.",
};

pub(super) const BACKLOG: Text = Text {
    name: "TaskBacklog",
    summary: "{{ $value | humanize }} tasks of {{ $labels.namespace }}/{{ $labels.cluster }} wait for a worker.",
    description: "More tasks than usual could begin and have no worker.",
};
