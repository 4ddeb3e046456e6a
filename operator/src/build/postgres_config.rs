//! `postgresql.conf`, `pg_hba.conf` and the scripts that primary and replicas start with. Pure text.

use crate::validated::Postgres;

/// Where everything lies.
pub const DATA: &str = "/var/lib/postgresql/data";

/// The settings of primary and replicas, which must agree on several of them.
pub fn settings(postgres: &Postgres) -> String {
    let memory = postgres.memory_mb;
    // Room for five replicas and their clones at any time: to change it would restart the primary.
    let senders = 16;
    // The volume bounds what a dead replica may keep back: a tenth of it, at least 128 MB.
    let slots_mb = (postgres.storage.units().unwrap_or_default() >> 20) / 10;
    format!(
        "data_directory = '{DATA}/pgdata'\n\
         hba_file = '/etc/selextract/postgres/pg_hba.conf'\nident_file = '{DATA}/pgdata/pg_ident.conf'\n\
         listen_addresses = '*'\nport = 5432\nunix_socket_directories = '/run/postgresql'\n\
         max_connections = {connections}\nsuperuser_reserved_connections = 3\n\
         password_encryption = 'scram-sha-256'\n\
         ssl = on\nssl_cert_file = '/etc/selextract/postgres-tls/tls.crt'\nssl_key_file = '/etc/selextract/postgres-tls/tls.key'\n\
         ssl_min_protocol_version = 'TLSv1.2'\n\
         shared_buffers = {buffers}MB\neffective_cache_size = {cache}MB\nmaintenance_work_mem = {maintenance}MB\nwork_mem = 4MB\n\
         fsync = on\nsynchronous_commit = on\nfull_page_writes = on\n\
         wal_level = replica\nwal_compression = on\nmin_wal_size = 80MB\nmax_wal_size = {wal}MB\ncheckpoint_timeout = 5min\n\
         max_wal_senders = {senders}\nmax_replication_slots = {senders}\nmax_slot_wal_keep_size = {slots}MB\nwal_sender_timeout = 30s\n\
         hot_standby = on\nhot_standby_feedback = off\nmax_standby_streaming_delay = 30s\nwal_receiver_timeout = 30s\n\
         shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.max = 5000\ntrack_io_timing = on\ntrack_wal_io_timing = on\n\
         jit = off\nidle_in_transaction_session_timeout = 5min\ntcp_keepalives_idle = 30\n\
         autovacuum_vacuum_scale_factor = 0.05\nautovacuum_analyze_scale_factor = 0.05\n\
         logging_collector = off\nlog_destination = 'stderr'\nlog_line_prefix = '%m [%p] %q%u@%d '\n\
         log_timezone = 'UTC'\ntimezone = 'UTC'\nlog_checkpoints = off\nlog_min_duration_statement = 1s\n\
         log_parameter_max_length = 0\nlog_parameter_max_length_on_error = 0\n",
        connections = postgres.max_connections,
        buffers = memory / 4,
        cache = memory / 4 * 3,
        maintenance = (memory / 16).clamp(16, 512),
        wal = (slots_mb / 2).clamp(160, 4096),
        slots = slots_mb.max(128),
    )
}

/// Nobody gets in without TLS and a password; replication is its own role's.
pub const HBA: &str = "\
# type  database     user                    address  method
local   all          all                              scram-sha-256
hostssl replication  selextract_replication  all      scram-sha-256
hostssl replication  all                     all      reject
hostssl all          all                     all      scram-sha-256
";

/// Before the primary starts: an empty volume becomes a database, another's volume is left alone.
///
/// The marker beside the data is a hash of the superuser's password: it says which Secret opens the volume. It is written before the
/// new database is moved into place, so a volume with data and without the marker was never ours.
pub const PREPARE_PRIMARY: &str = r#"set -euo pipefail
umask 077
data=/var/lib/postgresql/data
pgdata=$data/pgdata
marker=$data/selextract-secret
passwords=/etc/selextract/postgres-passwords
bin=/usr/lib/postgresql/17/bin

refuse() {
  { printf '%s' "$2" >/dev/termination-log; } 2>/dev/null || true
  printf '%s\n' "$2" >&2
  exit "$1"
}
quoted() { local text; text=$(<"$1"); printf "'%s'" "${text//\'/\'\'}"; }
# One statement a line: that is how a server without connections reads them.
alone() { "$bin/postgres" --single -j -D "$1" -c log_min_messages=fatal -c log_statement=none postgres >/dev/null; }
replication_role() {
  cat <<SQL
DO \$\$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'selextract_replication') THEN CREATE ROLE selextract_replication; END IF; END \$\$;

