//! The address that a request comes from, as it is counted by.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request};

/// The client's address: the connection's, or where `proxies` trusted proxies stand in front, what the outermost of them wrote into
/// `X-Forwarded-For`. An IPv6 client is its /64, of which anybody has as many addresses as he likes.
pub fn client(request: &Request, proxies: u8) -> String {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let forwarded = request.headers().get_all("x-forwarded-for");
    let forwarded = forwarded.iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
    let named = usize::from(proxies)
        .checked_sub(1)
        .and_then(|beyond| hops.iter().rev().nth(beyond))
        .and_then(|hop| hop.trim().parse().ok());
    match named.or(peer) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(address) => address.to_string(),
            None => network(address).to_string(),
        },
    }
}

fn network(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(peer: &str, forwarded: &[&str]) -> Request {
        let mut request = Request::new(Body::empty());
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        for value in forwarded {
            request.headers_mut().append("x-forwarded-for", value.parse().unwrap());
        }
        request
    }

    #[test]
    fn nobody_chooses_his_own_address() {
        let spoofed = request("10.0.0.9:1", &["1.1.1.1, 2.2.2.2", "3.3.3.3"]);
        assert_eq!(client(&spoofed, 0), "10.0.0.9", "no proxy is trusted");
        assert_eq!(client(&spoofed, 1), "3.3.3.3", "what the one proxy wrote");
        assert_eq!(client(&spoofed, 2), "2.2.2.2");
        assert_eq!(client(&spoofed, 9), "10.0.0.9", "fewer proxies than were told");
        assert_eq!(client(&request("10.0.0.9:1", &["rubbish"]), 1), "10.0.0.9");
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_one_its_ipv4_address() {
        assert_eq!(client(&request("[2001:db8:1:2:3:4:5:6]:1", &[]), 0), "2001:db8:1:2::");
        assert_eq!(client(&request("[::ffff:192.0.2.7]:1", &[]), 0), "192.0.2.7");
    }
}
