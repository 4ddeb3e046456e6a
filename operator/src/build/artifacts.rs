//! What worker, API and keeper are told of the artifacts' home: variables, the authority's volume, the Secrets, and the way there.

use serde_json::{Value, json};
use url::Host;

use super::{
    Component, Inputs,
    pod::{self, Template, env, secret_env},
    policies,
};
use crate::validated::Bucket;

/// The keys of the Secret that opens the bucket.
pub const ACCESS_KEY_ID: &str = "accessKeyId";
/// See [`ACCESS_KEY_ID`].
pub const SECRET_ACCESS_KEY: &str = "secretAccessKey";
/// The key of the Secret with the endpoint's certificate authority.
pub const AUTHORITY: &str = "ca.crt";
const FOLDER: &str = "/etc/selextract/artifacts-ca";

/// Adds everything about artifacts to a program that puts, reads or removes them.
pub fn add(inputs: Inputs<'_>, template: &mut Template<'_>) {
    extend(&mut template.container["env"], environment(inputs));
    let Some(Bucket { spec, .. }) = &inputs.cluster.artifacts.bucket else {
        return;
    };
    template.secrets.push(spec.credentials_secret_ref.name.clone());
    if let Some(authority) = &spec.ca_secret_ref {
        template.secrets.push(authority.name.clone());
        let volume = pod::secret_volume("artifacts-ca", &authority.name, &[(AUTHORITY, AUTHORITY)]);
        template.volumes.push(volume);
        let mount = pod::mount_read_only("artifacts-ca", FOLDER);
        extend(&mut template.container["volumeMounts"], vec![mount]);
    }
}

fn environment(inputs: Inputs<'_>) -> Vec<Value> {
    let artifacts = &inputs.cluster.artifacts;
    let mut variables = vec![
        env(
            "SELEXTRACT_ARTIFACT_STORE",
            if artifacts.to_bucket { "s3" } else { "database" },
        ),
        env("SELEXTRACT_ARTIFACT_BYTES_PER_OWNER", artifacts.bytes_per_owner),
    ];
    let Some(Bucket { spec, .. }) = &artifacts.bucket else {
        return variables;
    };
    let credentials = &spec.credentials_secret_ref.name;
    variables.extend([
        env("SELEXTRACT_S3_BUCKET", spec.bucket.as_str()),
        env("SELEXTRACT_S3_REGION", spec.region.as_str()),
        // Two clusters may share bucket and prefix.
        env(
            "SELEXTRACT_S3_PREFIX",
            format!("{}/{}", spec.prefix, inputs.cluster.uid),
        ),
        env("SELEXTRACT_S3_FORCE_PATH_STYLE", spec.force_path_style),
        secret_env("SELEXTRACT_S3_ACCESS_KEY_ID", credentials, ACCESS_KEY_ID),
        secret_env("SELEXTRACT_S3_SECRET_ACCESS_KEY", credentials, SECRET_ACCESS_KEY),
    ]);
    variables.extend(
        spec.endpoint
            .as_deref()
            .map(|endpoint| env("SELEXTRACT_S3_ENDPOINT", endpoint)),
    );
    variables.extend(
        spec.ca_secret_ref
            .is_some()
            .then(|| env("SELEXTRACT_S3_CA", format!("{FOLDER}/{AUTHORITY}"))),
    );
    variables
}

fn extend(list: &mut Value, more: Vec<Value>) {
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

/// The way to the bucket, for those who use it: Amazon's lies in the public network, a Service in its namespace, and a host by any
/// other name anywhere; its port is known.
pub fn edge(inputs: Inputs<'_>, component: Component) -> Option<Value> {
    let bucket = inputs.cluster.artifacts.bucket.as_ref()?;
    if ![Component::Worker, Component::Api, Component::Keeper].contains(&component) {
        return None;
    }
    let ports = [policies::tcp(bucket.port)];
    Some(match &bucket.host {
        None => json!({ "to": policies::public_network(), "ports": ports }),
        Some(Host::Ipv4(address)) => {
            json!({ "to": [{ "ipBlock": { "cidr": format!("{address}/32") } }], "ports": ports })
        }
        Some(Host::Ipv6(address)) => {
            json!({ "to": [{ "ipBlock": { "cidr": format!("{address}/128") } }], "ports": ports })
        }
        Some(Host::Domain(host)) => match policies::service_namespace(host) {
            // A policy sees the pods behind a Service, at ports of their own.
            Some(namespace) => policies::namespace_rule(namespace),
            None => json!({ "ports": ports }),
        },
    })
}
