//! A platform on a database that somebody else runs.

use std::time::Duration;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use selextract_e2e::world::World;
use serde_json::{Value, json};

use crate::{
    platform::{DONE, Platform},
    refusals::condition,
};

/// The server's only name in its certificate.
const HOST: &str = "legacy-db.journey-external.svc.cluster.local";

/// PostgreSQL as somebody else might run it: TLS with a certificate of an authority of its own, passwords by SCRAM.
const SERVER: &str = r"
apiVersion: v1
kind: Service
metadata: {name: legacy-db, namespace: NAMESPACE}
spec: {selector: {app: legacy-db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: legacy-db, namespace: NAMESPACE}
data:
  start.sh: |
    set -euo pipefail
    export PATH=/usr/lib/postgresql/17/bin:$PATH
    initdb --pgdata=/data/pgdata --username=postgres --auth-local=trust --auth-host=scram-sha-256
    echo 'hostssl all all all scram-sha-256' >>/data/pgdata/pg_hba.conf
    exec postgres -D /data/pgdata -c listen_addresses='*' -c unix_socket_directories=/tmp -c ssl=on \
      -c ssl_cert_file=/tls/tls.crt -c ssl_key_file=/tls/tls.key
---
apiVersion: v1
kind: Pod
metadata: {name: legacy-db, namespace: NAMESPACE, labels: {app: legacy-db}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: postgres
      image: localhost/selextract/data:TAG
      command: [bash, /config/start.sh]
      readinessProbe: {exec: {command: [/usr/lib/postgresql/17/bin/pg_isready, -q, -h, /tmp]}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: config, mountPath: /config}
        - {name: tls, mountPath: /tls}
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - {name: config, configMap: {name: legacy-db}}
    - {name: tls, secret: {secretName: legacy-db-tls, defaultMode: 0440}}
    - {name: data, emptyDir: {}}
    - {name: tmp, emptyDir: {}}
";

const SHOP: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: {name: shop, namespace: NAMESPACE}
spec:
  profile: Small
  postgres: {provider: External, external: {secretName: my-database, caKey: ca.crt}}
  egress:
    allow: [{host: sites.NAMESPACE.svc.cluster.local}]
";

#[tokio::test]
async fn a_platform_on_an_external_database_works_says_what_breaks_it_and_recovers() -> Result<()> {
    let platform = Platform {
        world: World::enter("journey-external").await?,
    };
    let world = &platform.world;
    let (authority, certificate, key) = certificates()?;
    world.apply(&secret(
        "legacy-db-tls",
        &json!({ "tls.crt": certificate, "tls.key": key }),
    ))?;
    world.apply(SERVER)?;
    world.serve_sites()?;
    world
        .wait_for_condition("pod/legacy-db", "Ready", "True", Duration::from_mins(1))
        .await?;
    sql(world, "CREATE ROLE scraper LOGIN PASSWORD 'right'")?;
    sql(world, "CREATE DATABASE ledger OWNER scraper")?;
    let name_in_secret = |host: &str, password: &str| {
        let url = format!("postgres://scraper:{password}@{host}:5432/ledger");
        world.apply(&secret("my-database", &json!({ "url": url, "ca.crt": authority })))
    };

    // A name that the server's certificate does not have: verify-full is the default.
    name_in_secret("legacy-db", "right")?;
    world.apply(SHOP)?;
    let says = told(world, "certificate").await?;
    assert!(says.contains("legacy-db:5432"), "{says}");

    name_in_secret(HOST, "right")?;
    platform.wait_until_ready().await?;
    scrape(&platform).await?;
    let open = "SELECT count(*) FILTER (WHERE NOT ssl) || ' of ' || (count(*) > 0) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'scraper'";
    assert_eq!(sql(world, open)?, "0 of true");

    // The password is changed on the server, and nobody tells the platform.
    sql(world, "ALTER ROLE scraper PASSWORD 'rotated'")?;
    sql(
        world,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'scraper'",
    )?;
    let says = told(world, "password authentication failed").await?;
    assert!(says.contains(HOST) && !says.contains("right"), "{says}");

    name_in_secret(HOST, "rotated")?;
    platform.wait_until_ready().await?;
    scrape(&platform).await?;
    world.leave()
}

/// What the condition `DatabaseReady` says when it is False for this reason.
async fn told(world: &World, reason: &str) -> Result<String> {
    let told = condition(world, "selextractcluster/shop", "DatabaseReady", reason).await?;
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("False"), &json!("CheckFailed")),
        "{told}"
    );
    Ok(told["message"].as_str().unwrap_or_default().to_owned())
}

async fn scrape(platform: &Platform) -> Result<()> {
    let api = platform.api().await?;
    let ended = api
        .wait_for_end(&api.create_task(&platform.parameters_task()?).await?, DONE)
        .await?;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    Ok(())
}

fn secret(name: &str, data: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "NAMESPACE" }, "stringData": data,
    })
    .to_string()
}

fn sql(world: &World, sql: &str) -> Result<String> {
    let psql = [
        "exec",
        "legacy-db",
        "--",
        "/usr/bin/psql",
        "-XAt",
        "-h",
        "/tmp",
        "-U",
        "postgres",
        "-c",
        sql,
    ];
    Ok(world.kubectl(&psql)?.trim().to_owned())
}

/// An authority, and a certificate with its key for the server.
fn certificates() -> Result<(String, String, String)> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "somebody else's authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![HOST.to_owned()])?.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}
