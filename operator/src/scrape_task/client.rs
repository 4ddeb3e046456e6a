//! Talks to the internal listener of one cluster's API: TLS by the cluster's own authority, a token for that cluster alone.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Secret, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use reqwest::{Method, StatusCode};
use selextract_task::feed::{
    Changes, KnownTasks, Removals, UpsertAnswers, Upserts,
    credentials::{KnownSecrets, SecretAnswer, SecretCredentials, SecretRemovals},
};
use serde::{Serialize, de::DeserializeOwned};
use snafu::{OptionExt, ResultExt, Snafu, ensure};
use tokio::sync::Mutex;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one poll of the feed is held open.
pub const POLL: Duration = Duration::from_secs(25);
const TOKEN_LIFE_SECONDS: i64 = 3600;
/// A token is not used in its last minutes: clocks differ, requests take time.
const TOKEN_MARGIN_SECONDS: i64 = 300;
/// The most that an answer may hold: 500 runs with a preview each.
const MAX_ANSWER: usize = 32 << 20;

/// Why the API of a cluster could not be asked. The text is for a condition: it names things, holds no secret and no clock.
#[derive(Debug, Snafu)]
pub enum ClientError {
    /// The authority's Secret could not be read.
    #[snafu(display("Secret {name}, which holds the cluster's authority, cannot be read"))]
    ReadAuthority {
        /// The Secret.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The authority's Secret lacks its certificate.
    #[snafu(display("Secret {name} holds no usable key ca.crt"))]
    Authority {
        /// The Secret.
        name: String,
    },
    /// No token was issued.
    #[snafu(display("the API server issued no token for this cluster's audience"))]
    Token {
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The token is not usable.
    #[snafu(display("the API server issued an empty token"))]
    EmptyToken,
    /// No answer.
    #[snafu(display("{host} does not answer"))]
    Send {
        /// Whom.
        host: String,
        /// How it failed.
        source: reqwest::Error,
    },
    /// An answer, but not a good one.
    #[snafu(display("{host} answered {status}"))]
    Refused {
        /// Whom.
        host: String,
        /// With what.
        status: StatusCode,
    },
    /// An answer that is too long or cannot be read.
    #[snafu(display("{host} gave an answer that cannot be read"))]
    Answer {
        /// Whom.
        host: String,
    },
}

/// Which cluster is meant, and as whom the operator speaks.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cluster's namespace.
    pub namespace: String,
    /// The cluster's name.
    pub name: String,
    /// The cluster's uid.
    pub uid: String,
    /// The operator's namespace.
    pub own_namespace: String,
    /// The operator's service account.
    pub service_account: String,
}

impl Target {
    /// The audience that only this cluster accepts.
    pub fn audience(&self) -> String {
        format!("selextract:{}/{}/{}", self.namespace, self.name, self.uid)
    }

    fn host(&self) -> String {
        format!("{}-api-internal.{}.svc:8081", self.name, self.namespace)
    }
}

/// The connection to one cluster's API.
pub struct ApiClient {
    kube: Client,
    target: Target,
    base: String,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    http: Option<reqwest::Client>,
    token: Option<(String, Timestamp)>,
}

impl ApiClient {
    /// A client for the cluster's own Service. Nothing is sent yet.
    pub fn new(kube: Client, target: Target) -> Self {
        let base = format!("https://{}", target.host());
        Self {
            kube,
            target,
            base,
            session: Mutex::default(),
        }
    }

    /// `PUT /internal/v1/scrape-tasks`.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn upsert(&self, items: &Upserts) -> Result<UpsertAnswers, ClientError> {
        let body = self
            .send(Method::PUT, "/internal/v1/scrape-tasks", Some(items), REQUEST_TIMEOUT)
            .await?;
        self.read(&body)
    }

