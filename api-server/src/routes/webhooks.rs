//! Where a user wants to hear of the end of his tasks.

use axum::{Json, extract::State};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;
use rand::RngCore;
use selextract_platform::ledger::webhooks::{self, MOST};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tasks::named_owner;
use crate::{
    auth::caller::Caller,
    params::{Id, Params},
    problem::{FieldError, Problem},
    sealed::Seal,
    state::AppState,
    strict::Strict,
};

const MAX_URL: usize = 2048;
/// The standard-webhooks specification asks for 24 to 64 random bytes.
const SECRET_BYTES: usize = 32;
const SECRET_MARK: &str = "whsec_";

/// What a webhook can hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Event {
    /// A task succeeded, or somebody ended it.
    #[serde(rename = "task.finished")]
    Finished,
    /// A task failed.
    #[serde(rename = "task.failed")]
    Failed,
    /// A watched task succeeded and found records that are new, changed or gone.
    #[serde(rename = "task.changed")]
    Changed,
    /// A task found far less than the runs before it: the site seems to have changed under its selectors.
    #[serde(rename = "task.drifted")]
    Drifted,
}

/// A new webhook.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateWebhook {
    /// http or https, without credentials. It is reached through the cluster's egress, like every page.
    #[schema(max_length = 2048)]
    url: String,
    /// What it hears of; of everything without it.
    #[serde(default)]
    events: Vec<Event>,
    /// For admins: of this owner's tasks, such as `k8s:<namespace>` for the `ScrapeTask`s of a namespace.
    #[serde(default)]
    owner: Option<String>,
}

/// Whose webhooks are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WebhookParams {
    /// For admins: those of this owner.
    owner: Option<String>,
}

/// A webhook with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewWebhook {
    id: Uuid,
    /// Verifies the header `webhook-signature` (standard-webhooks). It cannot be shown again.
    secret: String,
}

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct Webhook {
    id: Uuid,
    url: String,
    events: Vec<String>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339; its receiver answered 410 and is told nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<String>,
}

/// The caller's webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Webhooks {
    webhooks: Vec<Webhook>,
}

/// Something that a webhook is told, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// The header `webhook-id`, the same for every attempt.
    id: Uuid,
    task_id: Uuid,
    event: String,
    /// `pending`, `delivered` or `failed`.
    status: String,
    attempts: i32,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339; when it is sent next.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<String>,
    /// What the last attempt brought: an HTTP status, or why there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
}

/// The newest deliveries, a hundred at most.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deliveries {
    deliveries: Vec<Delivery>,
}

/// Creates a webhook for the caller's tasks, twenty at most for each owner.
#[utoipa::path(
    post, path = "/api/v1/webhooks", tag = "webhooks", operation_id = "create_webhook", request_body = CreateWebhook,
    responses(
        (status = 201, body = NewWebhook),
        (status = 404, body = Problem, description = "There is no such owner"),
        (status = 409, body = Problem, description = "The owner has twenty"),
        (status = 422, body = Problem),
        (status = 503, body = Problem, description = "The cluster has no key for secrets"),
    ),
)]
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Strict(new): Strict<CreateWebhook>,
) -> Result<(StatusCode, Json<NewWebhook>), Problem> {
    let url = new.checked_url()?;
    let seal = state.seal.as_ref().ok_or_else(|| {
        Problem::unavailable().detail("the cluster has no key for secrets; its operator makes one when it is upgraded")
    })?;
    let owner = named_owner(&state, &caller, new.owner.as_deref()).await?;
    let (id, secret) = (Uuid::now_v7(), new_secret());
    let sealed = sealed(seal, id, &secret)?;
    let events = new.events();
    let made = state
        .ledger
        .create_webhook(owner, id, url.as_str(), &events, &sealed)
        .await?;
    made.ok_or_else(|| Problem::conflict().detail(format!("there are {MOST} webhooks; remove one first")))?;
    Ok((StatusCode::CREATED, Json(NewWebhook { id, secret })))
}

/// Lists the caller's webhooks.
#[utoipa::path(
    get, path = "/api/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks", params(WebhookParams),
    responses((status = 200, body = Webhooks), (status = 404, body = Problem)),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(params): Params<WebhookParams>,
) -> Result<Json<Webhooks>, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    let found = state.ledger.webhooks(owner).await?;
    Ok(Json(Webhooks {
        webhooks: found.into_iter().map(Webhook::from).collect(),
    }))
}

