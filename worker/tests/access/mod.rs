//! Whole workers with credentials and cookies, in both engines, against a site that lets nobody else in.

use std::collections::HashMap;

use axum::{Form, extract::State, http::HeaderMap, response::Redirect, routing::post};
use selextract_platform::{
    ledger::credentials::{Stored, place},
    sealed::Seal,
};

use super::*;

/// The cluster's data key.
pub fn seal() -> Seal {
    let key = "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=";
    Seal::parse(&json!({ "current": "d", "keys": { "d": key } }).to_string()).unwrap()
}

/// The sessions that the site knows, and how many there were.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<(Vec<String>, u32)>>);

impl Sessions {
    /// Whether a request is a member's.
    fn know(&self, headers: &HeaderMap) -> bool {
        let cookies = header(headers, "cookie");
        let known = &self.0.lock().unwrap().0;
        known.iter().any(|id| cookies.contains(&format!("sid={id}")))
    }
}

/// A site with every kind of door.
pub fn routes() -> Router {
    // One session was there before anybody logged in.
    let sessions = Sessions(Arc::new(Mutex::new((vec!["gift".to_owned()], 0))));
    Router::new()
        .route("/seen", get(seen))
        .route(
            "/basic",
            get(async |headers: HeaderMap| door(&headers, "authorization", "Basic YW5uOnBhc3M=")),
        )
        .route(
            "/bearer",
            get(async |headers: HeaderMap| door(&headers, "authorization", "Bearer t0k3n")),
        )
        .route(
            "/key",
            get(async |headers: HeaderMap| door(&headers, "x-api-key", "k3y")),
        )
        .route(
            "/leads-away",
            get(async || Redirect::temporary("http://other.test/seen")),
        )
        .route(
            "/sets",
            get(async || ([("set-cookie", "mine=kept")], Redirect::temporary("/seen"))),
        )
        .route("/login", get(login))
        .route("/session", post(enter))
        .route("/welcome", get(async || Html("<h1>Hello</h1>")))
        .route("/private", get(private))
        .route("/forgets", get(forgets))
        .route("/door", get(door_of_members))
        .route("/members/{n}", get(members))
        .route("/club/{n}", get(club))
        .route("/token", get(async || Html(TOKEN)))
        .route("/by-token/{n}", get(by_token))
        .with_state(sessions)
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("-").to_owned()
}

/// What a request carried.
async fn seen(headers: HeaderMap) -> Html<String> {
    let [authorization, key, cookie] = ["authorization", "x-api-key", "cookie"].map(|name| header(&headers, name));
    Html(format!("<li>{authorization}|{key}|{cookie}"))
}

fn door(headers: &HeaderMap, name: &str, opens: &str) -> Response {
    if header(headers, name) == opens {
        Html("<li>inside").into_response()
    } else {
        (
            StatusCode::UNAUTHORIZED,
            [("www-authenticate", "Basic realm=x")],
            Html("<li>outside"),
        )
            .into_response()
    }
}

/// The form's token is of this visitor alone.
async fn login() -> Response {
    let form = "<form method=post action=/session><input type=hidden name=csrf value=c-17>
        <input name=email><input type=password name=pw><button>In</button></form>";
    ([("set-cookie", "visitor=17")], Html(form)).into_response()
}

async fn enter(
    State(sessions): State<Sessions>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let is = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
    let visitor = header(&headers, "cookie").contains("visitor=17");
    if !(visitor && is("csrf", "c-17") && is("email", "ann") && is("pw", "pass")) {
        return Redirect::to("/login?wrong=1").into_response();
    }
    let mut sessions = sessions.0.lock().unwrap();
    sessions.1 += 1;
    let id = format!("s{}", sessions.1);
    sessions.0.push(id.clone());
    (
        [("set-cookie", format!("sid={id}; HttpOnly"))],
        Redirect::to("/welcome"),
    )
        .into_response()
}

async fn private(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    if sessions.know(&headers) {
        let count = sessions.0.lock().unwrap().1;
        Html(format!("<li>inside, login {count}")).into_response()
    } else {
        Redirect::temporary("/login").into_response()
    }
}

