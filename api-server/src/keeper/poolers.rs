//! The pools of every pod of the poolers, each asked at its own console (ADR 32).

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use futures::future::join_all;
use selextract_platform::{ledger::Secret, pooler::Console, stores::HELP};
use selextract_telemetry::Figure;
use tokio::{net::lookup_host, time::timeout};

use super::settings::PoolerPods;

/// The most pods of one pooler that are asked.
const PODS: usize = 16;

/// A pod: its pooler's place among the Services, and its address.
type Pod = (usize, SocketAddr);

/// The poolers by their headless Services, with a connection to each pod that answered last time: signing in (TLS, SCRAM) is most of the cost.
pub(super) struct Poolers {
    url: Secret,
    services: Vec<PoolerPods>,
    consoles: HashMap<Pod, Console>,
}

impl Poolers {
    pub(super) fn new(url: &str, services: &[PoolerPods]) -> Self {
        Self {
            url: Secret(url.to_owned()),
            services: services.to_vec(),
            consoles: HashMap::new(),
        }
    }

    /// What every pod says within `patience`. Of one that does not, it is told only that it does not.
    pub(super) async fn figures(&mut self, patience: Duration) -> Vec<Figure> {
        let pods = self.pods(patience).await;
        // What is no pod any more is left here, and its connection with it.
        let mut consoles = std::mem::take(&mut self.consoles);
        let asked = pods.into_iter().map(|pod| {
            let console = consoles.remove(&pod);
            let answer = timeout(patience, ask(&self.url, pod.1, console));
            async move { (pod, answer.await.ok().flatten()) }
        });
        let answers = join_all(asked).await;
        let mut told = Vec::new();
        for (pod, answer) in answers {
            let (pooler, address) = (&self.services[pod.0].name, pod.1.ip().to_string());
            let up = Figure::gauge("pgbouncer_up", HELP, f64::from(u8::from(answer.is_some())));
            let figures = answer.map(|(console, figures)| {
                self.consoles.insert(pod, console);
                figures
            });
            let all = figures.unwrap_or_default().into_iter().chain([up]);
            told.extend(all.map(|figure| figure.with("pooler", pooler).with("address", &address)));
        }
        told
    }

    /// Closes every connection.
    pub(super) fn leave(&mut self) {
        self.consoles.clear();
    }

    /// Who is behind the Services now, in an order that stays.
    async fn pods(&self, patience: Duration) -> BTreeSet<Pod> {
        let found = self.services.iter().enumerate().map(async |(place, pooler)| {
            let found = timeout(patience, lookup_host((pooler.host.as_str(), pooler.port))).await;
            let addresses: BTreeSet<SocketAddr> = found
                .ok()
                .and_then(Result::ok)
                .map(Iterator::collect)
                .unwrap_or_default();
            addresses.into_iter().take(PODS).map(move |address| (place, address))
        });
        join_all(found).await.into_iter().flatten().collect()
    }
}

/// Over the connection that is there; where that broke, over another one.
async fn ask(url: &Secret, address: SocketAddr, console: Option<Console>) -> Option<(Console, Vec<Figure>)> {
    if let Some(mut console) = console
        && let Ok(figures) = console.figures().await
    {
        return Some((console, figures));
    }
    let mut console = Console::open(url, address).await.ok()?;
    let figures = console.figures().await.ok()?;
    Some((console, figures))
}
