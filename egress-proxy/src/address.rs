//! Which addresses belong to the public internet. Pure.
//!
//! Only what is globally reachable unicast passes; everything that the IANA special-purpose registries list is refused, also the
//! few entries there that are globally reachable (anycast helpers of networks, which nobody scrapes). An address that carries an
//! IPv4 address inside is judged by that one too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IANA IPv4 Special-Purpose Address Registry, and multicast (224.0.0.0/4).
const SPECIAL_V4: [(Ipv4Addr, u32); 18] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 52, 193, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(192, 175, 48, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The only IPv6 space that IANA has given out as global unicast.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What the IANA IPv6 Special-Purpose Address Registry lists inside [`GLOBAL_UNICAST`]. Teredo and 6to4 are unwrapped before.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2620, 0x004f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

const TEREDO: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32);
const SIX_TO_FOUR: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x0064, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// The address that a connection really goes to: a v4-mapped one is its IPv4 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether the address, and every IPv4 address wrapped in it, is globally reachable unicast.
pub fn is_global(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

/// Whether no allow-list entry for a host may ever open the address: unspecified, link-local (the cloud's metadata service),
/// multicast, broadcast and reserved space. An entry that names a network may.
pub fn is_never_a_host(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 224 || v4.is_link_local(),
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || embedded(v6).into_iter().any(|v4| is_never_a_host(IpAddr::V4(v4)))
        }
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|range| within_v4(address, *range))
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let wrapped = embedded(address);
    if !wrapped.is_empty() {
        return wrapped.into_iter().all(is_global_v4);
    }
    within_v6(address, GLOBAL_UNICAST) && !SPECIAL_V6.iter().any(|range| within_v6(address, *range))
}

/// The IPv4 addresses that a transition mechanism put into the address: NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380: its
/// server, and the client with all bits flipped). The deprecated v4-compatible form `::a.b.c.d` is not global at all.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bits = address.to_bits();
    if within_v6(address, NAT64) {
        vec![v4_at(bits, 0)]
    } else if within_v6(address, SIX_TO_FOUR) {
        vec![v4_at(bits, 80)]
    } else if within_v6(address, TEREDO) {
        vec![v4_at(bits, 64), v4_at(!bits, 0)]
    } else {
        Vec::new()
    }
}

/// The 32 bits that begin `shift` bits above the lowest, as an IPv4 address.
fn v4_at(bits: u128, shift: u32) -> Ipv4Addr {
    let octets = (bits >> shift).to_be_bytes();
    Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15])
}

