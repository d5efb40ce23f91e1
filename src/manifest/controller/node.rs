//! What a pod may ask of the node it runs on.

use std::net::{IpAddr, UdpSocket};

use crate::manifest::Facts;

/// An address for documentation (RFC 5737): nothing is sent to it.
const ELSEWHERE: &str = "192.0.2.1:9";

/// The facts for the variables and files of the pod with this uid and these addresses.
pub(super) fn facts(uid: &str, ips: &[IpAddr]) -> Facts {
    Facts {
        uid: uid.to_owned(),
        ips: ips.iter().map(ToString::to_string).collect(),
        host_ip: address().map(|ip| ip.to_string()).unwrap_or_default(),
        node_name: name(),
        cpu_millis: std::thread::available_parallelism().map_or(1, usize::from) as u64 * 1000,
        memory_bytes: memory_bytes().unwrap_or(0),
    }
}

/// The node's name.
pub fn name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The address that the node talks to others from, else any that isn't loopback's.
pub fn address() -> Option<IpAddr> {
    let routed = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(ELSEWHERE).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let any = || {
        let all = nix::ifaddrs::getifaddrs().ok()?;
        let v4 = all.filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip()));
        v4.map(IpAddr::V4).find(|ip| !ip.is_loopback())
    };
    routed().or_else(any)
}

fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
