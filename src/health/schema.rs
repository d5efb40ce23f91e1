//! The Kubernetes `Probe` object, as people write it. Pure.

use std::time::Duration;

use serde_json::Value;

use super::fields::{Field, Mistakes, Object, Shape, default_number};
use super::{Handler, Kind, Probe};

/// The longest of every time, in seconds: Kubernetes' int32.
const MOST_SECONDS: u64 = i32::MAX as u64;
/// The highest threshold.
const MOST_RUNS: u64 = i32::MAX as u64;

const HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const PORT: Shape = Shape::Other("1 to 65535, or the name of one of the container's ports");
const HOST: Field = Field::new("host", Shape::Text("the pod's address"), "Where to connect to.");
/// A command to run.
pub const EXEC: &[Field] = &[Field::needed(
    "command",
    Shape::Texts,
    "The command and its arguments, run in the container without a shell. Exit code 0 passes.",
)];
const TCP_SOCKET: &[Field] =
    &[Field::needed("port", PORT, "Passes when it can be connected to."), HOST];
const GRPC: &[Field] = &[
    Field::needed("port", Shape::Number(1, 65535, None), "Of the gRPC health service."),
    Field::new("service", Shape::Text(""), "What is asked about."),
];
const HTTP_HEADER: &[Field] = &[
    Field::needed("name", Shape::Text(""), "The header's name."),
    Field::new("value", Shape::Text(""), "The header's value."),
];
/// A page to get.
pub const HTTP_GET: &[Field] = &[
    Field::new("path", Shape::Text("/"), "What is got, with its query. 200 to 399 passes."),
    Field::needed("port", PORT, "Of the server."),
    HOST,
    Field::new(
        "scheme",
        Shape::Word(&["HTTP", "HTTPS"], "HTTP"),
        "With HTTPS the certificate is not looked at.",
    ),
    Field::new("httpHeaders", Shape::Objects(HTTP_HEADER), "Sent with the request."),
];
/// A probe's fields.
pub const FIELDS: &[Field] = &[
    Field::new("exec", Shape::Object(EXEC), "Runs a command in the container."),
    Field::new("httpGet", Shape::Object(HTTP_GET), "Gets a page."),
    Field::new("tcpSocket", Shape::Object(TCP_SOCKET), "Connects to a port."),
    Field::new("grpc", Shape::Object(GRPC), "Asks a gRPC health service."),
    Field::new(
        "initialDelaySeconds",
        Shape::Number(0, MOST_SECONDS, Some(0)),
        "From the container's start to the first run.",
    ),
    Field::new(
        "initialDelayMilliseconds",
        Shape::Number(0, MOST_SECONDS, None),
        "In place of initialDelaySeconds; haled's own.",
    ),
    Field::new("periodSeconds", Shape::Number(1, MOST_SECONDS, Some(10)), "From run to run."),
    Field::new(
        "periodMilliseconds",
        Shape::Number(100, MOST_SECONDS, None),
        "In place of periodSeconds; haled's own.",
    ),
    Field::new(
        "timeoutSeconds",
        Shape::Number(1, MOST_SECONDS, Some(1)),
        "A run that takes longer has failed; a command is killed.",
    ),
    Field::new(
        "timeoutMilliseconds",
        Shape::Number(1, MOST_SECONDS, None),
        "In place of timeoutSeconds; haled's own.",
    ),
    Field::new(
        "successThreshold",
        Shape::Number(1, MOST_RUNS, Some(1)),
        "Runs in a row that pass until the probe passes again; 1 but for readiness.",
    ),
    Field::new(
        "failureThreshold",
        Shape::Number(1, MOST_RUNS, Some(3)),
        "Runs in a row that fail until the probe fails: liveness and startup then have the \
         container killed and started again, readiness has it not ready.",
    ),
    Field::new(
        "terminationGracePeriodSeconds",
        Shape::Number(1, MOST_SECONDS, None),
        "The time the container has to end when this probe has failed, in place of the pod's. \
         Not of readiness.",
    ),
];

/// A container's named ports. `None`: the names aren't known here.
pub type Ports<'a> = Option<&'a [(String, u16)]>;

