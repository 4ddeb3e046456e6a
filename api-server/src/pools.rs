//! The pools of upstream proxies that the cluster declares: a task that names another is refused. Pure.

use selextract_task::TaskSpec;

use crate::problem::FieldError;

/// The pools' names; where nobody said what there is, nothing is refused here.
#[derive(Clone, Debug, Default)]
pub struct Pools(Option<Vec<String>>);

impl Pools {
    /// Reads names with commas between them; an empty text is a cluster without pools.
    pub fn declared(names: Option<&str>) -> Self {
        let names = names.map(|names| names.split(',').map(str::trim));
        Self(names.map(|names| names.filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    }

    /// What is wrong with the pool that a task names.
    pub fn objection(&self, spec: &TaskSpec) -> Option<FieldError> {
        let (wanted, known) = (spec.proxy_pool.as_ref()?, self.0.as_ref()?);
        let cure = match known.as_slice() {
            [] => "is no pool: the cluster declares none in spec.egress.upstreams; remove it, or have one declared"
                .to_owned(),
            known if known.contains(wanted) => return None,
            known => format!(
                "is no pool that the cluster declares in spec.egress.upstreams; write {}, or remove it",
                known.join(" or ")
            ),
        };
        Some(FieldError::new("proxyPool", wanted, cure))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(names: Option<&str>, more: &Value) -> Option<Value> {
        let mut spec = json!({ "url": "https://e.com", "fields": [{ "name": "a" }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let objection = Pools::declared(names).objection(&serde_json::from_value(spec).unwrap())?;
        Some(serde_json::to_value(objection).unwrap())
    }

    #[test]
    fn a_pool_that_is_not_declared_is_told_with_those_that_are() {
        let eu = json!({ "proxyPool": "eu" });
        assert!(told(Some("eu,us"), &eu).is_none() && told(Some("us, eu "), &eu).is_none());
        let wrong = told(Some("us,asia"), &eu).unwrap();
        assert_eq!((&wrong["field"], &wrong["value"]), (&json!("proxyPool"), &json!("eu")));
        assert!(
            wrong["message"].as_str().unwrap().contains("write us or asia"),
            "{wrong}"
        );
        assert!(
            told(Some(""), &eu).unwrap()["message"]
                .as_str()
                .unwrap()
                .contains("declares none")
        );
        assert!(told(None, &eu).is_none(), "nobody said what there is");
        assert!(told(Some(""), &json!({})).is_none());
    }
}
