//! A pod's volumes on disk: made before its sandbox, gone with the pod.
//!
//! `<root>/volumes/<uid>/<volume>` holds what isn't the host's; `.subpaths` beside it has a
//! bind mount for each subPath, so that no symbolic link made in the volume later on can
//! lead a container out of it. Everything here may be done again: after a reboot the memory
//! volumes are mounted anew.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use pathrs::Root;

use super::expand::expand_all;
use super::{
    Content, Facts, HostPathKind, Limit, Planned, PodPlan, PullPolicy, Volume, VolumeFile,
    VolumeMount, VolumeSource,
};
use crate::oci::model::{EnvVar, ImageVolume, Mount};
use crate::sys::{mount, tree};

const SUBPATHS: &str = ".subpaths";
/// A file of a volume while it is written.
const UNFINISHED: &str = "..unfinished";

/// Makes a pod's volumes below `dir`.
pub(super) fn make(dir: &Path, plan: &PodPlan, facts: &Facts) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|error| told("cannot make", dir, &error))?;
    set_mode(dir, 0o711)?;
    for volume in &plan.volumes {
        let path = dir.join(&volume.name);
        match &volume.source {
            VolumeSource::HostPath { path, kind } => host_path(path, *kind)
                .map_err(|why| format!("FailedMount: volume \"{}\": {why}", volume.name))?,
            VolumeSource::EmptyDir { memory, limit } => {
                make_dir(&path)?;
                if *memory {
                    tmpfs(&path, limit.as_ref().map(|limit| limit.bytes))?;
                }
                share(&path, plan.fs_group, 0o777, 0o2777)?;
            }
            VolumeSource::Files { files, secret } => {
                make_dir(&path)?;
                if *secret {
                    tmpfs(&path, None)?;
                }
                for file in files {
                    write(&path, file, facts, plan.fs_group)?;
                }
                share(&path, plan.fs_group, 0o755, 0o2775)?;
            }
            // Mounted for each container by itself.
            VolumeSource::Image { .. } => {}
        }
    }
    Ok(())
}

/// The mounts of a container of a pod whose volumes have been made.
/// `env`: its variables.
pub(super) fn mounts(
    dir: &Path,
    plan: &PodPlan,
    planned: &Planned,
    env: &[EnvVar],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (at, wanted) in planned.mounts.iter().enumerate() {
        let named = |volume: &&Volume| volume.name == wanted.volume;
        let Some(volume) = plan.volumes.iter().find(named) else { continue };
        let part = sub_path_of(wanted, env)?;
        let whole = match &volume.source {
            VolumeSource::Image { reference, .. } => {
                mounts.push(of_image(wanted, reference, part));
                continue;
            }
            VolumeSource::HostPath { path, .. } => path.clone(),
            _ => dir.join(&volume.name),
        };
        let host_path = if part.as_os_str().is_empty() {
            whole
        } else {
            let target = dir.join(SUBPATHS).join(&planned.config.name).join(at.to_string());
            sub_path(&whole, &part, &target).map_err(|error| {
                let path = whole.join(&part);
                format!("FailedMount: {}", told("cannot use subPath", &path, &error))
            })?;
            target
        };
        mounts.push(Mount {
            container_path: wanted.container_path.clone(),
            host_path,
            // A ConfigMap's and a Secret's always are, as in Kubernetes.
            readonly: wanted.readonly || matches!(volume.source, VolumeSource::Files { .. }),
            recursive_readonly: wanted.recursive_readonly,
            propagation: wanted.propagation,
            // Root on disk is the pod's root.
            id_maps: plan.sandbox.userns.clone(),
            image: None,
            // What haled has made is the pod's alone; the node's files keep their labels, as a
            // kubelet leaves them.
            selinux_relabel: !matches!(volume.source, VolumeSource::HostPath { .. }),
        });
    }
    Ok(mounts)
}

