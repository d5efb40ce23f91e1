//! CheckpointContainer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Status;

use super::Face;
use super::container::status;
use super::status::{invalid, of_image, of_pod, wrong_state};
use crate::container::checkpoint::{DEFAULT_LIMIT, Wanted};
use crate::container::config::ContainerConfig;
use crate::image::Checkpoint;
use crate::proto::cri;

impl Face {
    pub(super) async fn checkpoint_container(
        &self,
        request: cri::CheckpointContainerRequest,
    ) -> Result<cri::CheckpointContainerResponse, Status> {
        let (pod, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        let limit = match u64::try_from(request.timeout) {
            Ok(0) => DEFAULT_LIMIT,
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let why = format!("timeout {} is negative: give seconds, or 0", request.timeout);
                return Err(invalid(why));
            }
        };
        let wanted = Wanted {
            location: PathBuf::from(request.location),
            limit,
            status: dumped(&status(&pod, &container)),
        };
        self.pods.checkpoint(&container.id, wanted).await.map_err(of_pod)?;
        Ok(cri::CheckpointContainerResponse {})
    }

    /// The checkpoint that an image's name stands for: the path of an archive, or an image whose
    /// manifest says that it is one.
    pub(super) fn checkpoint_named(&self, image: &str) -> Option<Checkpoint> {
        if image.starts_with('/') {
            return Some(Checkpoint::Archive(image.into()));
        }
        let image = self.images.find(image).ok().filter(|image| image.checkpoint.is_some())?;
        Some(Checkpoint::Image { image: image.id.clone() })
    }

    /// Has a container go on from a checkpoint, on the image that it stood on, which is pulled if
    /// need be.
    pub(super) async fn go_on_from(
        &self,
        checkpoint: Checkpoint,
        config: &mut ContainerConfig,
    ) -> Result<(), Status> {
        let named = config.image.clone();
        if !self.about.restore_checkpoints {
            let kind = match &checkpoint {
                Checkpoint::Archive(_) => "path",
                Checkpoint::Image { .. } => "checkpoint",
            };
            let why = "a checkpoint says itself which privileges its processes have";
            return Err(wrong_state(format!(
                "image {named} is a {kind}, and containers can't go on from checkpoints: {why}; if \
                 you trust all who name images, set runtime.restore_checkpoints = true"
            )));
        }
        let base =
            tokio::time::timeout(READ_LIMIT, self.images.checkpoint_base(checkpoint.clone()));
        let base = base.await.map_err(|_| {
            let why = format!("cannot be read within {} s", READ_LIMIT.as_secs());
            Status::deadline_exceeded(format!("checkpoint {named} {why}"))
        })?;
        let base = base.map_err(of_image)?;
        let here = base.images.iter().find_map(|name| self.images.find(name).ok());
        let image = match (here, base.images.first()) {
            (Some(image), _) => image,
            (None, Some(name)) => self.images.pull(name, None).await.map_err(of_image)?,
            (None, None) => return Err(invalid(format!("checkpoint {named} names no image"))),
        };
        config.image.clone_from(&image.id);
        config.checkpoint = Some(checkpoint);
        if config.command.is_empty() && config.args.is_empty() {
            // Who names a checkpoint in place of an image doesn't repeat what runs in it.
            config.command = base.args;
        }
        Ok(())
    }
}

/// How long the metadata of a checkpoint may take to be read.
const READ_LIMIT: Duration = Duration::from_mins(1);

/// A status as Go's encoding/json writes the CRI's own type: what reads an archive expects its
/// names.
fn dumped(status: &cri::ContainerStatus) -> Value {
    let sorted = |map: &std::collections::HashMap<String, String>| -> BTreeMap<String, String> {
        map.clone().into_iter().collect()
    };
    let image = status.image.clone().unwrap_or_default();
    let metadata = status.metadata.clone().unwrap_or_default();
    json!({
        "id": status.id,
        "metadata": { "name": metadata.name, "attempt": metadata.attempt },
        "state": status.state,
        "created_at": status.created_at,
        "started_at": status.started_at,
        "image": {
            "image": image.image,
            "user_specified_image": image.user_specified_image,
        },
        "image_ref": status.image_ref,
        "image_id": status.image_id,
        "labels": sorted(&status.labels),
        "annotations": sorted(&status.annotations),
        "mounts": status.mounts.iter().map(|mount| json!({
            "container_path": mount.container_path,
            "host_path": mount.host_path,
            "readonly": mount.readonly,
        })).collect::<Vec<_>>(),
        "log_path": status.log_path,
    })
}
