//! The node's label.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// The label that browser pods ask for. Its value is the profile's version: a later one gets another value.
pub const LABEL: &str = "selextract.io/seccomp-chromium";
const VERSION: &str = "v1";
const MANAGER: &str = "selextract-node";

/// Sets the label, or takes it away. The same patch again changes nothing on the API server.
pub async fn apply(client: Client, node: &str, installed: bool) -> kube::Result<()> {
    Api::<Node>::all(client)
        .patch_metadata(
            node,
            &PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            },
            &Patch::Merge(patch(installed)),
        )
        .await
        .map(|_| ())
}

fn patch(installed: bool) -> Value {
    let value = if installed { json!(VERSION) } else { Value::Null };
    json!({ "metadata": { "labels": { LABEL: value } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_set_with_the_profile_and_taken_away_without_it() {
        assert_eq!(
            patch(true),
            json!({ "metadata": { "labels": { "selextract.io/seccomp-chromium": "v1" } } })
        );
        assert_eq!(
            patch(false),
            json!({ "metadata": { "labels": { "selextract.io/seccomp-chromium": null } } })
        );
    }
}