ALTER ROLE selextract_replication WITH LOGIN REPLICATION PASSWORD $(quoted "$passwords/replication-password");

GRANT pg_monitor TO selextract_replication;

SQL
}

secret=$(sha256sum <"$passwords/superuser-password")
secret=${secret%% *}

if [[ -s $pgdata/PG_VERSION ]]; then
  version=$(<"$pgdata/PG_VERSION")
  [[ $version == 17 ]] || refuse 66 "The volume holds data of PostgreSQL $version; this version opens PostgreSQL 17. Move the data with pg_upgrade or pg_dump."
  if [[ ! -e $marker || $(<"$marker") != "$secret" ]]; then
    [[ $ADOPT == true ]] || refuse 65 "The volume holds data that this cluster's Secret does not open. Bring the Secret back, or set spec.adoptForeignData to take the data over with new passwords."
    rm -f "$pgdata/standby.signal" "$pgdata/recovery.signal" "$pgdata/postmaster.pid"
    { printf 'ALTER ROLE postgres WITH LOGIN SUPERUSER PASSWORD %s;\n\n' "$(quoted "$passwords/superuser-password")"; replication_role; } | alone "$pgdata"
    printf '%s' "$secret" >"$marker"
    sync "$marker" "$data"
  fi
  exit 0
fi

[[ ! -d $pgdata || -z $(ls -A "$pgdata") ]] || refuse 65 "The folder pgdata of the volume holds something that is no database. Look at it, and empty it if it is not needed."
rm -rf "$pgdata" "$pgdata.new"
"$bin/initdb" --pgdata="$pgdata.new" --username=postgres --pwfile="$passwords/superuser-password" --auth=scram-sha-256 \
  --data-checksums --encoding=UTF8 --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8
replication_role | alone "$pgdata.new"
printf '%s' "$secret" >"$marker"
sync "$marker" "$data"
mv "$pgdata.new" "$pgdata"
sync "$data"
"#;

/// Starts the server and ends it fast: on SIGTERM alone PostgreSQL would wait for its clients.
pub const START: &str = r#"serve() {
  rm -f /run/postgresql/.s.PGSQL.5432.lock
  /usr/lib/postgresql/17/bin/postgres -c config_file=/etc/selextract/postgres/postgresql.conf "$@" &
  local pid=$! status=0
  trap 'kill -INT "$pid"' TERM INT
  while kill -0 "$pid" 2>/dev/null; do status=0; wait "$pid" || status=$?; done
  exit "$status"
}
"#;

/// Drops the slots of replicas that are no longer wanted, or the primary would keep back its log for them. How many are wanted stands in a
/// file that changes while the server runs; five minutes are more than it takes to arrive there.
pub const TIDY_SLOTS: &str = r#"tidy_slots() {
  local passfile=/run/postgresql/passfile
  (umask 077; printf '*:*:*:selextract_replication:%s\n' "$(</etc/selextract/postgres-passwords/replication-password)" >"$passfile")
  while sleep 30; do
    wanted=$(</etc/selextract/postgres-replicas/wanted) || continue
    PGPASSFILE=$passfile /usr/lib/postgresql/17/bin/psql --no-psqlrc --no-align --tuples-only --quiet \
      "host=/run/postgresql port=5432 user=selextract_replication dbname=postgres connect_timeout=5" \
      -c "SELECT 'dropped the slot ' || slot_name FROM (SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^replica_[0-9]{1,4}\$' AND substr(slot_name, 9)::int >= ${wanted//[^0-9]/} AND NOT active AND inactive_since < now() - interval '5 minutes') AS dropped" || true
  done
}
"#;

/// What a replica does before it serves: a volume that cannot stream any more is cloned again. A replica's data is never the only copy.
///
/// It runs at each start of the container, and [`ALIVE_REPLICA`] restarts the container when the slot is lost.
pub const START_REPLICA: &str = r#"set -euo pipefail
umask 077
source /etc/selextract/postgres/replica.sh
trap 'exit 143' TERM INT

