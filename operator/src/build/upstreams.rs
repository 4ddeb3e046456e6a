//! What the egress proxy is told of upstream pools, and what its pods need for them. Pure.

use std::collections::BTreeSet;

use selextract_crds::UpstreamPool;
use serde_json::{Value, json};
use url::{Host, Url};

use super::{pod, policies};

/// Where the proxy takes requests that name a pool.
pub const PORT: u16 = 3129;
/// What a Secret with a proxy's credentials has.
pub const KEYS: [&str; 2] = ["username", "password"];
const FOLDER: &str = "/etc/selextract/upstreams";

/// The pools' names, as the API reads them.
pub fn names(pools: &[UpstreamPool]) -> String {
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    names.join(",")
}

/// The pools as the proxy's configuration file has them.
pub fn config(pools: &[UpstreamPool]) -> Vec<Value> {
    let secrets = secrets(pools);
    let proxy = |url: &str, secret: Option<&str>| {
        let place = secret.and_then(|secret| secrets.iter().position(|known| known == secret));
        match place {
            Some(place) => json!({ "url": url, "credentials": format!("{FOLDER}/{place}") }),
            None => json!({ "url": url }),
        }
    };
    let pool = |pool: &UpstreamPool| {
        let proxies = pool.proxies.iter();
        let proxies: Vec<Value> = proxies
            .map(|one| {
                proxy(
                    &one.url,
                    one.credentials_secret_ref.as_ref().map(|secret| secret.name.as_str()),
                )
            })
            .collect();
        json!({
            "name": pool.name, "proxies": proxies, "stickiness": pool.stickiness, "resolves": pool.resolves,
            "healthCheck": pool.health_check,
        })
    };
    pools.iter().map(pool).collect()
}

/// Volumes and mounts of the proxies' credentials. A Secret that is missing keeps no pod from starting: its proxies rest, and the cluster's
/// condition `ProxyPools` says so.
pub fn volumes(pools: &[UpstreamPool]) -> (Vec<Value>, Vec<Value>) {
    let secrets = secrets(pools).into_iter().enumerate();
    secrets
        .map(|(place, secret)| {
            let name = format!("upstream-{place}");
            let mut volume = pod::secret_volume(&name, &secret, &KEYS.map(|key| (key, key)));
            volume["secret"]["optional"] = json!(true);
            let mount = json!({ "name": name, "mountPath": format!("{FOLDER}/{place}"), "readOnly": true });
            (volume, mount)
        })
        .unzip()
}

/// What the proxy's pods may reach for the pools: an address exactly, a name at its port wherever it lies.
pub fn rules(pools: &[UpstreamPool]) -> Vec<Value> {
    let urls = pools.iter().flat_map(|pool| &pool.proxies);
    let ends: BTreeSet<(String, u16)> = urls
        .filter_map(|proxy| Url::parse(&proxy.url).ok())
        .filter_map(|url| {
            let host = match url.host()? {
                Host::Ipv4(address) => format!("{address}/32"),
                Host::Ipv6(address) => format!("{address}/128"),
                // A scheme that `url` does not know keeps an address as a name.
                Host::Domain(name) => name
                    .parse::<std::net::Ipv4Addr>()
                    .map_or_else(|_| name.to_owned(), |v4| format!("{v4}/32")),
            };
            Some((host, url.port_or_known_default()?))
        })
        .collect();
    let rule = |(host, port): (String, u16)| {
        let ports = [policies::tcp(port)];
        if host.contains('/') {
            vec![json!({ "to": [{ "ipBlock": { "cidr": host } }], "ports": ports })]
        } else if policies::service_namespace(&host).is_some() {
            vec![policies::host_rule(&host, &ports)]
        } else {
            vec![policies::public_rule(&ports), policies::host_rule(&host, &ports)]
        }
    };
    ends.into_iter().flat_map(rule).collect()
}

/// The Secrets, each once.
pub fn secrets(pools: &[UpstreamPool]) -> Vec<String> {
    let named = pools.iter().flat_map(|pool| &pool.proxies);
    let named: BTreeSet<String> = named
        .filter_map(|proxy| Some(proxy.credentials_secret_ref.as_ref()?.name.clone()))
        .collect();
    named.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Vec<UpstreamPool> {
        serde_json::from_value(json!([{
            "name": "eu", "stickiness": "Host", "proxies": [
                { "url": "http://10.1.2.3:3128", "credentialsSecretRef": { "name": "acme" } },
                { "url": "socks5://10.1.2.4:1080" },
                { "url": "https://eu.proxy.example:8443", "credentialsSecretRef": { "name": "acme" } },
                { "url": "http://squid.tools.svc:3128" },
            ],
        }]))
        .unwrap()
    }

    #[test]
    fn the_proxy_reads_credentials_from_files_and_its_file_holds_none() {
        let config = json!(config(&pools()));
        assert_eq!(config[0]["proxies"][0]["credentials"], "/etc/selextract/upstreams/0");
        assert_eq!(config[0]["proxies"][2]["credentials"], "/etc/selextract/upstreams/0");
        assert_eq!(config[0]["healthCheck"], json!({ "failures": 3, "cooldown": "30s" }));
        assert!(config[0]["proxies"][1]["credentials"].is_null());
        let (volumes, mounts) = volumes(&pools());
        assert_eq!((volumes.len(), &volumes[0]["secret"]["optional"]), (1, &json!(true)));
        assert_eq!(mounts[0]["mountPath"], "/etc/selextract/upstreams/0");
    }

    #[test]
    fn pods_reach_the_upstreams_addresses_and_ports_and_no_others() {
        let rules = json!(rules(&pools()));
        assert_eq!(
            rules[0],
            json!({ "to": [{ "ipBlock": { "cidr": "10.1.2.3/32" } }], "ports": [{ "protocol": "TCP", "port": 3128 }] })
        );
        assert_eq!(rules[1]["to"][0]["ipBlock"]["cidr"], "10.1.2.4/32");
        assert_eq!(rules[2]["ports"][0]["port"], 8443);
        let last = &rules[rules.as_array().unwrap().len() - 1];
        assert_eq!(
            last["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
            "tools"
        );
    }
}
