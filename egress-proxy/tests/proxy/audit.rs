//! The audit: a line for each connection, and nothing in it that a page or a user keeps to themselves.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use selextract_egress_proxy::{answer::Failure, audit, target::Target};
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
    // A log statement that two threads meet for the first time while this one's subscriber comes may stay silent; here both have been met.
    let target = Target::of_absolute(&"http://site.test/".parse().unwrap()).unwrap();
    let nobody = IpAddr::from([127, 0, 0, 1]);
    drop(audit::Entry::new(nobody, &target, nobody));
    audit::refused(nobody, &target, None, Failure::Refused);
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(lines.clone())
        .finish();
    // The test's runtime has one thread, so all of the proxy runs under it.
    let _guard = tracing::subscriber::set_default(subscriber);
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
    assert_eq!(audit.len(), 3, "{audit:?}");
    let connected = audit.iter().find(|line| line["result"] == "connected").unwrap();
    assert_eq!(connected["destination"], format!("127.0.0.1:{port}"));
    assert_eq!(connected["client"], "127.0.0.1");
    assert!(connected["received"].as_u64().unwrap() > 5 && connected["sent"].as_u64().unwrap() > 0);
    let refused = audit.iter().filter(|line| line["result"] == "refused").count();
    assert_eq!(refused, 2);
    let all = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!all.contains("hunter2") && !all.contains("private"), "{all}");
}