[[ -s $pgdata/PG_VERSION ]] || rm -rf "$pgdata"
if [[ -d $pgdata ]] && answer=$(ask_primary); then
  ours=$("$bin/pg_controldata" -D "$pgdata" | sed -n 's/^Database system identifier: *//p')
  [[ $answer == "$ours "* ]] || { echo "the primary is another database than the one that was cloned"; rm -rf "$pgdata"; }
  [[ $answer == *" kept" ]] || { echo "the slot $SLOT is lost"; rm -rf "$pgdata"; }
fi
if [[ ! -d $pgdata ]]; then
  echo "cloning the primary"
  rm -rf "$pgdata.new"
  # A slot of an earlier clone would keep back the primary's log for nothing.
  commands "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$SLOT' AND NOT active" >/dev/null
  "$bin/pg_basebackup" --dbname="$conninfo dbname=replication" --pgdata="$pgdata.new" --wal-method=stream --checkpoint=fast \
    --create-slot --slot="$SLOT" --no-password &
  wait $!
  touch "$pgdata.new/standby.signal"
  # What it was told on the command line holds, not what the primary wrote about itself.
  : >"$pgdata.new/postgresql.auto.conf"
  sync "$pgdata.new"
  mv "$pgdata.new" "$pgdata"
  sync "$data"
fi
serve -c "primary_conninfo=$conninfo" -c "primary_slot_name=$SLOT"
"#;

/// What the scripts of a replica share. The password lies in a file of the pod's own memory: libpq refuses one that a group can read.
pub const REPLICA: &str = r#"data=/var/lib/postgresql/data
pgdata=$data/pgdata
bin=/usr/lib/postgresql/17/bin
export PGPASSFILE=/run/postgresql/passfile
conninfo="host=$PRIMARY port=5432 user=selextract_replication application_name=$SLOT sslmode=verify-full sslrootcert=/etc/selextract/ca/ca.crt passfile=$PGPASSFILE connect_timeout=5 keepalives_idle=30"

(umask 077; printf '*:*:*:selextract_replication:%s\n' "$(<"/etc/selextract/postgres-passwords/replication-password")" >"$PGPASSFILE.new.$$"; mv "$PGPASSFILE.new.$$" "$PGPASSFILE")

commands() { "$bin/psql" --no-psqlrc --no-align --tuples-only --quiet -v ON_ERROR_STOP=1 "$conninfo dbname=postgres" -c "$1"; }
# "<system identifier> kept" while the primary keeps back the log that this replica needs, "<system identifier> lost" otherwise.
ask_primary() {
  commands "SELECT system_identifier || ' ' || CASE WHEN EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$SLOT' AND wal_status <> 'lost' AND restart_lsn IS NOT NULL) THEN 'kept' ELSE 'lost' END FROM pg_control_system()"
}
local_query() { "$bin/psql" --no-psqlrc --no-align --tuples-only --quiet "host=/run/postgresql port=5432 user=selextract_replication dbname=postgres connect_timeout=3" -c "$1"; }
"#;

/// A replica is alive while it answers, and while its slot is not lost: then only a new clone helps, which a restart makes.
pub const ALIVE_REPLICA: &str = r#"source /etc/selextract/postgres/replica.sh
/usr/lib/postgresql/17/bin/pg_isready -q -h /run/postgresql -t 3 || [[ $? == 1 ]] || exit 1
streaming=$(local_query "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") || exit 0
[[ $streaming == 0 ]] || exit 0
answer=$(ask_primary) || exit 0
[[ $answer == *" kept" ]]
"#;

/// A replica is ready while it streams and is no further behind than maxLag.
pub const READY_REPLICA: &str = r#"source /etc/selextract/postgres/replica.sh
near=$(local_query "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AND (pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() OR now() - pg_last_xact_replay_timestamp() <= interval '$MAX_LAG_MS milliseconds')")
[[ $near == t ]]
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::fixture;

    #[test]
    fn what_keeps_data_safe_is_on() {
        let text = settings(&fixture::minimal().postgres);
        for line in [
            "fsync = on",
            "synchronous_commit = on",
            "full_page_writes = on",
            "ssl = on",
            "wal_level = replica",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_setting_stands_once() {
        let text = settings(&fixture::minimal().postgres);
        let mut names: Vec<_> = text.lines().filter_map(|line| line.split(" = ").next()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn nobody_gets_in_without_tls_or_password() {
        for line in HBA.lines().filter(|line| !line.starts_with('#')) {
            assert!(
                !line.starts_with("host ") && !line.contains("trust") && !line.contains("md5"),
                "{line}"
            );
        }
    }
}
