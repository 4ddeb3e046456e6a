//! Clusters and facts for the builders' tests. No cluster is named like the product.

use serde_json::{Value, json};

use super::{Endpoint, External, Facts, secrets::Passwords};
use crate::validated::{Defaults, ValidatedCluster, validate};

/// The smallest cluster that a user may write.
pub const MINIMAL: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: { name: shop, namespace: web, uid: 0b0e7f7c-0000-4000-8000-000000000001 }
spec: {}
";

/// One that sets about everything.
pub const FULL: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: { name: bazaar, namespace: web, uid: 0b0e7f7c-0000-4000-8000-000000000002 }
spec:
  profile: Small
  deletionPolicy: Delete
  adoptForeignData: true
  image: { registry: registry.example.org/team, tag: 2.0.0, pullPolicy: Never }
  api:
    replicas: 4
    ingress: { host: scrape.example.org, className: nginx, tlsSecretName: scrape-tls, annotations: { a.example.org/b: c } }
    pool: { size: 5, overflow: 6, acquireTimeout: 1s, maxLifetime: 10m }
    pod:
      resources: { requests: { cpu: 100m }, limits: { memory: 300Mi } }
      labels: { team: a }
      annotations: { note: b }
      priorityClassName: high
      imagePullSecrets: [{ name: pull }]
      tolerations: [{ key: dedicated, operator: Exists }]
  worker:
    replicas: 3
    concurrency: 2
    browser: { sandbox: Required, maxMemory: 300M }
    pod: { nodeSelector: { disk: fast } }
  postgres: { storage: 5Gi, storageClassName: fast, readReplicas: 2, maxLag: 3s }
  pgbouncer: { replicas: 2, defaultPoolSize: 10 }
  monitoring: { prometheus: { managed: { retention: 10d, storage: 3Gi, storageClassName: fast, kubeletMetrics: true }, scraperNamespace: watch }, alerts: { enabled: false } }
  redis: { queue: { storage: 2Gi, storageClassName: fast, maxMemory: 64Mi } }
  egress:
    replicas: 2
    ports: [80, 443, 8443]
    allow: [{ host: docs.demo.svc.cluster.local, ports: [80] }, { cidr: 10.9.0.0/16 }]
    upstreams:
      - name: eu
        stickiness: Host
        healthCheck: { failures: 2, cooldown: 1m }
        proxies: [{ url: 'http://10.20.0.7:3128', credentialsSecretRef: { name: acme } }, { url: 'socks5://proxy.example.org:1080' }]
";

fn read(yaml: &str) -> ValidatedCluster {
    let defaults = Defaults {
        registry: "example.org/selextract".into(),
        tag: "1.2.3".into(),
        namespace: "operators".into(),
        subject: "system:serviceaccount:operators:selextract-operator".into(),
    };
    validate(&serde_yaml_ng::from_str(yaml).unwrap(), &defaults).unwrap()
}

pub fn minimal() -> ValidatedCluster {
    read(MINIMAL)
}

pub fn full() -> ValidatedCluster {
    read(FULL)
}

/// The smallest one with this spec.
pub fn with(spec: &Value) -> ValidatedCluster {
    read(&MINIMAL.replace("spec: {}", &format!("spec: {spec}")))
}

/// As long a name as is allowed.
pub fn long() -> ValidatedCluster {
    read(&FULL.replace("bazaar", &"n".repeat(30)))
}

pub fn external() -> (ValidatedCluster, External) {
    let spec: Value =
        json!({ "postgres": { "provider": "External", "external": { "secretName": "db", "caKey": "ca" } } });
    let cluster = read(&MINIMAL.replace("spec: {}", &format!("spec: {spec}")));
    let end = Endpoint {
        host: "db.example.org".into(),
        port: 6543,
        database: "ledger".into(),
        role: "scraper".into(),
        password: "p@ss/\"word".into(),
    };
    (
        cluster,
        External {
            primary: end.clone(),
            read: end,
        },
    )
}

/// One that keeps artifacts in a bucket at this endpoint, with an authority of its own.
pub fn bucket(endpoint: Option<&str>) -> ValidatedCluster {
    let mut s3 = json!({ "bucket": "shots", "prefix": "team/blue", "credentialsSecretRef": { "name": "s3" } });
    if let Some(endpoint) = endpoint {
        s3["endpoint"] = json!(endpoint);
        s3["forcePathStyle"] = json!(true);
        s3["caSecretRef"] = json!({ "name": "s3-ca" });
    }
    let spec = json!({ "artifacts": { "store": "S3", "maxBytesPerOwner": "1Gi", "s3": s3 } });
    read(&MINIMAL.replace("spec: {}", &format!("spec: {spec}")))
}

pub fn passwords() -> Passwords {
    Passwords {
        superuser: "superuser-secret".into(),
        owner: "owner-secret".into(),
        app: "app-secret".into(),
        replication: "replication-secret".into(),
    }
}

pub fn facts() -> Facts {
    Facts {
        jwks: "{\"keys\":[]}".into(),
        issuer: "https://kubernetes.default.svc".into(),
        secrets: [("shop-redis".to_owned(), "0123".to_owned())].into(),
        ..Facts::default()
    }
}
