//! Values that the operator itself tells Prometheus, as lists that whoever owns the registry sets. Pure.

/// A value of now.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The metric's name.
    pub name: &'static str,
    /// Its labels besides `namespace` and `cluster`.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Live {
    /// A value without labels of its own.
    pub fn plain(name: &'static str, value: f64) -> Self {
        Self {
            name,
            labels: Vec::new(),
            value,
        }
    }

    /// A value with one label of its own.
    pub fn labeled(name: &'static str, label: &'static str, of: impl Into<String>, value: f64) -> Self {
        Self {
            name,
            labels: vec![(label, of.into())],
            value,
        }
    }
}
