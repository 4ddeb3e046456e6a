//! What a user may set on the pods of a component.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::placement::{Affinity, Toleration, TopologySpreadConstraint};

/// Settings of the pods of one component. What security or the platform's working depends on cannot be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSettings {
    /// CPU and memory of the main container. What is not named comes from the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// Labels that a node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,

    /// On which nodes, and near or far from which pods, the pods run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How the pods spread over nodes or zones. Without any, replicas spread over nodes where they can.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// The PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Secrets with which the images are pulled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Labels to add to the pods; those of app.kubernetes.io and selextract.io are the operator's and refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub labels: BTreeMap<String, String>,

    /// Annotations to add to the pods; those of selextract.io are the operator's and refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub annotations: BTreeMap<String, String>,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalObjectReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// CPU and memory of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Resources {
    /// What the scheduler keeps free for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Compute>,

    /// What it cannot exceed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Compute>,
}

/// An amount of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Compute {
    /// Cores, such as 500m or "2".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,

    /// Bytes, such as 512Mi or 2Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// A quantity as Kubernetes writes it: `500m`, `2Gi`. In YAML a bare number must be quoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(String);

/// The suffixes with their factor as a power of ten or of two.
const SUFFIXES: [(&str, u128); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

impl Quantity {
    /// A quantity of this text, which is not checked.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In thousandths, rounded down: bytes or cores times 1000. `None` when the text is no quantity or does not fit.
    pub fn millis(&self) -> Option<u128> {
        let (number, factor) = match self.0.strip_suffix('m') {
            Some(number) => (number, 1),
            None => SUFFIXES
                .iter()
                .find_map(|(suffix, factor)| Some((self.0.strip_suffix(suffix)?, factor * 1000)))
                .unwrap_or((&self.0, 1000)),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || (number.contains('.') && !digits(fraction)) || fraction.len() > 9 {
            return None;
        }
        let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let value: u128 = format!("{whole}{fraction}").parse().ok()?;
        Some(value.checked_mul(factor)? / scale)
    }

    /// In whole units, rounded down: bytes or cores.
    pub fn units(&self) -> Option<u64> {
        u64::try_from(self.millis()? / 1000).ok()
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(\\.[0-9]{1,9})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$",
            "maxLength": 20,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, millis) in [
            ("500m", 500),
            ("2", 2000),
            ("1.5", 1500),
            ("2Gi", 2_147_483_648_000),
            ("500M", 500_000_000_000),
            ("0.5Ki", 512_000),
        ] {
            assert_eq!(Quantity::new(text).millis(), Some(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_not_read() {
        for text in [
            "",
            "m",
            "1,5",
            "-1",
            "1.",
            ".5",
            "1GiB",
            "99999999999999999999999999999999999999P",
        ] {
            assert_eq!(Quantity::new(text).millis(), None, "{text}");
        }
    }
}
