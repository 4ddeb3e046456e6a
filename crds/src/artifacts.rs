//! The section of what runs keep beside their records: screenshots, PDFs, copies of pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    pod::{LocalObjectReference, Quantity},
    schema::rule,
};

/// Where screenshots, PDFs and copies of pages are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "self.store != 'S3' || has(self.s3)",
    "artifacts.store S3 needs artifacts.s3: name the bucket and the Secret that opens it there, or set store to Database",
)]))]
pub struct ArtifactsSpec {
    /// Where new artifacts are kept: Database in the cluster's own database, S3 in a bucket. Those of before stay where they are; leave s3 in place while some lie there.
    pub store: ArtifactStore,

    /// The bucket. With store Database, artifacts of before are still read and removed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Spec>,

    /// The most bytes of artifacts that one owner may have, unless an administrator sets another quota for him. What does not fit is left out, and the run goes on.
    pub max_bytes_per_owner: Quantity,
}

impl Default for ArtifactsSpec {
    fn default() -> Self {
        Self {
            store: ArtifactStore::Database,
            s3: None,
            max_bytes_per_owner: Quantity::new("10Gi"),
        }
    }
}

/// Where artifacts are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ArtifactStore {
    /// The cluster's own database, in chunks, by month.
    #[default]
    Database,
    /// A bucket that speaks S3.
    S3,
}

/// A bucket that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Spec {
    /// Where the store is, such as https://minio.storage.svc:9000: scheme, host and port alone. Without it Amazon's own endpoint of the region. For a Service write its name with its namespace, which the NetworkPolicies open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 253), regex(pattern = "^https?://[^/@?#\\s]+$"))]
    pub endpoint: Option<String>,

    /// The region that requests are signed for.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z0-9][-a-zA-Z0-9]*$"))]
    pub region: String,

    /// The bucket's name. It exists already.
    #[schemars(length(min = 3, max = 63), regex(pattern = "^[a-z0-9][-a-z0-9.]*[a-z0-9]$"))]
    pub bucket: String,

    /// What every key begins with; the cluster's uid follows.
    #[serde(default = "prefix")]
    #[schemars(
        length(min = 1, max = 200),
        regex(pattern = "^[a-zA-Z0-9]([-a-zA-Z0-9._/]*[a-zA-Z0-9])?$")
    )]
    pub prefix: String,

    /// Whether the bucket's name stands in the path and not in the host, as many stores that are not Amazon's want it.
    #[serde(default)]
    pub force_path_style: bool,

    /// A Secret in the same namespace with the keys accessKeyId and secretAccessKey. They need to put, get and delete objects.
    pub credentials_secret_ref: LocalObjectReference,

    /// A Secret in the same namespace whose key ca.crt (PEM) is the certificate authority of the endpoint's certificate. Without it the authorities that the images trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<LocalObjectReference>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn prefix() -> String {
    "selextract".to_owned()
}
