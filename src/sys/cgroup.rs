//! cgroup v1, v2 and hybrid hierarchies, by the cgroupfs driver (cgroups(7)).
//!
//! A cgroup is named by its path below the mount points, `/kubepods/pod1/id`, the same in
//! every hierarchy. Where the hierarchies are is read from the kernel once. Limits are not
//! written here: the OCI runtime does that.

mod freezer;
mod hierarchies;
pub mod huge_pages;
mod kill;
mod limits;
pub mod oom_score;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use freezer::thaw;
use hierarchies::{Hierarchies, hierarchies};
pub use limits::Limits;

use super::birthplace::Birthplace;

/// Cgroups walked below one; more is taken for an attack or a loop, and an error.
const MAX_CGROUPS: usize = 65_536;
/// Bytes read of one `cgroup.procs`: four million processes of eight bytes.
const MAX_PROCS_BYTES: u64 = 32 << 20;
/// Bytes of a path, as the kernel's PATH_MAX; of a segment, as its NAME_MAX.
const MAX_PATH: usize = 4096;
const MAX_SEGMENT: usize = 255;
/// How long [`kill`] waits for the last process.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How long [`remove`] tries on a cgroup that the kernel still calls busy: a process leaves
/// its cgroup a moment after it stops being listed there.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks at a cgroup.
const PAUSE: Duration = Duration::from_millis(5);

/// Whether controllers are on v1 hierarchies (hybrid too) or on the unified one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// v1, or hybrid with its controllers on v1.
    V1,
    /// v2 alone.
    V2,
}

/// The machine's.
pub fn version() -> Version {
    match hierarchies() {
        Ok(found) if !found.v1.is_empty() => Version::V1,
        _ => Version::V2,
    }
}

/// Whether a controller can be used: mounted on v1, listed in the root's
/// `cgroup.controllers` on v2.
pub fn has_controller(name: &str) -> bool {
    let Ok(found) = hierarchies() else { return false };
    match (version(), &found.unified) {
        (Version::V1, _) => found.of(name).is_some(),
        (Version::V2, Some(mount)) => fs::read_to_string(mount.join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|each| each == name)),
        (Version::V2, None) => false,
    }
}

/// The directory of a cgroup in the hierarchy of a controller; `None`: there is no such
/// hierarchy, or the path is no cgroup path. It need not exist.
pub fn directory(controller: &str, path: &str) -> Option<PathBuf> {
    let found = hierarchies().ok()?;
    let mount = match version() {
        Version::V1 => &found.of(controller)?.mount,
        Version::V2 => found.unified.as_ref()?,
    };
    Some(mount.join(relative(path).ok()?))
}

/// The directory of a cgroup in the unified hierarchy, which on a hybrid machine lies beside
/// those of v1 and has pressure files, and controllers that v1 doesn't have.
pub fn unified_directory(path: &str) -> Option<PathBuf> {
    Some(hierarchies().ok()?.unified.as_ref()?.join(relative(path).ok()?))
}

/// Makes a cgroup (`/kubepods/pod1/id`) in every hierarchy, its controllers enabled on v2.
/// There already is no error; what a failed call made, it removes again.
pub fn create(path: &str) -> io::Result<()> {
    let relative = relative(path)?;
    let found = hierarchies()?;
    let mut made = Vec::new();
    let result = make_in_all(found, relative, &mut made);
    if result.is_err() {
        for directory in made.iter().rev() {
            // Best effort: the error that counts is the one being returned.
            drop(fs::remove_dir(directory));
        }
    }
    result
}

/// Makes a cgroup and moves a process into it that is in its parent, which on v2 must be there.
///
/// Moved first: a cgroup of v2 that holds processes and hands controllers on would be a thread
/// root, and its child could hold none (cgroups(7), "domain invalid").
pub fn descend(path: &str, pid: i32) -> io::Result<()> {
    let Some(directory) = unified_directory(path).filter(|_| version() == Version::V2) else {
        create(path)?;
        return join(path, pid);
    };
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(about("create", &directory, &error));
        }
        _ => join(path, pid)?,
    }
    create(path)
}

