//! Pages that attack from inside Chromium, and a real egress proxy that nothing gets around.

use std::net::SocketAddr;

use selextract_egress_proxy::{
    dial::{Dialler, Limits},
    metrics::Metrics as EgressMetrics,
    policy::Policy,
    proxy::Proxy,
    resolve::Resolver,
    server::{Server, ServerLimits},
};
use selextract_worker::fetch::{Request, http::Http};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;

/// A site that may be reached, and a listener on another loopback address, same port, that may not.
struct Siege {
    site: SocketAddr,
    secret: String,
    entered: Arc<AtomicU32>,
    egress: Arc<EgressMetrics>,
    http: Http,
    browsers: Arc<Browsers>,
}

impl Siege {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = listener.local_addr().unwrap();
        let trap = TcpListener::bind(("127.0.0.2", site.port())).await.unwrap();
        let entered = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&entered);
        tokio::spawn(async move {
            while trap.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let secret = format!("127.0.0.2:{}", site.port());
        let router = attacks(&secret);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (proxy, egress) = egress_proxy(site).await;
        let browsers = Arc::new(Browsers::new(
            settings(&proxy),
            Metrics::new(&prometheus::Registry::new(), 4).unwrap(),
        ));
        Self {
            site,
            secret,
            entered,
            egress,
            http: Http::new(&proxy).unwrap(),
            browsers,
        }
    }

    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.site).parse().unwrap()
    }

    async fn fetch(&self, url: &Url) -> Result<Page, FetchError> {
        self.stay(url, &[]).await
    }

    /// Loads a page and stays on it until it has something, or the time for that is over.
    async fn stay(&self, url: &Url, waits: &[Wait]) -> Result<Page, FetchError> {
        let mut session = Session::open(&self.browsers, Opening::lean(url)).await.unwrap();
        let page = timeout(
            Duration::from_secs(30),
            session.fetch(url, &errand(waits), Duration::from_secs(6)),
        )
        .await;
        page.expect("the engine keeps its own time")
    }

    /// Connections that the proxy refused so far.
    fn refused(&self) -> u64 {
        let text = self.egress.render();
        let name = r#"selextract_egress_requests_total{result="refused"} "#;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    }

    fn assert_nobody_entered(&self, way: &str) {
        assert_eq!(
            self.entered.load(Ordering::Relaxed),
            0,
            "{way} reached what may not be reached"
        );
    }
}

