//! Where the cgroup hierarchies are mounted, from /proc/self/mountinfo and /proc/cgroups.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Where a sub-cgroup goes on v1, the first that is mounted: the ones without side effects
/// on a process come first; `cpuset` isn't among them, as a new one lets nobody join.
const SUB_HIERARCHIES: [&str; 7] =
    ["pids", "freezer", "cpu", "devices", "memory", "blkio", "perf_event"];

/// One mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Its mount point.
    pub(super) mount: PathBuf,
    /// `cpu` and `cpuacct` often share one; empty for a named one, as systemd's.
    pub(super) controllers: Vec<String>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hierarchies {
    /// Those of v1; none on a pure v2 machine.
    pub(super) v1: Vec<Hierarchy>,
    /// The mount point of v2.
    pub(super) unified: Option<PathBuf>,
}

impl Hierarchies {
    /// The v1 hierarchy of a controller.
    pub(super) fn of(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|each| each.controllers.iter().any(|name| name == controller))
    }

    /// The v1 hierarchy that sub-cgroups are made in.
    pub(super) fn sub(&self) -> Option<&Hierarchy> {
        SUB_HIERARCHIES.iter().find_map(|controller| self.of(controller))
    }
}

/// The machine's, read once: hierarchies don't move while a machine is up.
pub(super) fn hierarchies() -> io::Result<&'static Hierarchies> {
    static FOUND: OnceLock<Hierarchies> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let found = parse(
        &fs::read_to_string("/proc/self/mountinfo")?,
        &fs::read_to_string("/proc/cgroups").unwrap_or_default(),
    );
    if found.v1.is_empty() && found.unified.is_none() {
        return Err(io::Error::other(
            "no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup",
        ));
    }
    Ok(FOUND.get_or_init(|| found))
}

/// Reads mountinfo (proc_pid_mountinfo(5)) and /proc/cgroups (cgroups(7)).
fn parse(mountinfo: &str, cgroups: &str) -> Hierarchies {
    let known: Vec<&str> = cgroups
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut found = Hierarchies::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).map(unescape) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
        match kind {
            Some("cgroup2") if found.unified.is_none() => found.unified = Some(mount),
            Some("cgroup") => {
                let named = options.split(',').any(|each| each.starts_with("name="));
                let controllers: Vec<String> = options
                    .split(',')
                    .filter(|each| known.contains(each))
                    .map(str::to_owned)
                    .collect();
                // The first mount of a hierarchy counts; a second is the same one again.
                let again = found
                    .v1
                    .iter()
                    .any(|each| each.mount == mount || (!named && each.controllers == controllers));
                if (named || !controllers.is_empty()) && !again {
                    found.v1.push(Hierarchy { mount, controllers });
                }
            }
            _ => {}
        }
    }
    // A named hierarchy beside v2 (systemd's, or one left over) doesn't make a machine v1.
    if found.unified.is_some() && found.v1.iter().all(|each| each.controllers.is_empty()) {
        found.v1.clear();
    }
    found
}

/// A path of mountinfo: space, tab, line break and backslash are octal there.
fn unescape(text: &str) -> PathBuf {
    let mut path = text.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(escaped, plain);
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CGROUPS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\n\
                           cpu\t1\t1\t1\ncpuacct\t1\t1\t1\npids\t8\t1\t1\nmemory\t4\t1\t1\n";

    fn v1(mount: &str, controllers: &[&str]) -> Hierarchy {
        let controllers = controllers.iter().map(|&each| each.to_owned()).collect();
        Hierarchy { mount: mount.into(), controllers }
    }

    #[test]
    fn a_hybrid_machine_with_shared_controllers() {
        let mountinfo = "\
25 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:14 - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 / /sys/fs/cgroup/pids rw shared:15 - cgroup cgroup rw,pids
38 31 0:34 / /other/pids rw shared:15 - cgroup cgroup rw,pids
";
        let found = parse(mountinfo, CGROUPS);
        assert_eq!(found.unified, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(
            found.v1,
            [
                v1("/sys/fs/cgroup/systemd", &[]),
                v1("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
                v1("/sys/fs/cgroup/pids", &["pids"]),
            ]
        );
        assert_eq!(found.of("cpuacct").unwrap().mount, found.v1[1].mount);
        assert_eq!(found.sub(), Some(&found.v1[2]));
    }

    #[test]
    fn without_pids_a_sub_cgroup_goes_to_another_hierarchy() {
        let found = parse("36 31 0:33 / /c\\040g rw - cgroup cgroup rw,cpu,cpuacct", CGROUPS);
        assert_eq!(found.sub(), Some(&v1("/c g", &["cpu", "cpuacct"])));
    }

    #[test]
    fn a_pure_v2_machine_stays_v2_beside_a_named_hierarchy() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let named = "33 31 0:30 / /x/systemd rw - cgroup cgroup rw,name=systemd\n";
        for mountinfo in [v2.to_owned(), format!("{v2}{named}")] {
            let found = parse(&mountinfo, CGROUPS);
            let unified = Some("/sys/fs/cgroup".into());
            assert_eq!(found, Hierarchies { v1: vec![], unified });
            assert_eq!(found.sub(), None);
        }
    }

    #[test]
    fn nonsense_is_no_hierarchy() {
        assert_eq!(parse("\n - \na b - cgroup\n1 2 3 - cgroup2", "x"), Hierarchies::default());
    }
}
