//! The audit: a line for each connection, and nothing in it that a page or a user keeps to themselves.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use selextract_egress_proxy::{answer::Failure, audit, target::Target};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Origin, Rig};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn audit(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line["target"] == "audit")
            .collect()
    }

    async fn until(&self, count: usize) -> Vec<serde_json::Value> {
        for _ in 0..100 {
            if self.audit().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.audit()
    }
}

#[tokio::test]
async fn every_connection_is_one_line_without_anything_secret() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(lines.clone())
        .finish();
    // The test's runtime has one thread, so all of the proxy runs under it.
    let _guard = tracing::subscriber::set_default(subscriber);
    let target = Target::of_absolute(&"http://site.test/private?token=hunter2".parse().unwrap()).unwrap();
    let (client, address) = (IpAddr::from([10, 0, 0, 7]), IpAddr::from([192, 0, 2, 1]));
    drop(audit::Entry::new(client, &target, address));
    audit::refused(client, &target, None, Failure::Refused);
    // tracing decides once for each statement whether anybody listens, and other tests' threads do not.
    tracing::callsite::rebuild_interest_cache();
    let mut entry = audit::Entry::new(client, &target, address);
    (entry.sent, entry.received) = (100, 2_000);
    drop(entry);
    let origin = Origin::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let port = origin.address.port();
    rig.exchange(&format!(
        "GET http://127.0.0.1:{port}/private?token=hunter2 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer hunter2\r\nconnection: close\r\n\r\n"
    ))
    .await;
    rig.get("http://10.0.0.1/private?token=hunter2").await;
    rig.tunnel("169.254.169.254:443").await;
    let audit = lines.until(3).await;
    let connected = audit
        .iter()
        .find(|line| line["result"] == "connected" && line["destination"] == "site.test:80" && line["sent"] == 100);
    let connected = connected.unwrap();
    assert_eq!(
        (&connected["client"], &connected["address"]),
        (&json!("10.0.0.7"), &json!("192.0.2.1"))
    );
    assert_eq!(connected["received"], 2_000);
    for destination in ["10.0.0.1:80", "169.254.169.254:443"] {
        let told = |line: &&serde_json::Value| line["result"] == "refused" && line["destination"] == destination;
        assert_eq!(audit.iter().filter(told).count(), 1, "{audit:?}");
    }
    let all = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!all.contains("hunter2") && !all.contains("private"), "{all}");
}