/// Forgets the first session when it is shown.
async fn forgets(state: State<Sessions>, headers: HeaderMap) -> Response {
    state.0.0.lock().unwrap().0.retain(|id| id != "s1");
    private(state, headers).await
}

/// A login page that members are led away from.
async fn door_of_members(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    if sessions.know(&headers) {
        Redirect::to("/welcome").into_response()
    } else {
        login().await
    }
}

/// Eight pages that say who reads them, and by which engine. All but the fourth and the fifth need a browser; who is no member sees them
/// too.
async fn members(State(sessions): State<Sessions>, headers: HeaderMap, Path(n): Path<u32>) -> Html<String> {
    let who = if sessions.know(&headers) { "inside" } else { "outside" };
    let by_browser = header(&headers, "user-agent").contains("Chrome");
    let item = format!("<li>{n} {who} by {}", if by_browser { "browser" } else { "http" });
    let next = (n < 8).then(|| format!("<a rel=next href=/members/{}>next</a>", n + 1));
    let list = if matches!(n, 4 | 5) {
        format!("<ul>{item}</ul>")
    } else {
        format!("<ul></ul><script>document.querySelector('ul').innerHTML = '{item}'</script>")
    };
    Html(format!("<!doctype html>{list}{}", next.unwrap_or_default()))
}

/// Thirty pages for members, each with links to two more. The tenth makes the site forget its first session.
async fn club(State(sessions): State<Sessions>, headers: HeaderMap, Path(n): Path<u32>) -> Response {
    sleep(Duration::from_millis(20)).await;
    if n == 10 {
        sessions.0.lock().unwrap().0.retain(|id| id != "s1");
    }
    if !sessions.know(&headers) {
        return Redirect::temporary("/login").into_response();
    }
    let link = |m: u32| (m <= 30).then(|| format!("<a href=/club/{m}>{m}</a>"));
    let links = [2 * n, 2 * n + 1].map(|m| link(m).unwrap_or_default()).concat();
    Html(format!("<li>{n}</li>{links}")).into_response()
}

/// A login that leaves its session in the tab's storage, and a cookie that is none.
const TOKEN: &str =
    "<!doctype html><form><input name=email><input type=password name=pw><button>In</button></form><script>
    const form = document.querySelector('form');
    form.onsubmit = event => {
        event.preventDefault();
        localStorage.token = 't';
        document.cookie = 'seen=1';
        form.remove();
    }</script>";

async fn by_token(Path(n): Path<u32>) -> Html<String> {
    Html(format!(
        "<!doctype html><ul></ul><a href=/by-token/2>2</a><a href=/by-token/3>3</a><script>
         document.querySelector('ul').innerHTML = '<li>{n} ' + (localStorage.token ? 'inside' : 'outside')</script>"
    ))
}

impl Bench {
    /// Stores credentials as the API does.
    async fn credentials(&self, name: &str, credentials: Value) {
        let text = credentials.to_string();
        let checked = serde_json::from_value::<selextract_task::credentials::SiteCredentials>(credentials)
            .unwrap()
            .check()
            .unwrap();
        let (id, origin) = (uuid::Uuid::now_v7(), checked.origin.origin().ascii_serialization());
        let secret = seal().seal(&place(id, &origin), &text).unwrap();
        let stored = Stored {
            id,
            name,
            kind: checked.way.kind(),
            origin: &origin,
            secret: &secret,
            secret_version: None,
        };
        assert!(self.ledger.put_credentials(self.owner, &stored).await.unwrap());
    }

