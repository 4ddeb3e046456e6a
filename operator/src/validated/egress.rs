//! The egress proxy: which private destinations it lets through. Pure.

use selextract_crds::{AllowSpec, EgressSpec};

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
            ports: egress.ports.clone(),
            pod: self.pod("spec.egress.pod", &egress.pod, &self.sizes.egress),
        }
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
