//! What is paid, as whole numbers. Pure.

use selextract_crds::{CostSpec, CostTargets, Price};

use super::check::Check;
use crate::cost::{Money, Prices};

/// What is paid, and what should come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The currency.
    pub currency: String,
    /// The prices, before the commitment.
    pub prices: Prices,
    /// What a commitment takes off CPU and memory, in percent.
    pub commitment_discount_percent: u8,
    /// What should come of it.
    pub targets: CostTargets,
}

impl Check {
    pub(super) fn cost(&mut self, cost: &CostSpec) -> Cost {
        let prices = &cost.prices;
        Cost {
            currency: cost.currency.clone(),
            prices: Prices {
                vcpu_month: self.price("vcpuMonth", &prices.vcpu_month),
                memory_gib_month: self.price("memoryGiBMonth", &prices.memory_gib_month),
                storage_gib_month: self.price("storageGiBMonth", &prices.storage_gib_month),
                network_gib: self.price("networkGiB", &prices.network_gib),
            },
            commitment_discount_percent: cost.commitment_discount_percent.min(100),
            targets: cost.targets,
        }
    }

    fn price(&mut self, name: &str, price: &Price) -> Money {
        let micros = price.micros().unwrap_or_else(|| {
            let cure = "write a price with a point and at most six decimals, such as 50 or 0.10";
            self.refuse(
                "InvalidPrice",
                &format!("spec.cost.prices.{name}"),
                price.as_str(),
                cure,
            );
            0
        });
        Money::from_micros(i128::from(micros))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        build::fixture,
        validated::{Defaults, validate},
    };

    #[test]
    fn the_default_prices_are_the_guides() {
        let cost = fixture::minimal().cost;
        assert_eq!(cost.prices.vcpu_month, Money::from_micros(50_000_000));
        assert_eq!(cost.prices.memory_gib_month, Money::from_micros(5_000_000));
        assert_eq!(cost.prices.storage_gib_month, Money::from_micros(100_000));
        assert_eq!(cost.prices.network_gib, Money::from_micros(90_000));
        assert_eq!((cost.currency.as_str(), cost.commitment_discount_percent), ("USD", 0));
    }

    #[test]
    fn a_price_that_is_none_is_refused_with_field_value_and_cure() {
        let cluster = serde_json::from_value(json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
            "metadata": { "name": "shop", "namespace": "web", "uid": "u" },
            "spec": { "cost": { "prices": { "networkGiB": "9 cents" } } },
        }));
        let defaults = Defaults {
            registry: String::new(),
            tag: "1".into(),
            namespace: "ops".into(),
            subject: "system:serviceaccount:ops:o".into(),
        };
        let refusals = validate(&cluster.unwrap(), &defaults).unwrap_err();
        assert!(
            refusals[0]
                .message
                .starts_with("spec.cost.prices.networkGiB is \"9 cents\""),
            "{}",
            refusals[0]
        );
    }
}
