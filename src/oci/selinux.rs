//! SELinux: the labels of a container. The kernel's part is in `sys::selinux`.
//!
//! A process is kept from the files of other pods by the level of its label: two categories
//! that no other pod has (the kernel's "multi-category security").

use std::fs;
use std::path::Path;
use std::sync::Once;

use super::Error;
use super::model::{Security, SelinuxOptions};

/// Categories of a level, as every policy has them: c0 to c1023.
const CATEGORIES: u32 = 1024;
/// What a policy says of containers, in the order in which it is looked for; `TYPE` is the
/// policy's name.
const CONTEXTS: [&str; 2] =
    ["/usr/share/containers/selinux/contexts", "/etc/selinux/TYPE/contexts/lxc_contexts"];
/// Where a policy doesn't say.
const PROCESS: &str = "system_u:system_r:container_t:s0";
const FILE: &str = "system_u:object_r:container_file_t:s0";

/// The labels of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Of its processes; `None`: as the policy has it for who starts them.
    pub process: Option<String>,
    /// Of its files.
    pub mount: String,
}

/// The labels of a container of a pod with this level; `None` where SELinux isn't active:
/// what was asked for is then without effect, as other runtimes have it. Blocks for some reads.
pub fn labels(security: &Security, pod_level: &str) -> Result<Option<Labels>, Error> {
    let wanted = &security.selinux;
    check(wanted)?;
    if !crate::sys::selinux::is_active() {
        if *wanted != SelinuxOptions::default() {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!("SELinux isn't active on this machine: selinux_options are ignored");
            });
        }
        return Ok(None);
    }
    let (process, file) = contexts(&|path| fs::read_to_string(path).ok());
    Ok(Some(make(&process, &file, security, pod_level)))
}

/// The level of the pod with this id, as random as the id.
pub fn level_of(id: &str) -> String {
    let digits = id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let number = digits.unwrap_or_default();
    let (one, other) = (number % CATEGORIES, number / CATEGORIES % CATEGORIES);
    let other = if one == other { (other + 1) % CATEGORIES } else { other };
    format!("s0:c{},c{}", one.min(other), one.max(other))
}

fn make(process: &str, file: &str, security: &Security, pod_level: &str) -> Labels {
    let wanted = &security.selinux;
    let level = if wanted.level.is_empty() { pod_level } else { &wanted.level };
    let or = |wanted: &str, default: &str| {
        if wanted.is_empty() { default.to_owned() } else { wanted.to_owned() }
    };
    let [user, role, kind] = parts(process);
    let process = [or(&wanted.user, user), or(&wanted.role, role), or(&wanted.kind, kind)];
    // Role and type are the process's alone: files keep theirs.
    let [user, role, kind] = parts(file);
    Labels {
        process: (!security.privileged).then(|| format!("{}:{level}", process.join(":"))),
        mount: format!("{}:{role}:{kind}:{level}", or(&wanted.user, user)),
    }
}

/// User, role and type.
fn parts(label: &str) -> [&str; 3] {
    let mut parts = label.splitn(4, ':');
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The labels of processes and of files, as the machine's policy has them for containers.
fn contexts(read: &impl Fn(&str) -> Option<String>) -> (String, String) {
    let config = read("/etc/selinux/config").unwrap_or_default();
    let kind = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let kind = kind.unwrap_or("targeted").trim();
    let text = CONTEXTS.iter().find_map(|path| read(&path.replace("TYPE", kind)));
    let text = text.unwrap_or_default();
    let value = |key: &str, default: &str| {
        let line = |line: &str| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
        };
        let whole = |label: &String| parts(label).iter().all(|part| !part.is_empty());
        text.lines().find_map(line).filter(whole).unwrap_or_else(|| default.to_owned())
    };
    (value("process", PROCESS), value("file", FILE))
}

fn check(wanted: &SelinuxOptions) -> Result<(), Error> {
    let SelinuxOptions { user, role, kind, level } = wanted;
    for (field, value) in [("user", user), ("role", role), ("type", kind), ("level", level)] {
        if !SelinuxOptions::can_have(field, value) {
            let field = format!("selinux_options.{field}");
            return Err(Error::invalid(&field, value, "is no part of an SELinux label"));
        }
    }
    Ok(())
}

