//! The object store: what is kept in a bucket that speaks S3. Does I/O; knows keys and bytes, not whose they are.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use object_store::{
    Attribute, Attributes, BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreExt, PutOptions,
    RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use snafu::{ResultExt, Snafu};
use tracing::warn;

use crate::ledger::Secret;

/// How long one request may take: an artifact is at most 10 MiB.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// How long and how often a request is tried again: less than a lease.
const RETRY: Duration = Duration::from_secs(20);
const RETRIES: usize = 3;

/// The object store did not do what was asked.
#[derive(Debug, Snafu)]
pub enum ObjectError {
    /// Its settings cannot be used.
    #[snafu(display("the object store's settings: {source}"))]
    Settings {
        /// What is wrong with them.
        source: object_store::Error,
    },
    /// The endpoint is no URL with a host.
    #[snafu(display("the object store's endpoint {endpoint:?} must be a URL such as https://s3.example.org"))]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// A request failed.
    #[snafu(display("{doing} in the object store: {source}"))]
    Request {
        /// What was being done.
        doing: &'static str,
        /// What happened.
        source: object_store::Error,
    },
    /// An object lies in an object store, and this program was told of none.
    #[snafu(display("the content lies in an object store, and no bucket is set"))]
    NoStore,
}

/// Where a bucket is, and how it is opened.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// The region that requests are signed for.
    pub region: String,
    /// `http(s)://host[:port]`; Amazon's own for the region where there is none.
    pub endpoint: Option<String>,
    /// Whether the bucket's name stands in the path, not in the host.
    pub path_style: bool,
    /// Who opens it.
    pub access_key_id: Secret,
    /// With what.
    pub secret_access_key: Secret,
    /// A certificate authority (PEM) that signed the endpoint's certificate, besides the system's.
    pub authority: Option<Vec<u8>>,
    /// What every new key begins with.
    pub prefix: String,
}

/// A bucket. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    store: Arc<AmazonS3>,
    bucket: String,
    prefix: String,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({}/{})", self.bucket, self.prefix)
    }
}

impl Objects {
    /// A bucket that is reached when it is needed.
    ///
    /// # Errors
    /// When the endpoint is no URL, or the authority no certificate.
    pub fn connect_lazy(bucket: &Bucket) -> Result<Self, ObjectError> {
        let mut client = ClientOptions::new()
            .with_timeout(TIMEOUT)
            .with_connect_timeout(CONNECT)
            .with_allow_http(true);
        if let Some(pem) = &bucket.authority {
            for certificate in Certificate::from_pem_bundle(pem).context(SettingsSnafu)? {
                client = client.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&bucket.name)
            .with_region(&bucket.region)
            .with_access_key_id(&bucket.access_key_id.0)
            .with_secret_access_key(&bucket.secret_access_key.0)
            .with_virtual_hosted_style_request(!bucket.path_style)
            .with_client_options(client)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: RETRIES,
                retry_timeout: RETRY,
            });
        if let Some(endpoint) = &bucket.endpoint {
            builder = builder.with_endpoint(reached_at(endpoint, &bucket.name, bucket.path_style)?);
        }
        Ok(Self {
            store: Arc::new(builder.build().context(SettingsSnafu)?),
            bucket: bucket.name.clone(),
            prefix: bucket.prefix.trim_matches('/').to_owned(),
        })
    }

    /// The key of a new object: the prefix, and this behind it.
    pub fn key(&self, rest: &str) -> String {
        Path::from(format!("{}/{rest}", self.prefix)).to_string()
    }

    /// Writes an object.
    ///
    /// # Errors
    /// When it could not be written within some tries; it may have been, all the same.
    pub async fn put(&self, key: &str, bytes: Bytes, media_type: &str) -> Result<(), ObjectError> {
        let attributes = Attributes::from_iter([(Attribute::ContentType, media_type.to_owned())]);
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        let written = self.store.put_opts(&Path::from(key), bytes.into(), options).await;
        written.map(drop).context(RequestSnafu { doing: "writing" })
    }

    /// Reads a part of an object.
    ///
    /// # Errors
    /// When there is no such object or no such part, or the store does not answer.
    pub async fn read(&self, key: &str, part: Range<u64>) -> Result<Bytes, ObjectError> {
        let read = self.store.get_range(&Path::from(key), part).await;
        read.context(RequestSnafu { doing: "reading" })
    }

    /// Removes objects and returns the keys of those that are gone now, those that were not there included.
    pub async fn remove(&self, keys: &[String]) -> Vec<String> {
        let paths: Vec<_> = keys.iter().map(|key| Ok(Path::from(key.as_str()))).collect();
        let mut answers = self.store.delete_stream(futures::stream::iter(paths).boxed());
        let mut gone = Vec::with_capacity(keys.len());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(path) => gone.push(path.to_string()),
                Err(object_store::Error::NotFound { path, .. }) => gone.push(path),
                Err(error) => warn!(%error, "Objects could not be removed; it is tried again."),
            }
        }
        gone
    }
}

impl ObjectError {
    /// Whether the object is not there, though the store answers.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Request {
                source: object_store::Error::NotFound { .. },
                ..
            }
        )
    }
}

/// Where requests go: the bucket's name stands in the host unless it stands in the path.
fn reached_at(endpoint: &str, bucket: &str, path_style: bool) -> Result<String, ObjectError> {
    let unusable = || EndpointSnafu { endpoint }.build();
    let (scheme, host) = endpoint.split_once("://").ok_or_else(unusable)?;
    let host = host.trim_end_matches('/');
    if !["http", "https"].contains(&scheme) || host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(unusable());
    }
    Ok(if path_style {
        format!("{scheme}://{host}")
    } else {
        format!("{scheme}://{bucket}.{host}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> Bucket {
        Bucket {
            name: "shots".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: Some("https://s3.example.org/".to_owned()),
            path_style: true,
            access_key_id: Secret("AKIDEXAMPLE".to_owned()),
            secret_access_key: Secret("hunter2".to_owned()),
            authority: None,
            prefix: "/team/blue/".to_owned(),
        }
    }

    #[test]
    fn the_buckets_name_stands_in_the_path_or_in_the_host() {
        let at = |path_style| reached_at("http://minio:9000", "shots", path_style).unwrap();
        assert_eq!(at(true), "http://minio:9000");
        assert_eq!(at(false), "http://shots.minio:9000");
        for bad in [
            "minio:9000",
            "ftp://minio",
            "http://",
            "http://minio/x",
            "http://u:p@minio",
        ] {
            let error = reached_at(bad, "shots", true).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    fn connect(bucket: &Bucket) -> Result<Objects, ObjectError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Objects::connect_lazy(bucket)
    }

    #[test]
    fn keys_begin_with_the_prefix_and_nothing_secret_is_shown() {
        let objects = connect(&bucket()).unwrap();
        assert_eq!(objects.key("run/1/a.png"), "team/blue/run/1/a.png");
        let shown = format!("{objects:?} {:?}", bucket());
        assert!(!shown.contains("hunter2") && !shown.contains("AKID"), "{shown}");
    }

    #[test]
    fn an_authority_that_is_no_certificate_is_refused() {
        let bucket = Bucket {
            authority: Some(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_vec()),
            ..bucket()
        };
        assert!(matches!(connect(&bucket), Err(ObjectError::Settings { .. })));
    }
}
