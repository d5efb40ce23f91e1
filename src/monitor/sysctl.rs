//! Kernel parameters a sandbox may set: those that belong to its own namespaces.
//!
//! Names are read as sysctl(8) reads them: the first separator, `.` or `/`, is the
//! separator, and the other one stands for it inside a part (`net.ipv4.conf.eth0/1.mtu`).

use std::path::PathBuf;

/// Which of a sandbox's namespaces are its own.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// The network namespace.
    pub network: bool,
    /// The IPC namespace.
    pub ipc: bool,
}

/// The file of a parameter, if it is one of a namespace that the sandbox owns.
pub fn file(name: &str, own: Own) -> Result<PathBuf, String> {
    let parts = parts(name)
        .ok_or_else(|| format!("sysctl \"{name}\" is not a name such as net.ipv4.ip_forward"))?;
    let needs = |owned: bool, namespace: &str| {
        if owned {
            return Ok(());
        }
        Err(format!(
            "sysctl \"{name}\" belongs to the {namespace} namespace, and this pod uses the host's"
        ))
    };
    match (parts[0].as_str(), parts.get(1).map(String::as_str)) {
        ("net", Some(_)) => needs(own.network, "network")?,
        ("fs", Some("mqueue")) if parts.len() > 2 => needs(own.ipc, "IPC")?,
        ("kernel", Some(second))
            if second.starts_with("shm") || second.starts_with("msg") || second == "sem" =>
        {
            needs(own.ipc, "IPC")?;
        }
        _ => {
            return Err(format!(
                "sysctl \"{name}\" is the whole machine's: a pod may set net.*, kernel.shm*, \
                 kernel.msg*, kernel.sem and fs.mqueue.*"
            ));
        }
    }
    Ok(parts.iter().fold(PathBuf::from("/proc/sys"), |path, part| path.join(part)))
}

/// The path's parts, each one safe segment.
fn parts(name: &str) -> Option<Vec<String>> {
    let separator = name.chars().find(|&c| c == '.' || c == '/')?;
    let parts: Vec<String> = name
        .split(separator)
        .map(|part| if separator == '.' { part.replace('/', ".") } else { part.to_owned() })
        .collect();
    let safe = |part: &String| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\0'])
    };
    parts.iter().all(safe).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Own = Own { network: true, ipc: true };
    const NONE: Own = Own { network: false, ipc: false };

    #[test]
    fn names_are_read_as_sysctl_reads_them() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
            ("net/ipv4/conf/eth0.1/rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
            ("kernel.shm_rmid_forced", "/proc/sys/kernel/shm_rmid_forced"),
            ("kernel.msgmax", "/proc/sys/kernel/msgmax"),
            ("kernel.sem", "/proc/sys/kernel/sem"),
            ("fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max"),
        ] {
            assert_eq!(file(name, ALL).unwrap(), PathBuf::from(path), "{name}");
        }
    }

    #[test]
    fn nothing_leaves_proc_sys() {
        for name in [
            "",
            ".",
            "/",
            "net",
            "net.",
            ".net",
            "net..ipv4",
            "/etc/passwd",
            "../etc/passwd",
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "net/./x",
            "net.a\0b",
        ] {
            let error = file(name, ALL).unwrap_err();
            assert!(error.contains(&format!("{name:?}")) || error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_is_not_the_pods_own_is_refused_by_name() {
        for name in
            ["kernel.core_pattern", "vm.swappiness", "fs.file-max", "fs.mqueue", "kernel.semx"]
        {
            assert!(file(name, ALL).unwrap_err().contains("whole machine's"), "{name}");
        }
        assert!(file("net.ipv4.ip_forward", NONE).unwrap_err().contains("network namespace"));
        assert!(file("kernel.shmmax", NONE).unwrap_err().contains("IPC namespace"));
        assert!(file("fs.mqueue.msg_max", NONE).unwrap_err().contains("IPC namespace"));
    }

    proptest::proptest! {
        #[test]
        fn any_name_stays_below_proc_sys(name in "(net|kernel|fs)[./](\\PC|[./]){0,20}") {
            if let Ok(path) = file(&name, ALL) {
                proptest::prop_assert!(path.starts_with("/proc/sys"));
                let ordinary = |c| matches!(c, std::path::Component::Normal(_) | std::path::Component::RootDir);
                proptest::prop_assert!(path.components().all(ordinary));
            }
        }
    }
}
