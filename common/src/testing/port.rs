//! Ports for servers that are told where to listen, and that listen there again when restarted.

use std::{collections::HashSet, net::TcpListener, ops::Range, sync::Mutex};

use rand::Rng as _;

/// Below the ports that Linux lends to outgoing connections and to listeners at port 0 (from 32768
/// on): between our look and the server's start, or while it is down, no such thing takes one.
const PORTS: Range<u16> = 16_384..32_768;

static LENT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A loopback port that nobody listens at, and that this process is not given twice.
///
/// # Panics
/// If a thousand ports in a row are taken.
pub fn free_port() -> u16 {
    let mut lent = LENT.lock().expect("nothing panics while it is held");
    let lent = lent.get_or_insert_default();
    let mut ports = (0..1_000).map(|_| rand::rng().random_range(PORTS));
    ports
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok() && lent.insert(port))
        .expect("some loopback port is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_lent_twice_or_could_be_taken_by_a_connection() {
        let ports: Vec<_> = (0..100).map(|_| free_port()).collect();
        assert!(ports.iter().all(|port| PORTS.contains(port)));
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
    }
}
