//! dnsConfig beside the node's resolv.conf, merged as a kubelet does it. Pure.

use crate::network::Dns;

/// Of the C library (resolv.conf(5)) and of Kubernetes' validation.
pub(super) const MAX_SERVERS: usize = 3;
/// As Kubernetes has it.
pub(super) const MAX_SEARCHES: usize = 32;
/// Characters of all search domains with the spaces between, as Kubernetes has it.
pub(super) const MAX_SEARCH_CHARS: usize = 2048;

/// The node's settings with the pod's added. What is over the limits is left out, the pod's
/// own first to go as it comes last.
pub(super) fn merge(node: &str, own: &Dns) -> Dns {
    let mut dns = read(node);
    dns.servers.extend(own.servers.iter().cloned());
    dns.searches.extend(own.searches.iter().cloned());
    for option in &own.options {
        // One of the same name goes over the node's.
        match dns.options.iter_mut().find(|other| name(other) == name(option)) {
            Some(other) => other.clone_from(option),
            None => dns.options.push(option.clone()),
        }
    }
    once(&mut dns.servers);
    once(&mut dns.searches);
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    while dns.searches.join(" ").chars().count() > MAX_SEARCH_CHARS {
        dns.searches.pop();
    }
    dns
}

/// resolv.conf(5): the last search line counts, options add up.
fn read(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            Some("search" | "domain") => dns.searches = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

fn name(option: &str) -> &str {
    option.split(':').next().unwrap_or(option)
}

fn once(values: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    values.retain(|value| seen.insert(value.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "# the node's\nsearch old\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch lan example\noptions ndots:1 rotate\n";

    fn all(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_pods_settings_come_after_the_nodes_and_its_options_over_them() {
        let own = Dns {
            servers: all(&["10.0.0.2", "10.0.0.3", "10.0.0.4"]),
            searches: all(&["example", "own.example"]),
            options: all(&["ndots:5", "edns0"]),
        };
        let merged = merge(NODE, &own);
        assert_eq!(merged.servers, all(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
        assert_eq!(merged.searches, all(&["lan", "example", "own.example"]));
        assert_eq!(merged.options, all(&["ndots:5", "rotate", "edns0"]));
        assert_eq!(merge("", &Dns::default()), Dns::default());
    }

    #[test]
    fn what_is_over_the_limits_is_left_out() {
        let many = (0..40).map(|n| format!("{n}.example")).collect();
        let merged = merge("", &Dns { searches: many, ..Dns::default() });
        assert_eq!(merged.searches.len(), MAX_SEARCHES);
        let long = (0..10).map(|n| format!("{n}{}", "a".repeat(249))).collect();
        let merged = merge("", &Dns { searches: long, ..Dns::default() });
        assert_eq!(merged.searches.len(), 8);
    }
}
