//! What the proxy asks itself before it serves.

use selextract_egress_proxy::{
    policy::Policy,
    selftest::{self, SelfTestError},
};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener};

use crate::support::Rig;

#[tokio::test]
async fn a_proxy_that_refuses_passes_and_so_does_one_that_opens_loopback_on_purpose() {
    for policy in ["{}", r#"{"allow":[{"cidr":"127.0.0.0/8","ports":[80,443]}]}"#] {
        let rig = Rig::start(policy, &[]).await;
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        selftest::run(rig.address, &policy).await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_that_opens_loopback_by_mistake_does_not_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        }
    });
    let error = selftest::run(address, &Policy::default()).await.unwrap_err();
    assert!(matches!(error, SelfTestError::Opened { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_does_not_pass() {
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let error = selftest::run(free, &Policy::default()).await.unwrap_err();
    assert!(matches!(error, SelfTestError::Ask { .. }), "{error}");
}
