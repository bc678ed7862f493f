//! This machine's address in its network, from the kernel's own tables where there are any. Opens no socket: asking must not be what breaks
//! a seal. Knows one file; knows nothing of servers.

use std::net::Ipv4Addr;

/// The first address that is not loopback; private networks' before others. `None` where the system has no such tables.
pub fn own() -> Option<Ipv4Addr> {
    first(&std::fs::read_to_string("/proc/net/fib_trie").ok()?)
}

/// Leaves of the table of routes that are this host: an address, and below it `/32 host LOCAL`.
fn first(table: &str) -> Option<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.filter(|address| !address.is_loopback() && !address.is_link_local()));
        }
    }
    found.iter().find(|address| address.is_private()).or(found.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_network_is_found_and_loopback_is_none() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                     |-- 192.168.7.0\n  /24 link UNICAST\n  |-- 192.168.7.23\n   /32 host LOCAL\n  |-- 192.168.7.255\n /32 link BROADCAST\n";
        assert_eq!(first(table), Some(Ipv4Addr::new(192, 168, 7, 23)));
        assert_eq!(first("|-- 127.0.0.1\n/32 host LOCAL"), None);
        assert_eq!(first("junk"), None);
    }
}