fn make_in_all(found: &Hierarchies, relative: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    for hierarchy in &found.v1 {
        let cpuset = hierarchy.controllers.iter().any(|each| each == "cpuset");
        make(&hierarchy.mount, relative, made, |parent, child| {
            if cpuset { inherit_cpuset(parent, child) } else { Ok(()) }
        })?;
    }
    if let Some(mount) = &found.unified {
        let alone = found.v1.is_empty();
        make(mount, relative, made, |parent, _| {
            if alone {
                enable_controllers(parent);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Makes each directory down to `relative`, and calls `settle` with every parent and child.
fn make(
    mount: &Path,
    relative: &Path,
    made: &mut Vec<PathBuf>,
    settle: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut parent = mount.to_owned();
    for segment in relative {
        let child = parent.join(segment);
        match fs::create_dir(&child) {
            Ok(()) => made.push(child.clone()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(about("create", &child, &error)),
        }
        settle(&parent, &child)?;
        parent = child;
    }
    Ok(())
}

/// On v1 a new cpuset is empty, and a process can't join it until it has CPUs and nodes.
fn inherit_cpuset(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = child.join(file);
        let read =
            |path: &Path| fs::read_to_string(path).map_err(|error| about("read", path, &error));
        if read(&own)?.trim().is_empty() {
            let inherited = read(&parent.join(file))?;
            fs::write(&own, inherited.trim()).map_err(|error| about("write", &own, &error))?;
        }
    }
    Ok(())
}

/// Lets the children of a cgroup have its controllers. Each by itself and as far as it goes:
/// a cgroup that holds processes can't give any to its children (cgroups(7), "no internal
/// processes"), and a limit that then can't be set is reported by who sets it.
fn enable_controllers(parent: &Path) {
    let read = |file: &str| fs::read_to_string(parent.join(file)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    for controller in read("cgroup.controllers").split_whitespace() {
        if !enabled.split_whitespace().any(|each| each == controller) {
            drop(fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")));
        }
    }
}

/// Makes one child of an existing cgroup that holds processes without limits of its own:
/// in v1 in the `pids` hierarchy alone (or another, where `pids` isn't mounted). Gives what
/// `runc exec --cgroup` takes for it: `pids:/name` on v1, `name` on v2.
///
/// A v1 form means something to runc alone: crun has sub-cgroups on v2 only.
pub fn create_sub(path: &str, name: &str) -> io::Result<String> {
    let directory = sub_directory(path, name)?;
    match fs::create_dir(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(about("create", &directory, &error)),
    }
    match hierarchies()?.sub() {
        // Every controller of a shared hierarchy is named: runc would move the process back
        // for one that isn't.
        Some(hierarchy) => Ok(format!("{}:/{name}", hierarchy.controllers.join(","))),
        None => Ok(name.to_owned()),
    }
}

/// The processes in the sub-cgroup and below it. Not there: none.
pub fn processes_sub(path: &str, name: &str) -> io::Result<Vec<i32>> {
    Ok(processes_in(&[sub_directory(path, name)?])?.into_iter().collect())
}

/// [`kill`] for one sub-cgroup. Blocks.
pub fn kill_sub(path: &str, name: &str) -> io::Result<()> {
    kill::all(&[sub_directory(path, name)?], KILL_LIMIT)
}

/// [`remove`] for one sub-cgroup. Blocks.
pub fn remove_sub(path: &str, name: &str) -> io::Result<()> {
    remove_tree(&sub_directory(path, name)?, Instant::now() + REMOVE_LIMIT)
}

/// Removes those sub-cgroups that hold nothing and that `wanted` names. Nothing is waited for.
pub fn remove_empty_subs(path: &str, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    let directory = subs_directory(path)?;
    for entry in fs::read_dir(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && name.to_str().is_some_and(&wanted) {
            match fs::remove_dir(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy && !is_gone(&error) => {
                    return Err(about("remove", &entry.path(), &error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn sub_directory(path: &str, name: &str) -> io::Result<PathBuf> {
    if name.contains('/') {
        return Err(invalid(name, "a sub-cgroup is named by one segment"));
    }
    segment(name, name)?;
    Ok(subs_directory(path)?.join(name))
}

/// Where the sub-cgroups of a cgroup are.
fn subs_directory(path: &str) -> io::Result<PathBuf> {
    let relative = relative(path)?;
    let found = hierarchies()?;
    let mount = match (found.sub(), &found.unified) {
        (Some(hierarchy), _) => &hierarchy.mount,
        (None, Some(mount)) => mount,
        (None, None) => return Err(io::Error::other("no cgroup controller is mounted")),
    };
    Ok(mount.join(relative))
}

/// Puts a process in, in every hierarchy.
pub fn join(path: &str, pid: i32) -> io::Result<()> {
    for directory in everywhere(path)? {
        let procs = directory.join("cgroup.procs");
        fs::write(&procs, pid.to_string())
            .map_err(|error| about(&format!("write {pid} to"), &procs, &error))?;
    }
    Ok(())
}

/// What a process is born into to be in it from the first.
pub fn birthplace(path: &str) -> io::Result<Birthplace> {
    let (found, relative) = (hierarchies()?, relative(path)?);
    Ok(Birthplace {
        unified: found.unified.as_ref().map(|mount| mount.join(relative)),
        v1: found.v1.iter().map(|each| each.mount.join(relative)).collect(),
    })
}

/// The processes in it and below it. Not there: none.
pub fn processes(path: &str) -> io::Result<Vec<i32>> {
    Ok(processes_in(&everywhere(path)?)?.into_iter().collect())
}

/// The same as one hierarchy has it: quick, and enough where nothing is decided by it.
pub fn processes_counted(path: &str) -> io::Result<Vec<i32>> {
    Ok(processes_in(&[subs_directory(path)?])?.into_iter().collect())
}

/// SIGKILL to all in it and below it, until none is left or 5 s have passed. Blocks.
/// Not there: nothing to kill.
pub fn kill(path: &str) -> io::Result<()> {
    kill::all(&everywhere(path)?, KILL_LIMIT)
}

/// Removes it and what is below it, in every hierarchy. Gone already is no error. Blocks:
/// up to 2 s while the kernel calls it busy.
pub fn remove(path: &str) -> io::Result<()> {
    let deadline = Instant::now() + REMOVE_LIMIT;
    // Every hierarchy is tried, so that one that stays doesn't keep the others.
    let results = everywhere(path)?.into_iter().map(|each| remove_tree(&each, deadline));
    results.collect::<Vec<_>>().into_iter().collect()
}

/// The file whose `oom_kill` line counts the OOM killer's victims. Empty where there is no
/// memory controller.
pub fn oom_events(path: &str) -> PathBuf {
    let file = match version() {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    directory("memory", path).map(|each| each.join(file)).unwrap_or_default()
}

/// Bytes of memory in use that the kernel can't just drop: without the inactive part of the
/// page cache, as kubelets count a working set. `None`: not accounted.
pub fn memory_in_use(path: &str) -> Option<u64> {
    let (usage, inactive) = match version() {
        Version::V1 => ("memory.usage_in_bytes", "total_inactive_file "),
        Version::V2 => ("memory.current", "inactive_file "),
    };
    let directory = directory("memory", path)?;
    let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
    let usage: u64 = read(usage)?.trim().parse().ok()?;
    let stat = read("memory.stat")?;
    let inactive = stat.lines().find_map(|line| line.strip_prefix(inactive)?.parse().ok());
    Some(usage.saturating_sub(inactive.unwrap_or(0)))
}

/// The directories of a cgroup, one in each hierarchy.
fn everywhere(path: &str) -> io::Result<Vec<PathBuf>> {
    let relative = relative(path)?;
    let found = hierarchies()?;
    let v1 = found.v1.iter().map(|each| &each.mount);
    Ok(v1.chain(&found.unified).map(|mount| mount.join(relative)).collect())
}

fn processes_in(roots: &[PathBuf]) -> io::Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    for root in roots {
        for directory in tree(root)? {
            let mut text = String::new();
            let read = fs::File::open(directory.join("cgroup.procs"))
                .and_then(|file| file.take(MAX_PROCS_BYTES).read_to_string(&mut text));
            match read {
                Ok(_) => {}
                Err(error) if is_gone(&error) => continue,
                // A threaded cgroup of v2: its processes are listed above it.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
                Err(error) => return Err(about("list", &directory, &error)),
            }
            // 0 stands for a process of a PID namespace above this one.
            let listed = text.lines().filter_map(|line| line.parse::<i32>().ok());
            pids.extend(listed.filter(|&pid| pid > 0));
        }
    }
    Ok(pids)
}

/// A cgroup and all below it, parents first. Not there: none.
fn tree(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![root.to_owned()];
    let mut next = 0;
    while next < all.len() {
        let entries = match fs::read_dir(&all[next]) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => {
                all.remove(next);
                continue;
            }
            Err(error) => return Err(about("list", &all[next], &error)),
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_type()?.is_dir(), entry.path()))) {
                Ok((true, path)) => all.push(path),
                Ok((false, _)) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(about("list", &all[next], &error)),
            }
        }
        if all.len() > MAX_CGROUPS {
            let message = format!("cgroup {} has over {MAX_CGROUPS} below it", root.display());
            return Err(io::Error::other(message));
        }
        next += 1;
    }
    Ok(all)
}

fn remove_tree(root: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let mut busy = None;
        for directory in tree(root)?.iter().rev() {
            match fs::remove_dir(directory) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    busy = Some(about("remove", directory, &error));
                }
                Err(error) => return Err(about("remove", directory, &error)),
            }
        }
        match busy {
            None => return Ok(()),
            Some(error) if Instant::now() >= deadline => return Err(error),
            Some(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A cgroup path as one below a mount point; refuses whatever could lead elsewhere.
/// Whether a path can be a cgroup's: absolute, of names without `.` and `..`.
pub fn check(path: &str) -> io::Result<()> {
    relative(path).map(drop)
}

fn relative(path: &str) -> io::Result<&Path> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(invalid(path, "it must start with /"));
    };
    if path.len() > MAX_PATH {
        return Err(invalid(&path[..path.floor_char_boundary(80)], "it is too long"));
    }
    rest.split('/').try_for_each(|each| segment(path, each))?;
    Ok(Path::new(rest))
}

fn segment(path: &str, segment: &str) -> io::Result<()> {
    match segment {
        "" => Err(invalid(path, "a segment is empty")),
        "." | ".." => Err(invalid(path, "it must not hold . or ..")),
        _ if segment.len() > MAX_SEGMENT => Err(invalid(path, "a segment is over 255 bytes")),
        _ if segment.contains(['\0', '\n']) => Err(invalid(path, "it holds NUL or a line break")),
        _ => Ok(()),
    }
}

fn invalid(path: &str, why: &str) -> io::Error {
    let message = format!("{path:?} is no cgroup path: {why}");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn about(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}

/// The cgroup went away while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_lead_elsewhere_is_refused() {
        let long = format!("/{}", "a".repeat(300));
        for bad in ["", "/", "a", "a/b", "/..", "/a/../b", "/a/./b", "//a", "/a/", "/a\0", &long] {
            for result in [create(bad), kill(bad), remove(bad), join(bad, 1)] {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
            }
            assert_eq!(oom_events(bad), PathBuf::new());
        }
        for bad in ["", ".", "..", "a/b", "../x"] {
            assert_eq!(create_sub("/a", bad).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(relative("/kubepods/pod1/id").unwrap(), Path::new("kubepods/pod1/id"));
    }

    #[test]
    fn a_failed_make_is_known_to_its_caller() {
        let home = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        let refused = |_: &Path, child: &Path| {
            if child.ends_with("b") { Err(io::Error::other("no")) } else { Ok(()) }
        };
        make(home.path(), Path::new("a/b/c"), &mut made, refused).unwrap_err();
        assert_eq!(made, [home.path().join("a"), home.path().join("a/b")]);
    }

    #[test]
    fn a_new_cpuset_takes_its_parents_values_and_a_set_one_keeps_its_own() {
        let home = tempfile::tempdir().unwrap();
        let child = home.path().join("child");
        fs::create_dir(&child).unwrap();
        for (file, text) in [("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")] {
            fs::write(home.path().join(file), text).unwrap();
        }
        fs::write(child.join("cpuset.cpus"), "\n").unwrap();
        fs::write(child.join("cpuset.mems"), "1\n").unwrap();
        inherit_cpuset(home.path(), &child).unwrap();
        assert_eq!(fs::read_to_string(child.join("cpuset.cpus")).unwrap(), "0-3");
        assert_eq!(fs::read_to_string(child.join("cpuset.mems")).unwrap(), "1\n");
    }
}
