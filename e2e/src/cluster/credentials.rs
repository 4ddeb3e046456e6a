//! The cluster's certificates, service-account key, tokens and kubeconfigs.

use std::{fmt::Write as _, fs, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use super::{
    MOST_NODES,
    layout::{CONTROL_PLANE, KUBERNETES_SERVICE, Layout, node_name},
};

/// Who may do what: component, user, groups.
const COMPONENTS: [(&str, &str, &str); 6] = [
    ("admin", "admin", "system:masters"),
    ("kube-controller-manager", "system:kube-controller-manager", ""),
    ("kube-scheduler", "system:kube-scheduler", ""),
    ("kube-proxy", "system:kube-proxy", ""),
    ("coredns", "selextract-local:coredns", ""),
    ("provisioner", "selextract-local:provisioner", ""),
];

/// The API server, where it passes a request on.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// Makes all of them, also those of nodes that may come later: the API server reads the tokens once, at its start.
pub fn create(layout: &Layout) -> Result<()> {
    let authority = create_authority("selextract-local")?;
    write(&layout.pki("ca.crt"), &authority.pem())?;
    create_server_certificate(layout, &authority)?;
    create_kubelet_client(layout, &authority)?;
    create_front_proxy(layout)?;
    let accounts = KeyPair::generate()?;
    write(&layout.pki("accounts.key"), &accounts.serialize_pem())?;
    write(&layout.pki("accounts.pub"), &accounts.public_key_pem())?;
    create_tokens(layout, &authority.pem())
}

fn create_authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn create_server_certificate(layout: &Layout, authority: &CertifiedIssuer<'static, KeyPair>) -> Result<()> {
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ];
    let addresses = [
        CONTROL_PLANE.to_string(),
        KUBERNETES_SERVICE.to_string(),
        "127.0.0.1".to_owned(),
    ];
    let mut params = CertificateParams::new(
        names
            .map(str::to_owned)
            .into_iter()
            .chain(addresses)
            .collect::<Vec<_>>(),
    )?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(layout, "apiserver", &params, authority)
}

/// With this the API server asks kubelets for logs, exec and port-forward.
fn create_kubelet_client(layout: &Layout, authority: &CertifiedIssuer<'static, KeyPair>) -> Result<()> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver-kubelet-client");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(layout, "kubelet-client", &params, authority)
}

/// With this the API server passes requests on to those who serve a group of the API in its place; by an authority that signs nothing else,
/// because whoever holds such a certificate may claim to be anybody.
fn create_front_proxy(layout: &Layout) -> Result<()> {
    let authority = create_authority("selextract-local-front-proxy")?;
    write(&layout.pki("front-proxy-ca.crt"), &authority.pem())?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, FRONT_PROXY);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(layout, "front-proxy", &params, &authority)
}

fn sign(
    layout: &Layout,
    name: &str,
    params: &CertificateParams,
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    write(&layout.pki(&format!("{name}.crt")), &certificate.pem())?;
    write(&layout.pki(&format!("{name}.key")), &key.serialize_pem())
}

fn create_tokens(layout: &Layout, authority: &str) -> Result<()> {
    let mut file = String::new();
    let mut add = |name: &str, user: &str, groups: &str| -> Result<()> {
        let token = random_token()?;
        writeln!(file, "{token},{user},{user},\"{groups}\"")?;
        let path = if name == "admin" {
            layout.kubeconfig()
        } else {
            layout.pki(&format!("{name}.kubeconfig"))
        };
        write(&path, &kubeconfig(authority, user, &token)?)
    };
    for (name, user, groups) in COMPONENTS {
        add(name, user, groups)?;
    }
    for index in 1..=MOST_NODES {
        let name = node_name(index);
        add(&name, &format!("system:node:{name}"), "system:nodes")?;
    }
    write(&layout.pki("tokens.csv"), &file)
}

fn kubeconfig(authority: &str, user: &str, token: &str) -> Result<String> {
    let cluster = json!({ "server": format!("https://{CONTROL_PLANE}:6443"), "certificate-authority-data": base64(authority.as_bytes()) });
    Ok(serde_json::to_string_pretty(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "selextract-local", "cluster": cluster }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "selextract-local", "context": { "cluster": "selextract-local", "user": user } }],
        "current-context": "selextract-local",
    }))?)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 24];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut token = String::new();
    for byte in bytes {
        write!(token, "{byte:02x}")?;
    }
    Ok(token)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be made", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(())
}
