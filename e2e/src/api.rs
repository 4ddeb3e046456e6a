//! A client of a deployed cluster's API, as its users write one: it logs in and speaks JSON.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A signed-in client.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    token: String,
    http: reqwest::Client,
}

impl Api {
    /// Logs in at an address such as `10.0.0.7:80`.
    pub async fn login(address: &str, user: &str, password: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        let base = format!("http://{address}/api/v1");
        let answer = http
            .post(format!("{base}/auth/login"))
            .json(&json!({ "username": user, "password": password }))
            .send()
            .await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "login: {status}: {body}");
        let token = body["access_token"]
            .as_str()
            .context("the login's answer has no access token")?;
        Ok(Self {
            token: token.to_owned(),
            base,
            http,
        })
    }

    /// A request; the status and the body as JSON (`null` when there is none).
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let mut request = self
            .http
            .request(method, format!("{}/{path}", self.base))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// Reads a path; anything but a success is an error.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.send(Method::GET, path, None).await?;
        ensure!(status.is_success(), "GET {path}: {status}: {body}");
        Ok(body)
    }

    /// Reads a path as text.
    pub async fn text(&self, path: &str) -> Result<String> {
        let answer = self
            .http
            .get(format!("{}/{path}", self.base))
            .bearer_auth(&self.token)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "GET {path}: {status}: {text}");
        Ok(text)
    }

    /// Reads a file: its media type and its bytes.
    pub async fn file(&self, path: &str) -> Result<(String, Vec<u8>)> {
        let answer = self
            .http
            .get(format!("{}/{path}", self.base))
            .bearer_auth(&self.token)
            .send()
            .await?;
        ensure!(answer.status().is_success(), "GET {path}: {}", answer.status());
        let kind = answer.headers().get(reqwest::header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        Ok((kind, answer.bytes().await?.to_vec()))
    }

    /// Creates a task; its id.
    pub async fn create_task(&self, task: &Value) -> Result<String> {
        let (status, body) = self.send(Method::POST, "tasks", Some(task)).await?;
        ensure!(status == StatusCode::CREATED, "creating a task: {status}: {body}");
        Ok(body["id"].as_str().context("the created task has no id")?.to_owned())
    }

    /// Creates many tasks in one request, all or none.
    pub async fn create_tasks(&self, tasks: &[Value]) -> Result<()> {
        let body = json!({ "tasks": tasks });
        let (status, answer) = self.send(Method::POST, "tasks:batch", Some(&body)).await?;
        ensure!(
            status.is_success(),
            "creating {} tasks: {status}: {answer}",
            tasks.len()
        );
        Ok(())
    }

    /// Creates a task under an idempotency key: however often it is asked for, there is one; its id.
    pub async fn create_task_once(&self, task: &Value, key: &str) -> Result<String> {
        let request = self.http.post(format!("{}/tasks", self.base)).bearer_auth(&self.token);
        let answer = request.header("idempotency-key", key).json(task).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "creating a task: {status}: {body}");
        Ok(body["id"].as_str().context("the created task has no id")?.to_owned())
    }

    /// Waits until a task has ended, and returns it.
    pub async fn wait_for_end(&self, id: &str, timeout: Duration) -> Result<Value> {
        let started = std::time::Instant::now();
        loop {
            let task = self.get(&format!("tasks/{id}")).await?;
            if !matches!(task["status"].as_str(), Some("pending" | "running")) {
                return Ok(task);
            }
            if started.elapsed() > timeout {
                bail!("the task has not ended within {} s: {task}", timeout.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Every record of a task, by NDJSON.
    pub async fn records(&self, id: &str) -> Result<Vec<Value>> {
        let text = self.text(&format!("tasks/{id}/results?format=ndjson")).await?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }
}