    /// `GET /internal/v1/scrape-tasks`: the page after this uid.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn known(&self, after: &str) -> Result<KnownTasks, ClientError> {
        let path = format!("/internal/v1/scrape-tasks?after={after}");
        let body = self.send(Method::GET, &path, None::<&()>, REQUEST_TIMEOUT).await?;
        self.read(&body)
    }

    /// `POST /internal/v1/scrape-tasks/remove`.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn remove(&self, uids: &Removals) -> Result<(), ClientError> {
        self.send(
            Method::POST,
            "/internal/v1/scrape-tasks/remove",
            Some(uids),
            REQUEST_TIMEOUT,
        )
        .await
        .map(|_| ())
    }

    /// `GET /internal/v1/changes`, held until there is a change or `wait` is over.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn changes(&self, after: i64, wait: Duration) -> Result<Changes, ClientError> {
        let path = format!("/internal/v1/changes?after={after}&waitSeconds={}", wait.as_secs());
        let body = self
            .send(Method::GET, &path, None::<&()>, wait + REQUEST_TIMEOUT)
            .await?;
        self.read(&body)
    }

    /// `PUT /internal/v1/credentials`.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn put_credentials(&self, item: &SecretCredentials) -> Result<SecretAnswer, ClientError> {
        let path = "/internal/v1/credentials";
        let body = self.send(Method::PUT, path, Some(item), REQUEST_TIMEOUT).await?;
        self.read(&body)
    }

    /// `GET /internal/v1/credentials`: the page after this namespace and name, which are names of Kubernetes objects.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn known_credentials(&self, namespace: &str, name: &str) -> Result<KnownSecrets, ClientError> {
        let path = format!("/internal/v1/credentials?afterNamespace={namespace}&afterName={name}");
        let body = self.send(Method::GET, &path, None::<&()>, REQUEST_TIMEOUT).await?;
        self.read(&body)
    }

    /// `POST /internal/v1/credentials/remove`.
    ///
    /// # Errors
    /// When there is no good answer.
    pub async fn remove_credentials(&self, items: &SecretRemovals) -> Result<(), ClientError> {
        let path = "/internal/v1/credentials/remove";
        self.send(Method::POST, path, Some(items), REQUEST_TIMEOUT)
            .await
            .map(|_| ())
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).ok().context(AnswerSnafu {
            host: self.target.host(),
        })
    }

    /// Sends once; a failure drops that part of the session which may be why, and the next try reads it again.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let answer = self.send_once(method, path, body, timeout).await;
        match &answer {
            // The authority may be a new one.
            Err(ClientError::Send { .. }) => self.session.lock().await.http = None,
            Err(ClientError::Refused { status, .. }) if *status == StatusCode::UNAUTHORIZED => {
                self.session.lock().await.token = None;
            }
            _ => {}
        }
        answer
    }

    async fn send_once(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let (http, token) = self.session().await?;
        let mut request = http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(token)
            .timeout(timeout);
        if let Some(body) = body {
            request = request.json(body);
        }
        let host = || self.target.host();
        let mut answer = request.send().await.with_context(|_| SendSnafu { host: host() })?;
        let status = answer.status();
        ensure!(status.is_success(), RefusedSnafu { host: host(), status });
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.with_context(|_| SendSnafu { host: host() })? {
            ensure!(bytes.len() + chunk.len() <= MAX_ANSWER, AnswerSnafu { host: host() });
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn session(&self) -> Result<(reqwest::Client, String), ClientError> {
        let mut session = self.session.lock().await;
        let http = match &session.http {
            Some(http) => http.clone(),
            None => session.http.insert(self.connect().await?).clone(),
        };
        let now = Timestamp::now();
        let token = match &session.token {
            Some((token, until)) if now < *until => token.clone(),
            _ => {
                let fresh = self.fetch_token(now).await?;
                session.token.insert(fresh).0.clone()
            }
        };
        Ok((http, token))
    }

    async fn connect(&self) -> Result<reqwest::Client, ClientError> {
        let name = format!("{}-ca", self.target.name);
        let secrets: Api<Secret> = Api::namespaced(self.kube.clone(), &self.target.namespace);
        let secret = secrets
            .get(&name)
            .await
            .map_err(Box::new)
            .with_context(|_| ReadAuthoritySnafu { name: name.clone() })?;
        let pem = secret
            .data
            .and_then(|mut data| data.remove("ca.crt"))
            .context(AuthoritySnafu { name: name.clone() })?;
        let authority = reqwest::Certificate::from_pem(&pem.0)
            .ok()
            .context(AuthoritySnafu { name: name.clone() })?;
        reqwest::Client::builder()
            .tls_certs_only([authority])
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_mins(1))
            .build()
            .ok()
            .context(AuthoritySnafu { name })
    }

    /// A token of the operator's own account with this cluster's audience, and until when to use it.
    async fn fetch_token(&self, now: Timestamp) -> Result<(String, Timestamp), ClientError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), &self.target.own_namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![self.target.audience()],
                expiration_seconds: Some(TOKEN_LIFE_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(&self.target.service_account, &PostParams::default(), &request)
            .await
            .map_err(Box::new)
            .context(TokenSnafu)?;
        let status = answer
            .status
            .filter(|status| !status.token.is_empty())
            .context(EmptyTokenSnafu)?;
        let until = status.expiration_timestamp.0.as_second() - TOKEN_MARGIN_SECONDS;
        Ok((status.token, Timestamp::from_second(until).unwrap_or(now)))
    }
}
