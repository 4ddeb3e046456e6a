//! etcd, API server, controllers, scheduler and DNS, all in the control plane's namespace.

use std::{fs, time::Duration};

use anyhow::Result;

use super::{
    Wanted,
    credentials::FRONT_PROXY,
    kubectl,
    layout::{CONTROL_PLANE, CONTROL_PLANE_NAMESPACE, DNS_SERVICE, Layout, POD_RANGE, SERVICE_RANGE},
    process::{self, Room},
};
use crate::{program::Program, progress::wait_for, tools};

const AUDIT_POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// Starts etcd and the API server, and waits until that is ready.
pub fn start(layout: &Layout, wanted: Wanted) -> Result<()> {
    let etcd = layout.data().join("etcd");
    let arguments = [
        "--name=local".to_owned(),
        format!("--data-dir={}", etcd.display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=local=http://127.0.0.1:2380".to_owned(),
    ];
    process::start(layout, "etcd", &room(), "/usr/bin/etcd", arguments)?;
    process::start(
        layout,
        "kube-apiserver",
        &room(),
        layout.bin().join("kube-apiserver"),
        api_server(layout, wanted)?,
    )?;
    let ready = || {
        process::check(layout, "etcd")?;
        process::check(layout, "kube-apiserver")?;
        Ok(kubectl(layout, &["get", "--raw=/readyz"])
            .timeout(Duration::from_secs(5))
            .succeeds())
    };
    wait_for("API server", Duration::from_mins(2), ready).map_err(|error| {
        error
            .context(layout.log_tail("etcd"))
            .context(layout.log_tail("kube-apiserver"))
    })
}

fn api_server(layout: &Layout, wanted: Wanted) -> Result<Vec<String>> {
    let pki = |name: &str| layout.pki(name).display().to_string();
    let mut arguments = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={CONTROL_PLANE}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--anonymous-auth=false".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--token-auth-file={}", pki("tokens.csv")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pki("accounts.pub")),
        format!("--service-account-signing-key-file={}", pki("accounts.key")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // Groups of the API that others serve, such as metrics; they are reached at their addresses and not through a node.
        "--enable-aggregator-routing=true".to_owned(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        format!("--requestheader-allowed-names={FRONT_PROXY}"),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        // A lost API server's endpoint would stay for this long; there is only ever one.
        "--shutdown-delay-duration=0s".to_owned(),
    ];
    if wanted.audit_log {
        let policy = layout.run().join("audit-policy.yaml");
        fs::write(&policy, AUDIT_POLICY)?;
        arguments.push(format!("--audit-policy-file={}", policy.display()));
        arguments.push(format!("--audit-log-path={}", layout.log("audit").display()));
    }
    Ok(arguments)
}

/// Starts what works through the API server.
pub fn start_helpers(layout: &Layout) -> Result<()> {
    start_controllers(layout)?;
    let scheduler = [
        config(layout, "kube-scheduler"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    process::start(
        layout,
        "kube-scheduler",
        &room(),
        layout.bin().join("kube-scheduler"),
        scheduler,
    )?;
    start_dns(layout)?;
    let host = Room {
        network: None,
        mounts: None,
    };
    process::start(layout, "provisioner", &host, tools::own_program()?, ["provision"])?;
    Ok(())
}

fn start_controllers(layout: &Layout) -> Result<()> {
    let arguments = [
        config(layout, "kube-controller-manager"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--use-service-account-credentials".to_owned(),
        format!("--root-ca-file={}", layout.pki("ca.crt").display()),
        format!(
            "--service-account-private-key-file={}",
            layout.pki("accounts.key").display()
        ),
        format!("--cluster-cidr={POD_RANGE}"),
        // Lost nodes are noticed as soon as the kubelet's reports of every 10 s allow.
        "--node-monitor-grace-period=20s".to_owned(),
    ];
    process::start(
        layout,
        "kube-controller-manager",
        &room(),
        layout.bin().join("kube-controller-manager"),
        arguments,
    )
    .map(drop)
}

fn start_dns(layout: &Layout) -> Result<()> {
    let corefile = layout.run().join("Corefile");
    fs::write(
        &corefile,
        corefile_text(&layout.pki("coredns.kubeconfig").display().to_string()),
    )?;
    let arguments = ["-conf".into(), corefile.into_os_string()];
    process::start(layout, "coredns", &room(), layout.bin().join("coredns"), arguments).map(drop)
}

/// Names outside the cluster do not exist here, and that is answered at once instead of after a time-out. In a zone of their own,
/// because `template` comes before `kubernetes` in `CoreDNS` whatever the order here.
fn corefile_text(kubeconfig: &str) -> String {
    format!(
        "cluster.local:53 in-addr.arpa:53 {{
    bind {CONTROL_PLANE}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig} selextract-local
        ttl 5
    }}
}}
.:53 {{
    bind {CONTROL_PLANE}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"
    )
}

/// Whether the name of the API server's Service has an address, asked through the Service of DNS as a pod would.
pub fn dns_answers() -> bool {
    dns_query(&format!("{DNS_SERVICE}:53")).unwrap_or(false)
}

/// One question for `kubernetes.default.svc.cluster.local A`, by hand: the host has no tool for it.
fn dns_query(server: &str) -> Result<bool> {
    let mut query = vec![0x53, 0x58, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.send_to(&query, server)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    // No error (the low four bits), and at least one record.
    Ok(length > 12 && answer[3] % 16 == 0 && u16::from_be_bytes([answer[6], answer[7]]) > 0)
}

/// Whether a node's containerd answers.
pub fn containerd_answers(layout: &Layout, index: u8) -> bool {
    let socket = layout.socket(index);
    Program::new("ctr", ["-a", &socket.to_string_lossy(), "version"])
        .timeout(Duration::from_secs(5))
        .succeeds()
}

fn config(layout: &Layout, name: &str) -> String {
    format!("--kubeconfig={}", layout.pki(&format!("{name}.kubeconfig")).display())
}

fn room() -> Room {
    Room {
        network: Some(CONTROL_PLANE_NAMESPACE.to_owned()),
        mounts: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_cluster_are_answered_and_not_forwarded() {
        let text = corefile_text("/k");
        assert!(text.contains("kubeconfig /k selextract-local"));
        assert!(text.contains("rcode NXDOMAIN"));
        assert!(!text.contains("forward"));
    }
}
