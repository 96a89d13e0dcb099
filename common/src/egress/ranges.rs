//! The address ranges that lead into someone's own network, or nowhere.
//!
//! Source: the IANA special-purpose address registries,
//! <https://www.iana.org/assignments/iana-ipv4-special-registry> and
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>.

use std::net::{Ipv4Addr, Ipv6Addr};

const METADATA: &str = "a cloud metadata address";
const LOOPBACK: &str = "a loopback address";
const PRIVATE: &str = "a private address";
const LINK_LOCAL: &str = "a link-local address";
const UNSPECIFIED: &str = "an unspecified address";
const SHARED: &str = "a carrier's shared address";
const MULTICAST: &str = "a multicast address";
const BROADCAST: &str = "a broadcast address";
const DOCUMENTATION: &str = "an address for documentation";
const BENCHMARKING: &str = "an address for benchmarks";
const RESERVED: &str = "a reserved address";

/// What makes an IPv4 address forbidden; `None`: it is public.
pub(super) fn forbidden_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let kind = match ip.octets() {
        // AWS, Google, Azure and most others; Alibaba; Oracle's older one; Azure's WireServer,
        // which has a public number.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => {
            METADATA
        }
        [0, ..] => UNSPECIFIED,
        [127, ..] => LOOPBACK,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => PRIVATE,
        [169, 254, ..] => LINK_LOCAL,
        [100, 64..=127, ..] => SHARED,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => DOCUMENTATION,
        [198, 18..=19, ..] => BENCHMARKING,
        [224..=239, ..] => MULTICAST,
        [255, 255, 255, 255] => BROADCAST,
        // IETF protocol assignments, the former 6to4 relays, and class E.
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => RESERVED,
        _ => return None,
    };
    Some(kind)
}

/// What makes an IPv6 address that carries no IPv4 address forbidden; `None`: it is public.
pub(super) fn forbidden_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let kind = match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => UNSPECIFIED,
        [0, 0, 0, 0, 0, 0, 0, 1] => LOOPBACK,
        // AWS and Google.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254] => {
            METADATA
        }
        [0xfc00..=0xfdff, ..] => "a unique-local address",
        [0xfe80..=0xfebf, ..] => LINK_LOCAL,
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => MULTICAST,
        // Local-use translation to IPv4 (RFC 8215): where it leads, only its own network knows.
        [0x0064, 0xff9b, 0x0001, ..] => PRIVATE,
        [0x2001, 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => DOCUMENTATION,
        [0x2001, 0x0002, 0, ..] => BENCHMARKING,
        // IETF protocol assignments. Teredo, which is among them, carries IPv4 and is judged by it.
        [0x2001, 0x0000..=0x01ff, ..] => RESERVED,
        // All unicast handed out so far; the rest is reserved, special, or not assigned.
        [0x2000..=0x3fff, ..] => return None,
        _ => RESERVED,
    };
    Some(kind)
}

/// The IPv4 addresses that a packet to this IPv6 address may end at; empty: it carries none.
pub(super) fn carried_v4(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match ip.segments() {
        // `::` and `::1` stand for themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![],
        // IPv4-compatible, IPv4-mapped, IPv4-translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4 (RFC 3056).
        | [0x2002, high, low, ..] => vec![v4(high, low)],
        // Teredo (RFC 4380): the server's address, and the client's with all bits flipped.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            vec![v4(server_high, server_low), v4(!high, !low)]
        }
        // ISATAP (RFC 5214): any prefix, so the prefix is judged first.
        [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] if forbidden_v6(ip).is_none() => {
            vec![v4(high, low)]
        }
        _ => vec![],
    }
}
