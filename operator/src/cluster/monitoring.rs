//! What is read for monitoring: whether the Prometheus operator's kinds are served, whether the kubelets may be asked, and how a
//! Prometheus that exists is opened.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams, core::GroupVersionKind, discovery::ApiResource};
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use super::bucket::UserSecrets;
use crate::{
    build::{Component, Names, PROMETHEUS_OPERATOR, PROMETHEUS_PORT, Served},
    validated::{Credentials, PrometheusEndpoint, Refusal, Source, ValidatedCluster},
};

/// How long an answer of discovery holds.
const HOLDS: Duration = Duration::from_mins(1);
const GROUP: &str = "monitoring.coreos.com";
const POD_MONITOR: (&str, &str) = ("PodMonitor", "podmonitors");
const RULE: (&str, &str) = ("PrometheusRule", "prometheusrules");

/// The kinds of the Prometheus operator, asked for at most once a minute for all clusters.
#[derive(Debug, Default)]
pub struct Discovered(Mutex<Option<(Instant, Served)>>);

impl Discovered {
    /// What is served. Where it cannot be found out, what was served last.
    pub async fn fetch(&self, client: &Client) -> Served {
        let mut known = self.0.lock().await;
        if let Some((at, served)) = *known
            && at.elapsed() < HOLDS
        {
            return served;
        }
        let served = match client.list_api_group_resources(PROMETHEUS_OPERATOR).await {
            Ok(list) => {
                let has = |kind: &str| list.resources.iter().any(|resource| resource.kind == kind);
                Served {
                    pod_monitors: has(POD_MONITOR.0),
                    rules: has(RULE.0),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Served::default(),
            Err(error) => {
                tracing::debug!(%error, "The kinds of the Prometheus operator could not be looked for.");
                known.map(|(_, served)| served).unwrap_or_default()
            }
        };
        *known = Some((Instant::now(), served));
        served
    }
}

/// The kinds of the Prometheus operator that may be among a cluster's children.
pub fn foreign_kinds() -> Vec<ApiResource> {
    [POD_MONITOR, RULE]
        .map(|(kind, plural)| ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", kind), plural))
        .to_vec()
}

/// Those of [`foreign_kinds`] that are served.
pub fn served_kinds(served: Served) -> Vec<ApiResource> {
    let is_served = |resource: &ApiResource| {
        if resource.kind == POD_MONITOR.0 {
            served.pod_monitors
        } else {
            served.rules
        }
    };
    foreign_kinds().into_iter().filter(is_served).collect()
}

/// Whether the managed Prometheus may find the nodes and read their kubelets' metrics; `None` where the operator may not ask.
pub async fn fetch_kubelet_right(client: &Client, names: &Names<'_>, namespace: &str) -> Option<bool> {
    let account = names.component(Component::Prometheus);
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    for (verb, subresource) in [("get", Some("metrics")), ("list", None), ("watch", None)] {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: subresource.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await.ok()?;
        if !answer.status?.allowed {
            return Some(false);
        }
    }
    Some(true)
}

/// How the cluster's Prometheus is asked; `None` where there is none.
///
/// # Errors
/// What is missing or wrong in the Secret. No part of a value is repeated.
pub fn endpoint(cluster: &ValidatedCluster, users: &UserSecrets) -> Result<Option<PrometheusEndpoint>, Refusal> {
    match &cluster.monitoring.prometheus {
        Source::None => Ok(None),
        Source::Managed(_) => {
            let host = Names::new(cluster).host(Component::Prometheus.as_str());
            // A DNS label with a namespace is a host.
            Ok(Url::parse(&format!("http://{host}:{PROMETHEUS_PORT}")).ok().map(open))
        }
        Source::External(external) => {
            let mut endpoint = open(external.url.clone());
            if let Some(name) = &external.secret_name {
                let secret = Opened::find(name, users)?;
                endpoint.credentials = secret.credentials()?;
                endpoint.authority = secret.authority()?;
            }
            Ok(Some(endpoint))
        }
    }
}

/// One that lets everybody in.
fn open(url: Url) -> PrometheusEndpoint {
    PrometheusEndpoint {
        url,
        credentials: Credentials::None,
        authority: None,
    }
}

/// The user's Secret.
struct Opened<'a> {
    name: &'a str,
    data: &'a BTreeMap<String, ByteString>,
}

impl<'a> Opened<'a> {
    fn find(name: &'a str, users: &'a UserSecrets) -> Result<Self, Refusal> {
        let data = users.get(name).ok_or_else(|| Refusal {
            reason: "SecretMissing",
            message: format!(
                "Secret {name}, which spec.monitoring.prometheus.external.secretName names, is not there; make it, or name another."
            ),
        })?;
        Ok(Self { name, data })
    }

    fn text(&self, key: &str) -> Option<String> {
        let text = std::str::from_utf8(&self.data.get(key)?.0).ok()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn credentials(&self) -> Result<Credentials, Refusal> {
        match (self.text("token"), self.text("username"), self.text("password")) {
            (Some(token), None, None) => Ok(Credentials::Token(token)),
            (None, Some(username), Some(password)) => Ok(Credentials::Basic { username, password }),
            (None, None, None) if self.text("ca.crt").is_some() => Ok(Credentials::None),
            _ => Err(Refusal {
                reason: "SecretKeyMissing",
                message: format!(
                    "Secret {} needs either the key token or both username and password, and not empty; mend it.",
                    self.name
                ),
            }),
        }
    }

    fn authority(&self) -> Result<Option<String>, Refusal> {
        let authority = self.text("ca.crt");
        match authority {
            Some(pem) if !pem.contains("-----BEGIN CERTIFICATE-----") => Err(Refusal {
                reason: "InvalidAuthority",
                message: format!("Key ca.crt of Secret {} holds no certificate in PEM form.", self.name),
            }),
            authority => Ok(authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::fixture;

    fn external(secret: &[(&str, &str)]) -> Result<Option<PrometheusEndpoint>, Refusal> {
        let mut cluster = fixture::minimal();
        cluster.monitoring.prometheus = Source::External(crate::validated::ExternalPrometheus {
            url: Url::parse("https://prometheus.example.org/team").unwrap(),
            secret_name: Some("reader".to_owned()),
        });
        let data = secret
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let users = UserSecrets::from([("reader".to_owned(), data.collect())]);
        endpoint(&cluster, &users)
    }

    #[test]
    fn a_managed_prometheus_is_asked_at_its_service() {
        let found = endpoint(&fixture::minimal(), &UserSecrets::new()).unwrap().unwrap();
        assert_eq!(found.url.as_str(), "http://shop-prometheus.web.svc:9090/");
        assert_eq!(found.credentials, Credentials::None);
    }

    #[test]
    fn a_token_or_a_name_with_its_password_opens_one_that_exists() {
        let token = external(&[("token", "hunter2\n")]).unwrap().unwrap();
        assert_eq!(token.credentials, Credentials::Token("hunter2".into()));
        let basic = external(&[("username", "a"), ("password", "b")]).unwrap().unwrap();
        assert!(matches!(basic.credentials, Credentials::Basic { .. }));
        let authority = "-----BEGIN CERTIFICATE-----";
        assert!(external(&[("ca.crt", authority)]).unwrap().unwrap().authority.is_some());
    }

    #[test]
    fn what_is_wrong_with_the_secret_is_told_without_its_values() {
        for secret in [
            &[("token", "hunter2"), ("username", "hunter2")][..],
            &[("username", "hunter2")],
            &[("password", "hunter2")],
            &[("token", "hunter2"), ("ca.crt", "hunter2")],
            &[],
        ] {
            let refusal = external(secret).unwrap_err();
            assert!(!refusal.message.contains("hunter2"), "{}", refusal.message);
            assert!(refusal.message.contains("reader"), "{}", refusal.message);
        }
    }

    #[test]
    fn only_what_is_served_is_looked_for() {
        let kinds = |pod_monitors, rules| served_kinds(Served { pod_monitors, rules }).len();
        assert_eq!((kinds(false, false), kinds(true, false), kinds(true, true)), (0, 1, 2));
    }
}
