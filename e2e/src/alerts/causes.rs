//! What is done to the platform, and what must fire for it.

/// Something that is done to the platform.
pub struct Cause {
    /// What, in the table.
    pub what: &'static str,
    /// Workloads that have no pod meanwhile.
    pub stopped: &'static [&'static str],
    /// What is done again and again meanwhile.
    pub deeds: &'static [Deed],
    /// The alerts for it.
    pub fires: &'static [&'static str],
    /// Whether one of them must hold for a quarter of an hour.
    pub long: bool,
}

/// Something that is done again and again until the cause is over.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// A script in a pod of a workload, by bash, with the pooler's URL as its only line of input.
    Script {
        /// Whose pod.
        workload: &'static str,
        /// What.
        script: &'static str,
        /// What undoes it, if anything has to.
        after: &'static str,
    },
    /// The program of a component is killed whenever it has run for so many seconds.
    Kill {
        /// Whose pods.
        component: &'static str,
        /// How long it may run.
        seconds: u64,
    },
    /// A process in the container of a component takes memory until the kernel kills it.
    Exhaust {
        /// Whose pod.
        component: &'static str,
    },
}

/// One after the other; between them everything comes back. Who tells of the stores has to be there while they are not.
pub const CAUSES: [Cause; 7] = [
    Cause {
        what: "load, and thresholds that nothing meets",
        stopped: &[],
        deeds: &[],
        fires: &[
            "ApiResponseTime",
            "LoginSlow",
            "DashboardSlow",
            "TaskCreationSlow",
            "TaskResultsSlow",
            "TaskProcessingSlow",
            "DatabaseQueriesSlow",
            "RedisSlow",
            "CpuUsage",
            "MemoryUsage",
            "QueueMemory",
            "DiskUsage",
            "NetworkBandwidth",
            "DatabaseConnections",
        ],
        long: false,
    },
    Cause {
        what: "the read replica stops to replay; memory of the API's container filled",
        stopped: &[],
        deeds: &[
            Deed::Script {
                workload: "statefulset/watched-postgres-replica-0",
                script: REPLAY_PAUSED,
                after: REPLAY_RESUMED,
            },
            Deed::Exhaust { component: "api" },
        ],
        fires: &["ReplicationLag", "OutOfMemoryKills"],
        long: false,
    },
    Cause {
        what: "forty clients of the pooler hold their connections",
        stopped: &[],
        deeds: &[Deed::Script {
            workload: "statefulset/watched-postgres",
            script: POOLER_HELD,
            after: "",
        }],
        fires: &["PoolerFull"],
        long: false,
    },
    Cause {
        what: "database, queue and cache stopped",
        stopped: &[
            "statefulset/watched-postgres",
            "statefulset/watched-redis-queue",
            "deployment/watched-redis-cache",
        ],
        deeds: &[],
        fires: &["DatabaseDown", "QueueDown", "CacheDown", "ApiDown"],
        long: false,
    },
    Cause {
        what: "workers and egress proxy stopped, with tasks waiting and previews failing",
        stopped: &["deployment/watched-worker", "deployment/watched-egress"],
        deeds: &[],
        fires: &[
            "EgressDown",
            "WorkersDown",
            "QueueWait",
            "ApiErrorRate",
            "ErrorBudgetFastBurn",
        ],
        long: false,
    },
    Cause {
        what: "API and keeper stopped, workers and egress proxy too",
        stopped: &[
            "deployment/watched-api",
            "deployment/watched-keeper",
            "deployment/watched-worker",
            "deployment/watched-egress",
        ],
        deeds: &[],
        fires: &[
            "ApiDown",
            "KeeperDown",
            "NoActiveKeeper",
            "ExporterSilent",
            "PlatformNotMeasured",
        ],
        long: false,
    },
    Cause {
        what: "for a quarter of an hour workers killed at once and the egress proxy after 20 s, the cache filled, deadlocks, no read replica",
        stopped: &["statefulset/watched-postgres-replica-0"],
        deeds: &[
            Deed::Kill {
                component: "worker",
                seconds: 0,
            },
            Deed::Kill {
                component: "egress",
                seconds: 20,
            },
            Deed::Script {
                workload: "deployment/watched-redis-cache",
                script: CACHE_FILLED,
                after: "",
            },
            Deed::Script {
                workload: "statefulset/watched-postgres",
                script: DEADLOCK,
                after: "",
            },
        ],
        fires: &[
            "PodNotMeasured",
            "ProgramRestarts",
            "TaskBacklog",
            "RoundTripSlow",
            "CacheEvictions",
            "DatabaseDeadlocks",
            "ReplicaDown",
            "ErrorBudgetSlowBurn",
        ],
        long: true,
    },
];

/// Every second a row is written on the primary that the replica does not replay: the keeper's own words suffice.
const REPLAY_PAUSED: &str = "PGPASSWORD=$(cat /etc/selextract/postgres-passwords/superuser-password) \
    exec psql -XAtq -h /run/postgresql -U postgres -d selextract -c 'SELECT pg_wal_replay_pause()'";
const REPLAY_RESUMED: &str = "PGPASSWORD=$(cat /etc/selextract/postgres-passwords/superuser-password) \
    exec psql -XAtq -h /run/postgresql -U postgres -d selextract -c 'SELECT pg_wal_replay_resume()'";
/// Twenty are served, twenty wait.
const POOLER_HELD: &str =
    "read -r url; for client in $(seq 40); do psql -XAtq \"$url\" -c 'SELECT pg_sleep(12)' & done; wait";
/// More than it may hold, with a time to live as everything there; a script may go beyond that while it runs, and its container has little room.
const CACHE_FILLED: &str = "script='local value = string.rep(\"x\", 1000000) \
    for key = 1, 4 do redis.call(\"SET\", \"filled:\" .. ARGV[1] .. \":\" .. key, value, \"EX\", 600) end'; \
    for round in $(seq 64); do valkey-cli --no-auth-warning EVAL \"$script\" 0 \"$round\" || exit 1; done";
/// Two who each wait for what the other holds.
const DEADLOCK: &str = "export PGPASSWORD=$(cat /etc/selextract/postgres-passwords/superuser-password); \
    lock() { psql -XAtq -h /run/postgresql -U postgres -d selextract \
    -c \"BEGIN; SELECT pg_advisory_xact_lock($1); SELECT pg_sleep(1); SELECT pg_advisory_xact_lock($2); COMMIT\"; }; \
    lock 41 42 & lock 42 41 & wait; sleep 5";
