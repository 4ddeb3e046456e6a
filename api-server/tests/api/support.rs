//! The public API in front of real services, called in the process.

use std::time::Duration;

use axum::{Router, body::Body};
use clap::Parser;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use selextract_api_server::{
    auth::password::hash_once,
    metrics::{HttpMetrics, Listener},
    router,
    settings::{Secrets, Settings},
    state::AppState,
};
use selextract_platform::{
    bootstrap,
    ledger::{
        Secret,
        claims::{Ending, NewPage},
    },
    timings::Timings,
};
use selextract_task::feed::RunError;
use selextract_test_services::{Database, start};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub const ADMIN_PASSWORD: &str = "the-admin-of-a-test";
pub const USER_PASSWORD: &str = "a-user-of-a-test";

/// An API with a database of its own.
pub struct Api {
    router: Router,
    database: Database,
    settings: Settings,
    secrets: Secrets,
    pub state: AppState,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text))
    }

    pub fn header(&self, name: &str) -> String {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    }
}

/// A spec with one field.
pub fn spec(url: &str) -> Value {
    json!({ "name": "a test", "url": url, "items": "li", "fields": [{ "name": "title", "selector": "a" }] })
}

impl Api {
    /// With the product's pool.
    pub async fn start() -> Self {
        Self::with(|_, _| {}).await
    }

    /// With so many database connections.
    pub async fn start_with_pool(connections: u32) -> Self {
        Self::with(|settings, _| (settings.pool_size, settings.pool_overflow) = (connections, 0)).await
    }

    /// With a Redis that nobody listens on.
    pub async fn start_without_redis() -> Self {
        Self::with(|_, secrets| without_redis(secrets)).await
    }

    /// With these limits of users and of addresses.
    pub async fn start_with_limits(users: &str, addresses: &str) -> Self {
        Self::with(|settings, _| limit(settings, users, addresses)).await
    }

    /// With this limit of previews.
    pub async fn start_with_previews(previews: &str) -> Self {
        Self::with(|settings, _| settings.limits.preview_rate = previews.parse().unwrap()).await
    }

    /// With these limits, and a Redis that nobody listens on.
    pub async fn start_without_redis_and_limits(users: &str, addresses: &str) -> Self {
        Self::with(|settings, secrets| {
            limit(settings, users, addresses);
            without_redis(secrets);
        })
        .await
    }

    pub async fn with(change: impl FnOnce(&mut Settings, &mut Secrets)) -> Self {
        let services = start();
        let database = services.database().unwrap();
        let owner = Secret(database.direct_url.clone());
        bootstrap::migrate(&owner, jiff::Timestamp::now()).await.unwrap();
        bootstrap::ensure_admin(&owner, &hash_once(ADMIN_PASSWORD).unwrap())
            .await
            .unwrap();
        let mut settings = Settings::parse_from(["selextract-api"]);
        let mut secrets = Secrets {
            database_url: database.url.clone(),
            database_read_url: database.url.clone(),
            redis_queue_url: services.redis_url().unwrap(),
            redis_cache_url: services.redis_url().unwrap(),
            token_keys: json!({ "current": "a", "keys": { "a": "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=" } })
                .to_string(),
            data_key: Some(
                json!({ "current": "d", "keys": { "d": "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=" } }).to_string(),
            ),
        };
        change(&mut settings, &mut secrets);
        Self::over(database, settings, secrets)
    }

    /// A second replica over the same services.
    pub fn another_replica(&self) -> Self {
        Self::over(self.database.clone(), self.settings.clone(), self.secrets.clone())
    }

    fn over(database: Database, settings: Settings, secrets: Secrets) -> Self {
        let timings = Timings::new().unwrap();
        let state = AppState::connect(&settings, &secrets, &timings, CancellationToken::new()).unwrap();
        let metrics = HttpMetrics::register(&prometheus::Registry::new(), Listener::Public, &[]).unwrap();
        let router = router::public(
            state.clone(),
            metrics,
            router::document().unwrap(),
            settings.request_timeout.get(),
        );
        Self {
            router,
            database,
            settings,
            secrets,
            state,
        }
    }