/// The mount of an image, which is yet to be found.
fn of_image(wanted: &VolumeMount, reference: &str, part: PathBuf) -> Mount {
    let name = reference.to_owned();
    Mount {
        container_path: wanted.container_path.clone(),
        readonly: true,
        recursive_readonly: wanted.recursive_readonly,
        propagation: wanted.propagation,
        image: Some(ImageVolume { name, sub_path: part, ..ImageVolume::default() }),
        ..Mount::default()
    }
}

/// What is wrong with the first emptyDir on disk that holds more than it may, in the
/// kubelet's words. Where a volume can't be measured that is told in the log, as nobody is to
/// lose a pod by it.
pub(super) fn overfull(dir: &Path, plan: &PodPlan) -> Option<String> {
    for (volume, limit) in plan.limited_on_disk() {
        let path = dir.join(&volume.name);
        match tree::measure(&path) {
            Ok(space) if space.bytes > limit.bytes => {
                let (name, text) = (&volume.name, &limit.text);
                return Some(format!(
                    "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\"."
                ));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(volume = %path.display(), %error, "cannot measure a volume");
            }
        }
    }
    None
}

impl PodPlan {
    /// The volumes whose sizes nobody but haled watches.
    pub(super) fn limited_on_disk(&self) -> impl Iterator<Item = (&Volume, &Limit)> {
        self.volumes.iter().filter_map(|volume| match &volume.source {
            VolumeSource::EmptyDir { memory: false, limit: Some(limit) } => Some((volume, limit)),
            _ => None,
        })
    }
}

impl PodPlan {
    /// The images that are volumes, and when each is pulled.
    pub(super) fn image_volumes(&self) -> impl Iterator<Item = (&str, PullPolicy)> {
        self.volumes.iter().filter_map(|volume| match &volume.source {
            VolumeSource::Image { reference, pull } => Some((&**reference, *pull)),
            _ => None,
        })
    }
}

/// Removes a pod's volumes and what was mounted for them; the host's own stays.
pub(super) fn remove(dir: &Path) -> Result<(), String> {
    let mut all = children(dir);
    for container in children(&dir.join(SUBPATHS)) {
        // Deepest first: they are mounts of what is below `dir`.
        all.splice(0..0, children(&container));
    }
    for path in all {
        mount::detach(&path).map_err(|error| told("cannot unmount", &path, &error))?;
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(told("cannot delete", dir, &error))
        }
        _ => Ok(()),
    }
}

/// A path that never leads out of what it is below.
pub(super) fn is_relative(path: &str) -> bool {
    !path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0')
}

fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// subPath, or what subPathExpr is with the container's variables.
fn sub_path_of(wanted: &VolumeMount, env: &[EnvVar]) -> Result<PathBuf, String> {
    if wanted.sub_path_expr.is_empty() {
        return Ok(wanted.sub_path.clone());
    }
    let expr = &wanted.sub_path_expr;
    let told = |why: String| format!("CreateContainerConfigError: subPathExpr \"{expr}\": {why}");
    let value = |name: &str| env.iter().rfind(|env| env.name == name).map(|env| &*env.value);
    let path = expand_all(expr, value)
        .map_err(|name| told(format!("the container has no variable {name}")))?;
    if !is_relative(&path) {
        return Err(told(format!("{path:?} is no relative path without ..")));
    }
    Ok(path.into())
}

