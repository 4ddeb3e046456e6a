//! Brings images from podman to the nodes: only images that a node lacks, and of these only the layers that it lacks.
//!
//! podman writes an image as a folder of uncompressed blobs named by digest; that is an OCI layout but for its index, so the archive
//! for a node is made here, without the blobs that its containerd names already.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{containerd::PAUSE_IMAGE, layout::Layout};
use crate::{program::Program, tools};

const LABEL: &str = "selextract.io/image-id";
const TIMEOUT: Duration = Duration::from_mins(5);

/// Loads images into every node; how many a node lacked.
pub fn load(images: &[String]) -> Result<usize> {
    let layout = Layout::new();
    let nodes = layout.nodes();
    ensure!(
        !nodes.is_empty(),
        "no local cluster runs; `selextract-local up` starts one"
    );
    let mut loaded = 0;
    for image in images {
        let id = image_id(image)?;
        let lacking: Vec<u8> = nodes
            .iter()
            .copied()
            .filter(|node| !has(&layout, *node, image, &id))
            .collect();
        if !lacking.is_empty() {
            load_one(&layout, image, &id, &lacking)?;
            loaded += 1;
        }
    }
    Ok(loaded)
}

/// The image that holds pods' namespaces: a static program in an image of its own.
pub fn load_pause(layout: &Layout) -> Result<()> {
    let folder = layout.run().join("pause-image");
    fs::create_dir_all(&folder)?;
    fs::copy(tools::path("pause")?, folder.join("pause"))?;
    let archive = folder.join("pause.tar");
    Program::new("tar", ["--owner=0", "--group=0", "--mtime=@0", "-C"])
        .and([
            folder.as_os_str(),
            "-cf".as_ref(),
            archive.as_os_str(),
            "pause".as_ref(),
        ])
        .run()?;
    Program::new(
        "podman",
        [
            "import",
            "--quiet",
            "--change",
            "ENTRYPOINT=[\"/pause\"]",
            "--change",
            "USER=65535:65535",
        ],
    )
    .and([archive.as_os_str(), PAUSE_IMAGE.as_ref()])
    .timeout(TIMEOUT)
    .run()?;
    load(&[PAUSE_IMAGE.to_owned()]).map(drop)
}

fn image_id(image: &str) -> Result<String> {
    let id = Program::new("podman", ["image", "inspect", "--format", "{{.Id}}", image])
        .output()
        .with_context(|| format!("{image} is not built"))?;
    Ok(id.trim().to_owned())
}

fn has(layout: &Layout, node: u8, image: &str, id: &str) -> bool {
    let filter = format!("name=={image},labels.\"{LABEL}\"=={id}");
    ctr(layout, node, &["images", "ls", "-q", &filter])
        .output()
        .is_ok_and(|found| !found.trim().is_empty())
}

fn load_one(layout: &Layout, image: &str, id: &str, nodes: &[u8]) -> Result<()> {
    let work = tempfile::tempdir_in(layout.data()).context("no room for the image")?;
    let blobs = work.path().join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let target = format!("dir:{}", blobs.display());
    Program::new("podman", ["push", "--quiet", "--format", "oci", image, &target])
        .timeout(TIMEOUT)
        .run()?;
    write_index(work.path(), &blobs, image)?;
    for node in nodes {
        let archive = work.path().join("image.tar");
        pack(work.path(), &archive, &held_blobs(layout, *node)?)?;
        ctr(layout, *node, &["images", "import", "--digests=false"])
            .and([archive.as_os_str()])
            .timeout(TIMEOUT)
            .run()?;
        ctr(layout, *node, &["images", "label", image, &format!("{LABEL}={id}")]).run()?;
    }
    Ok(())
}

/// Turns podman's folder into an OCI layout: the manifest becomes a blob, and an index names it.
fn write_index(root: &Path, blobs: &Path, image: &str) -> Result<()> {
    let manifest = blobs.join("manifest.json");
    let text = fs::read(&manifest)?;
    let media_type = serde_json::from_slice::<Value>(&text)?["mediaType"]
        .as_str()
        .map_or_else(
            || "application/vnd.oci.image.manifest.v1+json".to_owned(),
            str::to_owned,
        );
    let digest = tools::sha256(&[&manifest])?;
    fs::rename(&manifest, blobs.join(&digest))?;
    drop(fs::remove_file(blobs.join("version")));
    let descriptor = json!({
        "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": text.len(),
        "annotations": { "io.containerd.image.name": image, "org.opencontainers.image.ref.name": image },
    });
    fs::write(
        root.join("index.json"),
        json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string(),
    )?;
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

fn held_blobs(layout: &Layout, node: u8) -> Result<HashSet<String>> {
    let list = ctr(layout, node, &["content", "ls", "-q"]).output()?;
    Ok(list
        .lines()
        .filter_map(|line| line.trim().strip_prefix("sha256:"))
        .map(str::to_owned)
        .collect())
}

fn pack(root: &Path, archive: &Path, held: &HashSet<String>) -> Result<()> {
    let names = fs::read_dir(root.join("blobs/sha256"))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let blobs = names
        .filter(|name| !held.contains(name))
        .map(|name| PathBuf::from("blobs/sha256").join(name));
    let files = ["oci-layout", "index.json"].map(PathBuf::from).into_iter().chain(blobs);
    Program::new("tar", ["-C"])
        .and([root.as_os_str(), "-cf".as_ref(), archive.as_os_str()])
        .and(files)
        .timeout(TIMEOUT)
        .run()
}

fn ctr(layout: &Layout, node: u8, arguments: &[&str]) -> Program {
    Program::new("ctr", ["-a"])
        .and([layout.socket(node)])
        .and(["-n", "k8s.io"])
        .and(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_the_node_holds_is_not_sent_again() {
        let root = tempfile::tempdir().unwrap();
        let blobs = root.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("manifest.json"), "{}").unwrap();
        fs::write(blobs.join("aaa"), "base").unwrap();
        fs::write(blobs.join("bbb"), "ours").unwrap();
        write_index(root.path(), &blobs, "localhost/x:1").unwrap();
        let archive = root.path().join("image.tar");
        pack(root.path(), &archive, &HashSet::from(["aaa".to_owned()])).unwrap();
        let listing = Program::new("tar", ["-tf"]).and([archive]).output().unwrap();
        assert!(
            listing.contains("blobs/sha256/bbb") && !listing.contains("aaa"),
            "{listing}"
        );
        assert!(listing.contains("index.json"), "{listing}");
    }
}