    /// Where it caches.
    pub fn cache_url(&self) -> &str {
        &self.secrets.redis_cache_url
    }

    pub async fn login(&self, username: &str, password: &str) -> String {
        let body = json!({ "username": username, "password": password });
        let answer = self.post("/api/v1/auth/login", None, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Creates a user and logs it in.
    pub async fn user(&self, admin: &str, name: &str) -> String {
        let body = json!({ "username": name, "password": USER_PASSWORD });
        let answer = self.post("/api/v1/users", Some(admin), &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        self.login(name, USER_PASSWORD).await
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.send(request(Method::GET, path, token), None).await
    }

    /// With headers of one's own.
    pub async fn ask(&self, method: Method, path: &str, token: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers
            .iter()
            .fold(request(method, path, Some(token)), |request, (name, value)| {
                request.header(*name, *value)
            });
        self.send(request, None).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.send(request(Method::DELETE, path, Some(token)), None).await
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Answer {
        self.send(request(Method::POST, path, token), Some(body)).await
    }

    pub async fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.send(request(Method::PUT, path, Some(token)), Some(body)).await
    }

    pub async fn post_once(&self, path: &str, token: &str, key: &str, body: &Value) -> Answer {
        let request = request(Method::POST, path, Some(token)).header("idempotency-key", key);
        self.send(request, Some(body)).await
    }

    async fn send(&self, request: http::request::Builder, body: Option<&Value>) -> Answer {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(text.to_vec()).unwrap(),
        }
    }

    /// Does what a worker does with a task: one page with these records.
    pub async fn run(&self, id: &str, records: &[Value]) {
        let ledger = &self.state.ledger;
        let lease = Duration::from_secs(30);
        let claims = ledger.claim(&[id.parse().unwrap()], "a-worker", lease).await.unwrap();
        let page = NewPage {
            number: 1,
            url: "https://example.com/list".to_owned(),
            next_url: None,
            records: records
                .iter()
                .map(|record| record.as_object().unwrap().clone())
                .collect(),
            ..NewPage::default()
        };
        ledger
            .commit_page(claims[0].lease(), &page, lease)
            .await
            .unwrap()
            .unwrap();
        ledger
            .finish(claims[0].lease(), &Ending::Succeeded, 1)
            .await
            .unwrap()
            .unwrap();
    }

    /// Fails a task as a worker does.
    pub async fn fail(&self, id: &str, class: &str) {
        let ledger = &self.state.ledger;
        let lease = Duration::from_secs(30);
        let claims = ledger.claim(&[id.parse().unwrap()], "a-worker", lease).await.unwrap();
        let error = RunError {
            class: class.to_owned(),
            message: "it failed".to_owned(),
        };
        let ended = ledger.finish(claims[0].lease(), &Ending::Failed(error), 1).await;
        ended.unwrap().unwrap();
    }

    /// What a statement gives, as text.
    pub fn sql(&self, sql: &str) -> String {
        start().sql(&self.database.name, sql).unwrap()
    }

    /// Holds every statement on tasks up for a while.
    pub fn lock_tasks(&self, time: Duration) -> std::thread::JoinHandle<()> {
        let name = self.database.name.clone();
        let sql = format!(
            "BEGIN; LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({}); COMMIT",
            time.as_secs()
        );
        let lock = std::thread::spawn(move || drop(start().sql(&name, &sql).unwrap()));
        std::thread::sleep(Duration::from_millis(300));
        lock
    }
}

fn limit(settings: &mut Settings, users: &str, addresses: &str) {
    settings.limits.rate = users.parse().unwrap();
    settings.limits.login_rate = addresses.parse().unwrap();
}

fn without_redis(secrets: &mut Secrets) {
    secrets.redis_queue_url = String::from("redis://127.0.0.1:1/0");
    secrets.redis_cache_url = String::from("redis://127.0.0.1:1/0");
}

fn request(method: Method, path: &str, token: Option<&str>) -> http::request::Builder {
    let builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json");
    match token {
        Some(token) => builder.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => builder,
    }
}
