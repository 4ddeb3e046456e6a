//! The egress proxy: which private destinations it lets through. Pure.

use selextract_crds::{AllowSpec, EgressSpec, UpstreamPool};
use url::Url;

use super::{Allowed, Destination, Egress, check::Check};

impl Check {
    pub(super) fn egress(&mut self, egress: &EgressSpec) -> Egress {
        let entries = egress.allow.iter().enumerate();
        let allow: Vec<_> = entries
            .filter_map(|(index, entry)| self.allowed(index, entry, &egress.ports))
            .collect();
        Egress {
            replicas: egress.replicas.unwrap_or(self.sizes.egress_replicas).into(),
            allow,
            upstreams: self.upstreams(&egress.upstreams),
            ports: egress.ports.clone(),
            pod: self.pod("spec.egress.pod", &egress.pod, &self.sizes.egress),
        }
    }

    fn upstreams(&mut self, pools: &[UpstreamPool]) -> Vec<UpstreamPool> {
        for (index, pool) in pools.iter().enumerate() {
            let field = format!("spec.egress.upstreams[{index}]");
            if !selextract_task::access::is_name(&pool.name)
                || pools[..index].iter().any(|other| other.name == pool.name)
            {
                let cure = "must be lower-case letters, digits and hyphens, and no other pool's";
                self.refuse("InvalidUpstream", &format!("{field}.name"), &pool.name, cure);
            }
            if pool.proxies.is_empty() || pool.health_check.failures == 0 {
                let cure = "needs a proxy and healthCheck.failures of 1 or more";
                self.refuse("InvalidUpstream", &field, &pool.name, cure);
            }
            for (number, proxy) in pool.proxies.iter().enumerate() {
                if !is_upstream(&proxy.url) {
                    let cure = "write http, https or socks5, a host and a port, such as http://10.1.2.3:3128; credentials go into a Secret";
                    // It may hold credentials.
                    self.refuse(
                        "InvalidUpstream",
                        &format!("{field}.proxies[{number}].url"),
                        "(hidden)",
                        cure,
                    );
                }
            }
        }
        pools.to_vec()
    }

    fn allowed(&mut self, index: usize, entry: &AllowSpec, ports: &[u16]) -> Option<Allowed> {
        let field = format!("spec.egress.allow[{index}]");
        let destination = match (&entry.host, &entry.cidr) {
            (Some(host), None) => Destination::Host(host.clone()),
            (None, Some(cidr)) => {
                let Ok(network) = cidr.parse::<ipnet::IpNet>() else {
                    let cure = "write a network such as 10.9.0.0/16";
                    self.refuse("InvalidNetwork", &format!("{field}.cidr"), cidr, cure);
                    return None;
                };
                Destination::Network(network.trunc())
            }
            _ => {
                self.refuse(
                    "InvalidNetwork",
                    &field,
                    "",
                    "give either host or cidr; write two entries for both",
                );
                return None;
            }
        };
        let ports = if entry.ports.is_empty() { ports } else { &entry.ports };
        Some(Allowed {
            destination,
            ports: ports.to_vec(),
        })
    }
}

/// As the egress proxy checks it.
fn is_upstream(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https" | "socks5")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.port_or_known_default().is_some()
    })
}
