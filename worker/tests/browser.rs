//! A real Chromium against a site on loopback. `SELEXTRACT_TEST_CHROMIUM` names the program (`make test` sets it).
#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

#[path = "hostile/browser.rs"]
mod hostile;
mod hygiene;
mod pools;
mod site;
mod visits;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use rustix::process::{Pid, Signal, getuid, kill_process};
use selextract_platform::{frontier::Frontier, ledger::Secret, previews::Request};
use selextract_task::{Awaited, Wait, WaitState};
use selextract_worker::{
    access::Vault,
    browser::{BrowserSettings, Browsers},
    contact::Contact,
    cpu::Meter,
    fetch::{
        FetchError, Page,
        browser::{Anywhere, Errand, Opening, Session},
        http::Http,
    },
    preview,
    robots::Robots,
    task_run::Engines,
    telemetry::Metrics,
};
use site::{ForwardProxy, serve};
use tokio::time::{sleep, timeout};
use url::Url;

const SCRIPTED: &str = "<!doctype html><p id=first>static<script>
    setTimeout(() => { document.body.insertAdjacentHTML('beforeend', '<ul class=list><li>made by script</ul>') }, 300)
    Document.prototype.querySelector = () => null
    </script>";

async fn echo(headers: HeaderMap) -> Response {
    let mine = headers
        .get("x-mine")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("-");
    let agent = headers
        .get("user-agent")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("-");
    ([("access-control-allow-origin", "*")], Html(format!("{mine}|{agent}"))).into_response()
}

async fn redirects(Path(left): Path<u32>) -> Response {
    match left {
        0 => Html("<p>arrived").into_response(),
        left => axum::response::Redirect::temporary(&format!("/redirects/{}", left - 1)).into_response(),
    }
}

fn router() -> Router {
    Router::new()
        .merge(visits::routes())
        .route("/scripted", get(async || Html(SCRIPTED)))
        .route("/plain", get(async || Html("<p>plain")))
        .route("/redirects/{left}", get(redirects))
        .route(
            "/store",
            get(async || {
                Html(
                    "<body><script>const cookie = document.cookie.includes('mine') ? 'kept' : 'none';
                    const kept = localStorage.getItem('mine') ?? 'none';
                    document.cookie = 'mine=1; max-age=3600'; localStorage.setItem('mine', 'kept');
                    document.body.innerHTML = '<b>' + cookie + '|' + kept + '</b>'</script>",
                )
            }),
        )
        .route(
            "/half",
            get(async || Html("<body><p>here<script>document.body.append('x\\ud83d, y\\0, \\u{1f600}')</script>")),
        )
        .route("/echo", get(echo))
        .route("/missing", get(async || (StatusCode::NOT_FOUND, Html("<p>no"))))
        .route(
            "/pdf",
            get(async || ([(header::CONTENT_TYPE, "application/pdf")], "%PDF-1.4")),
        )
        .route(
            "/slow",
            get(async || {
                sleep(Duration::from_mins(1)).await;
                Html("late")
            }),
        )
        .route("/slow-image", get(async || Html("<p>here<iframe src=/slow></iframe>")))
        .route(
            "/huge",
            get(async || Html("<script>document.write('<i>' + 'x'.repeat(11 << 20))</script>")),
        )
        .route(
            "/asks-elsewhere",
            get(async || {
                Html(
                    "<script>fetch('http://other.test/echo').then(r => r.text())
                    .then(t => { document.body.innerHTML = '<b class=done></b>' + t })</script><body>",
                )
            }),
        )
}

/// A browser, its proxy and its site.
struct Bench {
    browsers: Arc<Browsers>,
    proxy: ForwardProxy,
}

impl Bench {
    async fn new(adjust: impl FnOnce(&mut BrowserSettings)) -> Self {
        let proxy = ForwardProxy::start(serve(router()).await).await;
        let mut settings = settings(&proxy.url);
        adjust(&mut settings);
        let metrics = Metrics::new(&prometheus::Registry::new(), 4).unwrap();
        let browsers = Arc::new(Browsers::new(settings, metrics));
        Self { browsers, proxy }
    }

    async fn session(&self, headers: &[(String, String)]) -> Session {
        let home: Url = "http://site.test/".parse().unwrap();
        let opening = Opening {
            headers,
            ..Opening::lean(&home)
        };
        Session::open(&self.browsers, opening).await.unwrap()
    }

