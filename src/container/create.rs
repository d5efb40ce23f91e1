//! Creating: the root file system and the bundle. Nothing runs yet.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Spec;
use tokio::time::{Instant, timeout_at};

use super::config::ContainerConfig;
use super::record::RunsAs;
use super::{Error, Place, restore};
use crate::image::{Checkpoint, Image, Images, Owners};
use crate::oci;
use crate::oci::checkpoint::CRIU_CONFIG_ANNOTATION;
use crate::oci::model::{PidMode, Sharing};
use crate::sys::userns::IdMaps;
use crate::sys::{cgroup, idmap, selinux};

/// How long the file systems that mounts' sources are on may take to answer.
const SOURCES_LIMIT: Duration = Duration::from_mins(1);

/// What a container takes from its sandbox.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The pod's run directory, with `pins/`, `shm/`, `hosts`, `hostname` and `resolv.conf`.
    pub dir: PathBuf,
    /// The sandbox's hostname.
    pub hostname: String,
    /// Whose network (and with it UTS) namespace.
    pub network: Sharing,
    /// Whose IPC namespace.
    pub ipc: Sharing,
    /// The sandbox's pause is in the host's PID namespace.
    pub host_pid: bool,
    /// Path of the PID namespace to join for `PidMode::Target`.
    pub target_pid_namespace: Option<PathBuf>,
    /// The ids of the sandbox's user namespace, if it has one.
    pub userns: Option<IdMaps>,
    /// What is set for the handler that runs it.
    pub settings: oci::RuntimeSettings,
    /// The sandbox's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The sandbox's level in SELinux labels.
    pub selinux_level: String,
}

/// Prepares a container's root file system and says what its configuration is to be. What a
/// failure leaves is removed by [`super::remove::files`].
pub async fn prepare(
    images: &Images,
    image: &Image,
    place: &Place,
    config: &ContainerConfig,
    around: &Surroundings,
) -> Result<Spec, Error> {
    if let Some(container) = &image.checkpoint {
        return Err(Error::Invalid(format!(
            "image {} is a checkpoint of container {container:?} and holds no root file system: \
             only CRI clients can have a container go on from one",
            image.name()
        )));
    }
    let mut volumes = Vec::new();
    for volume in config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
        volumes.push(images.find(&volume.id)?);
    }
    if let Some(Checkpoint::Image { image }) = &config.checkpoint {
        // The last one: none of the mounts is its.
        volumes.push(images.find(image)?);
    }
    let root = around.userns.as_ref().and_then(IdMaps::root);
    let owners = root.map(|root| Owners { users: around.dir.join("pins/user"), root });
    let labels = oci::labels(&config.security, &around.selinux_level)?;
    let label = labels.as_ref().map(|labels| labels.mount.clone());
    let prepared = images.prepare(&place.id, image, volumes, owners, label.clone()).await?;
    let mut restored = None;
    if let Some(checkpoint) = &config.checkpoint {
        if around.userns.is_some() {
            let why = "a container in a user namespace can't go on from a checkpoint";
            return Err(Error::Invalid(why.to_owned()));
        }
        restored = Some(images.restore(&place.id, checkpoint.clone(), label).await?.0);
    }
    let (place, mut config, around) = (place.clone(), config.clone(), around.clone());
    let defaults = image.defaults.clone();
    let deadline = Instant::now() + SOURCES_LIMIT;
    let with_images = config.mounts.iter_mut().filter(|mount| mount.image.is_some());
    for (mount, mounted) in with_images.zip(&prepared.volumes) {
        if let Some(volume) = &mount.image {
            let (mounted, part, name) =
                (mounted.clone(), volume.sub_path.clone(), volume.name.clone());
            let found = move || sub_path(&mounted, &part, &name);
            mount.host_path = in_time(deadline, &volume.name, found).await?;
            mount.readonly = true;
        }
    }
    for mount in &config.mounts {
        let source = mount.host_path.clone();
        let name = source.display().to_string();
        in_time(deadline, &name, move || ensure_source(&source)).await?;
    }
    let sources = config.mounts.iter().map(|mount| mount.host_path.display().to_string());
    let names = sources.collect::<Vec<_>>().join(", ");
    in_time(deadline, &names, move || {
        fs::create_dir_all(&place.bundle)
            .map_err(Error::io("cannot make bundle", &place.bundle))?;
        let sandbox_files = sandbox_files(&around, config.security.readonly_rootfs);
        if let Some(labels) = &labels {
            relabel(&config, &sandbox_files, &labels.mount)?;
        }
        map_owners(&mut config, &place.bundle, &around)?;
        let mut annotations = around.settings.annotations(&around.annotations, &config.annotations);
        // It names a file of the host that CRIU, which is root there, goes by: haled's own to set.
        annotations.remove(CRIU_CONFIG_ANNOTATION);
        if let Some(processes) = restored {
            let options = restore::prepare(&place, &processes, &around)?;
            let options = options.to_string_lossy().into_owned();
            annotations.insert(CRIU_CONFIG_ANNOTATION.to_owned(), options);
        }
        Ok(oci::build(&oci::Input {
            rootfs: &prepared.rootfs,
            image: oci::ImageDefaults {
                entrypoint: &defaults.entrypoint,
                cmd: &defaults.cmd,
                env: &defaults.env,
                working_dir: &defaults.working_dir,
                user: &defaults.user,
            },
            command: &config.command,
            args: &config.args,
            env: &config.env,
            working_dir: &config.working_dir,
            tty: config.tty,
            hostname: &around.hostname,
            mounts: &config.mounts,
            devices: &config.devices,
            privileged_devices: around.settings.privileged_devices,
            cdi_devices: &config.cdi_devices,
            security: &config.security,
            selinux: labels.as_ref(),
            resources: &config.resources,
            namespaces: &namespaces(&config.pid_mode, &around),
            sandbox_files: &sandbox_files,
            blockio_config: around.settings.blockio_config.as_deref(),
            cgroup_path: &place.cgroup,
            annotations: &annotations,
        })?)
    })
    .await
}