/// Binds what is at a path below `whole`, resolved without ever leaving it, onto `target`.
/// What isn't there becomes a directory.
fn sub_path(whole: &Path, part: &Path, target: &Path) -> io::Result<()> {
    let root = Root::open(whole).map_err(io::Error::other)?;
    let handle = if let Ok(handle) = root.resolve(part) {
        handle
    } else {
        let made = root.mkdir_all(part, &fs::Permissions::from_mode(0o755));
        let made = made.map_err(io::Error::other)?;
        let opened = PathBuf::from(format!("/proc/self/fd/{}", made.as_fd().as_raw_fd()));
        let of_whole = fs::metadata(whole)?;
        chown(&opened, None, Some(of_whole.gid()))?;
        fs::set_permissions(&opened, fs::Permissions::from_mode(of_whole.mode() & 0o7777))?;
        made
    };
    let opened = PathBuf::from(format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd()));
    // One of an earlier attempt may show what was there before.
    mount::detach(target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::metadata(&opened)?.is_dir() {
        drop(fs::remove_file(target));
        fs::create_dir_all(target)?;
    } else {
        drop(fs::remove_dir(target));
        fs::File::create(target)?;
    }
    mount::bind(&opened, target)
}

fn host_path(path: &Path, kind: HostPathKind) -> Result<(), String> {
    let found = fs::metadata(path);
    let made = match (kind, &found) {
        (HostPathKind::DirectoryOrCreate, Err(_)) => fs::create_dir_all(path),
        (HostPathKind::FileOrCreate, Err(_)) => {
            fs::File::options().append(true).create(true).open(path).map(drop)
        }
        _ => Ok(()),
    };
    made.map_err(|error| told("cannot make", path, &error))?;
    let metadata = fs::metadata(path).map_err(|error| told("cannot use", path, &error))?;
    let file = metadata.file_type();
    let (good, wanted) = match kind {
        HostPathKind::Unchecked => (true, ""),
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => (file.is_dir(), "directory"),
        HostPathKind::FileOrCreate | HostPathKind::File => (file.is_file(), "file"),
        HostPathKind::Socket => (file.is_socket(), "socket"),
        HostPathKind::CharDevice => (file.is_char_device(), "character device"),
        HostPathKind::BlockDevice => (file.is_block_device(), "block device"),
    };
    if good { Ok(()) } else { Err(format!("{} is no {wanted}", path.display())) }
}

/// A tmpfs, unless there is one.
fn tmpfs(path: &Path, limit: Option<u64>) -> Result<(), String> {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    let parent = path.parent().unwrap_or(path);
    let both = device(path).and_then(|own| Ok((own, device(parent)?)));
    let (own, above) = both.map_err(|error| told("cannot look at", path, &error))?;
    if own != above {
        return Ok(());
    }
    let size = limit.map(|limit| format!(",size={limit}")).unwrap_or_default();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount::mount("tmpfs", path, flags, &format!("mode=0755{size}"))
        .map_err(|error| told("cannot mount a tmpfs at", path, &error))
}

fn write(dir: &Path, file: &VolumeFile, facts: &Facts, group: Option<u32>) -> Result<(), String> {
    let path = dir.join(&file.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| told("cannot make", parent, &error))?;
    }
    let content = match &file.content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::Value(value) => facts.value(value).into_bytes(),
    };
    // Whoever has the volume's group reads what its owner reads.
    let mode = if group.is_some() { file.mode | (file.mode & 0o400) >> 3 } else { file.mode };
    replace(&path, &content, mode, group).map_err(|error| told("cannot write", &path, &error))
}

/// Writes a file that is whole, and nobody's but who may read it, from its first moment on.
fn replace(path: &Path, content: &[u8], mode: u32, group: Option<u32>) -> io::Result<()> {
    // No key of a ConfigMap or Secret, and no path, is called so.
    let new = path.with_file_name(UNFINISHED);
    match fs::remove_file(&new) {
        // Of a time before that was cut off.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    fchown(&file, None, group)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(&new, path)
}

/// One mode where the volumes have no group of their own, another where they have.
fn share(path: &Path, group: Option<u32>, plain: u32, grouped: u32) -> Result<(), String> {
    let Some(group) = group else { return set_mode(path, plain) };
    chown(path, None, Some(group)).map_err(|error| told("cannot give", path, &error))?;
    set_mode(path, grouped)
}

fn make_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| told("cannot make", path, &error))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions)
        .map_err(|error| told("cannot set the mode of", path, &error))
}

