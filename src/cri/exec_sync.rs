//! ExecSync.

use std::time::Duration;

use tonic::Status;

use super::Face;
use super::status::of_pod;
use crate::proto::cri;

impl Face {
    pub(super) async fn exec_sync(
        &self,
        request: cri::ExecSyncRequest,
    ) -> Result<cri::ExecSyncResponse, Status> {
        let (_, container) = self.pods.container(&request.container_id).map_err(of_pod)?;
        // Zero is the CRI's word for no limit.
        let seconds = u64::try_from(request.timeout).unwrap_or(0);
        let limit = (seconds > 0).then(|| Duration::from_secs(seconds));
        let output = self.pods.exec(&container.id, &request.cmd, limit).await.map_err(of_pod)?;
        Ok(cri::ExecSyncResponse {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: output.exit_code,
        })
    }
}
