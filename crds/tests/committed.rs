//! The committed YAML says what the types say.

use selextract_crds::{cluster_definition, scrape_task_definition};

#[test]
fn the_committed_definitions_are_those_of_the_types_and_small_enough_for_kubectl_apply() {
    for definition in [cluster_definition(), scrape_task_definition()] {
        let file = format!("{}/{}.yaml", env!("CARGO_MANIFEST_DIR"), definition.spec.names.plural);
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        let generated = serde_yaml_ng::to_string(&definition).unwrap();
        assert!(
            committed == generated,
            "{file} is out of date; run `cargo run -p selextract-crds`"
        );
        // kubectl keeps what it applied as JSON in an annotation; all annotations together may have 256 KiB.
        let applied = serde_json::to_string(&definition).unwrap();
        assert!(applied.len() < 256 * 1024, "{file} is {} bytes of JSON", applied.len());
    }
}
