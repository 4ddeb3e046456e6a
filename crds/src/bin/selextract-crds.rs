//! Writes the two definitions as YAML into the folder given, or the one that they are committed in.

use std::{error::Error, fs, path::PathBuf};

use selextract_crds::{cluster_definition, scrape_task_definition};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    for definition in [cluster_definition(), scrape_task_definition()] {
        let path = folder.join(format!("{}.yaml", definition.spec.names.plural));
        fs::write(&path, serde_yaml_ng::to_string(&definition)?)?;
        println!("{}", path.display());
    }
    Ok(())
}