    async fn fetch(&self, path: &str, waits: &[Wait]) -> Result<Page, FetchError> {
        let mut session = self.session(&[]).await;
        load(&mut session, path, waits).await
    }

    /// The main process of the running browser: the only one with this proxy and no type.
    fn main_process(&self) -> Option<i32> {
        processes(&self.proxy.url, |line| {
            !line.iter().any(|argument| argument.starts_with("--type="))
        })
        .pop()
    }

    /// A process that the zygote forked has one text for all of its arguments.
    fn renderers(&self) -> Vec<i32> {
        let main = self.main_process().and_then(group);
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
            .filter(|id| group(*id) == main && command_line(*id).join(" ").contains("--type=renderer"))
            .collect()
    }
}

/// A browser through this proxy, with the guide's limits.
fn settings(proxy: &Url) -> BrowserSettings {
    let program =
        std::env::var_os("SELEXTRACT_TEST_CHROMIUM").expect("SELEXTRACT_TEST_CHROMIUM is not set; make test sets it");
    BrowserSettings {
        program: PathBuf::from(program),
        // Chromium refuses its sandbox to root.
        sandbox: !getuid().is_root(),
        proxy: proxy.clone(),
        contact: Contact::default(),
        max_pages: 100,
        max_age: Duration::from_mins(30),
        max_memory: 500 << 20,
        max_idle: Duration::from_mins(5),
    }
}

async fn load(session: &mut Session, path: &str, waits: &[Wait]) -> Result<Page, FetchError> {
    let url: Url = format!("http://site.test{path}").parse().unwrap();
    timeout(
        Duration::from_secs(30),
        session.fetch(&url, &errand(waits), Duration::from_secs(20)),
    )
    .await
    .expect("the engine keeps its own time")
}

