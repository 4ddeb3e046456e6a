//! What the operator says of Kubernetes Secrets that hold credentials: the API seals them for the owner `k8s:<namespace>`.

use serde::{Deserialize, Serialize};

use crate::credentials::SiteCredentials;

/// The body of `PUT /internal/v1/credentials`: one Secret as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretCredentials {
    /// The Secret's namespace; the owner is `k8s:<namespace>`.
    pub namespace: String,
    /// The Secret's name, under which tasks name the credentials.
    pub name: String,
    /// The Secret's resource version.
    pub version: String,
    /// What it holds.
    pub credentials: SiteCredentials,
}

/// The answer to [`SecretCredentials`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretAnswer {
    /// Why they were refused, in a sentence without anything secret. `None` when they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The answer to `GET /internal/v1/credentials?afterNamespace=…&afterName=…`: what came from Secrets, in the order of namespace and name,
/// 500 at most; the last page is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSecrets {
    /// In their order.
    pub items: Vec<KnownSecret>,
}

/// Credentials that came from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownSecret {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// The resource version that was read.
    #[serde(default)]
    pub version: String,
}

/// The body of `POST /internal/v1/credentials/remove`: no `ScrapeTask` names these Secrets any more, or they are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRemovals {
    /// At most [`super::MAX_ITEMS`].
    pub items: Vec<KnownSecret>,
}
