//! The keeper tells of the pools of a real PgBouncer, pod by pod.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use selextract_api_server::keeper::PoolerPods;
use selextract_test_services::{Pooler, PoolerOptions, start};
use sqlx::{Connection, PgConnection};

use super::{Platform, wait_for};

const ONE: PoolerOptions = PoolerOptions {
    default_pool_size: 1,
    max_prepared_statements: 200,
};

/// Two clients of a pool of one connection: the first is within a transaction, the second waits.
async fn crowd(url: String) -> (PgConnection, tokio::task::JoinHandle<()>) {
    let mut first = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT 1").execute(&mut first).await.unwrap();
    let second = tokio::spawn(async move {
        let mut second = PgConnection::connect(&url).await.unwrap();
        sqlx::query("SELECT 2").execute(&mut second).await.unwrap();
    });
    (first, second)
}

fn labels(platform: &Platform) -> String {
    format!(
        "{{address=\"127.0.0.1\",database=\"{}\",pooler=\"rw\",user=\"selextract_owner\"}} ",
        platform.database.name
    )
}

fn place(pooler: &str, port: u16) -> PoolerPods {
    format!("{pooler}=127.0.0.1:{port}").parse().unwrap()
}

#[tokio::test]
async fn a_client_that_waits_is_told_and_of_a_pod_that_does_not_answer_no_pools_are() {
    let platform = Platform::new().await;
    let pooler = start().pooler(ONE).unwrap();
    // The keeper's own probe of the database goes through the pool of the other role.
    let (mut first, second) = crowd(pooler.url("selextract_owner", &platform.database.name)).await;
    let url = pooler.url("selextract_app", &platform.database.name);
    let keeper = platform.keeper_with("keeper", |settings| {
        settings.database_url = Some(url);
        settings.poolers = vec![place("rw", pooler.port()), place("ro", 1)];
    });
    let of = labels(&platform);
    let told = async |name: &str| keeper.metric(&format!("pgbouncer_pools_{name}{of}")).await;
    wait_for("the waiting client to be told", async || {
        told("client_waiting_connections").await == Some(1.0)
    })
    .await;
    assert_eq!(told("client_active_connections").await, Some(1.0));
    assert_eq!(told("server_active_connections").await, Some(1.0));
    assert!(told("client_maxwait_seconds").await.unwrap() > 0.0);
    let (_, text) = keeper.get("/metrics").await.unwrap();
    for line in [
        "pgbouncer_up{address=\"127.0.0.1\",pooler=\"rw\"} 1",
        "pgbouncer_up{address=\"127.0.0.1\",pooler=\"ro\"} 0",
        &format!(
            "pgbouncer_databases_pool_size{{address=\"127.0.0.1\",database=\"{}\",pooler=\"rw\"}} 1",
            platform.database.name
        ),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(
        !text.contains("database=\"pgbouncer\""),
        "the console is no pool: {text}"
    );
    let dead = |line: &&str| line.starts_with("pgbouncer_") && line.contains("pooler=\"ro\"");
    assert_eq!(text.lines().filter(dead).count(), 1, "absent, not 0: {text}");
    sqlx::raw_sql("COMMIT").execute(&mut first).await.unwrap();
    second.await.unwrap();
    wait_for("the next look", async || {
        told("client_waiting_connections").await == Some(0.0)
    })
    .await;
    let waited = format!(
        "pgbouncer_stats_client_wait_seconds_total{{address=\"127.0.0.1\",database=\"{}\",pooler=\"rw\"}} ",
        platform.database.name
    );
    assert!(keeper.metric(&waited).await.unwrap() > 0.0);
    ends_while_it_is_asked(&pooler);
    keeper.end().await;
}

/// As a rollout ends it: an open console must not keep it.
fn ends_while_it_is_asked(pooler: &Pooler) {
    pooler.process().interrupt().unwrap();
    assert!(pooler.process().ends_within(Duration::from_secs(10)).unwrap());
}

/// An authority, and a certificate of it for the pooler's Service alone: a pod is asked by its address.
fn identity() -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["shop-pgbouncer-rw".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    (authority.pem(), server.pem(), server_key.serialize_pem())
}

#[tokio::test]
async fn a_pod_is_believed_for_its_certificates_authority_alone() {
    let platform = Platform::new().await;
    let ((ours, certificate, key), (foreign, ..)) = (identity(), identity());
    let pooler = start().pooler_with_tls(ONE, (&certificate, &key)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (authority, up) in [(ours, 1.0), (foreign, 0.0)] {
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, authority).unwrap();
        let url = pooler.url("selextract_app", &platform.database.name);
        let verified = format!("sslmode=verify-full&sslrootcert={}", file.display());
        let keeper = platform.keeper_with("keeper", |settings| {
            settings.database_url = Some(url.replace("sslmode=disable", &verified));
            settings.poolers = vec![place("rw", pooler.port())];
        });
        let name = "pgbouncer_up{address=\"127.0.0.1\",pooler=\"rw\"} ";
        wait_for("the pod to be looked at", async || {
            keeper.metric(name).await == Some(up)
        })
        .await;
        keeper.end().await;
    }
}
