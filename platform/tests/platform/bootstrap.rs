//! The migration job: roles, database, schema, the first administrator.

use jiff::Timestamp;
use selextract_platform::{
    bootstrap::{self, RolePasswords},
    ledger::{Secret, TaskId, UserId, claims::Ending},
};
use selextract_test_services::{PASSWORD, start};
use sqlx::{Connection, PgConnection};

use crate::support::{LEASE, Room, ledger, new_task, upsert};

fn passwords(suffix: &str) -> RolePasswords {
    let of = |role: &str| Secret(format!("it's-{role}-{suffix}"));
    RolePasswords {
        owner: of("owner"),
        app: of("app"),
        replication: of("replication"),
    }
}

async fn error_code(connection: &mut PgConnection, sql: &'static str) -> Option<String> {
    match sqlx::raw_sql(sql).execute(connection).await {
        Err(sqlx::Error::Database(refused)) => refused.code().map(Into::into),
        other => other.map(|_| None).unwrap(),
    }
}

#[tokio::test]
async fn the_server_is_prepared_twice_and_the_last_passwords_work() {
    let server = start().postgres().unwrap();
    let superuser = Secret(server.url("postgres", "postgres"));
    let url = |role: &str, password: &Secret| {
        Secret(
            server
                .url(role, "selextract")
                .replace(PASSWORD, &password.0.replace('\'', "%27")),
        )
    };
    for suffix in ["first", "second"] {
        let passwords = passwords(suffix);
        bootstrap::prepare_server(&superuser, "selextract", &passwords)
            .await
            .unwrap();
        let owner = url(bootstrap::OWNER, &passwords.owner);
        assert_eq!(bootstrap::database_of(&owner).unwrap(), "selextract");
        for _ in 0..2 {
            bootstrap::migrate(&owner, Timestamp::now()).await.unwrap();
            bootstrap::ensure_admin(&owner, suffix).await.unwrap();
        }
        let app = ledger(&url(bootstrap::APP, &passwords.app).0);
        app.accept(UserId::new(), &new_task(), None).await.unwrap();
        let admin = app.user_by_name("admin").await.unwrap().unwrap();
        assert_eq!(
            (admin.role.as_str(), admin.password_hash.as_deref()),
            ("admin", Some("first"))
        );
        let replication = url(bootstrap::REPLICATION, &passwords.replication);
        PgConnection::connect(&replication.0)
            .await
            .unwrap()
            .close()
            .await
            .unwrap();
    }
    let old = url(bootstrap::OWNER, &passwords("first").owner);
    assert!(
        PgConnection::connect(&old.0).await.is_err(),
        "the first password is no more"
    );

    let mut connection = PgConnection::connect(&server.url("postgres", "selextract"))
        .await
        .unwrap();
    let told: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%' || $1 || '%'")
        .bind("owner-second")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(told, 0, "no statistics hold a password");
    let replicates: Vec<String> =
        sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE rolreplication AND NOT rolsuper")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(replicates, [bootstrap::REPLICATION]);
}

#[tokio::test]
async fn a_ledger_of_the_first_version_keeps_what_it_has_and_goes_on() {
    let database = start().database().unwrap();
    let mut first = sqlx::migrate!("../migrations");
    first.migrations = first.migrations.iter().take(1).cloned().collect::<Vec<_>>().into();
    let mut owner = PgConnection::connect(&database.direct_url).await.unwrap();
    first.run(&mut owner).await.unwrap();
    ledger(&database.direct_url)
        .make_partitions(Timestamp::now(), 1)
        .await
        .unwrap();
    let once = upsert("once", "a");
    let spec = sqlx::types::Json(&once.item.task);
    let user = UserId::new();
    for made in [
        sqlx::query("INSERT INTO users (id, name, kind, role) VALUES ($1, 'k8s:shop', 'namespace', 'member')").bind(user),
        sqlx::query(
            "INSERT INTO scrape_tasks (uid, user_id, name, spec, spec_hash, priority, suspend)
             VALUES ('once', $1, 'prices', $2, 'a', 5, false)",
        )
        .bind(user)
        .bind(spec),
        sqlx::query(
            "INSERT INTO tasks (id, user_id, created_at, due_at, spec, spec_version, host, max_attempts, source_uid, spec_hash, status,
                 finished_at)
             VALUES ($3, $1, now(), now(), $2, 1, 'site.test', 1, 'once', 'a', 'failed', now())",
        )
        .bind(user)
        .bind(spec)
        .bind(TaskId::new()),
    ] {
        made.execute(&mut owner).await.unwrap();
    }
    for _ in 0..2 {
        bootstrap::migrate(&Secret(database.direct_url.clone()), Timestamp::now())
            .await
            .unwrap();
    }
    for table in ["artifacts", "artifact_chunks"] {
        let months: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass")
            .bind(table)
            .fetch_one(&mut owner)
            .await
            .unwrap();
        assert_eq!(months, 2, "{table} has the months that tasks has");
    }
    let app = ledger(&database.url);
    let letters = app.dead_letters(user, None, None).await.unwrap();
    app.replay(None, letters[0].id).await.unwrap();
    let claims = app.claim(&[letters[0].id], "a-worker", LEASE).await.unwrap();
    assert_eq!(claims.len(), 1, "what failed before the upgrade is replayed");
    app.finish(claims[0].lease(), &Ending::Canceled, 0)
        .await
        .unwrap()
        .unwrap();
    sqlx::raw_sql("DELETE FROM tasks").execute(&mut owner).await.unwrap();
    let shop = app.namespace_owner("shop").await.unwrap();
    let again = app.upsert_scrape_task(&once, shop, Timestamp::now()).await.unwrap();
    assert!(
        again.started.is_none(),
        "what ran before the upgrade does not run again"
    );
}

#[tokio::test]
async fn the_programs_role_changes_rows_and_nothing_else() {
    let room = Room::new().await;
    room.keeper.make_partitions(Timestamp::now(), 3).await.unwrap();
    let mut app = PgConnection::connect(&room.database.url).await.unwrap();
    for allowed in [
        "INSERT INTO users (id, name, kind, role) VALUES (gen_random_uuid(), 'somebody', 'person', 'member')",
        "UPDATE users SET role = 'admin'",
        "DELETE FROM users",
        "INSERT INTO changes (uid, task_id) VALUES ('uid', gen_random_uuid())",
        "SELECT count(*) FROM _sqlx_migrations",
    ] {
        assert_eq!(error_code(&mut app, allowed).await, None, "{allowed}");
    }
    for refused in [
        "CREATE TABLE mine ()",
        "ALTER TABLE users ADD COLUMN mine text",
        "DROP TABLE users",
        "TRUNCATE users",
        "DELETE FROM _sqlx_migrations",
        "CREATE EXTENSION file_fdw",
    ] {
        // insufficient_privilege, as in the PostgreSQL manual's appendix A.
        assert_eq!(
            error_code(&mut app, refused).await.as_deref(),
            Some("42501"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn the_server_says_its_version() {
    let room = Room::new().await;
    let version = bootstrap::server_version(&Secret(room.database.direct_url.clone()))
        .await
        .unwrap();
    assert!(version.starts_with("17."), "{version}");
}
