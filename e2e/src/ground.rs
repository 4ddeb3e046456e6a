//! What every journey stands on: cluster, images, operator. Each is looked after once per test program; a journey that finds it takes no time.

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Result, bail};

use crate::{
    cluster::{self, Wanted},
    demo::Kubernetes,
    images::{self, Profile},
};

/// Where the operator of the journeys is.
pub const OPERATOR_NAMESPACE: &str = "selextract-system";
const RELEASES: [&str; 2] = ["selextract-operator", "selextract-crds"];

/// The tag of the images, once they are on the nodes.
static IMAGES: OnceLock<String> = OnceLock::new();
/// Whether the operator of these images is installed.
static INSTALLED: Mutex<bool> = Mutex::new(false);

/// Cluster, images, operator.
pub fn prepare() -> Result<String> {
    prepare_with(Profile::Development)
}

/// As every journey does before it begins, with images of this profile.
pub fn prepare_with(profile: Profile) -> Result<String> {
    let tag = images_on_nodes(profile)?;
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        Kubernetes::local().install_operator(OPERATOR_NAMESPACE, "watchAllNamespaces=true", images::REGISTRY, &tag)?;
        *installed = true;
    }
    Ok(tag)
}

/// As [`prepare`], on at least this many nodes.
pub fn prepare_nodes(nodes: u8) -> Result<String> {
    let tag = prepare()?;
    up(nodes)?;
    cluster::load(&images::names(images::REGISTRY, &tag))?;
    Ok(tag)
}

/// Cluster and images; operator and definitions go if they are there, and with them every platform.
pub fn bare() -> Result<String> {
    let tag = images_on_nodes(Profile::Development)?;
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    *installed = false;
    let kubernetes = Kubernetes::local();
    for release in RELEASES {
        kubernetes.uninstall(release, OPERATOR_NAMESPACE)?;
    }
    kubernetes.delete_definitions()?;
    kubernetes.delete_namespace(OPERATOR_NAMESPACE)?;
    kubernetes.create_namespace(OPERATOR_NAMESPACE)?;
    Ok(tag)
}

/// Takes the operator that is installed instead of building one.
///
/// # Errors
/// When there is none, or it does not watch all namespaces.
pub fn prepare_installed() -> Result<String> {
    choose_cryptography();
    let kubernetes = Kubernetes::local();
    let environment = |name: &str| {
        let path = format!("jsonpath={{.spec.template.spec.containers[0].env[?(@.name==\"{name}\")].value}}");
        let arguments = [
            "get",
            "deployment/selextract-operator",
            "-o",
            &path,
            "-n",
            OPERATOR_NAMESPACE,
        ];
        kubernetes.kubectl(&arguments).output()
    };
    if environment("SELEXTRACT_ALL_NAMESPACES")? != "true" {
        bail!("the installed operator does not watch all namespaces");
    }
    let tag = environment("SELEXTRACT_IMAGE_TAG")?;
    *INSTALLED.lock().unwrap_or_else(PoisonError::into_inner) = true;
    Ok(IMAGES.get_or_init(|| tag).clone())
}

fn images_on_nodes(profile: Profile) -> Result<String> {
    if let Some(tag) = IMAGES.get() {
        return Ok(tag.clone());
    }
    choose_cryptography();
    up(1)?;
    let built = images::build_with(profile)?;
    cluster::load(&built.names(images::REGISTRY))?;
    Ok(IMAGES.get_or_init(|| built.tag).clone())
}

fn up(nodes: u8) -> Result<()> {
    cluster::up(Wanted {
        nodes,
        audit_log: false,
    })
}

fn choose_cryptography() {
    // Fails only when another journey was first.
    drop(rustls::crypto::ring::default_provider().install_default());
}