/// A real egress proxy that opens this one address.
async fn egress_proxy(site: SocketAddr) -> (Url, Arc<EgressMetrics>) {
    let limits = Limits {
        connect: Duration::from_secs(5),
        idle: Duration::from_secs(30),
        total: Duration::from_mins(1),
        max_bytes: 64 << 20,
    };
    let policy = format!(r#"{{"allow":[{{"cidr":"127.0.0.1/32","ports":[{}]}}]}}"#, site.port());
    let policy = watch::Sender::new(Arc::new(Policy::parse(policy.as_bytes()).unwrap())).subscribe();
    let metrics = Arc::new(EgressMetrics::new().unwrap());
    let tasks = TaskTracker::new();
    let dialler = Dialler::new(Resolver::from_system().unwrap(), policy, metrics.clone(), limits);
    let server = Server {
        proxy: Arc::new(Proxy::new(dialler, metrics.clone(), tasks.clone())),
        metrics: metrics.clone(),
        tasks,
        limits: ServerLimits {
            max_connections: 200,
            idle: limits.idle,
            settle: Duration::ZERO,
            drain: Duration::from_secs(1),
        },
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(server.run(listener, CancellationToken::new()));
    (url, metrics)
}

/// Every way from a page to the secret address.
const WAYS: [(&str, &str); 14] = [
    ("script-navigation", "<script>location = 'http://SECRET/'</script>"),
    (
        "meta-refresh",
        "<meta http-equiv=refresh content='0;url=http://SECRET/'>",
    ),
    (
        "late-navigation",
        "<script>addEventListener('load', () => setTimeout(() => { location.replace('http://SECRET/') }, 50))</script>",
    ),
    ("frame", "<iframe src='http://SECRET/'></iframe>"),
    ("object", "<object data='http://SECRET/'></object>"),
    ("script", "<script src='http://SECRET/x.js'></script>"),
    ("style", "<link rel=stylesheet href='http://SECRET/x.css'>"),
    (
        "fetch",
        "<script>fetch('http://SECRET/', { mode: 'no-cors' }).catch(() => 0)</script>",
    ),
    (
        "xhr",
        "<script>const x = new XMLHttpRequest; x.open('GET', 'http://SECRET/'); x.send()</script>",
    ),
    ("beacon", "<script>navigator.sendBeacon('http://SECRET/', 'x')</script>"),
    ("websocket", "<script>new WebSocket('ws://SECRET/')</script>"),
    ("event-source", "<script>new EventSource('http://SECRET/')</script>"),
    (
        "form",
        "<form method=post action='http://SECRET/'><input name=a value=b></form><script>document.forms[0].submit()</script>",
    ),
    (
        "worker",
        "<script>new Worker(URL.createObjectURL(new Blob([\"fetch('http://SECRET/')\"])))</script>",
    ),
];

fn attacks(secret: &str) -> Router {
    let mut router = Router::new()
        .route("/plain", get(async || Html("<p>plain")))
        .route("/robots.txt", redirect_to(format!("http://{secret}/robots.txt")))
        .route("/redirect", redirect_to(format!("http://{secret}/")))
        .route(
            "/endless-script",
            get(async || Html("<p>here<script>for (;;) {}</script>")),
        )
        .route(
            "/endless-memory",
            get(async || {
                Html("<script>const all = []; for (;;) all.push(new Array(1 << 20).fill(Math.random()))</script>")
            }),
        )
        .route("/deep", get(async || Html("<div>".repeat(200_000))))
        .merge(floods())
        .route(
            "/endless-stream",
            get(async || {
                let chunks = futures::stream::unfold((), async |()| {
                    sleep(Duration::from_millis(1)).await;
                    let chunk = axum::body::Bytes::from(vec![b'x'; 64 << 10]);
                    Some((Ok::<_, std::convert::Infallible>(chunk), ()))
                });
                let html = [("content-type", "text/html")];
                (html, axum::body::Body::from_stream(chunks)).into_response()
            }),
        );
    for (way, page) in WAYS {
        let page = format!("<!doctype html><body><p>here{}", page.replace("SECRET", secret));
        router = router.route(&format!("/{way}"), get(async move || Html(page)));
    }
    router
}

/// What a page may do again and again, each of which the browser tells the worker of.
const FLOODS: [(&str, &str); 5] = [
    ("console", "console.log(big)"),
    ("time-stamp", "console.timeStamp(big)"),
    (
        "requests",
        "for (let i = 0; i < 1000; i++) fetch('data:,').catch(() => 0)",
    ),
    ("large-requests", "fetch('data:,' + big).catch(() => 0)"),
    (
        "frames",
        "for (let i = 0; i < 100; i++) { const f = document.createElement('iframe'); f.srcdoc = ''; document.body.append(f); setTimeout(() => f.remove(), 50) }",
    ),
];

fn floods() -> Router {
    FLOODS.into_iter().fold(Router::new(), |router, (name, what)| {
        let page = format!(
            "<!doctype html><body><p>here<script>const big = 'x'.repeat(1 << 26); setInterval(() => {{ {what} }}, 1)</script>"
        );
        router.route(&format!("/flood-{name}"), get(async move || Html(page)))
    })
}

fn redirect_to(target: String) -> axum::routing::MethodRouter {
    get(async move || axum::response::Redirect::temporary(&target))
}

#[tokio::test]
async fn neither_engine_gets_to_a_forbidden_address_by_the_first_url_a_redirect_or_robots_txt() {
    let siege = Siege::new().await;
    let secret: Url = format!("http://{}/", siege.secret).parse().unwrap();
    let redirect = siege.url("/redirect");
    for url in [&secret, &redirect] {
        let request = Request {
            url,
            home: url,
            headers: &[],
        };
        assert!(
            matches!(siege.http.fetch(request).await, Err(FetchError::Refused)),
            "{url}"
        );
        let page = siege.fetch(url).await;
        assert!(matches!(page, Err(FetchError::Refused)), "{url}: {page:?}");
    }
    let robots = siege.http.robots(&siege.url("/plain")).await;
    assert!(matches!(robots, Err(FetchError::Refused)), "{robots:?}");
    for special in [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:2]/",
    ] {
        let url: Url = special.parse().unwrap();
        let page = siege.fetch(&url).await;
        assert!(matches!(page, Err(FetchError::Refused)), "{url}: {page:?}");
    }
    siege.assert_nobody_entered("an engine");
    siege.browsers.close().await;
}

#[tokio::test]
async fn no_way_out_of_a_page_leads_to_a_forbidden_address() {
    let siege = Siege::new().await;
    for (way, _) in WAYS {
        let before = siege.refused();
        // What becomes of the page differs; that it tried and was refused does not.
        let url = siege.url(&format!("/{way}"));
        let _ = siege.stay(&url, &wait_for(".never", 1500)).await;
        siege.assert_nobody_entered(way);
        let started = Instant::now();
        while siege.refused() == before {
            assert!(started.elapsed() < Duration::from_secs(5), "{way} was not tried");
            sleep(Duration::from_millis(20)).await;
        }
    }
    siege.assert_nobody_entered("a page");
    siege.browsers.close().await;
}

#[tokio::test]
async fn a_page_that_never_rests_fails_in_its_time_and_its_neighbour_in_the_same_browser_goes_on() {
    let siege = Siege::new().await;
    siege.fetch(&siege.url("/plain")).await.unwrap();
    for path in ["/endless-script", "/endless-stream", "/deep"] {
        let hostile = async {
            let url = siege.url(path);
            let mut session = Session::open(&siege.browsers, Opening::lean(&url)).await.unwrap();
            // As the run does it: the page's time is over, and the tab with it.
            timeout(
                Duration::from_secs(6),
                session.fetch(&url, &Errand::default(), Duration::from_secs(6)),
            )
            .await
        };
        let neighbour = async {
            sleep(Duration::from_millis(500)).await;
            siege.fetch(&siege.url("/plain")).await
        };
        let (hostile, neighbour) = tokio::join!(hostile, neighbour);
        assert!(neighbour.unwrap().text.contains("plain"), "beside {path}");
        if path != "/deep" {
            assert!(!matches!(hostile, Ok(Ok(_))), "{path}: {hostile:?}");
        }
    }
    let spinning = || busiest_renderer();
    let started = Instant::now();
    loop {
        let before = spinning();
        sleep(Duration::from_millis(500)).await;
        let busy = spinning().saturating_sub(before);
        if busy < 20 {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "a renderer spins on: {busy} ticks in half a second"
        );
    }
    siege.fetch(&siege.url("/plain")).await.unwrap();
    siege.browsers.close().await;
}

#[tokio::test]
async fn a_page_that_eats_memory_fails_and_the_next_one_works() {
    let siege = Siege::new().await;
    let started = Instant::now();
    let page = timeout(Duration::from_secs(20), siege.fetch(&siege.url("/endless-memory"))).await;
    assert!(!matches!(page, Ok(Ok(_))), "{page:?}");
    assert!(started.elapsed() < Duration::from_secs(25));
    siege.fetch(&siege.url("/plain")).await.unwrap();
    siege.browsers.close().await;
}

#[tokio::test]
async fn a_page_that_floods_the_worker_with_events_costs_it_no_memory_and_its_neighbour_no_time() {
    let siege = Siege::new().await;
    siege.fetch(&siege.url("/plain")).await.unwrap();
    for (name, _) in FLOODS {
        let before = hygiene::resident("self");
        let hostile = async {
            let url = siege.url(&format!("/flood-{name}"));
            let mut session = Session::open(&siege.browsers, Opening::lean(&url)).await.unwrap();
            let never = wait_for(".never", 6000);
            let errand = errand(&never);
            let page = session.fetch(&url, &errand, Duration::from_secs(8));
            let page = timeout(Duration::from_secs(8), page).await;
            assert!(!matches!(page, Ok(Ok(_))), "{name}: {page:?}");
        };
        let neighbour = async {
            sleep(Duration::from_millis(500)).await;
            let (mut slowest, mut most) = (Duration::ZERO, 0);
            for _ in 0..10 {
                let started = Instant::now();
                siege.fetch(&siege.url("/plain")).await.unwrap();
                slowest = slowest.max(started.elapsed());
                most = most.max(hygiene::resident("self"));
                sleep(Duration::from_millis(200)).await;
            }
            (slowest, most.saturating_sub(before) >> 10)
        };
        let ((), (slowest, grown)) = tokio::join!(hostile, neighbour);
        println!("{name}: the slowest neighbour took {slowest:?}, the worker grew by {grown} MiB");
        assert!(slowest < Duration::from_secs(6), "{name}: {slowest:?}");
        assert!(grown < 300, "{name}: {grown} MiB");
    }
    siege.browsers.close().await;
}

/// CPU ticks of the renderers that this program's browsers run.
fn busiest_renderer() -> u64 {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| {
            let line = command_line(*id).join(" ");
            line.contains("--type=renderer") && line.contains(&format!("selextract-browser-{}-", std::process::id()))
        })
        .filter_map(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        })
        .max()
        .unwrap_or_default()
}