/// Reads a probe. `None` where there were mistakes.
pub fn probe(
    path: &str,
    value: &Value,
    kind: Kind,
    ports: Ports<'_>,
    mistakes: &mut Mistakes,
) -> Option<Probe> {
    let before = mistakes.0.len();
    let object = Object::new(path, value, mistakes)?;
    object.known(FIELDS, &[], mistakes);
    let handler = handler(&object, ports, mistakes);
    let initial_delay = time(&object, "initialDelay", mistakes);
    let period = time(&object, "period", mistakes);
    let timeout = time(&object, "timeout", mistakes);
    let runs = |name, mistakes: &mut Mistakes| {
        let given = object.number(FIELDS, name, mistakes);
        // The table's bounds are an i32's.
        given.unwrap_or_else(|| default_number(FIELDS, name)) as u32
    };
    let success_threshold = runs("successThreshold", mistakes);
    let failure_threshold = runs("failureThreshold", mistakes);
    if kind != Kind::Readiness && success_threshold != 1 {
        let what = format!("is {success_threshold}: a {} probe's can only be 1", kind.as_str());
        mistakes.add(object.at("successThreshold"), what);
    }
    let grace = "terminationGracePeriodSeconds";
    let termination_grace = object.number(FIELDS, grace, mistakes);
    if kind == Kind::Readiness && object.get(grace).is_some() {
        mistakes.add(object.at(grace), "a readiness probe stops nothing, so it can't have one");
    }
    let handler = handler.filter(|_| mistakes.0.len() == before)?;
    Some(Probe {
        handler,
        initial_delay,
        period,
        timeout,
        success_threshold,
        failure_threshold,
        termination_grace: termination_grace.map(Duration::from_secs),
    })
}

/// `<name>Seconds`, or `<name>Milliseconds` in its place.
fn time(object: &Object<'_>, name: &str, mistakes: &mut Mistakes) -> Duration {
    let (seconds, millis) = (format!("{name}Seconds"), format!("{name}Milliseconds"));
    if object.get(&seconds).is_some() && object.get(&millis).is_some() {
        mistakes.add(object.path.clone(), format!("{seconds} and {millis} can't both be there"));
    }
    if let Some(given) = object.number(FIELDS, &millis, mistakes) {
        return Duration::from_millis(given);
    }
    let given = object.number(FIELDS, &seconds, mistakes);
    Duration::from_secs(given.unwrap_or_else(|| default_number(FIELDS, &seconds)))
}

/// Reads what a probe or a hook does.
pub(crate) fn handler(
    object: &Object<'_>,
    ports: Ports<'_>,
    mistakes: &mut Mistakes,
) -> Option<Handler> {
    let there: Vec<&str> =
        HANDLERS.iter().copied().filter(|name| object.get(name).is_some()).collect();
    let [name] = there[..] else {
        let found = if there.is_empty() { "none".to_owned() } else { there.join(" and ") };
        let what = format!("exactly one of {} is wanted, found {found}", HANDLERS.join(", "));
        mistakes.add(object.path.clone(), what);
        return None;
    };
    let inner = object.object(name, mistakes)?;
    match name {
        "exec" => {
            inner.known(EXEC, &[], mistakes);
            let command = inner.strings("command", mistakes);
            if command.first().is_none_or(String::is_empty) {
                mistakes.add(inner.at("command"), "is empty: name a command and its arguments");
                return None;
            }
            Some(Handler::Exec { command })
        }
        "tcpSocket" => {
            inner.known(TCP_SOCKET, &[], mistakes);
            let host = host(&inner, mistakes);
            Some(Handler::TcpSocket { port: port(&inner, ports, mistakes)?, host })
        }
        "grpc" => {
            inner.known(GRPC, &[], mistakes);
            let service = inner.string("service", mistakes).unwrap_or_default();
            if inner.get("port").is_none() {
                mistakes.add(inner.path.clone(), "field \"port\" is missing");
            }
            // A name is no port here, as in Kubernetes.
            let port = inner.number(GRPC, "port", mistakes)?;
            Some(Handler::Grpc { port: u16::try_from(port).ok()?, service })
        }
        _ => http_get(&inner, ports, mistakes),
    }
}

fn http_get(object: &Object<'_>, ports: Ports<'_>, mistakes: &mut Mistakes) -> Option<Handler> {
    object.known(HTTP_GET, &[], mistakes);
    let path = object.string("path", mistakes).unwrap_or_default();
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        mistakes.add(object.at("path"), "has spaces or control characters: write them as %20");
    }
    let tls = object.word(HTTP_GET, "scheme", mistakes) == Some("HTTPS");
    let mut headers = Vec::new();
    for (path, value) in object.list("httpHeaders", mistakes) {
        let Some(header) = Object::new(path.clone(), value, mistakes) else { continue };
        header.known(HTTP_HEADER, &[], mistakes);
        let Some(name) = header.required("name", mistakes) else { continue };
        let value = header.string("value", mistakes).unwrap_or_default();
        let good = hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
            && hyper::header::HeaderValue::from_str(&value).is_ok();
        if !good {
            mistakes.add(path, format!("{name:?}: {value:?} is no HTTP header"));
        }
        headers.push((name, value));
    }
    let host = host(object, mistakes);
    Some(Handler::HttpGet { path, port: port(object, ports, mistakes)?, host, tls, headers })
}

fn host(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<String> {
    let host = object.string("host", mistakes).filter(|host| !host.is_empty())?;
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c);
    if host.contains(forbidden) {
        mistakes.add(object.at("host"), format!("{host:?} is no host name or address"));
    }
    Some(host)
}

