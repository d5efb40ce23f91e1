//! Capabilities: the default set, and what a request makes of it (capabilities(7)).

use std::collections::HashSet;

use oci_spec::runtime::LinuxCapabilities;

use super::Error;
use super::model::CapabilityRequest;

/// A capability by the kernel's number and name.
pub(super) use caps::Capability;

/// What a container has unless it asks otherwise: the set of Docker and containerd.
pub(super) const DEFAULT: [Capability; 14] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// The sets of a container's process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sets {
    /// Bounding, effective and permitted.
    pub(super) held: HashSet<Capability>,
    /// Ambient, and inheritable with it: without being both a capability can't be ambient.
    pub(super) ambient: HashSet<Capability>,
}

/// One name of a request.
enum Name {
    All,
    One(Capability),
}

/// What a request gives on a host that can give `available`.
///
/// `ALL` is settled first (a dropped one beats an added one), then single drops, then single
/// adds: a capability both dropped and added by name is there.
pub(super) fn resolve(
    request: &CapabilityRequest,
    privileged: bool,
    available: &HashSet<Capability>,
) -> Result<Sets, Error> {
    let add = parse("capabilities.add", &request.add)?;
    let drop = parse("capabilities.drop", &request.drop)?;
    let ambient = parse("capabilities.ambient", &request.ambient)?;
    let has_all = |names: &[Name]| names.iter().any(|name| matches!(name, Name::All));

    let mut held = if privileged {
        available.clone()
    } else if has_all(&drop) {
        HashSet::new()
    } else if has_all(&add) {
        available.clone()
    } else {
        DEFAULT.into_iter().filter(|each| available.contains(each)).collect()
    };
    if privileged {
        // All of them whatever else is asked, as the CRI has it.
        let ambient = added("capabilities.ambient", &ambient, &held, available)?;
        return Ok(Sets { held, ambient });
    }
    for name in drop {
        if let Name::One(capability) = name {
            held.remove(&capability);
        }
    }
    held.extend(added("capabilities.add", &add, &HashSet::new(), available)?);
    let ambient = added("capabilities.ambient", &ambient, &held, available)?;
    held.extend(&ambient);
    Ok(Sets { held, ambient })
}

/// The single ones of a list; `ALL` stands for `all`.
fn added(
    field: &str,
    names: &[Name],
    all: &HashSet<Capability>,
    available: &HashSet<Capability>,
) -> Result<HashSet<Capability>, Error> {
    let mut set = HashSet::new();
    for name in names {
        match name {
            Name::All => set.extend(all),
            Name::One(capability) if available.contains(capability) => {
                set.insert(*capability);
            }
            Name::One(capability) => {
                return Err(Error::unsupported(
                    field,
                    format!("{capability} can't be given: haled itself runs without it"),
                ));
            }
        }
    }
    Ok(set)
}

fn parse(field: &str, names: &[String]) -> Result<Vec<Name>, Error> {
    names.iter().map(|name| parse_one(field, name)).collect()
}

/// `NET_ADMIN`, `cap_net_admin` or `ALL`, in any case.
fn parse_one(field: &str, name: &str) -> Result<Name, Error> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(Name::All);
    }
    format!("CAP_{bare}").parse().map(Name::One).map_err(|_| {
        Error::invalid(field, name, "is no capability: see capabilities(7), or ALL for every one")
    })
}

/// This process's bounding set.
pub(super) fn bounding() -> Result<HashSet<Capability>, Error> {
    let set = caps::read(None, caps::CapSet::Bounding).map_err(|error| {
        Error::host("read the bounding set", std::io::Error::other(error.to_string()))
    })?;
    Ok(set.into_iter().collect())
}

/// Whether this process can use a capability now.
pub(super) fn is_effective(capability: Capability) -> bool {
    caps::has_cap(None, caps::CapSet::Effective, capability).unwrap_or(false)
}