fn within_v4(address: Ipv4Addr, (network, prefix): (Ipv4Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (32 - prefix) == 0
}

fn within_v6(address: Ipv6Addr, (network, prefix): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (128 - prefix) == 0
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn global(text: &str) -> bool {
        is_global(text.parse().unwrap())
    }

    #[test]
    fn every_special_purpose_ipv4_range_is_refused_at_both_ends() {
        for (network, prefix) in SPECIAL_V4 {
            let last = Ipv4Addr::from_bits(network.to_bits() | (u32::MAX >> prefix));
            assert!(!is_global(network.into()), "{network}/{prefix} begins inside");
            assert!(!is_global(last.into()), "{last} ends {network}/{prefix}");
        }
    }

    #[rstest]
    #[case("1.0.0.0")]
    #[case("9.255.255.255")]
    #[case("11.0.0.0")]
    #[case("100.63.255.255")]
    #[case("100.128.0.0")]
    #[case("126.255.255.255")]
    #[case("128.0.0.0")]
    #[case("169.253.255.255")]
    #[case("169.255.0.0")]
    #[case("172.15.255.255")]
    #[case("172.32.0.0")]
    #[case("191.255.255.255")]
    #[case("192.0.1.0")]
    #[case("192.0.1.255")]
    #[case("192.0.3.0")]
    #[case("192.31.195.255")]
    #[case("192.31.197.0")]
    #[case("192.52.192.255")]
    #[case("192.52.194.0")]
    #[case("192.88.98.255")]
    #[case("192.88.100.0")]
    #[case("192.167.255.255")]
    #[case("192.169.0.0")]
    #[case("192.175.47.255")]
    #[case("192.175.49.0")]
    #[case("198.17.255.255")]
    #[case("198.20.0.0")]
    #[case("198.51.99.255")]
    #[case("198.51.101.0")]
    #[case("203.0.112.255")]
    #[case("203.0.114.0")]
    #[case("223.255.255.255")]
    #[case("2000::")]
    #[case("2001:200::")]
    #[case("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff")]
    #[case("2001:db9::")]
    #[case("2003::1")]
    #[case("2620:4f:7fff:ffff:ffff:ffff:ffff:ffff")]
    #[case("2620:4f:8001::")]
    #[case("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
    #[case("3fff:1000::")]
    #[case("2606:4700:4700::1111")]
    fn an_address_just_outside_a_special_range_passes(#[case] address: &str) {
        assert!(global(address));
    }

    #[rstest]
    #[case("::")]
    #[case("::1")]
    #[case("::8.8.8.8")]
    #[case("::ffff:0:8.8.8.8")]
    #[case("64:ff9b:1::1")]
    #[case("64:ff9b:1:ffff:ffff:ffff:ffff:ffff")]
    #[case("100::1")]
    #[case("100:0:0:1::1")]
    #[case("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
    #[case("2001:1::1")]
    #[case("2001:2::1")]
    #[case("2001:3::1")]
    #[case("2001:4:112::1")]
    #[case("2001:10::1")]
    #[case("2001:20::1")]
    #[case("2001:30::1")]
    #[case("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff")]
    #[case("2001:db8::1")]
    #[case("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")]
    #[case("2620:4f:8000::1")]
    #[case("3fff::1")]
    #[case("3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff")]
    #[case("4000::1")]
    #[case("5f00::1")]
    #[case("fc00::1")]
    #[case("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
    #[case("fe80::1")]
    #[case("febf::1")]
    #[case("fec0::1")]
    #[case("ff02::1")]
    fn every_special_purpose_ipv6_range_is_refused(#[case] address: &str) {
        assert!(!global(address));
    }

    #[rstest]
    #[case("::ffff:10.0.0.1", "::ffff:8.8.8.8")]
    #[case("64:ff9b::a00:1", "64:ff9b::808:808")]
    #[case("64:ff9b::169.254.169.254", "64:ff9b::8.8.4.4")]
    #[case("2002:7f00:1::", "2002:808:808::1")]
    #[case("2002:a9fe:a9fe::1", "2002:102:304::1")]
    // Teredo: a private server, then a private client behind a public server (10.0.0.1 flipped is f5ff:fffe).
    #[case("2001:0:a00:1::f7f7:f7f7", "2001:0:808:808::f7f7:f7f7")]
    #[case("2001:0:808:808::f5ff:fffe", "2001:0:102:304::f7f7:f7f7")]
    fn an_ipv4_address_wrapped_in_ipv6_is_judged_by_itself(#[case] refused: &str, #[case] passes: &str) {
        assert!(!global(refused), "{refused}");
        assert!(global(passes), "{passes}");
    }

    #[rstest]
    #[case("0.0.0.0", true)]
    #[case("169.254.169.254", true)]
    #[case("::ffff:169.254.169.254", true)]
    #[case("64:ff9b::169.254.169.254", true)]
    #[case("224.0.0.1", true)]
    #[case("255.255.255.255", true)]
    #[case("::", true)]
    #[case("fe80::1", true)]
    #[case("ff02::1", true)]
    #[case("10.0.0.1", false)]
    #[case("127.0.0.1", false)]
    #[case("fd00::1", false)]
    fn a_host_entry_never_opens_metadata_or_multicast(#[case] address: &str, #[case] never: bool) {
        assert_eq!(is_never_a_host(address.parse().unwrap()), never);
    }
}
