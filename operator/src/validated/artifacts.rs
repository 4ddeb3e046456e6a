//! Where artifacts are kept: what has to fit together. Pure.

use selextract_crds::{ArtifactStore, ArtifactsSpec, S3Spec};
use url::{Host, Url};

use super::check::Check;

/// Where artifacts are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// Whether new ones go to the bucket.
    pub to_bucket: bool,
    /// The bucket.
    pub bucket: Option<Bucket>,
    /// The most bytes of one owner.
    pub bytes_per_owner: u64,
}

/// A bucket, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// As the user wrote it.
    pub spec: S3Spec,
    /// The endpoint's host; `None` is Amazon's own.
    pub host: Option<Host>,
    /// The endpoint's port.
    pub port: u16,
}

impl Check {
    pub(super) fn artifacts(&mut self, artifacts: &ArtifactsSpec) -> Artifacts {
        let to_bucket = artifacts.store == ArtifactStore::S3;
        if to_bucket && artifacts.s3.is_none() {
            let cure = "name the bucket and the Secret that opens it in spec.artifacts.s3, or set store to Database";
            self.refuse("InvalidArtifactStore", "spec.artifacts.store", "S3", cure);
        }
        let bytes_per_owner = self.bytes("spec.artifacts.maxBytesPerOwner", &artifacts.max_bytes_per_owner);
        Artifacts {
            to_bucket,
            bucket: artifacts.s3.as_ref().map(|s3| self.bucket(s3)),
            bytes_per_owner: bytes_per_owner.min(i64::MAX.unsigned_abs()),
        }
    }

    fn bucket(&mut self, s3: &S3Spec) -> Bucket {
        let (host, port) = match s3.endpoint.as_deref().map(reached_at) {
            None => (None, 443),
            Some(Some(url)) => {
                if url.scheme() == "http" && s3.ca_secret_ref.is_some() {
                    let cure =
                        "a certificate authority goes with https; write an https endpoint, or remove caSecretRef";
                    self.refuse("InvalidArtifactStore", "spec.artifacts.s3.endpoint", &url, cure);
                }
                (
                    url.host().map(|host| host.to_owned()),
                    url.port_or_known_default().unwrap_or(443),
                )
            }
            Some(None) => {
                let cure = "write scheme, host and port alone, such as https://minio.storage.svc:9000";
                let endpoint = s3.endpoint.as_deref().unwrap_or_default();
                self.refuse("InvalidArtifactStore", "spec.artifacts.s3.endpoint", endpoint, cure);
                (None, 443)
            }
        };
        Bucket {
            spec: s3.clone(),
            host,
            port,
        }
    }
}

/// The endpoint, if it is one: scheme, host and port alone.
fn reached_at(endpoint: &str) -> Option<Url> {
    let url = Url::parse(endpoint).ok()?;
    let plain = url.path() == "/" && !endpoint.ends_with('/') && url.query().is_none() && url.fragment().is_none();
    let open = url.username().is_empty() && url.password().is_none();
    (["http", "https"].contains(&url.scheme()) && url.has_host() && plain && open).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_scheme_host_and_port_alone() {
        for good in [
            "https://s3.example.org",
            "http://10.0.0.7:9000",
            "https://[fd00::1]:9000",
        ] {
            assert!(reached_at(good).is_some(), "{good}");
        }
        for bad in [
            "s3.example.org",
            "ftp://s3",
            "https://s3/",
            "https://s3/bucket",
            "https://u:p@s3",
            "https://s3?x",
            "http://",
        ] {
            assert!(reached_at(bad).is_none(), "{bad}");
        }
    }
}
