//! Which protocol client and server speak, from the request's headers.

use hyper::header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// A client says what it speaks in these, repeated or parted by commas.
pub(super) const VERSION: &str = "x-stream-protocol-version";
/// A refusal says what is spoken in these.
pub(super) const ACCEPTED: &str = "x-accepted-stream-protocol-versions";
/// Of exec and attach; the digit is the version.
pub(super) const COMMAND: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Of port-forward.
pub(super) const PORT_FORWARD: &[&str] = &["portforward.k8s.io"];

/// Of exec and attach over WebSocket.
pub(super) const COMMAND_WEBSOCKET: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// Port-forward over WebSocket: SPDY in a tunnel.
pub(super) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Of port-forward over WebSocket: the tunnel, and before there was one, two channels a port.
pub(super) const PORT_FORWARD_WEBSOCKET: &[&str] =
    &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// Ports of one connection: a channel's number is a byte, and in base64 a character.
const MAX_PORTS: usize = 32;

/// Adds the ports of a request's query, as in `port=80&port=443,8080`, to those there are;
/// or says what is wrong with them.
pub(super) fn ports(query: Option<&str>, ports: &mut Vec<u16>) -> Result<(), String> {
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name != "port" && name != "ports" {
            continue;
        }
        for text in value.split(',') {
            let port = text.parse().ok().filter(|port| *port > 0);
            let port = port.ok_or_else(|| format!("{text:?} is no port: 1 to 65535 are"))?;
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    match ports.len() {
        0 => Err("query parameter \"port\" is required: a port to forward".to_owned()),
        1..=MAX_PORTS => Ok(()),
        number => Err(format!("{number} ports, where {MAX_PORTS} are the most")),
    }
}

/// The protocol of a WebSocket. A client that offers none gets the oldest, without a name.
pub(super) fn websocket_subprotocol(
    headers: &HeaderMap,
    spoken: &[&'static str],
) -> Result<&'static str, Refusal> {
    let mut offered = tokens(headers, SEC_WEBSOCKET_PROTOCOL.as_str()).peekable();
    if offered.peek().is_none() {
        return Ok("");
    }
    let offered: Vec<&str> = offered.collect();
    let found = offered.iter().find_map(|offer| spoken.iter().find(|known| *known == offer));
    found.copied().ok_or_else(|| {
        Refusal::Forbidden(format!(
            "requested protocol(s) are not supported: {offered:?}; supports {spoken:?}"
        ))
    })
}

/// Why a request is refused, as Kubernetes' own streaming library answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400.
    BadRequest(String),
    /// 403, with what is accepted.
    Forbidden(String),
}

/// The client's first protocol that is spoken here.
pub(super) fn subprotocol(
    headers: &HeaderMap,
    spoken: &[&'static str],
) -> Result<&'static str, Refusal> {
    let offered: Vec<&str> = tokens(headers, VERSION).collect();
    if offered.is_empty() {
        let why = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(Refusal::BadRequest(why.to_owned()));
    }
    let found = offered.iter().find_map(|offer| spoken.iter().find(|known| *known == offer));
    found.copied().ok_or_else(|| {
        Refusal::Forbidden(format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, \
             server accepts {spoken:?}"
        ))
    })
}

/// Whether the request asks for an upgrade to this protocol.
pub(super) fn upgrades_to(headers: &HeaderMap, protocol: &str) -> bool {
    let has = |name, wanted: &str| tokens(headers, name).any(|it| it.eq_ignore_ascii_case(wanted));
    has(CONNECTION.as_str(), "upgrade") && has(UPGRADE.as_str(), protocol)
}

/// All values of all headers of a name.
pub(super) fn tokens<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// `v4.channel.k8s.io` is 4; without a number it is 1.
pub(super) fn version(subprotocol: &str) -> u8 {
    let digit = subprotocol.strip_prefix('v').and_then(|rest| rest.bytes().next());
    digit.filter(u8::is_ascii_digit).map_or(1, |digit| digit - b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn every_value_of_every_repeated_header_counts() {
        let offer = |all: &[&'static str]| {
            let pairs: Vec<_> = all.iter().map(|value| (VERSION, *value)).collect();
            subprotocol(&headers(&pairs), COMMAND)
        };
        assert_eq!(offer(&["v5.channel.k8s.io", "v4.channel.k8s.io"]), Ok("v4.channel.k8s.io"));
        assert_eq!(offer(&["v9, v2.channel.k8s.io", "v4.channel.k8s.io"]), Ok("v2.channel.k8s.io"));
        assert!(matches!(offer(&["v5.channel.k8s.io"]), Err(Refusal::Forbidden(_))));
        assert!(matches!(offer(&[]), Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn an_upgrade_is_asked_for_in_any_case() {
        let asks = |connection, upgrade| {
            upgrades_to(&headers(&[("connection", connection), ("upgrade", upgrade)]), "SPDY/3.1")
        };
        assert!(asks("Upgrade", "SPDY/3.1"));
        assert!(asks("keep-alive, upgrade", "spdy/3.1"));
        assert!(!asks("close", "SPDY/3.1"));
        assert!(!asks("Upgrade", "websocket"));
    }

    #[test]
    fn ports_of_a_query_come_to_those_of_the_call() {
        let all = |query, ports: &[u16]| {
            let mut ports = ports.to_vec();
            super::ports(query, &mut ports).map(|()| ports)
        };
        assert_eq!(all(Some("port=80&x=y&ports=443%2C8080,80"), &[]), Ok(vec![80, 443, 8080]));
        assert_eq!(all(None, &[80]), Ok(vec![80]));
        assert_eq!(all(Some("port=81"), &[80]), Ok(vec![80, 81]));
        for query in ["", "port=", "port=0", "port=65536", "port=80,", "port=-1", "port=http"] {
            assert!(all(Some(query), &[]).is_err(), "{query}");
        }
        assert!(all(None, &[7; MAX_PORTS + 1]).unwrap_err().contains("33 ports"));
    }

    #[test]
    fn versions() {
        let all = [("v4.channel.k8s.io", 4), ("channel.k8s.io", 1), ("", 1), ("v5.base64.x", 5)];
        for (name, number) in all {
            assert_eq!(version(name), number);
        }
    }
}
