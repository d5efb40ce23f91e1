//! A pod's health from its annotations: how it comes through the CRI, which has no probes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Mistakes, clipped, nearest, told};
use super::{BadAnnotation, Heal, Kind, Policy, RestartPolicy, schema};

/// The longest value that is read, in bytes.
const MAX_VALUE: usize = 64 * 1024;
/// The domain of haled's own annotations.
const DOMAIN: &str = "haled";
const RESTART_POLICY: &str = "haled/restart-policy";
const HEAL: &str = "haled/heal";
const PROBES: &[(&str, Kind)] = &[
    ("liveness.haled", Kind::Liveness),
    ("readiness.haled", Kind::Readiness),
    ("startup.haled", Kind::Startup),
];

impl Policy {
    /// Reads `liveness.haled/<container>` and its like; `None` where there is none of them.
    pub fn from_annotations(
        annotations: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, BadAnnotation> {
        let mut policy = Self::default();
        let mut any = false;
        for (key, text) in annotations {
            let Some((domain, name)) = key.split_once('/') else { continue };
            if domain != DOMAIN && !domain.ends_with(".haled") {
                continue;
            }
            any = true;
            let bad = |why: String| BadAnnotation { key: clipped(key).into_owned(), why };
            if text.len() > MAX_VALUE {
                return Err(bad(format!("longer than {MAX_VALUE} bytes")));
            }
            match PROBES.iter().find(|(probe, _)| *probe == domain) {
                Some((_, kind)) if !name.is_empty() => policy.add_probe(*kind, name, text, bad)?,
                Some(_) => return Err(bad("a container's name is missing after the /".to_owned())),
                None if key == RESTART_POLICY => {
                    policy.restart = match text.as_str() {
                        "Always" => RestartPolicy::Always,
                        "OnFailure" => RestartPolicy::OnFailure,
                        "Never" => RestartPolicy::Never,
                        _ => return Err(bad(one_of(text, &["Always", "OnFailure", "Never"]))),
                    };
                }
                None if key == HEAL => {
                    policy.heal = match text.as_str() {
                        "auto" => Heal::Auto,
                        "restart" => Heal::Restart,
                        "kill" => Heal::Kill,
                        "observe" => Heal::Observe,
                        _ => {
                            return Err(bad(one_of(text, &["auto", "restart", "kill", "observe"])));
                        }
                    };
                }
                None => return Err(bad(unknown(domain, name))),
            }
        }
        Ok(any.then_some(policy))
    }

    fn add_probe(
        &mut self,
        kind: Kind,
        container: &str,
        text: &str,
        bad: impl Fn(String) -> BadAnnotation,
    ) -> Result<(), BadAnnotation> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| bad(format!("no JSON: {error}")))?;
        let mut mistakes = Mistakes::default();
        let probe = schema::probe("", &value, kind, None, &mut mistakes)
            .ok_or_else(|| bad(told(&mistakes.0, "; ")))?;
        let probes = self.probes.entry(container.to_owned()).or_default();
        let place = match kind {
            Kind::Startup => &mut probes.startup,
            Kind::Liveness => &mut probes.liveness,
            Kind::Readiness => &mut probes.readiness,
        };
        *place = Some(probe);
        Ok(())
    }
}

fn one_of(found: &str, allowed: &[&str]) -> String {
    let meant = nearest(found, allowed.iter().copied());
    let meant = meant.map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
    format!("is \"{}\": {} are allowed{meant}", clipped(found), allowed.join(", "))
}

/// What was probably meant by a key of haled's that there isn't.
fn unknown(domain: &str, name: &str) -> String {
    let known = if domain == DOMAIN {
        nearest(name, ["restart-policy", "heal"]).map(|near| format!("{DOMAIN}/{near}"))
    } else {
        let domains = PROBES.iter().map(|(probe, _)| *probe);
        nearest(domain, domains).map(|near| format!("{near}/{name}"))
    };
    if let Some(known) = known {
        format!("unknown key, did you mean \"{known}\"?")
    } else {
        let probes: Vec<String> =
            PROBES.iter().map(|(probe, _)| format!("{probe}/<container>")).collect();
        format!("unknown key; there are {}, {RESTART_POLICY} and {HEAL}", probes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Policy>, String> {
        let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Policy::from_annotations(&annotations).map_err(|bad| bad.to_string())
    }

    #[test]
    fn a_pod_without_our_annotations_is_left_alone() {
        assert_eq!(read(&[("app", "web"), ("example.com/heal", "x")]).unwrap(), None);
    }

    #[test]
    fn probes_and_policies_are_read() {
        let policy = read(&[
            ("liveness.haled/app", r#"{"exec": {"command": ["ls", "/tmp/healthy"]}}"#),
            ("haled/restart-policy", "OnFailure"),
            ("haled/heal", "restart"),
        ]);
        let policy = policy.unwrap().unwrap();
        assert_eq!((policy.restart, policy.heal), (RestartPolicy::OnFailure, Heal::Restart));
        let liveness = policy.probes["app"].liveness.as_ref().unwrap();
        assert_eq!(liveness.handler.to_string(), "exec [ls /tmp/healthy]");
    }

    #[test]
    fn a_bad_annotation_says_which_where_and_why() {
        for (key, value, needles) in [
            ("livenes.haled/app", "{}", &["livenes.haled/app", "liveness.haled/app"][..]),
            ("haled/restartpolicy", "x", &["haled/restart-policy"]),
            ("haled/nonsense", "x", &["unknown key; there are"]),
            ("haled/heal", "restrat", &["did you mean \"restart\"?"]),
            ("haled/restart-policy", "always", &["\"Always\""]),
            ("liveness.haled/app", "{", &["no JSON"]),
            ("liveness.haled/", "{}", &["name is missing"]),
            ("liveness.haled/app", r#"{"tcpSocket": {"port": "web"}}"#, &["give its number"]),
            (
                "liveness.haled/app",
                r#"{"tcpSocket": {"port": 1}, "periodSeconds": 0}"#,
                &["periodSeconds: is 0"],
            ),
        ] {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(needles.iter().all(|needle| error.contains(needle)), "{error}");
        }
        let long = " ".repeat(MAX_VALUE + 1);
        assert!(read(&[("liveness.haled/app", &long)]).unwrap_err().contains("longer"));
    }
}
