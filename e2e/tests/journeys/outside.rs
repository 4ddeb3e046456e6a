//! What lies outside the platform, on the real cluster: a login form, an upstream proxy and a bucket, none of them its own.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use reqwest::Method;
use selextract_e2e::{HOST, world::World};
use selextract_test_services::{ObjectStore, PASSWORD};
use serde_json::{Value, json};

use crate::platform::{DONE, Platform, shared};

const CLUB: &str = "
apiVersion: v1
kind: Secret
metadata: {name: club, namespace: NAMESPACE}
type: selextract.io/credentials
stringData:
  origin: http://sites.NAMESPACE.svc.cluster.local
  type: FormLogin
  allowHttp: 'true'
  loginUrl: /club/login
  usernameField: user
  passwordField: password
  username: ann
  password: of-the-journeys
---
apiVersion: v1
kind: List
items:
  - apiVersion: selextract.io/v1alpha1
    kind: ScrapeTask
    metadata: {name: club-http, namespace: NAMESPACE}
    spec: &spec
      clusterRef: {name: shop}
      credentialsFrom: Secret
      task: &task
        url: http://sites.NAMESPACE.svc.cluster.local/club/runtime-config.html
        credentials: club
        fields: [{name: title, selector: title, required: true}]
  - apiVersion: selextract.io/v1alpha1
    kind: ScrapeTask
    metadata: {name: club-browser, namespace: NAMESPACE}
    spec:
      <<: *spec
      task: {<<: *task, render: Browser}
";

#[tokio::test]
async fn both_engines_enter_by_a_sites_own_login_form() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    world.apply(CLUB)?;
    for name in ["club-http", "club-browser"] {
        let object = format!("scrapetask/{name}");
        let done = world.wait_for_condition(&object, "Succeeded", "True", DONE).await?;
        let preview = done["status"]["preview"].as_str().unwrap_or_default();
        assert!(
            preview.contains("Server Configuration"),
            "{name} read another page: {done}"
        );
    }
    // The site knows that each came in by its form, and once.
    let visits = world.kubectl(&["logs", "deployment/sites", "--tail=-1"])?;
    let entered = visits.lines().filter(|line| line.contains(" 303 /club/enter ")).count();
    assert_eq!(entered, 2, "{visits}");
    world.kubectl(&[
        "delete",
        "scrapetask/club-http",
        "scrapetask/club-browser",
        "secret/club",
    ])?;
    Ok(())
}

/// Another's proxy, which wants to know who asks and writes down what it was asked for.
const PROXY: &str = "
apiVersion: v1
kind: Service
metadata: {name: upstream, namespace: NAMESPACE}
spec: {selector: {app: upstream}, ports: [{port: 8888}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: upstream, namespace: NAMESPACE}
data:
  tinyproxy.conf: |
    Port 8888
    Timeout 60
    MaxClients 50
    LogLevel Connect
    ConnectPort 80
    BasicAuth ann of-the-upstream
---
apiVersion: v1
kind: Secret
metadata: {name: upstream, namespace: NAMESPACE}
stringData: {username: ann, password: of-the-upstream}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: upstream, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: upstream}}
  template:
    metadata: {labels: {app: upstream}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: tinyproxy
          image: localhost/selextract/sites:TAG
          command: [tinyproxy, -d, -c, /config/tinyproxy.conf]
          readinessProbe: {tcpSocket: {port: 8888}, periodSeconds: 1}
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          volumeMounts: [{name: config, mountPath: /config}]
      volumes: [{name: config, configMap: {name: upstream}}]
";

const BUCKET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: bucket, namespace: NAMESPACE}
stringData: {accessKeyId: tests, secretAccessKey: PASSWORD}
---
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: {name: shop, namespace: NAMESPACE}
spec:
  profile: Small
  worker: {lease: 5s}
  egress:
    allow: [{host: sites.NAMESPACE.svc.cluster.local}]
    upstreams:
      - name: elsewhere
        proxies: [{url: 'http://upstream.NAMESPACE.svc.cluster.local:8888', credentialsSecretRef: {name: upstream}}]
  artifacts:
    store: S3
    s3: {endpoint: 'ENDPOINT', bucket: artifacts, forcePathStyle: true, credentialsSecretRef: {name: bucket}}
