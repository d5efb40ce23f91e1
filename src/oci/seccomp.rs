//! The system call filter: haled's default profile, or a file of the node's.

mod syscalls;

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::Error;
use super::capability::Capability;
use super::model::Profile;

/// Bytes of a profile's file.
const MAX_PROFILE_BYTES: u64 = 1 << 20;
/// clone(2) flags that make a namespace: mount, cgroup, UTS, IPC, user, PID and network.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// The filter of a container that holds these capabilities; `None`: unfiltered.
pub(super) fn filter(
    profile: &Profile,
    privileged: bool,
    held: &HashSet<Capability>,
) -> Result<Option<LinuxSeccomp>, Error> {
    match profile {
        _ if privileged => Ok(None),
        Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => Ok(Some(default_profile(held))),
        Profile::Localhost(path) => from_file(path).map(Some),
    }
}

/// The default: an allow list, with more for those who hold a capability that needs it.
/// Names that the runtime's libseccomp doesn't know are skipped by the runtime.
fn default_profile(held: &HashSet<Capability>) -> LinuxSeccomp {
    let mut rules = vec![allow(syscalls::ALWAYS), allow(syscalls::OF_THIS_ARCHITECTURE)];
    let equal = LinuxSeccompOperator::ScmpCmpEq;
    for persona in syscalls::PERSONALITIES {
        rules.push(allow_if(&["personality"], argument(equal, persona, None)));
    }
    let below = LinuxSeccompOperator::ScmpCmpLt;
    rules.push(allow_if(&["socket"], argument(below, syscalls::SOCKET_FAMILIES_BELOW, None)));
    for family in syscalls::SOCKET_FAMILIES {
        rules.push(allow_if(&["socket"], argument(equal, family, None)));
    }
    for (capability, names) in syscalls::BY_CAPABILITY {
        if held.contains(capability) {
            rules.push(allow(names));
        }
    }
    if !held.contains(&Capability::CAP_SYS_ADMIN) {
        // Threads and processes, but no namespaces.
        let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
        rules.push(allow_if(&["clone"], argument(masked, NAMESPACE_FLAGS, Some(0))));
        // The flags of clone3 are in memory, where no filter sees them. ENOSYS sends the C
        // library back to clone; EPERM would be taken as the answer.
        let mut clone3 = LinuxSyscall::default();
        clone3
            .set_names(vec!["clone3".to_owned()])
            .set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(libc::ENOSYS as u32));
        rules.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    profile
}

fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        // None named is the native one.
        _ => Vec::new(),
    }
}

fn allow(names: &[&str]) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|&name| name.to_owned()).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow);
    rule
}

fn allow_if(names: &[&str], argument: LinuxSeccompArg) -> LinuxSyscall {
    let mut rule = allow(names);
    rule.set_args(Some(vec![argument]));
    rule
}

fn argument(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(0usize).op(op).value(value);
    let argument = match value_two {
        Some(value) => argument.value_two(value),
        None => argument,
    };
    argument.build().expect("every field has a default")
}

