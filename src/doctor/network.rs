//! Whether this machine has a way out, as the kernel's own tables say it: interfaces and default routes of Linux's /proc/net.
//! Reads files alone and deliberately opens no socket: looking must not be what breaks a seal.

use std::path::Path;

use serde::Serialize;

/// Flags of a route: it is up; it refuses.
const UP: u32 = 1;
const REJECT: u32 = 0x200;

/// What the tables say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// No interface but loopback.
    NoInterface,
    /// Interfaces, for example to a cluster's own network, and no route to the rest of the world.
    NoDefaultRoute,
    /// A default route. A firewall may still forbid everything; that is not looked at.
    DefaultRoute,
    /// No such tables on this system.
    Unknown,
}

/// Interfaces and whether they lead out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// The way out.
    pub way: Way,
    /// Names of all interfaces but loopback.
    pub interfaces: Vec<String>,
    /// The interfaces of default routes.
    pub routes: Vec<String>,
}

impl Network {
    /// Reads the tables below `proc`, which is `/proc`.
    pub fn look(proc: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(proc.join("net").join(name));
        let Ok(devices) = read("dev") else {
            return Self { way: Way::Unknown, interfaces: Vec::new(), routes: Vec::new() };
        };
        Self::of(&devices, &read("route").unwrap_or_default(), &read("ipv6_route").unwrap_or_default())
    }

    /// From the texts of `dev`, `route` and `ipv6_route`.
    fn of(devices: &str, routes: &str, routes6: &str) -> Self {
        let names = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        let interfaces: Vec<String> = names.filter(|name| name != "lo").collect();
        let mut defaults: Vec<String> = routes.lines().filter_map(default_route).collect();
        defaults.extend(routes6.lines().filter_map(default_route6));
        defaults.sort();
        defaults.dedup();
        let way = match (interfaces.is_empty(), defaults.is_empty()) {
            (true, _) => Way::NoInterface,
            (false, true) => Way::NoDefaultRoute,
            (false, false) => Way::DefaultRoute,
        };
        Self { way, interfaces, routes: defaults }
    }
}

/// The interface of a line `Iface Destination Gateway Flags RefCnt Use Metric Mask …` that leads everywhere.
fn default_route(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, _, flags, _, _, _, mask, ..] = fields[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let is_default = destination == "00000000" && mask == "00000000" && flags & UP != 0 && flags & REJECT == 0;
    (is_default && interface != "lo").then(|| interface.to_owned())
}

/// The same of `destination length source length hop metric refs use flags interface`.
fn default_route6(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, .., flags, interface] = fields[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let is_default = destination.bytes().all(|digit| digit == b'0') && length == "00";
    (is_default && flags & UP != 0 && flags & REJECT == 0 && interface != "lo").then(|| interface.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Inter-| Receive\n face |bytes\n    lo: 1 2\n";
    const ROUTES: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
    const LO6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                       00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

    #[test]
    fn the_way_out_is_read_off_the_tables() {
        let eth = format!("{HEAD}  eth0: 5 6\n");
        let local = "eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let default = "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n";
        let default6 = LO6.replace("00200200       lo", "00000003     eth0");
        let way = |devices: &str, routes: &str, routes6: &str| Network::of(devices, routes, routes6).way;
        assert_eq!(way(HEAD, ROUTES, LO6), Way::NoInterface);
        assert_eq!(way(&eth, &format!("{ROUTES}{local}"), LO6), Way::NoDefaultRoute);
        assert_eq!(way(&eth, &format!("{ROUTES}{local}{default}"), ""), Way::DefaultRoute);
        assert_eq!(way(&eth, ROUTES, &default6), Way::DefaultRoute);
        assert_eq!(Network::of(&eth, &format!("{ROUTES}{default}"), &default6).routes, ["eth0"]);
        let refused = default.replace("0003", "0203");
        assert_eq!(way(&eth, &format!("{ROUTES}{refused}"), ""), Way::NoDefaultRoute);
        assert_eq!(Network::look(Path::new("/nowhere")).way, Way::Unknown);
    }
}
