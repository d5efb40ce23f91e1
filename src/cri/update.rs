//! UpdateContainerResources, UpdatePodSandboxResources.

use tonic::Status;

use super::Face;
use super::container_config::resources;
use super::status::{invalid, of_pod};
use crate::pod::config::SandboxResources;
use crate::proto::cri;

impl Face {
    pub(super) async fn update_container_resources(
        &self,
        request: cri::UpdateContainerResourcesRequest,
    ) -> Result<cri::UpdateContainerResourcesResponse, Status> {
        let (_, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        let wanted = request.linux.ok_or_else(|| invalid("linux is missing: nothing to change"))?;
        self.pods.update(&container.id, resources(wanted)?).await.map_err(of_pod)?;
        Ok(cri::UpdateContainerResourcesResponse {})
    }

    pub(super) async fn update_pod_sandbox_resources(
        &self,
        request: cri::UpdatePodSandboxResourcesRequest,
    ) -> Result<cri::UpdatePodSandboxResourcesResponse, Status> {
        let pod = self.pods.pod(&request.pod_sandbox_id).map_err(of_pod)?;
        let change = SandboxResources {
            overhead: request.overhead.map(resources).transpose()?,
            resources: request.resources.map(resources).transpose()?,
        };
        self.pods.update_sandbox(&pod.id, change).await.map_err(of_pod)?;
        Ok(cri::UpdatePodSandboxResourcesResponse {})
    }
}