/// A profile in the form of the OCI specification. Docker's own form, with its conditions,
/// is refused: leaving the conditions out would change what it says.
fn from_file(path: &str) -> Result<LinuxSeccomp, Error> {
    let field = "seccomp";
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::invalid(field, path, "is no absolute path of a profile"));
    }
    let host = |error| Error::host(format!("read seccomp profile {path}"), error);
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !fs::metadata(path).map_err(host)?.is_file() {
        return Err(Error::invalid(field, path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(Path::new(path))
        .and_then(|file| file.take(MAX_PROFILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(host)?;
    if bytes.len() as u64 > MAX_PROFILE_BYTES {
        let why = format!("is over {MAX_PROFILE_BYTES} bytes long");
        return Err(Error::invalid(field, path, why));
    }
    let wrong = |why: String| Error::invalid(field, path, format!("is no seccomp profile: {why}"));
    let mut json: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    settle(&mut json).map_err(wrong)?;
    serde_json::from_value(json).map_err(|error| wrong(error.to_string()))
}

/// Refuses Docker's conditions, and turns its old one-name rules into today's.
fn settle(json: &mut serde_json::Value) -> Result<(), String> {
    let is_set = |value: Option<&serde_json::Value>| match value {
        Some(serde_json::Value::Array(list)) => !list.is_empty(),
        Some(serde_json::Value::Object(map)) => !map.is_empty(),
        _ => false,
    };
    if is_set(json.get("archMap")) {
        return Err("archMap is Docker's form, list \"architectures\" instead".to_owned());
    }
    let rules = json.get_mut("syscalls").and_then(serde_json::Value::as_array_mut);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        for condition in ["includes", "excludes"] {
            if is_set(rule.get(condition)) {
                return Err(format!("syscalls[{index}].{condition} is Docker's form"));
            }
        }
        let Some(rule) = rule.as_object_mut() else { continue };
        if let Some(name) = rule.remove("name").filter(serde_json::Value::is_string)
            && !is_set(rule.get("names"))
        {
            rule.insert("names".to_owned(), serde_json::Value::Array(vec![name]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &LinuxSeccomp, name: &str) -> bool {
        profile.syscalls().iter().flatten().any(|rule| {
            rule.action() == LinuxSeccompAction::ScmpActAllow
                && rule.args().is_none()
                && rule.names().iter().any(|each| each == name)
        })
    }

    #[test]
    fn what_the_default_profile_lets_through() {
        let profile = default_profile(&super::super::capability::DEFAULT.into());
        for name in ["read", "openat", "execve", "chroot", "ptrace", "futex_waitv"] {
            assert!(allowed(&profile, name), "{name}");
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "reboot",
            "init_module",
            "kexec_load",
            "keyctl",
            "add_key",
            "userfaultfd",
            "io_uring_setup",
            "clone",
            "clone3",
            "swapon",
            "socket",
            "personality",
            "open_by_handle_at",
            "pivot_root",
        ] {
            assert!(!allowed(&profile, name), "{name}");
        }
    }

    #[test]
    fn a_capability_opens_the_calls_that_need_it() {
        for (capability, name) in [
            (Capability::CAP_SYS_ADMIN, "mount"),
            (Capability::CAP_SYS_ADMIN, "clone3"),
            (Capability::CAP_SYS_BOOT, "reboot"),
            (Capability::CAP_SYS_TIME, "clock_settime"),
            (Capability::CAP_BPF, "bpf"),
        ] {
            assert!(allowed(&default_profile(&[capability].into()), name), "{name}");
            assert!(!allowed(&default_profile(&HashSet::new()), name), "{name}");
        }
    }

    #[test]
    fn no_name_is_listed_twice() {
        let mut seen = HashSet::new();
        for name in syscalls::ALWAYS.iter().chain(syscalls::OF_THIS_ARCHITECTURE) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn privileged_and_unconfined_have_none() {
        let held = HashSet::new();
        assert_eq!(filter(&Profile::Unconfined, false, &held).unwrap(), None);
        assert_eq!(filter(&Profile::RuntimeDefault, true, &held).unwrap(), None);
    }

    fn load(text: &[u8]) -> Result<LinuxSeccomp, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.json");
        fs::write(&path, text).unwrap();
        from_file(path.to_str().unwrap())
    }

    #[test]
    fn a_profile_of_the_node_is_taken_as_it_is() {
        let profile = load(
            br#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": null, "syscalls": [
                {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "args": null},
                {"name": "fchmod", "action": "SCMP_ACT_ERRNO", "includes": {}}]}"#,
        )
        .unwrap();
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActAllow);
        let rules = profile.syscalls().as_ref().unwrap();
        assert_eq!(rules[0].names(), &["sethostname"]);
        assert_eq!(rules[1].names(), &["fchmod"]);
    }

    #[test]
    fn a_bad_profile_is_refused_with_its_path() {
        let conditional = br#"{"defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["X"]}}]}"#;
        let large = vec![b' '; MAX_PROFILE_BYTES as usize + 1];
        for bad in [&b""[..], b"[]", b"{}", b"{\"defaultAction\": \"NO\"}", conditional, &large] {
            let text = load(bad).unwrap_err().to_string();
            assert!(text.contains("profile.json"), "{text}");
        }
        for path in ["relative.json", "/no/such.json", "/tmp", "/dev/zero", "/a\0b"] {
            let text = from_file(path).unwrap_err().to_string();
            assert!(text.contains("seccomp"), "{text}");
        }
    }
}
