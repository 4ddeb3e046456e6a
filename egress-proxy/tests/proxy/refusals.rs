//! What the proxy must never open, asked over real sockets.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{LIMITS, Origin, Rig, open_loopback, rebinding};
use rstest::rstest;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[rstest]
#[case("127.0.0.1")]
#[case("169.254.169.254")]
#[case("10.0.0.1")]
#[case("172.16.0.1")]
#[case("192.168.1.1")]
#[case("100.64.0.1")]
#[case("198.18.0.1")]
#[case("0.0.0.0")]
#[case("255.255.255.255")]
#[case("[::1]")]
#[case("[::]")]
#[case("[fd00::1]")]
#[case("[fe80::1]")]
#[case("[::ffff:127.0.0.1]")]
#[case("[::ffff:7f00:1]")]
#[case("[::127.0.0.1]")]
#[case("[64:ff9b::127.0.0.1]")]
#[case("[2002:7f00:1::]")]
#[case("[2001:0:808:808::80ff:fffe]")]
#[tokio::test]
async fn a_special_address_is_refused_by_both_methods(#[case] host: &str) {
    let rig = Rig::start("{}", &[]).await;
    let answer = rig.get(&format!("http://{host}/")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nEgressRefused"),
        "{answer}"
    );
    let (_, head) = rig.tunnel(&format!("{host}:443")).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(rig.metric(r#"selextract_egress_requests_total{result="refused"}"#), 2);
}

#[rstest]
#[case("2130706433")]
#[case("0x7f000001")]
#[case("0x7f.0.0.1")]
#[case("0177.0.0.1")]
#[case("017700000001")]
#[case("127.1")]
#[case("127.0.0.1.")]
#[case("127.000.000.001")]
#[tokio::test]
async fn an_address_in_another_spelling_is_refused_although_loopback_is_open(#[case] host: &str) {
    let origin = Origin::answering(OK).await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let port = origin.address.port();
    let answer = rig.get(&format!("http://{host}:{port}/")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (_, head) = rig.tunnel(&format!("{host}:{port}")).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn one_private_answer_beside_a_public_one_refuses_the_name() {
    let rig = Rig::start(
        "{}",
        &[
            ("mixed.example.", &["93.184.215.14", "10.0.0.1"]),
            ("six.example.", &["93.184.215.14", "::1"]),
            ("mapped.example.", &["::ffff:10.0.0.1"]),
        ],
    )
    .await;
    for name in ["mixed.example", "six.example", "mapped.example"] {
        let answer = rig.get(&format!("http://{name}/")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_refused_by_the_default() {
    let rig = Rig::start("{}", &[("rebind.example.", &["127.0.0.1"])]).await;
    for name in ["rebind.example", "localhost", "a.localhost"] {
        let answer = rig.get(&format!("http://{name}/")).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
        assert!(answer.contains("x-selextract-egress: Egress"), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_port_that_nothing_opens_is_refused_before_its_name_is_resolved() {
    let rig = Rig::start("{}", &[]).await;
    let (_, head) = rig.tunnel("does-not-exist.example:22").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[tokio::test]
async fn an_unknown_name_and_a_closed_port_look_the_same() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let rig = Rig::start(&open_loopback(closed), &[]).await;
    let unknown = rig.get(&format!("http://nowhere.example:{closed}/")).await;
    let unreachable = rig.get(&format!("http://127.0.0.1:{closed}/")).await;
    assert!(
        unknown.starts_with("HTTP/1.1 502 ") && unknown.ends_with("EgressUnreachable"),
        "{unknown}"
    );
    let without_date = |answer: &str| {
        answer
            .lines()
            .filter(|line| !line.starts_with("date:"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(without_date(&unknown), without_date(&unreachable));
}

#[rstest]
#[case("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")]
#[case("GET https://example.com/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")]
#[case("GET ftp://example.com/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")]
#[case("GET file:///etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")]
#[case("GET http://user:word@example.com/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")]
#[case("TRACE http://example.com/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")]
#[case("CONNECT example.com HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")]
#[case("CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\nabcd")]
#[case(
    "CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n"
)]
#[tokio::test]
async fn what_is_not_a_proxy_request_is_malformed(#[case] request: &str) {
    let rig = Rig::start("{}", &[]).await;
    let answer = rig.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

/// The first and the last address of every entry of the IANA special-purpose registries, of multicast, and of what IPv6 wraps them in.
const SPECIAL: [&str; 78] = [
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.0",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.10",
    "192.0.0.170",
    "192.0.0.255",
    "192.0.2.0",
    "192.0.2.255",
    "192.31.196.0",
    "192.31.196.255",
    "192.52.193.0",
    "192.52.193.255",
    "192.88.99.0",
    "192.88.99.255",
    "192.168.0.0",
    "192.168.255.255",
    "192.175.48.0",
    "192.175.48.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.0",
    "198.51.100.255",
    "203.0.113.0",
    "203.0.113.255",
    "224.0.0.0",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::ffff:0:0]",
    "[::ffff:192.168.0.1]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::]",
    "[64:ff9b:1:ffff:ffff:ffff:ffff:ffff]",
    "[100::]",
    "[100::ffff:ffff:ffff:ffff]",
    "[100:0:0:1::]",
    "[100:0:0:1:ffff:ffff:ffff:ffff]",
    "[2001::]",
    "[2001:0:808:808::f5ff:fffe]",
    "[2001:1::1]",
    "[2001:1::2]",
    "[2001:1::3]",
    "[2001:2::]",
    "[2001:2:0:ffff:ffff:ffff:ffff:ffff]",
    "[2001:3::]",
    "[2001:4:112::]",
    "[2001:10::]",
    "[2001:20::]",
    "[2001:30::]",
    "[2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff]",
    "[2001:db8::]",
    "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]",
    "[2002:a00:1::]",
    "[2620:4f:8000::]",
    "[2620:4f:8000:ffff:ffff:ffff:ffff:ffff]",
    "[3fff::]",
    "[3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff]",
    "[5f00::]",
    "[fc00::]",
    "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]",
    "[fe80::]",
    "[ff0e::1]",
];

#[tokio::test]
async fn every_special_purpose_range_is_refused_at_both_ends_by_both_methods() {
    let rig = Rig::start("{}", &[]).await;
    for host in SPECIAL {
        let answer = rig.get(&format!("http://{host}/")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{host}: {answer}");
        let (_, head) = rig.tunnel(&format!("{host}:443")).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{host}: {head}");
    }
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_dialled_where_it_was_checked_and_checked_again_next_time() {
    let origin = Origin::answering(OK).await;
    let port = origin.address.port();
    let trap = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let policy = format!(r#"{{"allow":[{{"cidr":"127.0.0.1/32","ports":[{port}]}}]}}"#);
    let resolver = rebinding(&["127.0.0.1", "127.0.0.2"], Arc::clone(&asked)).await;
    let rig = Rig::start_resolving(&policy, resolver, LIMITS, 100).await;
    let first = rig.get(&format!("http://rebinds.example.:{port}/")).await;
    assert!(first.ends_with("hello"), "{first}");
    assert_eq!(
        asked.load(Ordering::Relaxed),
        1,
        "what was checked is dialled, without asking again"
    );
    let second = rig.get(&format!("http://rebinds.example.:{port}/")).await;
    assert!(second.starts_with("HTTP/1.1 403 "), "{second}");
    let (_, head) = rig.tunnel(&format!("rebinds.example.:{port}")).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(100), trap.accept()).await;
    assert!(nobody.is_err(), "the address that was not allowed was dialled");
}
