//! Programs of others that pods run by: OCI runtimes, CNI plugins, iptables. What they must
//! be, and why. Pure.

use super::Finding;
use super::checks::{install, numbers};
use super::facts::{Facts, Handler, Plugins};

/// What is known of an OCI runtime, by the name that its `--version` begins with.
struct Known {
    name: &'static str,
    /// The oldest that containers can be run with, and what older ones lack.
    oldest: (&'static [u32], &'static str),
    faults: &'static [Fault],
}

/// What is amiss in versions before these, the first of each line that has mended it.
struct Fault {
    mended: &'static [&'static [u32]],
    what: &'static str,
}

const KNOWN: [Known; 3] = [
    Known {
        name: "runc",
        oldest: (&[1, 1, 0], "exec --cgroup, which time limits of probes rest on"),
        faults: &[
            Fault {
                mended: &[&[1, 1, 12]],
                what: "CVE-2024-21626 (the node's files by a leaked descriptor)",
            },
            Fault {
                mended: &[&[1, 2, 8], &[1, 3, 3]],
                what: "CVE-2025-31133, -52565 and -52881 (the node's /proc by replaced mounts)",
            },
        ],
    },
    Known {
        name: "crun",
        oldest: (&[1, 3], "exec --cgroup, which time limits of probes rest on"),
        faults: &[
            Fault { mended: &[&[1, 4, 4]], what: "CVE-2022-27650 (exec inherits capabilities)" },
            Fault {
                mended: &[&[1, 8, 6]],
                what: "no features command, so no recursively read-only mounts",
            },
        ],
    },
    Known {
        name: "youki",
        oldest: (&[0, 5, 0], "exec --preserve-fds as exec and probes need it"),
        faults: &[Fault {
            mended: &[&[0, 5, 7]],
            what: "CVE-2025-62161 and -62596 (the node's /proc by replaced mounts)",
        }],
    },
];
/// `--random-fully`: without it, connections of many pods that are masqueraded at once can be lost.
const RANDOM_IPTABLES: &[u32] = &[1, 6, 2];

impl Fault {
    fn is_mended_in(&self, version: &[u32]) -> bool {
        let same_line = |mended: &[u32]| version.get(..2) == mended.get(..2) && version >= mended;
        self.mended.iter().any(|mended| same_line(mended))
            || self.mended.last().is_none_or(|last| version >= *last)
    }
}

/// One OCI runtime of the settings. What stops the containers of the default one stops pods.
pub(super) fn runtime(facts: &Facts, name: &str, handler: &Handler) -> Finding {
    let title = format!("runtime {name}");
    let is_default = name == facts.default_handler;
    let file = handler.path.file_name().unwrap_or_default().to_string_lossy();
    let useless = |found: String, remedy: String| {
        if is_default {
            return Finding::problem(&title, found, remedy);
        }
        Finding::note(&title, format!("{found}; only pods that ask for {name} need it"), remedy)
    };
    let version = match &handler.version {
        Ok(version) => version,
        Err(why) => return useless(why.clone(), install(facts, &file)),
    };
    let found = format!("{version} ({})", handler.path.display());
    let known = KNOWN.iter().find(|known| version.starts_with(known.name));
    let number = numbers(version.trim_start_matches(|c: char| !c.is_ascii_digit()));
    let Some(known) = known.filter(|_| !number.is_empty()) else {
        return newer_mounts(&title, found, handler);
    };
    let newer = install(facts, known.name);
    let (oldest, lacks) = known.oldest;
    if number.as_slice() < oldest {
        let oldest = oldest.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        return useless(format!("{found}: older than {oldest}, without {lacks}"), newer);
    }
    if known.name == "crun" && facts.cgroups.divided {
        let found = format!("{found}: it runs nothing where controllers are in v1 and v2");
        let remedy = "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line and reboot, or use runc";
        return useless(found, remedy.to_owned());
    }
    let faults = known.faults.iter().filter(|fault| !fault.is_mended_in(&number));
    let faults: Vec<&str> = faults.map(|fault| fault.what).collect();
    if !faults.is_empty() {
        let found =
            format!("{found}: {}; unless the distribution has mended it", faults.join("; "));
        return Finding::note(&title, found, newer);
    }
    newer_mounts(&title, found, handler)
}

fn newer_mounts(title: &str, found: String, handler: &Handler) -> Finding {
    if handler.recursive_readonly {
        return Finding::ok(title, found);
    }
    let found = format!("{found}: no recursively read-only mounts");
    Finding::note(title, found, "install a newer one, if pods ask for such mounts")
}

/// The pod network: its configuration, and whether the plugins it names speak its version of CNI.
pub(super) fn network(facts: &Facts) -> Finding {
    const NAME: &str = "network";
    const PACKAGE: &str = "containernetworking-plugins";
    let Plugins { version, speak } = match &facts.network {
        Ok(plugins) => plugins,
        Err(why) if why.starts_with("no CNI configuration") => {
            return Finding::problem(
                NAME,
                why,
                "mkdir -p /etc/haled/config.d && printf '[network]\\ndefault_bridge = true\\n' > /etc/haled/config.d/network.toml",
            );
        }
        Err(why) => return Finding::problem(NAME, why, install(facts, PACKAGE)),
    };
    for (plugin, versions) in speak {
        match versions {
            Err(why) => {
                let found = format!("the CNI plugin {plugin} doesn't tell its versions: {why}");
                return Finding::problem(NAME, found, install(facts, PACKAGE));
            }
            Ok(versions) if !versions.contains(version) => {
                let found = format!(
                    "the CNI plugin {plugin} speaks {}, and the configuration is of {version}",
                    versions.join(", ")
                );
                let remedy = "install newer plugins, or lower cniVersion in the configuration";
                return Finding::problem(NAME, found, remedy);
            }
            Ok(_) => {}
        }
    }
    let plugins: Vec<&str> = speak.keys().map(String::as_str).collect();
    Finding::ok(NAME, format!("CNI {version}, with {}", plugins.join(", ")))
}

/// What the bridge and portmap plugins call.
pub(super) fn iptables(facts: &Facts) -> Finding {
    const NAME: &str = "iptables";
    let useless = |found: String| {
        if facts.default_bridge {
            let found = format!("{found}: the built-in bridge needs it");
            return Finding::problem(NAME, found, install(facts, NAME));
        }
        let found = format!("{found}: CNI plugins that masquerade or map ports may need it");
        Finding::note(NAME, found, install(facts, NAME))
    };
    let version = match &facts.iptables {
        None => return useless("not found".to_owned()),
        Some(Err(why)) => return useless(format!("can't be run ({why})")),
        Some(Ok(version)) => version,
    };
    let number = numbers(version.trim_start_matches(|c: char| !c.is_ascii_digit()));
    if number.as_slice() < RANDOM_IPTABLES {
        let found = format!("{version}: older than 1.6.2, masqueraded connections can be lost");
        return Finding::note(NAME, found, install(facts, NAME));
    }
    Finding::ok(NAME, version)
}
