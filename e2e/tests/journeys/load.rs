//! Clients of an API who do the same all the time, whatever comes of it.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use reqwest::Method;
use selextract_e2e::api::Api;
use tokio::task::JoinHandle;

use crate::platform::Platform;

/// Clients that do the same all the time, each after the other's answer.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients, who begin at once.
    pub async fn start<F>(platform: &Platform, number: usize, act: fn(Api) -> F) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (api, stop) = (platform.api().await?, Arc::new(AtomicBool::new(false)));
        let clients = (0..number).map(|_| {
            let (api, stop) = (api.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    act(api.clone()).await;
                }
            })
        });
        Ok(Self {
            clients: clients.collect(),
            stop,
        })
    }

    /// Lets each end what it is at.
    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            // It ends after its answer.
            drop(client.await);
        }
    }
}

/// Lists tasks.
pub async fn list(api: Api) {
    // However it is answered, it is work.
    drop(api.send(Method::GET, "tasks", None).await);
}