    /// Runs one page with the credentials `shop`; its texts, or the class and the message of its failure.
    async fn visit(&self, path: &str, render: &str, more: Value) -> Result<Vec<String>, (String, String)> {
        let mut spec = json!({
            "url": format!("http://site.test{path}"), "render": render, "pagination": null, "credentials": "shop", "maxRetries": 0,
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.accept(spec).await;
        let task = self
            .until(id, path, |task| matches!(task.status.as_str(), "succeeded" | "failed"))
            .await;
        match task.error_class {
            None => Ok(self.texts(id).await),
            Some(class) => Err((class, task.error_message.unwrap())),
        }
    }
}

fn of_site(kind: &str, what: &Value) -> Value {
    json!({ "origin": "http://site.test", "allowHttp": true, kind: what })
}

fn form(more: &Value) -> Value {
    let mut form = json!({ "loginUrl": "/login", "usernameField": "email", "username": "ann", "password": "pass" });
    form.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    of_site("formLogin", &form)
}

/// With a worker, stopped at the test's end.
async fn with_worker<T>(bench: &Bench, body: impl Future<Output = T>) -> T {
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let result = body.await;
    stop.cancel();
    worker.await.unwrap();
    result
}

const INSIDE: &str = "inside";
const ENGINES: [&str; 2] = ["Http", "Browser"];

#[tokio::test(flavor = "multi_thread")]
async fn basic_bearer_and_header_credentials_open_their_doors_in_both_engines() {
    let bench = Bench::new().await;
    with_worker(&bench, async {
        for (path, credentials) in [
            (
                "/basic",
                of_site("basic", &json!({ "username": "ann", "password": "pass" })),
            ),
            ("/bearer", of_site("bearer", &json!({ "token": "t0k3n" }))),
            (
                "/key",
                of_site("header", &json!({ "name": "X-Api-Key", "value": "k3y" })),
            ),
        ] {
            bench.credentials("shop", credentials).await;
            for engine in ENGINES {
                assert_eq!(
                    bench.visit(path, engine, json!({})).await,
                    Ok(vec![INSIDE.to_owned()]),
                    "{path} {engine}"
                );
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_missing_credentials_fail_at_once_by_their_name_and_show_nothing() {
    let bench = Bench::new().await;
    with_worker(&bench, async {
        let (class, message) = bench.visit("/basic", "Http", json!({})).await.unwrap_err();
        assert_eq!(class, "CredentialsMissing");
        assert!(
            message.contains("\"shop\"") && message.contains("PUT /api/v1/credentials/shop"),
            "{message}"
        );
        bench
            .credentials(
                "shop",
                of_site("basic", &json!({ "username": "ann", "password": "hush" })),
            )
            .await;
        for engine in ENGINES {
            let (class, message) = bench.visit("/basic", engine, json!({})).await.unwrap_err();
            assert_eq!(
                (class.as_str(), message.as_str()),
                (
                    "CredentialsRefused",
                    "the site answered 401 to the credentials \"shop\""
                )
            );
        }
        // A row that was moved to another origin opens no more.
        bench.sql("UPDATE credentials SET origin = 'http://other.test'");
        let (class, _) = bench.visit("/basic", "Http", json!({})).await.unwrap_err();
        assert_eq!(class, "CredentialsUnreadable");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_origin_carries_neither_credentials_nor_cookies() {
    let bench = Bench::new().await;
    let cookies = json!({ "cookies": [{ "name": "region", "value": "eu" }] });
    with_worker(&bench, async {
        bench
            .credentials("shop", of_site("bearer", &json!({ "token": "t0k3n" })))
            .await;
        for engine in ENGINES {
            let home = bench.visit("/seen", engine, cookies.clone()).await.unwrap();
            assert_eq!(home, ["Bearer t0k3n|-|region=eu"], "{engine}");
            let away = bench.visit("/leads-away", engine, cookies.clone()).await.unwrap();
            assert_eq!(away, ["-|-|-"], "{engine}");
        }
        bench
            .credentials(
                "shop",
                of_site("header", &json!({ "name": "x-api-key", "value": "k3y" })),
            )
            .await;
        for engine in ENGINES {
            assert_eq!(
                bench.visit("/leads-away", engine, json!({})).await.unwrap(),
                ["-|-|-"],
                "{engine}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_a_site_sets_holds_for_the_run_and_not_for_the_next() {
    let bench = Bench::new().await;
    with_worker(&bench, async {
        let free = json!({ "credentials": null });
        for engine in ENGINES {
            assert_eq!(
                bench.visit("/sets", engine, free.clone()).await.unwrap(),
                ["-|-|mine=kept"],
                "{engine}"
            );
            assert_eq!(
                bench.visit("/seen", engine, free.clone()).await.unwrap(),
                ["-|-|-"],
                "{engine}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_login_sends_the_hidden_token_and_keeps_the_session_in_both_engines() {
    for engine in ENGINES {
        let bench = Bench::new().await;
        with_worker(&bench, async {
            for success in [
                json!({}),
                json!({ "success": { "selector": "h1", "status": 200, "cookie": "sid" } }),
            ] {
                bench.credentials("shop", form(&success)).await;
                let inside = bench.visit("/private", engine, json!({})).await.unwrap();
                assert!(inside[0].starts_with("inside, login"), "{engine} {inside:?}");
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_site_forgets_is_made_anew_once() {
    for engine in ENGINES.into_iter().chain(["Auto"]) {
        let bench = Bench::new().await;
        with_worker(&bench, async {
            bench.credentials("shop", form(&json!({}))).await;
            let inside = bench.visit("/forgets", engine, json!({})).await;
            assert_eq!(inside, Ok(vec!["inside, login 2".to_owned()]), "{engine}");
        })
        .await;
    }
}

/// How often the site was asked to let somebody in.
fn logins(bench: &Bench) -> usize {
    bench.asked("site.test/session").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_holds_for_both_engines_while_they_take_turns() {
    use selextract_platform::frontier::rendering::Finding;
    let list = json!({ "pagination": { "nextSelector": "a[rel=next]" } });
    let told = |n, by: &str| format!("{n} inside by {by}");
    for page in ["/login", "/door"] {
        let bench = Bench::new().await;
        bench.credentials("shop", form(&json!({ "loginUrl": page }))).await;
        with_worker(&bench, async {
            let found = bench.frontier.found_rendering("site.test", Finding::Scripted).await;
            found.unwrap();
            let browser_first = bench.visit("/members/1", "Auto", list.clone()).await.unwrap();
            let by = [
                "browser", "browser", "browser", "http", "http", "browser", "browser", "browser",
            ];
            let expected: Vec<String> = (1..).zip(by).map(|(n, by)| told(n, by)).collect();
            assert_eq!((browser_first, logins(&bench)), (expected, 1), "{page}");
            bench
                .frontier
                .found_rendering("site.test", Finding::Plain)
                .await
                .unwrap();
            let http_first = bench.visit("/members/4", "Auto", list.clone()).await.unwrap();
            let by = ["http", "http", "browser", "browser", "browser"];
            let expected: Vec<String> = (4..).zip(by).map(|(n, by)| told(n, by)).collect();
            assert_eq!((http_first, logins(&bench)), (expected, 2), "{page}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_site_leads_away_from_its_login_page_is_in_already() {
    let bench = Bench::new().await;
    with_worker(&bench, async {
        let gift = json!({ "cookies": [{ "name": "sid", "value": "gift" }] });
        for engine in ENGINES {
            for more in [
                json!({ "loginUrl": "/door" }),
                json!({ "loginUrl": "/door", "success": { "selector": "h1", "cookie": "sid" } }),
            ] {
                bench.credentials("shop", form(&more)).await;
                let inside = bench.visit("/private", engine, gift.clone()).await;
                assert_eq!(
                    (inside, logins(&bench)),
                    (Ok(vec!["inside, login 0".to_owned()]), 0),
                    "{engine}"
                );
            }
            let more = json!({ "loginUrl": "/door", "success": { "selector": "h2" } });
            bench.credentials("shop", form(&more)).await;
            let (class, _) = bench.visit("/private", engine, gift.clone()).await.unwrap_err();
            assert_eq!(class, "LoginFailed", "{engine}: what tells a success does not hold");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_crawl_share_a_login_of_their_worker() {
    for (engine, depth) in [("Http", 10), ("Browser", 2)] {
        let bench = Bench::new().await;
        bench.credentials("shop", form(&json!({}))).await;
        let stop = CancellationToken::new();
        let workers = [bench.worker("w1", pace(), &stop), bench.worker("w2", pace(), &stop)];
        let crawl = json!({ "url": "http://site.test/club/1", "pagination": null, "crawl": { "maxDepth": depth }, "render": engine, "credentials": "shop" });
        let id = bench.accept(crawl).await;
        let task = bench.until(id, "it ends", |task| task.finished_at.is_some()).await;
        let pages = if engine == "Http" { 30 } else { 7 };
        assert_eq!((task.status.as_str(), task.pages), ("succeeded", pages), "{task:?}");
        // Each worker's, and once more where the site forgot the first.
        let most = if engine == "Http" { 3 } else { 2 };
        assert!(
            (1..=most).contains(&logins(&bench)),
            "{engine}: {} logins",
            logins(&bench)
        );
        stop.cancel();
        for worker in workers {
            worker.await.unwrap();
        }
    }
}

/// One page at each of these hosts, for whose login `site.test` is asked.
async fn elsewhere(bench: &Bench, hosts: &[&str], more: &Value) -> Vec<TaskId> {
    let mut runs = Vec::new();
    for host in hosts {
        let mut spec = json!({ "url": format!("http://{host}.test/seen"), "pagination": null, "credentials": "shop" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        runs.push(bench.accept(spec).await);
    }
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_at_another_host_waits_for_its_turn_there_and_the_page_keeps_its_own() {
    for engine in ENGINES {
        let bench = Bench::new().await;
        bench.credentials("shop", form(&json!({}))).await;
        with_worker(&bench, async {
            let polite = json!({ "render": engine, "maxRetries": 0, "politeness": { "minDelay": "700ms" } });
            for id in elsewhere(&bench, &["one", "two", "three"], &polite).await {
                let task = bench.until(id, engine, |task| task.finished_at.is_some()).await;
                assert_eq!(task.status, "succeeded", "{engine}: {task:?}");
            }
        })
        .await;
        let asked = bench.asked("site.test/login");
        assert_eq!(asked.len(), 3, "{engine}");
        let gap = politeness::shortest_gap(asked);
        assert!(gap >= Duration::from_millis(600), "{engine}: {gap:?}");
        for host in ["one", "two", "three"] {
            let seen = bench.asked(&format!("{host}.test/seen")).len();
            assert_eq!(seen, 1, "{engine}: {host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_fails_logins_is_blamed_for_them_and_the_pages_host_is_not() {
    let bench = Bench::new().await;
    bench.credentials("shop", form(&json!({ "loginUrl": "/broken" }))).await;
    with_worker(&bench, async {
        let id = elsewhere(&bench, &["one"], &json!({ "render": "Http", "maxRetries": 4 })).await[0];
        let task = bench.until(id, "it fails", |task| task.finished_at.is_some()).await;
        assert_eq!(task.error_class.as_deref(), Some("HttpStatus"), "{task:?}");
    })
    .await;
    let states = bench.frontier.host_states(&["site.test", "one.test"]).await.unwrap();
    assert!(matches!(states[0], HostState::Unavailable(_)), "{states:?}");
    assert!(!matches!(states[1], HostState::Unavailable(_)), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_wait_for_their_runs_login_do_not_keep_it_from_its_host() {
    let bench = Bench::new().await;
    bench.credentials("shop", form(&json!({}))).await;
    with_worker(&bench, async {
        let seeds: Vec<_> = (0..6)
            .map(|n| format!("http://{}.test/seen?{n}", ["site", "one", "two"][n % 3]))
            .collect();
        let crawl = json!({
            "render": "Http", "maxRetries": 0, "crawl": { "seeds": seeds }, "politeness": { "minDelay": "0s", "maxConcurrent": 1 },
        });
        let id = elsewhere(&bench, &["one"], &crawl).await[0];
        let task = bench.until(id, "it ends", |task| task.finished_at.is_some()).await;
        assert_eq!((task.status.as_str(), task.pages), ("succeeded", 7), "{task:?}");
        assert_eq!(logins(&bench), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_in_a_tabs_storage_is_made_in_each_tab() {
    let bench = Bench::new().await;
    bench.credentials("shop", form(&json!({ "loginUrl": "/token" }))).await;
    with_worker(&bench, async {
        let crawl = json!({ "url": "http://site.test/by-token/1", "pagination": null, "crawl": {}, "render": "Browser", "credentials": "shop" });
        let id = bench.accept(crawl).await;
        let task = bench.until(id, "it ends", |task| task.finished_at.is_some()).await;
        assert_eq!(task.status, "succeeded", "{task:?}");
        let mut texts = bench.texts(id).await;
        texts.sort_unstable();
        assert_eq!(texts, ["1 inside", "2 inside", "3 inside"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_says_so_without_the_password() {
    let bench = Bench::new().await;
    with_worker(&bench, async {
        for engine in ENGINES {
            for (credentials, why) in [
                (form(&json!({ "password": "hush" })), "asks for the password again"),
                (
                    form(&json!({ "success": { "cookie": "other" } })),
                    "no cookie \"other\"",
                ),
                (form(&json!({ "usernameField": "user" })), "login page"),
            ] {
                bench.credentials("shop", credentials).await;
                let (class, message) = bench.visit("/private", engine, json!({})).await.unwrap_err();
                assert_eq!(class, "LoginFailed", "{engine} {message}");
                assert!(message.contains(why) && !message.contains("hush"), "{engine} {message}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_a_site_refuses_is_shown_once_until_it_is_stored_anew() {
    for engine in ENGINES {
        let bench = Bench::new().await;
        bench.credentials("shop", form(&json!({ "password": "hush" }))).await;
        let stop = CancellationToken::new();
        let workers = [bench.worker("w1", pace(), &stop), bench.worker("w2", pace(), &stop)];
        // At the same moment and one after the other.
        let together = (0..4).map(|_| bench.visit("/private", engine, json!({})));
        let mut ends = futures::future::join_all(together).await;
        ends.push(bench.visit("/private", engine, json!({})).await);
        for end in ends {
            let (class, message) = end.unwrap_err();
            assert_eq!(class, "LoginFailed", "{engine} {message}");
            assert!(message.contains("asks for the password again"), "{engine} {message}");
        }
        assert_eq!(logins(&bench), 1, "{engine}");
        let (_, message) = bench.visit("/private", engine, json!({})).await.unwrap_err();
        assert!(message.contains("15 minutes"), "{engine} {message}");
        bench.credentials("shop", form(&json!({}))).await;
        let inside = bench.visit("/private", engine, json!({})).await;
        assert_eq!(inside, Ok(vec!["inside, login 1".to_owned()]), "{engine}");
        stop.cancel();
        for worker in workers {
            worker.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_uses_the_credentials_of_its_caller() {
    let bench = Bench::new().await;
    bench.credentials("shop", form(&json!({}))).await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(preview::serve(bench.engines(), bench.previews.clone(), stop.clone()));
    let answer = bench
        .preview(json!({ "url": "http://site.test/private", "items": "li", "fields": [{ "name": "t" }], "credentials": "shop" }))
        .await;
    assert_eq!(answer.error, None);
    assert_eq!(answer.records[0]["t"], "inside, login 1");
    // By HTTP first, which logs in, and then by the browser; the site leads members away from its login.
    bench.credentials("shop", form(&json!({ "loginUrl": "/door" }))).await;
    let answer = bench
        .preview(json!({
            "url": "http://site.test/members/6", "items": "li", "fields": [{ "name": "t" }], "credentials": "shop", "render": "Auto",
        }))
        .await;
    assert_eq!(answer.error, None);
    assert_eq!(answer.records[0]["t"], "6 inside by browser");
    assert_eq!(logins(&bench), 2);
    stop.cancel();
    serving.await.unwrap();
}
