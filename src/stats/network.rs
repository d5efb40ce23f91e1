//! Traffic of a network namespace, read through /proc of a process that is in it: nothing
//! has to enter the namespace (proc_pid_net(5)).

use std::io;
use std::path::Path;

use super::files;

/// Interfaces told of, at most; more are left out.
const MAX_INTERFACES: usize = 1024;

/// Of one namespace, without loopback.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// Every interface.
    pub interfaces: Vec<Interface>,
    /// The name of the one that the default route goes through; `eth0`, or the first, where
    /// no route tells.
    pub default: Option<String>,
}

/// Traffic of one interface since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Its name in the namespace.
    pub name: String,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were wrong.
    pub errors: u64,
    /// Packets that had no room.
    pub dropped: u64,
}

/// Of the namespace that a process is in. One that is gone is `NotFound`.
pub fn read(pid: i32) -> io::Result<Network> {
    let net = Path::new("/proc").join(pid.to_string()).join("net");
    let interfaces = parse(&files::text(&net.join("dev"))?);
    // No IPv4, no such file.
    let routes = files::text(&net.join("route")).unwrap_or_default();
    let default = default_of(&interfaces, &routes);
    Ok(Network { interfaces, default })
}

fn default_of(interfaces: &[Interface], routes: &str) -> Option<String> {
    let there = |name: &&str| interfaces.iter().any(|each| each.name == **name);
    let default = default_route(routes).filter(there).or(Some("eth0").filter(there));
    default.map(str::to_owned).or_else(|| Some(interfaces.first()?.name.clone()))
}

/// /proc/net/dev: after two lines of headings, a name, a colon and 16 numbers.
fn parse(text: &str) -> Vec<Interface> {
    text.lines()
        .filter_map(interface)
        .filter(|each| each.name != "lo")
        .take(MAX_INTERFACES)
        .collect()
}

fn interface(line: &str) -> Option<Interface> {
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers = numbers.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let numbers = numbers.ok().filter(|numbers| numbers.len() >= 16)?;
    let traffic = |at: usize| Traffic {
        bytes: numbers[at],
        packets: numbers[at + 1],
        errors: numbers[at + 2],
        dropped: numbers[at + 3],
    };
    Some(Interface { name: name.trim().to_owned(), received: traffic(0), sent: traffic(8) })
}

/// /proc/net/route: interface, destination, gateway, flags, …, mask as the eighth; in hex.
fn default_route(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let zero = |at: usize| fields.get(at).is_some_and(|field| *field == "00000000");
        (zero(1) && zero(7)).then(|| fields[0])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
  eth0:1000      10    1    2    0     0          0         0     2000      20    3    4    0     0       0          0
eth0:1: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0
";

    #[test]
    fn every_interface_but_loopback_is_told() {
        let found = parse(DEV);
        let names: Vec<&str> = found.iter().map(|each| each.name.as_str()).collect();
        assert_eq!(names, ["eth0", "eth0:1"]);
        assert_eq!(found[0].received, Traffic { bytes: 1000, packets: 10, errors: 1, dropped: 2 });
        assert_eq!(found[0].sent, Traffic { bytes: 2000, packets: 20, errors: 3, dropped: 4 });
    }

    #[test]
    fn garbage_is_no_interface() {
        for text in ["", ":", "eth0", "eth0: 1 2 3", "eth0: a b c d e f g h i j k l m n o p"] {
            assert_eq!(parse(text), [], "{text:?}");
        }
    }

    #[test]
    fn the_default_is_where_the_default_route_goes() {
        let named = |name: &str| Interface { name: name.into(), ..Interface::default() };
        let all = [named("net1"), named("eth0")];
        let route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t00000A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\n\
                     net1\t00000000\t01000A0A\t0003\t0\t0\t0\t00000000\n";
        assert_eq!(default_of(&all, route).as_deref(), Some("net1"));
        assert_eq!(default_of(&all, "").as_deref(), Some("eth0"));
        assert_eq!(default_of(&all[..1], "x y\n\n").as_deref(), Some("net1"));
        assert_eq!(default_of(&[], route), None);
    }
}
