//! The text of a pod's /etc/hosts and /etc/resolv.conf. Pure but for reading the host's.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::config::HostAlias;
use crate::network::Dns;

/// Where systemd-resolved keeps the servers that its stub hides.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// Its stub: an address that only the host's own namespace reaches.
const RESOLVED_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// The longest value of a setting, in bytes: DNS names have at most 253.
const MAX_VALUE: usize = 255;

/// A DNS setting that can't be written into resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dns_config.{field}: {value:?} is not one: 1 to {MAX_VALUE} bytes without spaces are")]
pub(super) struct BadDns {
    field: &'static str,
    value: String,
}

/// /etc/hosts: localhost, the pod's own name at its addresses, and its aliases.
pub(super) fn hosts(hostname: &str, ips: &[IpAddr], aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for ip in ips.iter().filter(|_| !hostname.is_empty()) {
        writeln!(text, "{ip}\t{hostname}").expect("a String takes every write");
    }
    text + &host_aliases(aliases)
}

/// Lines of /etc/hosts.
pub(super) fn host_aliases(aliases: &[HostAlias]) -> String {
    let mut text = String::new();
    for HostAlias { ip, names } in aliases {
        writeln!(text, "{ip}\t{}", names.join("\t")).expect("a String takes every write");
    }
    text
}

/// resolv.conf(5) from a pod's own settings.
pub(super) fn resolv_conf(dns: &Dns) -> Result<String, BadDns> {
    let lists = [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)];
    for (field, values) in lists {
        for value in values {
            let forbidden = |c: char| c.is_whitespace() || c.is_control();
            // A line of its own, or a comment, could be smuggled in otherwise.
            if value.is_empty() || value.len() > MAX_VALUE || value.contains(forbidden) {
                return Err(BadDns { field, value: value.clone() });
            }
        }
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        writeln!(text, "search {}", dns.searches.join(" ")).expect("a String takes every write");
    }
    for server in &dns.servers {
        writeln!(text, "nameserver {server}").expect("a String takes every write");
    }
    if !dns.options.is_empty() {
        writeln!(text, "options {}", dns.options.join(" ")).expect("a String takes every write");
    }
    Ok(text)
}

/// The host's, as a pod can use it. A host without one has pods without one.
pub fn host_resolv_conf() -> io::Result<String> {
    let text = read("/etc/resolv.conf")?;
    if only_stub(&text) {
        let behind = read(RESOLVED)?;
        return Ok(if behind.is_empty() { text } else { behind });
    }
    Ok(text)
}

fn read(path: &str) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// Whether every server is systemd-resolved's stub.
fn only_stub(text: &str) -> bool {
    let server = |line: &str| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    let mut servers = text.lines().filter_map(server).peekable();
    servers.peek().is_some() && servers.all(|server| server == RESOLVED_STUB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_own_name_is_at_its_addresses() {
        let ips = ["10.88.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let text = hosts("web", &ips, &[]);
        assert!(text.ends_with("10.88.0.2\tweb\nfd00::2\tweb\n"), "{text}");
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert_eq!(hosts("", &ips, &[]), hosts("", &[], &[]));
        let alias = HostAlias { ip: ips[0], names: vec!["a".into(), "b.example".into()] };
        assert!(hosts("", &[], &[alias]).ends_with("10.88.0.2\ta\tb.example\n"));
    }

    #[test]
    fn settings_are_written_in_order_and_nothing_is_smuggled_in() {
        let dns = |server: &str| Dns {
            servers: vec![server.into(), "8.8.8.8".into()],
            searches: vec!["a.example".into(), "b.example".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(&dns("1.1.1.1")).unwrap(),
            "search a.example b.example\nnameserver 1.1.1.1\nnameserver 8.8.8.8\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&Dns::default()).unwrap(), "");
        for bad in ["", "1.1.1.1\nnameserver 6.6.6.6", "a b", "\0", &"a".repeat(256)] {
            assert!(resolv_conf(&dns(bad)).unwrap_err().to_string().contains("dns_config.servers"));
        }
    }

    #[test]
    fn a_stub_is_known_only_when_there_is_nothing_else() {
        assert!(only_stub("# by resolved\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!only_stub("nameserver 127.0.0.53\nnameserver 1.1.1.1\n"));
        assert!(!only_stub(""));
    }
}
