//! What a client is told: one stable word per kind of failure, and nothing about the network behind the proxy. Pure.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE},
};

/// The header that carries the word. An origin's header of this name is dropped, so a client may trust it.
pub const HEADER: HeaderName = HeaderName::from_static("x-selextract-egress");

/// The body of every answer.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// Why a request was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not a request that a forward proxy can serve. Do not retry.
    Malformed,
    /// The target, or an address of it, may not be reached. Do not retry.
    Refused,
    /// The name does not resolve, or nothing answers there, or what answers is not HTTP.
    Unreachable,
    /// Resolving, connecting or the first byte took too long.
    TimedOut,
    /// No pool of upstream proxies has this name. Do not retry.
    UnknownPool,
    /// No proxy of the pool made a connection.
    NoUpstream,
}

impl Failure {
    /// Every kind, so that each has a metric from the start.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Refused,
        Self::Unreachable,
        Self::TimedOut,
        Self::UnknownPool,
        Self::NoUpstream,
    ];

    /// The word in [`HEADER`] and in the body.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "EgressMalformed",
            Self::Refused => "EgressRefused",
            Self::Unreachable => "EgressUnreachable",
            Self::TimedOut => "EgressTimedOut",
            Self::UnknownPool => "EgressUnknownPool",
            Self::NoUpstream => "EgressNoUpstream",
        }
    }

    /// The value of the metric's label `result`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::UnknownPool => "unknown_pool",
            Self::NoUpstream => "no_upstream",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Refused | Self::UnknownPool => StatusCode::FORBIDDEN,
            Self::NoUpstream => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The whole answer.
    pub fn response(self) -> Response<Body> {
        let body = Full::new(Bytes::from_static(self.word().as_bytes()))
            .map_err(|never| match never {})
            .boxed();
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(HEADER, HeaderValue::from_static(self.word()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    }
}

/// The answer to a request at the pools' listener that names no pool: browsers send what they are asked for and nothing before.
pub fn which_pool() -> Response<Body> {
    let mut response = established();
    *response.status_mut() = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let challenge = HeaderValue::from_static("Basic realm=\"pool\"");
    response.headers_mut().insert(PROXY_AUTHENTICATE, challenge);
    response
}

/// The answer to CONNECT once the tunnel is open.
pub fn established() -> Response<Body> {
    Response::new(Empty::new().map_err(|never| match never {}).boxed())
}

/// What a connection over the limit gets before it is closed.
pub const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-selextract-egress: EgressBusy\r\nretry-after: 1\r\n\
    content-type: text/plain\r\ncontent-length: 10\r\nconnection: close\r\n\r\nEgressBusy";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_says_its_word_and_nothing_else() {
        let response = Failure::Refused.response();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[HEADER], "EgressRefused");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "EgressRefused");
    }

    #[test]
    fn no_two_failures_share_a_word_or_a_label() {
        for (index, one) in Failure::ALL.iter().enumerate() {
            for other in &Failure::ALL[index + 1..] {
                assert!(one.word() != other.word() && one.label() != other.label());
            }
        }
    }
}
