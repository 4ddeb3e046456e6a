//! What the platform costs: prices and targets (`spec.cost`), and what comes of them (`status.cost`). Money is decimal text, never a float.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An amount of money as decimal text, such as "50" or "0.10".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Price(String);

impl Price {
    /// A price of this text, which is not checked.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In millionths: "0.10" is 100,000. `None` when the text is no price.
    pub fn micros(&self) -> Option<u64> {
        let (whole, fraction) = match self.0.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (self.0.as_str(), ""),
        };
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let fits = (1..=9).contains(&whole.len()) && fraction.len() <= 6 && digits(whole) && digits(fraction);
        fits.then(|| format!("{whole}{fraction:0<6}").parse().ok()).flatten()
    }
}

impl JsonSchema for Price {
    fn schema_name() -> Cow<'static, str> {
        "Price".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,9}(\\.[0-9]{1,6})?$", "maxLength": 16 })
    }
}

/// What the platform costs (guide: "Cost-Performance Optimization").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CostSpec {
    /// The currency of the prices.
    #[schemars(length(min = 3, max = 3), regex(pattern = "^[A-Z]{3}$"))]
    pub currency: String,

    /// What is paid. A month has 730 hours.
    pub prices: CostPrices,

    /// What a commitment takes off the prices of CPU and memory, in percent (guide: "Reserved Instances", 30 % for a year).
    #[schemars(range(min = 0, max = 100))]
    pub commitment_discount_percent: u8,

    /// What a unit of the currency should buy, and how much of what is paid should be used.
    pub targets: CostTargets,
}

impl Default for CostSpec {
    fn default() -> Self {
        Self {
            currency: "USD".to_owned(),
            prices: CostPrices::default(),
            commitment_discount_percent: 0,
            targets: CostTargets::default(),
        }
    }
}

/// What is paid (guide: "Current Resource Costs").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CostPrices {
    /// A core for a month (guide: 50).
    pub vcpu_month: Price,

    /// A GiB of memory for a month (guide: 160 for 32 GB, so 5).
    #[serde(rename = "memoryGiBMonth")]
    pub memory_gib_month: Price,

    /// A GiB of a volume for a month (guide: 0.10).
    #[serde(rename = "storageGiBMonth")]
    pub storage_gib_month: Price,

    /// A GiB that API and egress proxy send (guide: 0.09).
    #[serde(rename = "networkGiB")]
    pub network_gib: Price,
}

impl Default for CostPrices {
    fn default() -> Self {
        Self {
            vcpu_month: Price::new("50"),
            memory_gib_month: Price::new("5"),
            storage_gib_month: Price::new("0.10"),
            network_gib: Price::new("0.09"),
        }
    }
}

/// What a unit of the currency should buy, and how much of what is paid should be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CostTargets {
    /// Requests for a unit (guide: "Requests per Dollar", 1,000).
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_unit: u32,

    /// Tasks that end well for a unit (guide: "Tasks per Dollar", 100).
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub tasks_per_unit: u32,

    /// Active users for a unit (guide: "Users per Dollar", 10).
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub users_per_unit: u32,

    /// CPU that is used of what is reserved, in percent (guide: "CPU Efficiency", 60 %).
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: u8,

    /// Memory that is used of what is reserved, in percent (guide: "Memory Efficiency", 70 %).
    #[schemars(range(min = 1, max = 100))]
    pub memory_percent: u8,

    /// Storage that is used of what is reserved, in percent (guide: "Storage Efficiency", 80 %).
    #[schemars(range(min = 1, max = 100))]
    pub storage_percent: u8,
}

impl Default for CostTargets {
    fn default() -> Self {
        Self {
            requests_per_unit: 1000,
            tasks_per_unit: 100,
            users_per_unit: 10,
            cpu_percent: 60,
            memory_percent: 70,
            storage_percent: 80,
        }
    }
}

/// What the platform costs in a month. Amounts are in the currency, with two decimals. Backups are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CostStatus {
    /// When it was written.
    #[schemars(length(max = 64))]
    pub time: String,

    /// The currency.
    #[schemars(length(max = 3))]
    pub currency: String,

    /// Everything in a month: at the mean number of pods where that is known, else at that of now.
    #[schemars(length(max = 32))]
    pub monthly: String,

    /// CPU of all components.
    #[schemars(length(max = 32))]
    pub cpu: String,

    /// Memory of all components.
    #[schemars(length(max = 32))]
    pub memory: String,

    /// All volumes.
    #[schemars(length(max = 32))]
    pub storage: String,

    /// What API and egress proxy send; absent while unknown, and then not in the sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub network: Option<String>,

    /// What each component costs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub components: Vec<ComponentCostStatus>,

    /// What a unit of the currency buys: requests, tasks, users; and how much is used of what is paid: cpuUsed, memoryUsed, storageUsed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub efficiency: Vec<EfficiencyStatus>,

    /// What to change: what is short first, then what saves most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub recommendations: Vec<RecommendationStatus>,

    /// What scaling saved in a month against the maximum held throughout; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub saved_by_scaling: Option<String>,

    /// What the commitment takes off in a month; every amount is without it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub saved_by_commitment: Option<String>,
}

/// What a component costs in a month.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentCostStatus {
    /// The component, as in the label app.kubernetes.io/component.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Pods now.
    #[schemars(range(min = 0))]
    pub replicas: i32,

    /// CPU, memory, storage and network with that many pods.
    #[schemars(length(max = 32))]
    pub now: String,

    /// The same with the mean number of pods; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub measured: Option<String>,
}

/// One measure of efficiency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EfficiencyStatus {
    /// Which.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// What was measured; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub value: Option<String>,

    /// What it should be at least.
    #[schemars(length(max = 32))]
    pub target: String,

    /// Met, Missed or Unknown.
    #[schemars(length(max = 16))]
    pub level: String,
}

/// Something to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecommendationStatus {
    /// The field.
    #[schemars(length(max = 128))]
    pub field: String,

    /// What it is.
    #[schemars(length(max = 32))]
    pub from: String,

    /// What it should be.
    #[schemars(length(max = 32))]
    pub to: String,

    /// Why, for people.
    #[schemars(length(max = 512))]
    pub why: String,

    /// What it adds to the month's cost; below 0 it saves.
    #[schemars(length(max = 32))]
    pub monthly: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_in_millionths() {
        for (text, micros) in [("50", 50_000_000), ("0.10", 100_000), ("0.000001", 1), ("5.", 0)] {
            let read = Price::new(text).micros();
            assert_eq!(read, (micros > 0).then_some(micros), "{text}");
        }
    }

    #[test]
    fn what_is_no_price_is_not_read() {
        for text in ["", ".5", "-1", "1e3", "1,5", "0.0000001", "9999999999"] {
            assert_eq!(Price::new(text).micros(), None, "{text}");
        }
    }
}
