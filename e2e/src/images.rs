//! x
use anyhow::Result;
pub struct Built {
    pub tag: String,
}
pub fn build() -> Result<Built> {
    Ok(Built { tag: String::new() })
}