";

#[tokio::test]
async fn pages_come_by_an_upstream_proxy_and_captures_lie_in_a_bucket() -> Result<()> {
    let store = ObjectStore::start_at(HOST, None)?;
    let platform = Platform {
        world: World::enter("journey-outside").await?,
    };
    let world = &platform.world;
    world.serve_sites()?;
    world.apply(PROXY)?;
    world.kubectl(&["rollout", "status", "deployment/upstream", "--timeout=60s"])?;
    let shop = BUCKET
        .replace("ENDPOINT", &store.endpoint())
        .replace("PASSWORD", PASSWORD);
    world.apply(&shop)?;
    platform.wait_until_ready().await?;
    world
        .wait_for_condition("selextractcluster/shop", "ProxyPools", "True", DONE)
        .await?;
    let api = platform.api().await?;

    let strange = json!({ "url": site(world), "fields": [{ "name": "title" }], "proxyPool": "nowhere" });
    let (status, told) = api.send(Method::POST, "tasks", Some(&strange)).await?;
    assert_eq!(status.as_u16(), 422, "{told}");
    let told = told.to_string();
    assert!(told.contains("nowhere") && told.contains("elsewhere"), "{told}");

    for render in ["Http", "Browser"] {
        let before = asked(world)?;
        let ended = api
            .wait_for_end(&api.create_task(&task(world, render)).await?, DONE)
            .await?;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        assert!(asked(world)? > before, "{render} did not ask the upstream proxy");
    }

    let captured = captured(&platform).await?;
    assert_eq!(
        captured,
        BTreeSet::from(["image/png".to_owned(), "text/html; charset=utf-8".to_owned()])
    );
    assert_eq!(
        platform.sql("SELECT count(*) FROM artifact_chunks")?,
        "0",
        "the ledger has none of it"
    );
    world.leave()
}

fn site(world: &World) -> String {
    format!(
        "http://sites.{}.svc.cluster.local/docs/runtime-config.html",
        world.namespace
    )
}

fn task(world: &World, render: &str) -> Value {
    json!({
        "url": site(world), "render": render, "proxyPool": "elsewhere", "timeout": "60s",
        "fields": [{ "name": "title", "selector": "title", "required": true }],
    })
}

/// How often the upstream proxy was asked for a connection.
fn asked(world: &World) -> Result<usize> {
    let log = world.kubectl(&["logs", "deployment/upstream", "--tail=-1"])?;
    Ok(log.lines().filter(|line| line.contains("CONNECT ")).count())
}

/// Two captures of a page, fetched back; the media types of what came whole.
async fn captured(platform: &Platform) -> Result<BTreeSet<String>> {
    let api = platform.api().await?;
    let mut task = task(&platform.world, "Browser");
    task["browser"] =
        json!({ "captures": [{ "name": "shot", "type": "Screenshot" }, { "name": "page", "type": "Html" }] });
    let id = api.create_task(&task).await?;
    let ended = api.wait_for_end(&id, DONE).await?;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let list = api.get(&format!("tasks/{id}/artifacts")).await?;
    let mut kinds = BTreeSet::new();
    for artifact in list["artifacts"].as_array().context("a list of artifacts")? {
        let name = artifact["id"].as_str().context("an artifact has an id")?;
        let (kind, bytes) = api.file(&format!("tasks/{id}/artifacts/{name}")).await?;
        assert_eq!(artifact["size"], bytes.len(), "{list}");
        kinds.insert(kind);
    }
    Ok(kinds)
}
