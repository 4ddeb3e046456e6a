//! Names to addresses, by the pod's own resolver configuration: name servers, search domains and ndots of /etc/resolv.conf, so that
//! `docs.demo.svc` means what it means to every other program in the cluster. /etc/hosts is not read.

use std::{net::IpAddr, time::Duration};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};

/// An answer is kept no longer than this, whatever it says, so that a changed Service is followed soon.
const MAX_TTL: Duration = Duration::from_secs(30);
/// A failure is kept no longer than this.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
const CACHED_NAMES: u64 = 4096;
/// A name with more addresses than this is cut: all that are kept are checked, and only they are dialled.
const MAX_ADDRESSES: usize = 16;

/// Looks names up.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// With the configuration of this machine or pod.
    pub fn from_system() -> Result<Self, NetError> {
        Self::build(TokioResolver::builder_tokio()?)
    }

    /// With a configuration of the caller's, for tests with a name server of their own.
    pub fn from_config(config: ResolverConfig, ndots: usize) -> Result<Self, NetError> {
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().ndots = ndots;
        Self::build(builder)
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, NetError> {
        let options = builder.options_mut();
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = QUERY_TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = CACHED_NAMES;
        options.positive_max_ttl = Some(MAX_TTL);
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        Ok(Self(builder.build()?))
    }

    /// All addresses of the name, IPv4 first. An empty answer is an error.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let answer = self.0.lookup_ip(name).await?;
        Ok(answer.iter().take(MAX_ADDRESSES).collect())
    }
}
