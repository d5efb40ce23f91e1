//! CheckpointContainer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Status;

use super::Face;
use super::container::status;
use super::status::{invalid, of_pod};
use crate::container::checkpoint::{DEFAULT_LIMIT, Wanted};
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
}

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
