//! What plugins answer to ADD, in every version of the specification.

use std::net::IpAddr;

use serde_json::Value;

/// The addresses of a result, its prefixes dropped. What is no address is passed over.
pub(super) fn ips(result: &Value) -> Vec<IpAddr> {
    // 0.3.0 and later: a list. 0.2.0 and before: one of each family.
    let listed = result["ips"].as_array().into_iter().flatten().map(|ip| &ip["address"]);
    let old = ["ip4", "ip6"].into_iter().map(|family| &result[family]["ip"]);
    let address = |text: &Value| text.as_str()?.split('/').next()?.parse().ok();
    listed.chain(old).filter_map(address).collect()
}

/// The message of a plugin's error object: `msg`, and `details` where they say more.
pub(super) fn error(output: &str) -> Option<String> {
    let object: Value = serde_json::from_str(output).ok()?;
    let text = |key: &str| object[key].as_str().filter(|text| !text.is_empty());
    match (text("msg"), text("details")) {
        (Some(message), Some(details)) => Some(format!("{message}: {details}")),
        (Some(message), None) => Some(message.to_owned()),
        (None, details) => details.map(ToOwned::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_read_from_every_version() {
        let new = json!({ "ips": [{ "address": "10.1.2.3/16" }, { "address": "fd00::3/64" }] });
        let old = json!({ "ip4": { "ip": "10.1.2.3/16" }, "ip6": { "ip": "fd00::3/64" } });
        let both: Vec<IpAddr> = vec!["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        assert_eq!(ips(&new), both);
        assert_eq!(ips(&old), both);
    }

    #[test]
    fn a_hostile_result_has_no_addresses() {
        for result in [
            json!(null),
            json!([]),
            json!({ "ips": "10.0.0.1" }),
            json!({ "ips": [1, { "address": 7 }, { "address": "../etc" }] }),
        ] {
            assert_eq!(ips(&result), Vec::<IpAddr>::new());
        }
    }

    #[test]
    fn a_plugins_words_are_found() {
        let both = r#"{"code": 11, "msg": "try later", "details": "no address"}"#;
        assert_eq!(error(both).unwrap(), "try later: no address");
        assert_eq!(error(r#"{"msg": "no"}"#).unwrap(), "no");
        assert_eq!(error("not JSON"), None);
    }
}
