//! What a container was asked to be: kept as it came, in our own words.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::{self, Checkpoint, Images};
use crate::oci::model::{Device, EnvVar, Mount, PidMode, Resources, Security};

/// A container's configuration. Immutable from its creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Its name in the pod.
    pub name: String,
    /// Which try this is.
    pub attempt: u32,
    /// The image as asked for by the client's `ImageSpec.image`.
    pub image: String,
    /// The image as the user wrote it, when the client says.
    pub user_image: String,
    /// In place of the image's entrypoint.
    pub command: Vec<String>,
    /// In place of the image's cmd.
    pub args: Vec<String>,
    /// In place of the image's, when not empty.
    pub working_dir: String,
    /// Over the image's.
    pub env: Vec<EnvVar>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// CDI devices by their full names: `vendor.com/class=device`.
    #[serde(default)]
    pub cdi_devices: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's log directory; empty: no log.
    pub log_path: PathBuf,
    /// Keep a standard input open.
    pub stdin: bool,
    /// Close it after the first attach.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
    /// Which PID namespace.
    pub pid_mode: PidMode,
    /// Confinement.
    pub security: Security,
    /// Limits.
    pub resources: Resources,
    /// The checkpoint that it goes on from.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// In place of the image's: `SIGTERM`.
    pub stop_signal: Option<String>,
}

impl ContainerConfig {
    /// Notes for every mount of an image which one that is now.
    pub fn find_images(&mut self, images: &Images) -> Result<(), image::Error> {
        for volume in self.mounts.iter_mut().filter_map(|mount| mount.image.as_mut()) {
            let image = images.find(&volume.name)?;
            volume.id.clone_from(&image.id);
        }
        Ok(())
    }
}