fn told(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("{doing} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> PodPlan {
        super::super::parse(text).unwrap().pods.remove(0)
    }

    const FILES: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: one, b: two}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes:
  - {name: files, configMap: {name: settings, items: [{key: b, path: deep/b, mode: 0o400}]}}
  - {name: scratch, emptyDir: {}}
  containers:
  - name: app
    image: x
    volumeMounts:
    - {name: files, mountPath: /etc/settings}
    - {name: scratch, mountPath: /scratch, readOnly: true}
";

    #[test]
    fn files_are_written_with_their_mode_and_go_with_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("uid");
        let plan = plan(FILES);
        for _ in 0..2 {
            make(&root, &plan, &Facts::default()).unwrap();
        }
        let file = root.join("files/deep/b");
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o400);
        assert_eq!(fs::metadata(root.join("scratch")).unwrap().mode() & 0o7777, 0o777);
        let mounts = mounts(&root, &plan, &plan.containers[0], &[]).unwrap();
        assert_eq!(mounts[0].host_path, root.join("files"));
        assert!(mounts.iter().all(|mount| mount.readonly));
        remove(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_file_comes_whole_and_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(dir.path().join(UNFINISHED), "of a time before").unwrap();
        replace(&path, b"first", 0o400, None).unwrap();
        // Whoever has it open never sees half of the next one, nor who may read it change.
        let mut held = fs::File::open(&path).unwrap();
        replace(&path, b"second", 0o440, None).unwrap();
        assert_eq!(io::read_to_string(&mut held).unwrap(), "first");
        assert_eq!(held.metadata().unwrap().mode() & 0o777, 0o400);
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o440);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_volume_on_disk_that_holds_too_much_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let text = "{kind: Pod, apiVersion: v1, metadata: {name: p}, spec: {volumes: [{name: big, emptyDir: {}}, {name: v, emptyDir: {sizeLimit: 1Mi}}], containers: [{name: a, image: x}]}}";
        let plan = plan(text);
        make(dir.path(), &plan, &Facts::default()).unwrap();
        fs::write(dir.path().join("big/file"), vec![1; 2 << 20]).unwrap();
        fs::write(dir.path().join("v/file"), vec![1; 1 << 19]).unwrap();
        assert_eq!(overfull(dir.path(), &plan), None);
        fs::write(dir.path().join("v/more"), vec![1; 1 << 20]).unwrap();
        assert_eq!(
            overfull(dir.path(), &plan).unwrap(),
            "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\"."
        );
    }

    #[test]
    fn a_sub_path_expression_stays_below_its_volume() {
        let mount = |expr: &str| VolumeMount {
            volume: "v".into(),
            container_path: "/v".into(),
            sub_path: PathBuf::new(),
            sub_path_expr: expr.into(),
            readonly: false,
            recursive_readonly: false,
            propagation: crate::oci::model::Propagation::Private,
        };
        let env = [("A", "one"), ("UP", "..")]
            .map(|(name, value)| EnvVar { name: name.into(), value: value.into() });
        assert_eq!(sub_path_of(&mount("$(A)/x"), &env), Ok("one/x".into()));
        let no = |expr: &str| sub_path_of(&mount(expr), &env).unwrap_err();
        assert!(no("x/$(UP)").contains("no relative path"), "{}", no("x/$(UP)"));
        assert!(no("$(NONE)").contains("no variable NONE"), "{}", no("$(NONE)"));
    }

    #[test]
    fn a_host_path_must_be_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        assert!(host_path(&path, HostPathKind::Directory).unwrap_err().contains("cannot use"));
        host_path(&path, HostPathKind::DirectoryOrCreate).unwrap();
        host_path(&path, HostPathKind::Unchecked).unwrap();
        assert!(host_path(&path, HostPathKind::File).unwrap_err().contains("is no file"));
        host_path(Path::new("/dev/null"), HostPathKind::CharDevice).unwrap();
    }
}
