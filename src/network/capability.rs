//! What a pod asks of its network, as the `runtimeConfig` of plugins that declare they can
//! (CNI's conventions: portMappings, bandwidth, ipRanges, dns).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Attachment, Error};

/// Rate into the pod, a quantity of bits a second: `10M`.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
/// Rate out of the pod.
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// The rates a pod may ask for, in bits a second, as Kubernetes has them.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
/// The token bucket, in bits: as much as the plugin takes, so that only the rate counts.
const BURST: u64 = i32::MAX as u64;

/// The runtimeConfig of one plugin: the capabilities it declares, where the pod asks for them.
pub(super) fn for_plugin(
    plugin: &Value,
    attachment: &Attachment,
    pod_cidrs: &[String],
) -> Result<Map<String, Value>, Error> {
    let declared = |name: &str| plugin["capabilities"][name].as_bool() == Some(true);
    let mut config = Map::new();
    if declared("portMappings") && !attachment.port_mappings.is_empty() {
        let mappings = attachment.port_mappings.iter().map(|mapping| {
            let mut object = json!({
                "hostPort": mapping.host_port,
                "containerPort": mapping.container_port,
                "protocol": mapping.protocol,
            });
            if let Some(ip) = mapping.host_ip {
                object["hostIP"] = json!(ip);
            }
            object
        });
        config.insert("portMappings".to_owned(), mappings.collect());
    }
    if declared("bandwidth")
        && let Some(bandwidth) = bandwidth(&attachment.annotations)?
    {
        config.insert("bandwidth".to_owned(), bandwidth);
    }
    if declared("ipRanges") && !pod_cidrs.is_empty() {
        let ranges = pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr }]));
        config.insert("ipRanges".to_owned(), ranges.collect());
    }
    let dns = &attachment.dns;
    if declared("dns") && *dns != super::Dns::default() {
        let dns =
            json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options });
        config.insert("dns".to_owned(), dns);
    }
    if declared("io.kubernetes.cri.pod-annotations") && !attachment.annotations.is_empty() {
        let annotations = json!(attachment.annotations);
        config.insert("io.kubernetes.cri.pod-annotations".to_owned(), annotations);
    }
    Ok(config)
}

/// Whether an annotation is one of the two that ask for a rate.
pub(super) fn is_bandwidth(key: &str) -> bool {
    [INGRESS, EGRESS].contains(&key)
}

/// Capability `bandwidth`; `None` where the annotations ask for none.
pub(super) fn bandwidth(annotations: &BTreeMap<String, String>) -> Result<Option<Value>, Error> {
    let mut config = Map::new();
    for (key, direction) in [(INGRESS, "ingress"), (EGRESS, "egress")] {
        if let Some(text) = annotations.get(key) {
            let rate = rate(text).ok_or_else(|| Error::Annotation {
                key,
                why: format!("\"{text}\" is no rate: 1k to 1P bits a second are allowed, like 10M"),
            })?;
            config.insert(format!("{direction}Rate"), json!(rate));
            config.insert(format!("{direction}Burst"), json!(BURST));
        }
    }
    Ok((!config.is_empty()).then_some(Value::Object(config)))
}

/// A Kubernetes quantity as a whole number within `RATES`.
fn rate(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bits = number.parse::<f64>().ok()? * factor;
    // Saturates; NaN becomes 0.
    Some(bits.round() as u64).filter(|bits| RATES.contains(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Dns, PortMapping};

    #[test]
    fn rates_are_kubernetes_quantities() {
        assert_eq!(rate("10M"), Some(10_000_000));
        assert_eq!(rate("1.5Ki"), Some(1536));
        assert_eq!(rate("1000"), Some(1000));
        for bad in ["", "M", "-1M", "1", "10MB", "1e99", "99P", "1.2.3k", "∞"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_plugin_gets_what_it_declares_and_the_pod_asks_for() {
        let attachment = Attachment {
            sandbox_id: "id".into(),
            netns: "/netns".into(),
            namespace: "default".into(),
            name: "web".into(),
            uid: "uid".into(),
            port_mappings: vec![PortMapping {
                protocol: "tcp".into(),
                container_port: 80,
                host_port: 8080,
                host_ip: None,
            }],
            dns: Dns::default(),
            annotations: [(INGRESS.to_owned(), "1M".to_owned())].into(),
        };
        let all = json!({ "capabilities": { "portMappings": true, "bandwidth": true, "dns": true, "ipRanges": true } });
        let config = for_plugin(&all, &attachment, &["10.0.0.0/24".to_owned()]).unwrap();
        assert_eq!(config["portMappings"][0]["hostPort"], 8080);
        assert_eq!(config["bandwidth"]["ingressRate"], 1_000_000);
        assert_eq!(config["ipRanges"][0][0]["subnet"], "10.0.0.0/24");
        assert!(!config.contains_key("dns"), "nothing was asked");
        let none = json!({ "capabilities": { "portMappings": false } });
        assert!(for_plugin(&none, &attachment, &[]).unwrap().is_empty());
    }
}
