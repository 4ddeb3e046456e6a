//! Which header fields cross the proxy. Pure.

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use crate::answer;

/// Fields of one connection (RFC 9110, 7.6.1) and of the proxy itself, which never cross it. Framing (transfer-encoding) is decided
/// anew on the other side from the body as it was parsed here, so two ends never disagree about where a message ends.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// Makes a request's fields fit for the origin: the Host is the target's, whatever the client wrote. `last` says that the connection is
/// not used again.
pub fn for_origin(headers: &mut HeaderMap, host: HeaderValue, last: bool) {
    strip(headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::HOST, host);
    if last {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Makes a response's fields fit for the client.
pub fn for_client(headers: &mut HeaderMap) {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    strip(headers);
    headers.remove(answer::HEADER);
    if chunked {
        headers.remove(header::CONTENT_LENGTH);
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The fields that Connection names as belonging to this connection alone.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn what_belongs_to_one_connection_never_reaches_the_origin() {
        let mut headers = map(&[
            ("host", "internal"),
            ("host", "second"),
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
            ("cookie", "a=b"),
        ]);
        for_origin(&mut headers, HeaderValue::from_static("example.com"), true);
        let expected = map(&[
            ("host", "example.com"),
            ("connection", "close"),
            ("accept", "*/*"),
            ("cookie", "a=b"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn an_origin_cannot_speak_in_the_name_of_the_proxy() {
        let mut headers = map(&[
            ("x-selextract-egress", "EgressRefused"),
            ("connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("content-length", "3"),
        ]);
        for_client(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3")]));
    }

    #[test]
    fn a_length_beside_chunked_framing_is_dropped() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        for_client(&mut headers);
        assert!(headers.is_empty());
    }
}
