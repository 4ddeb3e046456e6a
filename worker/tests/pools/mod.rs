//! Both engines through a pool of upstream proxies: real egress proxies, one of which is the upstream.

use std::net::SocketAddr;

use axum::serve::ListenerExt;
use selextract_egress_proxy::{
    dial::{Dialler, Limits},
    metrics::Metrics as EgressMetrics,
    policy::Policy,
    proxy::Proxy,
    resolve::Resolver,
    server::{Server, ServerLimits},
};
use selextract_task::TaskSpec;
use selextract_worker::{access::Access, fetch::http::Trip};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;

struct Egress {
    direct: Url,
    pools: Url,
    metrics: Arc<EgressMetrics>,
}

impl Egress {
    async fn start(policy: &Value) -> Self {
        let limits = Limits {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            total: Duration::from_mins(1),
            max_bytes: 64 << 20,
        };
        let policy = watch::Sender::new(Arc::new(Policy::parse(policy.to_string().as_bytes()).unwrap())).subscribe();
        let metrics = Arc::new(EgressMetrics::new().unwrap());
        let tasks = TaskTracker::new();
        let dialler = Dialler::new(Resolver::from_system().unwrap(), policy, metrics.clone(), limits);
        let direct = Proxy::new(dialler, metrics.clone(), tasks.clone());
        let of_pools = direct.for_pools();
        let mut urls = Vec::new();
        for proxy in [direct, of_pools] {
            let server = Server {
                proxy: Arc::new(proxy),
                metrics: metrics.clone(),
                tasks: tasks.clone(),
                limits: ServerLimits {
                    max_connections: 200,
                    idle: limits.idle,
                    settle: Duration::ZERO,
                    drain: Duration::from_secs(1),
                },
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
            tokio::spawn(server.run(listener, CancellationToken::new()));
        }
        let [direct, pools] = urls.try_into().unwrap();
        Self { direct, pools, metrics }
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.render().contains(line)
    }
}

fn opens(site: SocketAddr, upstreams: &Value) -> Value {
    json!({ "allow": [{ "cidr": "127.0.0.0/8", "ports": [site.port()] }], "upstreams": upstreams })
}

async fn fetched(http: &Http, browsers: &Browsers, url: &Url, pool: &str) -> [Result<String, FetchError>; 2] {
    let spec = json!({ "url": url, "fields": [{ "name": "t" }], "proxyPool": pool });
    let plan = serde_json::from_value::<TaskSpec>(spec).unwrap().compile().unwrap();
    let by_pool = http.through(pool, "run-1").unwrap();
    let access = Arc::new(Access::of(&plan, None).by(&by_pool));
    let request = selextract_worker::fetch::Request {
        url,
        home: url,
        headers: &[],
    };
    let by_http = by_pool.go_on(&mut Trip::to(url).by(&access), request).await;
    let opening = Opening::of(&plan, &access);
    let mut session = Session::open(browsers, opening).await.unwrap();
    let by_browser = session.fetch(url, &Errand::default(), Duration::from_secs(10)).await;
    let by_browser = match by_browser {
        Ok(page) => Ok(page.text),
        Err(error) => Err(by_pool.explain(url, error).await),
    };
    [by_http.map(|page| page.unwrap().text), by_browser]
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_go_through_the_pool_that_the_task_names_and_an_unknown_one_is_told() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let site = serve(router()).await;
    let upstream = Egress::start(&opens(site, &json!([]))).await;
    let pools = json!([{ "name": "eu", "proxies": [{ "url": upstream.direct }] }]);
    let egress = Egress::start(&opens(site, &pools)).await;
    let http = Http::new(&egress.direct).unwrap();
    assert!(
        matches!(http.through("eu", "run-1"), Err(FetchError::UnknownProxyPool)),
        "there is no listener for pools"
    );
    let http = http.with_pools(Some(egress.pools.clone()));
    let metrics = Metrics::new(&prometheus::Registry::new(), 4).unwrap();
    // As in a cluster the browser's own proxy has a name, and the relay to the pool is at another address than that.
    let mut named = egress.direct.clone();
    named.set_host(Some("localhost")).unwrap();
    let browsers = Browsers::new(settings(&named), metrics);
    let url: Url = format!("http://{site}/plain").parse().unwrap();

    for text in fetched(&http, &browsers, &url, "eu").await {
        assert!(text.unwrap().contains("<p>plain"));
    }
    assert!(
        upstream.counted(r#"requests_total{result="tunnelled"} 2"#),
        "both came by the upstream"
    );
    assert!(egress.counted(r#"upstream_connections_total{pool="eu",result="connected"} 2"#));

    for error in fetched(&http, &browsers, &url, "us").await {
        assert!(matches!(error, Err(FetchError::UnknownProxyPool)), "{error:?}");
    }
    browsers.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_claims_of_a_run_share_their_connections_to_a_pool() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pools: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let listener = listener.tap_io(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let page = axum::Router::new().fallback(async || axum::response::Html("<p>plain"));
    tokio::spawn(async move { axum::serve(listener, page).await });
    let http = Http::new(&pools).unwrap().with_pools(Some(pools));
    let spec = json!({ "url": "http://site.test/", "fields": [{ "name": "t" }], "proxyPool": "eu" });
    let plan = serde_json::from_value::<TaskSpec>(spec).unwrap().compile().unwrap();
    let vault = Vault::default();
    let [run, another] = [1, 2].map(uuid::Uuid::from_u128);
    for (run, expected) in [(run, 1), (run, 1), (another, 2)] {
        let (access, by_pool) = vault.open(&plan, None, (&http, run)).await.unwrap().unwrap();
        let request = selextract_worker::fetch::Request {
            url: &plan.url,
            home: &plan.url,
            headers: &[],
        };
        let page = by_pool.go_on(&mut Trip::to(&plan.url).by(&access), request).await;
        assert!(page.unwrap().is_some());
        assert_eq!(connections.load(Ordering::Relaxed), expected);
    }
}
