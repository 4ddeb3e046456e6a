//! x
use anyhow::Result;
#[derive(clap::Args)]
pub struct Options {}
#[derive(clap::Args)]
pub struct Target {}
pub fn run(_: &Options) -> Result<()> {
    Ok(())
}
pub fn clean_up(_: &Target) -> Result<()> {
    Ok(())
}
