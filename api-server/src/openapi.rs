//! The OpenAPI 3.1 document: what the handlers declare, and the task's schema from the one type that every part shares.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use selextract_task::{TaskSpec, credentials::SiteCredentials};
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

/// Where the document is served.
pub const PATH: &str = "/api/v1/openapi.json";

/// What is not declared by a handler.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Selextract",
        description = "Declare what to extract, follow the task, read its records.\n\nSend an access token from `auth/login`, or an API \
                       key, as `Authorization: Bearer …`. What belongs to somebody else answers 404. A client that sends too \
                       many requests gets 429 with `Retry-After`; `RateLimit` says where it stands. Errors are `application/problem+json` \
                       (RFC 9457) with a stable `type`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    modifiers(&Security),
    security(("bearer" = []), ("apiKey" = [])),
    tags(
        (name = "auth", description = "Logging in, and who one is"),
        (name = "users", description = "People and their roles; for admins"),
        (name = "api-keys", description = "Keys for programs"),
        (name = "tasks", description = "What to extract, and what became of it"),
        (name = "dead-letters", description = "Runs that failed, and their replay"),
        (name = "credentials", description = "Logins to sites, which tasks name; written and never read back"),
        (name = "webhooks", description = "Hearing of the end of tasks: signed as standard-webhooks says, sent again for a day"),
        (name = "insight", description = "Counts and trends"),
        (name = "health", description = "Whether the API answers"),
    ),
)]
pub struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An access token (15 minutes) or an API key (sxk_…)."))
            .build();
        let key = ApiKey::Header(ApiKeyValue::with_description("X-API-Key", "An API key (sxk_…)."));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(key));
    }
}

/// The whole document, with `TaskSpec` and `CreateTask` in it.
pub fn complete(document: &utoipa::openapi::OpenApi) -> serde_json::Result<Value> {
    let mut document = serde_json::to_value(document)?;
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = SchemaGenerator::new(settings);
    let spec = generator.subschema_for::<TaskSpec>();
    let _ = generator.subschema_for::<SiteCredentials>();
    let definitions = generator.take_definitions(true);
    let schemas = &mut document["components"]["schemas"];
    for (name, schema) in definitions {
        schemas[name] = schema;
    }
    schemas["CreateTask"] = json!({
        "description": "What to extract, and how soon. Unknown fields are refused.",
        "allOf": [spec, {
            "type": "object",
            "properties": {
                "priority": {
                    "type": "integer", "minimum": 0, "maximum": 9, "default": crate::routes::new_task::DEFAULT_PRIORITY,
                    "description": "0 (last) to 9 (first).",
                },
                "ttlAfterFinished": {
                    "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$", "examples": ["24h"],
                    "description": "How long the task and its results are kept once it has ended, up to 3650d; without it as long as the \
                                    platform keeps any.",
                },
            },
        }],
    });
    schemas["CreateSchedule"] = create_schedule();
    schemas["CreateTasks"] = json!({
        "description": "Tasks to accept, all or none.",
        "type": "object",
        "required": ["tasks"],
        "additionalProperties": false,
        "properties": {
            "tasks": {
                "type": "array", "minItems": 1, "maxItems": selextract_platform::ledger::batch::MAX_BATCH,
                "items": { "$ref": "#/components/schemas/CreateTask" },
            },
        },
    });
    Ok(document)
}

fn create_schedule() -> Value {
    let duration = |description: &str| json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$", "description": description });
    json!({
        "description": "What to extract, and when. Unknown fields are refused.",
        "type": "object",
        "required": ["name", "cron", "task"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 200, "description": "A name for people." },
            "cron": { "type": "string", "examples": ["0 6 * * *"], "description": "Minute, hour, day of the month, month, day of the week." },
            "timeZone": { "type": "string", "default": "UTC", "examples": ["Europe/Berlin"], "description": "An IANA time zone." },
            "concurrencyPolicy": {
                "type": "string", "enum": ["Allow", "Forbid", "Replace"], "default": "Forbid",
                "description": "What a tick does while a run is under way: Forbid waits for its end until the starting deadline, Replace \
                                cancels it and starts another one, Allow starts another one beside it.",
            },
            "startingDeadline": duration("How late a tick may start its run, 10s to 7d; 10m without it."),
            "suspend": { "type": "boolean", "default": false, "description": "No new run starts while it is set." },
            "priority": { "type": "integer", "minimum": 0, "maximum": 9, "default": crate::routes::new_task::DEFAULT_PRIORITY },
            "onChange": {
                "type": "string", "enum": ["Replace", "Forbid"], "default": "Replace",
                "description": "What a changed task does to a run that is under way: Replace cancels it and starts the new one, Forbid refuses the change.",
            },
            "ttlAfterFinished": duration("How long a finished run and its results are kept, up to 3650d."),
            "successfulRunsHistoryLimit": { "type": "integer", "minimum": 0, "maximum": 10000 },
            "failedRunsHistoryLimit": { "type": "integer", "minimum": 0, "maximum": 10000 },
            "task": { "$ref": "#/components/schemas/TaskSpec" },
        },
    })
}

/// Every operation of the document: the method in capitals, and the template of the path.
pub fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, _)| (method.to_ascii_uppercase(), path.clone()))
        })
        .collect()
}
