//! Pools of upstream proxies, with proxies of our own as the upstreams.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::support::*;

const TUNNELLED: &str = r#"selextract_egress_requests_total{result="tunnelled"} "#;

/// A policy that opens an origin on loopback and has these pools.
fn policy(port: u16, pools: &Value) -> String {
    json!({ "allow": [{ "cidr": "127.0.0.0/8", "ports": [port] }], "upstreams": pools }).to_string()
}

fn pool(urls: &[String]) -> Value {
    let proxies: Vec<Value> = urls.iter().map(|url| json!({ "url": url })).collect();
    json!([{ "name": "eu", "proxies": proxies, "healthCheck": { "failures": 2, "cooldown": "1h" } }])
}

async fn through(rig: &Rig, pool: &str, request: &str) -> String {
    let shown = BASE64_STANDARD.encode(format!("{pool}:run-1"));
    rig.exchange_at(
        rig.pools,
        &request.replacen("\r\n", &format!("\r\nproxy-authorization: Basic {shown}\r\n"), 1),
    )
    .await
}

fn get(url: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";

#[tokio::test]
async fn a_request_that_names_a_pool_goes_through_a_proxy_of_it_and_its_name_does_not() {
    let origin = Origin::answering(ANSWER).await;
    let upstream = Rig::start(&origin.policy(), &[]).await;
    let pools = pool(&[format!("http://{}", upstream.address)]);
    let rig = Rig::start(&policy(origin.address.port(), &pools), &[]).await;
    let answer = through(&rig, "eu", &get(&format!("http://{}/a", origin.address))).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
    assert_eq!(upstream.metric(TUNNELLED), 1);
    assert!(
        !origin.requests()[0].to_ascii_lowercase().contains("proxy-"),
        "{:?}",
        origin.requests()
    );

    let connect = format!("CONNECT {} HTTP/1.1\r\nhost: x\r\n\r\n", origin.address);
    let shown = BASE64_STANDARD.encode("eu:run-1");
    let mut stream = tokio::net::TcpStream::connect(rig.pools).await.unwrap();
    let connect = connect.replacen("\r\n", &format!("\r\nproxy-authorization: Basic {shown}\r\n"), 1);
    tokio::io::AsyncWriteExt::write_all(&mut stream, connect.as_bytes())
        .await
        .unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"));
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(read_to_end(&mut stream).await.ends_with("hi"));
    assert_eq!(upstream.metric(TUNNELLED), 2);
    assert_eq!(
        rig.metric(r#"selextract_egress_upstream_connections_total{pool="eu",result="connected"} "#),
        2
    );
}

#[tokio::test]
async fn a_pool_must_be_named_and_known() {
    let rig = Rig::start(&policy(1, &pool(&["http://127.0.0.1:9".to_owned()])), &[]).await;
    let unnamed = rig.exchange_at(rig.pools, &get("http://shop.test/")).await;
    assert!(
        unnamed.starts_with("HTTP/1.1 407") && unnamed.contains("proxy-authenticate: Basic"),
        "{unnamed}"
    );
    let unknown = through(&rig, "us", &get("http://shop.test/")).await;
    assert!(
        unknown.starts_with("HTTP/1.1 403") && unknown.contains("EgressUnknownPool"),
        "{unknown}"
    );
}

#[tokio::test]
async fn a_private_target_is_refused_before_an_upstream_hears_of_it() {
    let origin = Origin::answering(ANSWER).await;
    let upstream = Rig::start(&origin.policy(), &[]).await;
    let pools = pool(&[format!("http://{}", upstream.address)]);
    let zone: &[(&str, &[&str])] = &[("rebound.test.", &["10.0.0.7"])];
    let rig = Rig::start(
        &json!({ "ports": [80, origin.address.port()], "upstreams": pools }).to_string(),
        zone,
    )
    .await;
    for url in [
        format!("http://{}/", origin.address),
        "http://rebound.test/".to_owned(),
        "http://169.254.169.254/".to_owned(),
    ] {
        let answer = through(&rig, "eu", &get(&url)).await;
        assert!(answer.contains("EgressRefused"), "{answer}");
    }
    assert_eq!(upstream.metric(TUNNELLED), 0);
    let refused: u64 = upstream.metric(r#"selextract_egress_requests_total{result="refused"} "#);
    assert_eq!(refused, 0, "it was not even asked");
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over_and_rests_and_without_any_no_site_is_blamed() {
    let origin = Origin::answering(ANSWER).await;
    let upstream = Rig::start(&origin.policy(), &[]).await;
    let dead = "http://127.0.0.1:9".to_owned();
    let both = pool(&[dead.clone(), format!("http://{}", upstream.address)]);
    let rig = Rig::start(&policy(origin.address.port(), &both), &[]).await;
    for _ in 0..6 {
        let answer = through(&rig, "eu", &get(&format!("http://{}/", origin.address))).await;
        assert!(answer.ends_with("hi"), "{answer}");
    }
    let failed = r#"selextract_egress_upstream_connections_total{pool="eu",result="upstream_failed"} "#;
    assert_eq!(rig.metric(failed), 2, "then it rests");
    assert_eq!(rig.metric(r#"selextract_egress_upstreams_resting{pool="eu"} "#), 1);

    let alone = Rig::start(&policy(origin.address.port(), &pool(&[dead])), &[]).await;
    let answer = through(&alone, "eu", &get(&format!("http://{}/", origin.address))).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("EgressNoUpstream"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_upstream_is_asked_for_the_checked_address_unless_it_resolves_itself_and_gets_its_credentials() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("username"), "ann\n").unwrap();
    std::fs::write(folder.path().join("password"), "pass").unwrap();
    let zone: &[(&str, &[&str])] = &[("shop.test.", &["93.184.216.34"])];
    for (resolves, asked) in [
        ("Here", "CONNECT 93.184.216.34:80 "),
        ("Upstream", "CONNECT shop.test:80 "),
    ] {
        let upstream = Origin::answering("HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        let proxy = json!({ "url": format!("http://{}", upstream.address), "credentials": folder.path() });
        let pools = json!([{ "name": "eu", "proxies": [proxy], "resolves": resolves }]);
        let rig = Rig::start(&json!({ "upstreams": pools }).to_string(), zone).await;
        let answer = through(&rig, "eu", &get("http://shop.test/")).await;
        assert!(
            answer.contains("EgressUnreachable"),
            "the site's failure, as the upstream says: {answer}"
        );
        let request = &upstream.requests()[0];
        assert!(
            request.starts_with(asked) && request.contains("Proxy-Authorization: Basic YW5uOnBhc3M="),
            "{request}"
        );
    }
}