fn command_line(id: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

fn group(id: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

fn processes(proxy: &Url, wanted: impl Fn(&[String]) -> bool) -> Vec<i32> {
    let flag = format!("--proxy-server={}", proxy.as_str().trim_end_matches('/'));
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| {
            let line = command_line(*id);
            line.contains(&flag) && wanted(&line)
        })
        .collect()
}

fn signal(id: i32, signal: Signal) {
    kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn wait_for(selector: &str, milliseconds: u64) -> [Wait; 1] {
    let what = Awaited::Element {
        selector: selector.into(),
        state: WaitState::Present,
        text: None,
    };
    [Wait {
        what,
        timeout: Duration::from_millis(milliseconds),
    }]
}

fn errand(waits: &[Wait]) -> Errand<'_> {
    Errand {
        waits,
        ..Errand::default()
    }
}

#[tokio::test]
async fn a_page_is_read_after_its_wait_conditions_hold() {
    let bench = Bench::new(|_| {}).await;
    let page = bench.fetch("/scripted", &wait_for("ul.list > li", 5000)).await.unwrap();
    assert!(page.text.contains("<li>made by script"), "{}", page.text);
    assert_eq!(page.url.as_str(), "http://site.test/scripted");
    assert!(page.bytes > 0);
    bench.browsers.close().await;
}

#[tokio::test]
async fn half_of_a_utf_16_pair_in_the_dom_is_read_as_a_replacement_character() {
    let bench = Bench::new(|_| {}).await;
    let page = bench.fetch("/half", &[]).await.unwrap();
    assert!(page.text.contains("x\u{fffd}, y"), "{}", page.text);
    assert!(page.text.contains("\u{1f600}"), "a whole pair stays: {}", page.text);
    bench.browsers.close().await;
}

#[tokio::test]
async fn ten_redirects_are_followed_in_the_browser_too_and_eleven_are_not() {
    let bench = Bench::new(|_| {}).await;
    let page = bench.fetch("/redirects/10", &[]).await.unwrap();
    assert!(page.text.contains("<p>arrived"), "{}", page.text);
    let error = bench.fetch("/redirects/11", &[]).await.unwrap_err();
    assert!(matches!(error, FetchError::TooManyRedirects { limit: 10 }), "{error:?}");
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_preview_is_read_in_the_browser_when_the_task_asks_for_it() {
    let bench = Bench::new(|_| {}).await;
    let http = Http::new(&bench.proxy.url).unwrap();
    // Not asked: the task does not obey robots.txt.
    let frontier = Frontier::connect_lazy(&Secret("redis://127.0.0.1:1/0".to_owned())).unwrap();
    let engines = Engines {
        vault: Vault::default(),
        robots: Robots::new(http.clone(), frontier),
        http,
        browsers: Arc::clone(&bench.browsers),
        cpu: Meter::of_this_process(),
        metrics: Metrics::new(&prometheus::Registry::new(), 4).unwrap(),
    };
    let spec = serde_json::json!({
        "url": "http://site.test/scripted", "render": "Browser", "items": "ul.list > li", "fields": [{ "name": "text" }],
        "waitConditions": [{ "selector": "ul.list > li" }],
        "robots": { "policy": "Ignore", "reason": "the site is this test's" },
    });
    let request = Request {
        id: uuid::Uuid::nil(),
        deadline_milliseconds: 0,
        owner: None,
        spec: serde_json::from_value(spec).unwrap(),
    };
    let answer = preview::read(&engines, &request, Duration::from_secs(10)).await;
    assert_eq!(answer.error, None);
    assert_eq!(answer.records[0]["text"], "made by script");
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_wait_condition_that_does_not_hold_fails_by_its_name() {
    let bench = Bench::new(|_| {}).await;
    let error = bench
        .fetch("/plain", &wait_for("a[title=\"it's\"]", 300))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), r#"nothing matched "a[title=\"it's\"]" within 300ms"#);
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_page_that_never_loads_whole_is_read_as_it_is() {
    let bench = Bench::new(|_| {}).await;
    let mut session = bench.session(&[]).await;
    let url: Url = "http://site.test/slow-image".parse().unwrap();
    let page = session
        .fetch(&url, &Errand::default(), Duration::from_secs(2))
        .await
        .unwrap();
    assert!(page.text.contains("<p>here"));
    assert!(!session.is_usable(), "the next page would wait for this one's frame");
    drop(session);
    bench.browsers.close().await;
}

#[tokio::test]
async fn an_error_status_a_foreign_type_and_a_huge_page_are_refused() {
    let bench = Bench::new(|_| {}).await;
    assert!(matches!(
        bench.fetch("/missing", &[]).await,
        Err(FetchError::Status { status: 404, .. })
    ));
    let pdf = bench.fetch("/pdf", &[]).await;
    assert!(
        matches!(&pdf, Err(FetchError::UnsupportedContent { content_type, .. }) if content_type == "application/pdf"),
        "{pdf:?}"
    );
    assert!(matches!(bench.fetch("/huge", &[]).await, Err(FetchError::TooLarge)));
    bench.browsers.close().await;
}

#[tokio::test]
async fn the_running_browser_has_the_guides_flags_and_one_way_out() {
    let bench = Bench::new(|_| {}).await;
    bench.fetch("/plain", &[]).await.unwrap();
    let line = command_line(bench.main_process().unwrap());
    for flag in [
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-renderer-backgrounding",
        "--proxy-bypass-list=<-loopback>",
        "--disable-quic",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE 127.0.0.1",
    ] {
        assert!(line.contains(&flag.to_owned()), "{flag} is not in {line:?}");
    }
    bench.browsers.close().await;
}

/// Runs Chromium as a user who is not root, so that its sandbox can be on.
fn as_nobody(program: &str, folder: &std::path::Path) -> PathBuf {
    let script = folder.join("chromium");
    let text = format!(
        "#!/bin/sh\nfor a in \"$@\"; do case $a in --user-data-dir=*) chown 65534:65534 \"${{a#*=}}\";; esac; done\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups {program} \"$@\"\n"
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[tokio::test]
async fn with_the_sandbox_on_the_browser_runs_without_no_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let adjust = |settings: &mut BrowserSettings| {
        if getuid().is_root() {
            settings.program = as_nobody(settings.program.to_str().unwrap(), folder.path());
        }
        settings.sandbox = true;
    };
    let bench = Bench::new(adjust).await;
    bench.fetch("/plain", &[]).await.unwrap();
    let line = command_line(bench.main_process().unwrap());
    assert!(!line.iter().any(|argument| argument.contains("no-sandbox")), "{line:?}");
    bench.browsers.close().await;
}

#[tokio::test]
async fn nothing_leaves_but_through_the_proxy() {
    let bench = Bench::new(|_| {}).await;
    let hits = Arc::new(AtomicU32::new(0));
    let trap = serve(Router::new().fallback({
        let hits = Arc::clone(&hits);
        move || {
            hits.fetch_add(1, Ordering::Relaxed);
            async { "direct" }
        }
    }))
    .await;
    let mut session = bench.session(&[]).await;
    let url: Url = format!("http://127.0.0.1:{}/plain", trap.port()).parse().unwrap();
    let page = session
        .fetch(&url, &Errand::default(), Duration::from_secs(20))
        .await
        .unwrap();
    assert!(page.text.contains("plain"), "{}", page.text);
    assert_eq!(hits.load(Ordering::Relaxed), 0);
    assert!(bench.proxy.seen().contains(&url.to_string()));
    drop(session);
    bench.browsers.close().await;
}

#[tokio::test]
async fn the_tasks_headers_stay_at_home_and_we_say_who_we_are() {
    let bench = Bench::new(|_| {}).await;
    let mut session = bench.session(&[("x-mine".into(), "secret".into())]).await;
    let home = load(&mut session, "/echo", &[]).await.unwrap();
    assert!(
        home.text.contains("secret|") && home.text.contains("Selextract/"),
        "{}",
        home.text
    );
    let other = load(&mut session, "/asks-elsewhere", &wait_for(".done", 5000))
        .await
        .unwrap();
    assert!(
        other.text.contains("-|") && !other.text.contains("secret"),
        "{}",
        other.text
    );
    drop(session);
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_tab_is_used_for_all_pages_of_a_run() {
    let bench = Bench::new(|_| {}).await;
    let mut session = bench.session(&[]).await;
    for _ in 0..5 {
        load(&mut session, "/plain", &[]).await.unwrap();
        assert!(session.is_usable());
    }
    assert!(session.cpu() > Duration::ZERO);
    drop(session);
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_renderer_that_crashes_fails_its_page_and_the_next_has_a_new_browser() {
    let bench = Bench::new(|_| {}).await;
    bench.fetch("/plain", &[]).await.unwrap();
    let first = bench.main_process().unwrap();
    let mut session = bench.session(&[]).await;
    let started = Instant::now();
    let (page, ()) = tokio::join!(load(&mut session, "/slow", &[]), async {
        sleep(Duration::from_millis(500)).await;
        let renderers = bench.renderers();
        assert!(!renderers.is_empty());
        for renderer in renderers {
            signal(renderer, Signal::KILL);
        }
    });
    assert!(matches!(page, Err(FetchError::Browser { .. })), "{page:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(session);
    bench.fetch("/plain", &[]).await.unwrap();
    eventually("the crashed browser is still there", || group(first).is_none()).await;
    assert_ne!(bench.main_process(), Some(first));
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_browser_that_hangs_is_killed_within_seconds() {
    let bench = Bench::new(|_| {}).await;
    let mut session = bench.session(&[]).await;
    let hung = bench.main_process().unwrap();
    signal(hung, Signal::STOP);
    let started = Instant::now();
    let page = load(&mut session, "/plain", &[]).await;
    assert!(matches!(page, Err(FetchError::BrowserGone)), "{page:?}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    drop(session);
    bench.fetch("/plain", &[]).await.unwrap();
    eventually("the hung browser is still there", || group(hung).is_none()).await;
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_browser_retires_after_its_pages_and_leaves_nothing_behind() {
    let bench = Bench::new(|settings| settings.max_pages = 2).await;
    bench.fetch("/plain", &[]).await.unwrap();
    let first = bench.main_process().unwrap();
    let profile = command_line(first)
        .iter()
        .find_map(|argument| argument.strip_prefix("--user-data-dir=").map(PathBuf::from))
        .unwrap();
    assert!(profile.exists());
    bench.fetch("/plain", &[]).await.unwrap();
    bench.fetch("/plain", &[]).await.unwrap();
    assert_ne!(bench.main_process(), Some(first));
    eventually("the retired browser or its profile is still there", || {
        group(first).is_none() && !profile.exists()
    })
    .await;
    bench.browsers.close().await;
    assert_eq!(bench.main_process(), None);
}

#[tokio::test]
async fn a_browser_that_grew_too_large_retires() {
    let bench = Bench::new(|settings| settings.max_memory = 1 << 20).await;
    bench.fetch("/plain", &[]).await.unwrap();
    let first = bench.main_process().unwrap();
    sleep(Duration::from_secs(3)).await;
    bench.fetch("/plain", &[]).await.unwrap();
    assert_ne!(bench.main_process(), Some(first));
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_program_that_is_not_a_browser_is_a_failure_that_says_so() {
    let bench = Bench::new(|settings| settings.program = "/bin/false".into()).await;
    let home: Url = "http://site.test/".parse().unwrap();
    let error = Session::open(&bench.browsers, Opening::lean(&home)).await.unwrap_err();
    assert!(error.to_string().contains("did not come up"), "{error}");
}