/// Writes the configuration of a container that has been prepared, and says who its process
/// will run as.
pub async fn finish(place: &Place, mut spec: Spec) -> Result<RunsAs, Error> {
    let path = place.config_file();
    let written = tokio::task::spawn_blocking(move || {
        if cgroup::version() == cgroup::Version::V2
            && let Some(limits) =
                spec.linux_mut().as_mut().and_then(|it| it.resources_mut().as_mut())
        {
            oci::huge_pages::as_files(limits);
        }
        write(&path, &spec).map_err(Error::io("cannot write", &path))?;
        let user = spec.process().as_ref().map(|process| process.user().clone());
        Ok(user.map_or(RunsAs { uid: 0, gid: 0, groups: Vec::new() }, |user| RunsAs {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
        }))
    });
    written.await.unwrap_or_else(|panic| {
        Err(Error::Invalid(format!("creating the container failed: {panic}")))
    })
}

/// Does what touches the host's paths `names`: they may lie on file systems that hang, so no
/// tokio worker does it, and nobody waits for it longer than to the deadline.
async fn in_time<T: Send + 'static>(
    deadline: Instant,
    names: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match timeout_at(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Error::Invalid(format!("creating the container failed: {panic}"))),
        Err(_) => Err(Error::Io {
            doing: format!(
                "mount source {names} did not answer within {} s: is its file system reachable?",
                SOURCES_LIMIT.as_secs()
            ),
            source: io::ErrorKind::TimedOut.into(),
        }),
    }
}

/// Whole or not at all, and for root alone: it holds the container's environment.
pub(super) fn write(path: &Path, spec: &Spec) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(spec)?)?;
    fs::rename(new, path)
}

/// A mount's source that isn't there is made a directory, as kubelets and the conformance
/// suite expect; one that can't be is an error with its path.
fn ensure_source(path: &Path) -> Result<(), Error> {
    if fs::metadata(path).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(path)
        .map_err(Error::io("mount source does not exist and cannot be made:", path))
}

/// What of a mounted image a volume is: links in it never lead out of it.
fn sub_path(mounted: &Path, sub_path: &Path, image: &str) -> Result<PathBuf, Error> {
    if sub_path.as_os_str().is_empty() {
        return Ok(mounted.to_owned());
    }
    let found = pathrs::Root::open(mounted).and_then(|root| root.resolve(sub_path));
    let found = found.map_err(|error| {
        let sub_path = sub_path.display();
        Error::Invalid(format!("image_sub_path {sub_path} of image volume {image}: {error}"))
    })?;
    fs::read_link(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd()))
        .map_err(Error::io("cannot resolve what is below", mounted))
}