/// Why the files below a path may not be labelled for one pod: the machine needs them.
pub fn refuse_relabel(path: &Path) -> Result<(), Error> {
    const NEEDED: [&str; 24] = [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/etc/passwd",
        "/etc/pki",
        "/etc/shadow",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/var",
        "/var/lib",
        "/var/log",
    ];
    if NEEDED.iter().any(|needed| path == Path::new(needed)) {
        let why = "is the machine's own: it can't be labelled for a pod (mounts[].selinux_relabel)";
        return Err(Error::invalid("mounts", path.display(), why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVEL: &str = "s0:c1,c2";

    fn security(selinux: SelinuxOptions) -> Security {
        Security { selinux, ..Security::default() }
    }

    #[test]
    fn without_a_word_a_container_has_the_policys_types_and_its_pods_level() {
        let labels = make(PROCESS, FILE, &security(SelinuxOptions::default()), LEVEL);
        assert_eq!(labels.process.as_deref(), Some("system_u:system_r:container_t:s0:c1,c2"));
        assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c1,c2");
    }

    #[test]
    fn what_is_asked_for_is_the_processes_and_user_and_level_the_files_too() {
        let own = |text: &str| text.to_owned();
        let wanted =
            SelinuxOptions { user: own("u"), role: own("r"), kind: own("t"), level: own("s0:c9") };
        let labels = make(PROCESS, FILE, &security(wanted), LEVEL);
        assert_eq!(labels.process.as_deref(), Some("u:r:t:s0:c9"));
        assert_eq!(labels.mount, "u:object_r:container_file_t:s0:c9");
    }

    #[test]
    fn a_privileged_container_is_not_confined_but_its_files_are_its_pods() {
        let security = Security { privileged: true, ..Security::default() };
        let labels = make(PROCESS, FILE, &security, LEVEL);
        assert_eq!(labels.process, None);
        assert!(labels.mount.ends_with(LEVEL));
    }

    #[test]
    fn the_policys_own_words_go_first() {
        let read = |path: &str| match path {
            "/etc/selinux/config" => Some("# x\nSELINUX=enforcing\nSELINUXTYPE=mls\n".to_owned()),
            "/etc/selinux/mls/contexts/lxc_contexts" => {
                Some("process = \"a:b:c:s0\"\nfile=\"d:e:f:s0\"\nro_file=\"x\"\n".to_owned())
            }
            _ => None,
        };
        assert_eq!(contexts(&read), ("a:b:c:s0".to_owned(), "d:e:f:s0".to_owned()));
        let broken = |_: &str| Some("process = nonsense\nfile".to_owned());
        assert_eq!(contexts(&broken), (PROCESS.to_owned(), FILE.to_owned()));
        assert_eq!(contexts(&|_| None), (PROCESS.to_owned(), FILE.to_owned()));
    }

    #[test]
    fn what_is_no_part_of_a_label_is_refused_by_name() {
        for (field, wanted) in [
            ("type", SelinuxOptions { kind: "a:b".into(), ..Default::default() }),
            ("user", SelinuxOptions { user: "a\"b".into(), ..Default::default() }),
            ("level", SelinuxOptions { level: "s0 c1".into(), ..Default::default() }),
            ("role", SelinuxOptions { role: "r".repeat(256), ..Default::default() }),
        ] {
            let error = check(&wanted).unwrap_err().to_string();
            assert!(error.contains(&format!("selinux_options.{field}")), "{error}");
        }
        let ranges = SelinuxOptions { level: "s0-s15:c0.c1023".into(), ..Default::default() };
        check(&ranges).unwrap();
    }

    #[test]
    fn the_machines_own_directories_are_not_labelled() {
        for path in ["/", "/etc", "/etc/", "/var/lib"] {
            assert!(refuse_relabel(Path::new(path)).is_err(), "{path}");
        }
        refuse_relabel(Path::new("/var/lib/kubelet/pods/1/volumes")).unwrap();
    }

    proptest! {
        #[test]
        fn a_level_has_two_categories_in_order(id in "[0-9a-f]{64}") {
            let level = level_of(&id);
            let (one, other) = level.strip_prefix("s0:c").unwrap().split_once(",c").unwrap();
            let (one, other): (u32, u32) = (one.parse().unwrap(), other.parse().unwrap());
            prop_assert!(one < other && other < CATEGORIES, "{}", level);
        }
    }
}
