//! What the proxy must never open, asked over real sockets.

use crate::support::{Origin, Rig, open_loopback};
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