/// Labels what the container is to use of the host: the mounts that ask for it, and the pod's
/// own files, whose level is the same in each of its containers.
fn relabel(config: &ContainerConfig, files: &[oci::SandboxFile], label: &str) -> Result<(), Error> {
    let asking =
        config.mounts.iter().filter(|mount| mount.selinux_relabel && mount.image.is_none());
    for mount in asking.clone() {
        oci::refuse_relabel(&mount.host_path)?;
    }
    // The host's own /dev/shm stays the host's.
    let own = files.iter().map(|file| &file.host_path).filter(|path| !path.starts_with("/dev"));
    for path in asking.map(|mount| &mount.host_path).chain(own) {
        selinux::relabel(path, label)
            .map_err(Error::io("cannot set the SELinux label of", path))?;
    }
    Ok(())
}

/// Mounts the sources that are to have the pod's owners into the bundle, and puts these in
/// their place: so every OCI runtime can use them.
fn map_owners(
    config: &mut ContainerConfig,
    bundle: &Path,
    around: &Surroundings,
) -> Result<(), Error> {
    for (at, mount) in config.mounts.iter_mut().enumerate() {
        if mount.id_maps.is_none() || mount.image.is_some() {
            continue;
        }
        if mount.id_maps != around.userns {
            let path = mount.container_path.display();
            return Err(Error::Invalid(format!(
                "the id mappings of the mount at {path} are not those of the pod's user namespace"
            )));
        }
        let source = &mount.host_path;
        let doing = "cannot mount, with the owners of the pod's user namespace (is its file system one that can: ext4, xfs, btrfs, tmpfs?)";
        let target = bundle.join("mounts").join(at.to_string());
        let made = if fs::metadata(source).map_err(Error::io(doing, source))?.is_dir() {
            fs::create_dir_all(&target)
        } else {
            fs::create_dir_all(bundle.join("mounts")).and_then(|()| File::create(&target).map(drop))
        };
        made.map_err(Error::io("cannot make mount point", &target))?;
        let users = File::open(around.dir.join("pins/user")).map_err(Error::io(doing, source))?;
        if mount.readonly && !mount.recursive_readonly {
            // Not by the runtime: it would do so from within the user namespace, where the
            // kernel refuses that for a source with flags of its own, such as nosuid.
            idmap::bind_readonly(source, &target, &users).map_err(Error::io(doing, source))?;
            mount.readonly = false;
        } else {
            idmap::bind(source, &target, &users, true).map_err(Error::io(doing, source))?;
        }
        mount.host_path = target;
    }
    Ok(())
}

fn namespaces(pid: &PidMode, around: &Surroundings) -> oci::Namespaces {
    let pin = |sharing: Sharing, name: &str| match sharing {
        Sharing::Pod => Some(around.dir.join("pins").join(name)),
        Sharing::Node => None,
    };
    oci::Namespaces {
        user: around
            .userns
            .clone()
            .map(|maps| oci::UserNamespace { path: around.dir.join("pins/user"), maps }),
        network: pin(around.network, "net"),
        ipc: pin(around.ipc, "ipc"),
        uts: pin(around.network, "uts"),
        pid: match pid {
            PidMode::Pod if around.host_pid => oci::PidNamespace::Host,
            PidMode::Pod => oci::PidNamespace::Path(around.dir.join("pins/pid")),
            PidMode::Container => oci::PidNamespace::New,
            PidMode::Node => oci::PidNamespace::Host,
            PidMode::Target(_) => around
                .target_pid_namespace
                .clone()
                .map_or(oci::PidNamespace::New, oci::PidNamespace::Path),
        },
    }
}

/// The files every container of a pod shares. Those below /etc are as writable as the root
/// file system: images expect to edit them.
fn sandbox_files(around: &Surroundings, readonly: bool) -> Vec<oci::SandboxFile> {
    let shm = match around.ipc {
        Sharing::Pod => around.dir.join("shm"),
        Sharing::Node => PathBuf::from("/dev/shm"),
    };
    let file = |host_path, container_path: &str, readonly| oci::SandboxFile {
        host_path,
        container_path: container_path.into(),
        readonly,
    };
    vec![
        file(around.dir.join("hosts"), "/etc/hosts", readonly),
        file(around.dir.join("hostname"), "/etc/hostname", readonly),
        file(around.dir.join("resolv.conf"), "/etc/resolv.conf", readonly),
        file(shm, "/dev/shm", false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_that_hangs_is_named() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let deadline = Instant::now() + Duration::from_millis(10);
        let hang = move || {
            held.recv().unwrap_or_default();
            Ok(())
        };
        let error = in_time(deadline, "/mnt/dead", hang).await.unwrap_err().to_string();
        assert!(error.contains("/mnt/dead did not answer within 60 s"), "{error}");
        drop(hold);
    }
}