/// Removes a webhook and what it was still to be told.
#[utoipa::path(
    delete, path = "/api/v1/webhooks/{id}", tag = "webhooks", operation_id = "delete_webhook",
    params(("id" = Uuid, Path, description = "The webhook's id")),
    responses((status = 204, description = "The webhook is gone"), (status = 404, body = Problem)),
)]
pub async fn delete(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    found(state.ledger.delete_webhook(caller.reach(), id).await?)
}

/// Lists what a webhook was told, the newest first.
#[utoipa::path(
    get, path = "/api/v1/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "list_deliveries",
    params(("id" = Uuid, Path, description = "The webhook's id")),
    responses((status = 200, body = Deliveries), (status = 404, body = Problem)),
)]
pub async fn deliveries(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<Deliveries>, Problem> {
    let found = state.ledger.deliveries(caller.reach(), id).await?;
    let deliveries = found
        .ok_or_else(Problem::not_found)?
        .into_iter()
        .map(Delivery::from)
        .collect();
    Ok(Json(Deliveries { deliveries }))
}

/// Sends a delivery again, whatever became of it, and for another day. A webhook that is disabled is told of again from now on.
#[utoipa::path(
    post, path = "/api/v1/deliveries/{id}/resend", tag = "webhooks", operation_id = "resend_delivery",
    params(("id" = Uuid, Path, description = "The delivery's id")),
    responses((status = 204, description = "It is sent in a moment"), (status = 404, body = Problem)),
)]
pub async fn resend(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    found(state.ledger.resend(caller.reach(), id).await?)
}

/// For which place a webhook's secret is sealed.
pub fn place(id: Uuid) -> String {
    format!("webhook/{id}")
}

fn found(there: bool) -> Result<StatusCode, Problem> {
    if there {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}

fn new_secret() -> String {
    let mut bytes = [0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    format!("{SECRET_MARK}{}", BASE64_STANDARD.encode(bytes))
}

fn sealed(seal: &Seal, id: Uuid, secret: &str) -> Result<String, Problem> {
    seal.seal(&place(id), secret).map_err(|error| {
        tracing::error!(%error, "A secret could not be sealed.");
        Problem::internal()
    })
}

impl CreateWebhook {
    fn checked_url(&self) -> Result<Url, Problem> {
        let refuse = |value: &str, cure: &str| Problem::invalid().errors(vec![FieldError::new("url", value, cure)]);
        let url = Url::parse(&self.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let shown: String = self.url.chars().take(80).collect();
        let url = url.ok_or_else(|| refuse(&shown, "must be an absolute http or https URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(
                "(hidden)",
                "holds credentials; a receiver verifies the signature instead",
            ));
        }
        if url.as_str().len() > MAX_URL {
            return Err(refuse(&shown, "has more than 2048 characters"));
        }
        Ok(url)
    }

    fn events(&self) -> Vec<String> {
        let named = |event: &Event| match event {
            Event::Finished => "task.finished".to_owned(),
            Event::Failed => "task.failed".to_owned(),
            Event::Changed => "task.changed".to_owned(),
            Event::Drifted => "task.drifted".to_owned(),
        };
        let all = [Event::Finished, Event::Failed, Event::Changed, Event::Drifted];
        let wanted = all
            .iter()
            .filter(|event| self.events.is_empty() || self.events.contains(event));
        wanted.map(named).collect()
    }
}

impl From<webhooks::Webhook> for Webhook {
    fn from(webhook: webhooks::Webhook) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url,
            events: webhook.events,
            created_at: webhook.created_at,
            disabled_at: webhook.disabled_at,
        }
    }
}

impl From<webhooks::Delivery> for Delivery {
    fn from(delivery: webhooks::Delivery) -> Self {
        let waits = delivery.status == "pending";
        Self {
            id: delivery.id,
            task_id: delivery.task_id.0,
            event: delivery.event,
            status: delivery.status,
            attempts: delivery.attempts,
            created_at: delivery.created_at,
            due_at: waits.then_some(delivery.due_at),
            answer: delivery.answer,
        }
    }
}