/// A number, or the name of one of the container's ports.
fn port(object: &Object<'_>, ports: Ports<'_>, mistakes: &mut Mistakes) -> Option<u16> {
    let Some(value) = object.get("port") else {
        mistakes.add(object.path.clone(), "field \"port\" is missing");
        return None;
    };
    let Value::String(name) = value else {
        return object
            .integer("port", 1..=65535, mistakes)
            .and_then(|port| u16::try_from(port).ok());
    };
    let named = ports.and_then(|ports| ports.iter().find(|(port, _)| port == name));
    if named.is_none() {
        let what = match ports {
            Some([]) => format!("\"{name}\" names no port: the container has none with a name"),
            Some(ports) => {
                let names: Vec<&str> = ports.iter().map(|(name, _)| name.as_str()).collect();
                format!("\"{name}\" names no port of the container; it has {}", names.join(", "))
            }
            None => format!("\"{name}\": a port's name isn't known here, give its number"),
        };
        mistakes.add(object.at("port"), what);
    }
    named.map(|(_, port)| *port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value, kind: Kind) -> Result<Probe, Vec<String>> {
        let mut mistakes = Mistakes::default();
        let ports = [("web".to_owned(), 8080)];
        let probe = probe("p", value, kind, Some(&ports), &mut mistakes);
        probe.ok_or_else(|| mistakes.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_kubernetes() {
        let probe = read(&json!({ "exec": { "command": ["ls"] } }), Kind::Liveness).unwrap();
        assert_eq!(probe.initial_delay, Duration::ZERO);
        assert_eq!(probe.period, Duration::from_secs(10));
        assert_eq!(probe.timeout, Duration::from_secs(1));
        assert_eq!((probe.success_threshold, probe.failure_threshold), (1, 3));
        let probe = read(&json!({ "httpGet": { "port": "web" } }), Kind::Liveness).unwrap();
        assert_eq!(probe.handler.to_string(), "http-get http://:8080/");
    }

    #[test]
    fn milliseconds_stand_in_place_of_seconds() {
        let value = json!({ "tcpSocket": { "port": 1 }, "periodMilliseconds": 100 });
        assert_eq!(read(&value, Kind::Liveness).unwrap().period, Duration::from_millis(100));
    }

    #[test]
    fn every_mistake_is_named() {
        let tcp = |more: Value| {
            let mut probe = json!({ "tcpSocket": { "port": 1 } });
            probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            probe
        };
        let cases = [
            (json!([]), "p: an object is wanted, not a list"),
            (json!({}), "found none"),
            (json!({ "exec": {}, "tcpSocket": {} }), "found exec and tcpSocket"),
            (json!({ "exec": { "command": [] } }), "p.exec.command: is empty"),
            (json!({ "exec": { "comand": ["x"] } }), "did you mean \"command\"?"),
            (json!({ "grpc": {} }), "p.grpc: field \"port\" is missing"),
            (json!({ "grpc": { "port": "web" } }), "p.grpc.port: is \"web\""),
            (json!({ "grpc": { "port": 1, "servise": "a" } }), "did you mean \"service\"?"),
            (json!({ "tcpSocket": {} }), "p.tcpSocket: field \"port\" is missing"),
            (json!({ "tcpSocket": { "port": 0 } }), "from 1 to 65535"),
            (json!({ "tcpSocket": { "port": "db" } }), "it has web"),
            (json!({ "httpGet": { "port": 80, "scheme": "ftp" } }), "p.httpGet.scheme"),
            (
                json!({ "httpGet": { "port": 80, "httpHeaders": [{ "name": "a b" }] } }),
                "p.httpGet.httpHeaders[0]",
            ),
            (tcp(json!({ "periodSeconds": 0 })), "p.periodSeconds: is 0: whole numbers from 1"),
            (tcp(json!({ "periodMilliseconds": 99 })), "from 100"),
            (tcp(json!({ "periodSeconds": 1.5 })), "is 1.5"),
            (tcp(json!({ "timeoutSeconds": "1" })), "is \"1\""),
            (tcp(json!({ "timeoutSeconds": 1, "timeoutMilliseconds": 5 })), "can't both"),
            (tcp(json!({ "successThreshold": 2 })), "can only be 1"),
            (tcp(json!({ "terminationGracePeriodSeconds": 0 })), "from 1"),
            (tcp(json!({ "periodSecond": 1 })), "did you mean \"periodSeconds\"?"),
        ];
        for (value, needle) in cases {
            let mistakes = read(&value, Kind::Liveness).unwrap_err();
            assert!(
                mistakes.iter().any(|mistake| mistake.contains(needle)),
                "{needle}: {mistakes:?}"
            );
        }
        let graceful = tcp(json!({ "terminationGracePeriodSeconds": 5 }));
        assert!(read(&graceful, Kind::Readiness).unwrap_err()[0].contains("readiness"));
        let two = tcp(json!({ "successThreshold": 2 }));
        assert_eq!(read(&two, Kind::Readiness).unwrap().success_threshold, 2);
    }
}