/// In the words of the runtime specification.
pub(super) fn to_spec(sets: &Sets) -> LinuxCapabilities {
    let convert = |set: &HashSet<Capability>| -> Option<oci_spec::runtime::Capabilities> {
        let name = |each: &Capability| each.to_string();
        // Both crates know every capability of the kernel; the specification's is named
        // without the prefix.
        let parse = |name: String| name.trim_start_matches("CAP_").parse().ok();
        Some(set.iter().map(name).filter_map(parse).collect())
    };
    let mut spec = LinuxCapabilities::default();
    spec.set_bounding(convert(&sets.held))
        .set_effective(convert(&sets.held))
        .set_permitted(convert(&sets.held))
        .set_inheritable(convert(&sets.ambient))
        .set_ambient(convert(&sets.ambient));
    spec
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every() -> HashSet<Capability> {
        caps::all().into_iter().collect()
    }

    fn request(add: &[&str], drop: &[&str], ambient: &[&str]) -> CapabilityRequest {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        CapabilityRequest { add: own(add), drop: own(drop), ambient: own(ambient) }
    }

    fn held(add: &[&str], drop: &[&str]) -> HashSet<Capability> {
        resolve(&request(add, drop, &[]), false, &every()).unwrap().held
    }

    #[test]
    fn names_come_in_any_case_with_and_without_prefix() {
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "Cap_Net_Admin"] {
            assert!(held(&[name], &["all"]) == [Capability::CAP_NET_ADMIN].into(), "{name}");
        }
    }

    #[test]
    fn all_is_settled_before_names() {
        let defaults: HashSet<_> = DEFAULT.into();
        assert_eq!(held(&[], &[]), defaults);
        assert_eq!(held(&["ALL"], &[]), every());
        assert_eq!(held(&[], &["ALL"]), HashSet::new());
        assert_eq!(held(&["ALL"], &["ALL"]), HashSet::new());
        assert_eq!(held(&["KILL"], &["ALL"]), [Capability::CAP_KILL].into());
        assert!(!held(&["ALL"], &["SYS_ADMIN"]).contains(&Capability::CAP_SYS_ADMIN));
        assert!(held(&["KILL"], &["KILL"]).contains(&Capability::CAP_KILL));
    }

    #[test]
    fn an_ambient_capability_is_held_and_inheritable_too() {
        let request = request(&[], &["ALL"], &["NET_BIND_SERVICE"]);
        let sets = resolve(&request, false, &every()).unwrap();
        assert_eq!(sets.held, [Capability::CAP_NET_BIND_SERVICE].into());
        let spec = to_spec(&sets);
        assert_eq!(spec.inheritable(), spec.ambient());
        assert_eq!(spec.ambient().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_name_is_refused_even_when_privileged() {
        for privileged in [false, true] {
            let error = resolve(&request(&["NET_ADMIM"], &[], &[]), privileged, &every());
            let text = error.unwrap_err().to_string();
            assert!(text.starts_with("capabilities.add: \"NET_ADMIM\" is no capability"), "{text}");
        }
    }

    #[test]
    fn nothing_is_given_that_the_host_lacks() {
        let mut host = every();
        host.remove(&Capability::CAP_SYS_RESOURCE);
        host.remove(&Capability::CAP_KILL);
        let all = resolve(&request(&["ALL"], &[], &[]), false, &host).unwrap().held;
        assert_eq!(all, host);
        let default = resolve(&request(&[], &[], &[]), false, &host).unwrap().held;
        assert!(!default.contains(&Capability::CAP_KILL));
        let named = resolve(&request(&["SYS_RESOURCE"], &[], &[]), false, &host).unwrap_err();
        assert!(named.to_string().contains("CAP_SYS_RESOURCE can't be given"), "{named}");
    }

    #[test]
    fn the_specification_knows_every_capability() {
        let sets = Sets { held: every(), ambient: HashSet::new() };
        assert_eq!(to_spec(&sets).bounding().as_ref().unwrap().len(), every().len());
    }

    proptest! {
        #[test]
        fn a_request_never_gives_more_than_the_host_has(
            add in proptest::sample::subsequence(names(), 0..5),
            drop in proptest::sample::subsequence(names(), 0..5),
            host in proptest::sample::subsequence(every().into_iter().collect::<Vec<_>>(), 0..41),
            privileged: bool,
        ) {
            let host: HashSet<_> = host.into_iter().collect();
            let request = CapabilityRequest { add: add.clone(), drop: drop.clone(), ambient: vec![] };
            if let Ok(sets) = resolve(&request, privileged, &host) {
                prop_assert!(sets.held.is_subset(&host));
                let has = |list: &[String], c: &Capability| list.contains(&c.to_string());
                for capability in every() {
                    if privileged {
                        prop_assert_eq!(sets.held.contains(&capability), host.contains(&capability));
                    } else if has(&add, &capability) {
                        prop_assert!(sets.held.contains(&capability));
                    } else if has(&drop, &capability) {
                        prop_assert!(!sets.held.contains(&capability));
                    }
                }
            }
        }

        #[test]
        fn any_name_is_taken_or_refused_without_a_panic(name in "\\PC*") {
            let request = CapabilityRequest { add: vec![name], drop: vec![], ambient: vec![] };
            drop(resolve(&request, false, &every()));
        }
    }

    fn names() -> Vec<String> {
        let mut names: Vec<String> = every().iter().map(ToString::to_string).collect();
        names.push("ALL".to_owned());
        names
    }
}
