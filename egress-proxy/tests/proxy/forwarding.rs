//! What the proxy carries, over real sockets: plain HTTP, tunnels, limits, and attempts to smuggle a second request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{LIMITS, LONG, Origin, Rig, open_loopback, read_head, read_to_end};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout},
};

const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\nx-selextract-egress: EgressRefused\r\n\r\nhello";

#[tokio::test]
async fn an_absolute_request_reaches_the_origin_in_origin_form_with_its_own_host() {
    let origin = Origin::answering(OK).await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let port = origin.address.port();
    let answer = rig
        .exchange(&format!(
            "GET http://127.0.0.1:{port}/a?b=c HTTP/1.1\r\nhost: metadata.internal\r\nproxy-authorization: Basic eA==\r\n\
             proxy-connection: keep-alive\r\nx-secret: 1\r\nconnection: close, x-secret\r\naccept: text/html\r\n\r\n"
        ))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"),
        "{answer}"
    );
    assert!(
        !answer.contains("x-selextract-egress"),
        "an origin spoke in the proxy's name: {answer}"
    );
    let request = origin.requests().remove(0);
    assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{request}");
    assert!(request.contains("accept: text/html\r\n"), "{request}");
    for field in ["metadata.internal", "proxy-", "x-secret: 1"] {
        assert!(!request.contains(field), "{field} in {request}");
    }
    assert_eq!(rig.metric(r#"selextract_egress_requests_total{result="forwarded"}"#), 1);
}

#[tokio::test]
async fn a_cluster_name_resolves_by_the_search_list_and_its_host_entry_opens_it() {
    let origin = Origin::answering(OK).await;
    let port = origin.address.port();
    let policy = format!(r#"{{"allow":[{{"host":"docs.demo.svc","ports":[{port}]}}]}}"#);
    let rig = Rig::start(
        &policy,
        &[
            ("docs.demo.svc.cluster.local.", &["127.0.0.1"]),
            ("other.demo.svc.cluster.local.", &["127.0.0.1"]),
        ],
    )
    .await;
    let answer = rig.get(&format!("http://docs.demo.svc:{port}/")).await;
    assert!(answer.ends_with("hello"), "{answer}");
    let refused = rig.get(&format!("http://other.demo.svc:{port}/")).await;
    assert!(refused.ends_with("EgressRefused"), "{refused}");
}

#[tokio::test]
async fn a_dead_first_address_leaves_time_for_the_next() {
    let origin = Origin::answering(OK).await;
    let port = origin.address.port();
    let rig = Rig::start(&origin.policy(), &[("two.example.", &["127.0.0.99", "127.0.0.1"])]).await;
    let answer = rig.get(&format!("http://two.example:{port}/")).await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_body_and_the_length_of_an_answer_to_head_come_through() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\nconnection: close\r\n\r\n").await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let url = format!("http://127.0.0.1:{}/", origin.address.port());
    let answer = rig
        .exchange(&format!("HEAD {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-length: 12345\r\n"),
        "{answer}"
    );
    rig.exchange(&format!(
        "POST {url} HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\nabcd"
    ))
    .await;
    let post = origin.requests().remove(1);
    assert!(
        post.starts_with("POST / HTTP/1.1\r\n") && post.contains("content-length: 4\r\n"),
        "{post}"
    );
    assert!(post.ends_with("\r\n\r\nabcd"), "{post}");
}

#[tokio::test]
async fn a_new_connection_is_served_while_clients_have_not_heard_of_the_stop() {
    let origin = Origin::answering(OK).await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    rig.stop.cancel();
    let answer = rig.get(&format!("http://127.0.0.1:{}/", origin.address.port())).await;
    assert!(answer.ends_with("hello"), "{answer}");
    timeout(LONG, rig.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_is_framed_anew_so_that_nothing_hides_behind_it() {
    let origin = Origin::answering(OK).await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let port = origin.address.port();
    let answer = rig
        .exchange(&format!(
            "POST http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: x\r\ncontent-length: 30\r\ntransfer-encoding: chunked\r\n\
             connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
        ))
        .await;
    let requests = origin.requests();
    assert!(
        requests.iter().all(|request| !request.contains("smuggled")),
        "{requests:?}"
    );
    for request in &requests {
        let both = request.contains("transfer-encoding") && request.contains("content-length");
        assert!(!both, "two lengths: {request}");
    }
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[rstest]
#[case("content-length: 3\r\ncontent-length: 4\r\n")]
#[case("content-length: +3\r\n")]
#[case("content-length: 3, 4\r\n")]
#[case("transfer-encoding: chunked, identity\r\n")]
#[case("transfer-encoding : chunked\r\n")]
#[case("x: a\r\n b: folded\r\n")]
#[case("x: a\0b\r\n")]
#[case("x\u{b}: a\r\n")]
#[tokio::test]
async fn an_ambiguous_head_is_refused_and_never_sent_on(#[case] fields: &str) {
    let origin = Origin::answering(OK).await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let port = origin.address.port();
    let answer = rig
        .exchange(&format!(
            "POST http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\nabcd"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[tokio::test]
async fn two_requests_on_one_connection_are_checked_one_by_one() {
    let origin = Origin::answering(OK).await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let port = origin.address.port();
    let answer = rig
        .exchange(&format!(
            "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: x\r\n\r\nGET http://10.0.0.1/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ))
        .await;
    assert!(
        answer.contains("200 OK") && answer.contains("403 Forbidden"),
        "{answer}"
    );
}

#[tokio::test]
async fn requests_of_one_client_connection_share_a_connection_to_the_origin_and_other_clients_do_not() {
    let (port, connections) = patient_origin().await;
    let rig = Rig::start(&open_loopback(port), &[]).await;
    let get = format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nhost: x\r\n");
    let two = format!("{get}\r\n{get}connection: close\r\n\r\n");
    for clients in 1..=2 {
        let answer = rig.exchange(&two).await;
        assert_eq!(answer.matches("200 OK").count(), 2, "{answer}");
        assert_eq!(connections.load(Ordering::SeqCst), clients);
    }
}

#[tokio::test]
async fn an_origin_that_ends_its_connection_between_two_requests_costs_neither() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let get = format!(
        "GET http://127.0.0.1:{}/ HTTP/1.1\r\nhost: x\r\n",
        origin.address.port()
    );
    let answer = rig.exchange(&format!("{get}\r\n{get}connection: close\r\n\r\n")).await;
    assert_eq!(answer.matches("200 OK").count(), 2, "{answer}");
}

#[tokio::test]
async fn a_request_with_a_body_gets_a_connection_of_its_own() {
    let (port, connections) = patient_origin().await;
    let rig = Rig::start(&open_loopback(port), &[]).await;
    let url = format!("http://127.0.0.1:{port}/");
    let answer = rig
        .exchange(&format!(
            "GET {url} HTTP/1.1\r\nhost: x\r\n\r\nPOST {url} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.matches("200 OK").count(), 2, "{answer}");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// An origin that answers every request of a connection; its port, and how many connections it got.
async fn patient_origin() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, connections) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                while read_head(&mut stream).await.ends_with("\r\n\r\n") {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, connections)
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_an_unreachable_origin() {
    let origin = Origin::answering("SSH-2.0-OpenSSH_9.2\r\n").await;
    let rig = Rig::start(&origin.policy(), &[]).await;
    let answer = rig.get(&format!("http://127.0.0.1:{}/", origin.address.port())).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && !answer.contains("SSH"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_counts_them() {
    let echo = echo().await;
    let rig = Rig::start(&open_loopback(echo), &[]).await;
    let (mut stream, head) = rig.tunnel(&format!("127.0.0.1:{echo}")).await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("content-length"),
        "{head}"
    );
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    timeout(LONG, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"ping");
    assert_eq!(rig.metric("selextract_egress_connections"), 1);
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
    rig.until_metric("selextract_egress_connections", 0).await;
    assert_eq!(rig.metric(r#"selextract_egress_bytes_total{direction="sent"}"#), 4);
    assert_eq!(rig.metric(r#"selextract_egress_bytes_total{direction="received"}"#), 4);
}

#[tokio::test]
async fn a_connection_that_carries_too_much_is_cut() {
    let flood = flood().await;
    let limits = selextract_egress_proxy::dial::Limits {
        max_bytes: 200_000,
        ..LIMITS
    };
    let rig = Rig::start_with(&open_loopback(flood), &[], limits, 10).await;
    let (mut stream, _) = rig.tunnel(&format!("127.0.0.1:{flood}")).await;
    let received = read_to_end(&mut stream).await.len();
    assert!((100_000..400_000).contains(&received), "{received}");
    let answer = rig.get(&format!("http://127.0.0.1:{flood}/")).await;
    assert!(answer.len() < 400_000, "{}", answer.len());
    rig.until_metric(r#"selextract_egress_cut_total{reason="bytes"}"#, 2)
        .await;
}

#[tokio::test]
async fn silence_ends_a_request_with_504_and_a_tunnel_with_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(listener.accept().await.unwrap());
        }
    });
    let limits = selextract_egress_proxy::dial::Limits {
        idle: Duration::from_millis(300),
        ..LIMITS
    };
    let rig = Rig::start_with(&open_loopback(silent), &[], limits, 10).await;
    let answer = rig.get(&format!("http://127.0.0.1:{silent}/")).await;
    assert!(
        answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("EgressTimedOut"),
        "{answer}"
    );
    let started = Instant::now();
    let (mut stream, head) = rig.tunnel(&format!("127.0.0.1:{silent}")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(read_to_end(&mut stream).await, "");
    assert!(started.elapsed() < LONG / 2);
    rig.until_metric(r#"selextract_egress_cut_total{reason="idle"}"#, 2)
        .await;
}

#[tokio::test]
async fn a_tunnel_ends_at_its_total_time_although_it_is_busy() {
    let flood = flood().await;
    let limits = selextract_egress_proxy::dial::Limits {
        total: Duration::from_millis(300),
        max_bytes: u64::MAX,
        ..LIMITS
    };
    let rig = Rig::start_with(&open_loopback(flood), &[], limits, 10).await;
    let (mut stream, _) = rig.tunnel(&format!("127.0.0.1:{flood}")).await;
    read_to_end(&mut stream).await;
    rig.until_metric(r#"selextract_egress_cut_total{reason="total"}"#, 1)
        .await;
}

#[tokio::test]
async fn a_full_proxy_says_so_and_a_tunnel_holds_its_place() {
    let echo = echo().await;
    let rig = Rig::start_with(&open_loopback(echo), &[], LIMITS, 1).await;
    let (tunnel, _) = rig.tunnel(&format!("127.0.0.1:{echo}")).await;
    let mut turned_away = rig.connect().await;
    let head = read_head(&mut turned_away).await;
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("x-selextract-egress: EgressBusy\r\n"),
        "{head}"
    );
    drop(tunnel);
    timeout(LONG, async {
        while !rig
            .tunnel(&format!("127.0.0.1:{echo}"))
            .await
            .1
            .starts_with("HTTP/1.1 200 ")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stop_lets_a_running_request_finish_and_takes_no_new_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = listener.local_addr().unwrap().port();
    let (asked, asking) = tokio::sync::oneshot::channel();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        asked.send(()).unwrap();
        gone.await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let rig = Rig::start(&open_loopback(slow), &[]).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(format!("GET http://127.0.0.1:{slow}/ HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    asking.await.unwrap();
    rig.stop.cancel();
    timeout(LONG, async {
        while tokio::net::TcpStream::connect(rig.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    go.send(()).unwrap();
    assert!(read_to_end(&mut stream).await.ends_with("hello"));
    timeout(LONG, rig.server).await.unwrap().unwrap();
}

/// A server that sends back what it gets; its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    port
}

/// A server that answers any head with a response without end; its port.
async fn flood() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b'x'; 8192]).await?;
                }
                #[expect(unreachable_code, reason = "names the type of the error above")]
                Ok::<(), std::io::Error>(())
            });
        }
    });
    port
}
