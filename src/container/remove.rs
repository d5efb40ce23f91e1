//! Removing: everything of an ended container that is on this machine.

use super::{Error, Place};
use crate::image::Images;
use crate::sys::{cgroup, mount};

/// Deletes root file system, cgroup with what still runs there, and bundle. What is gone already is no error, so it may
/// be called again after a failure.
pub async fn files(images: &Images, place: &Place) -> Result<(), Error> {
    images.release_rootfs(&place.id).await?;
    let place = place.clone();
    tokio::task::spawn_blocking(move || {
        // The OCI runtime does this; what a crash or a failed `delete` left is done here.
        cgroup::kill(&place.cgroup)
            .map_err(Error::io("cannot kill all in cgroup", place.cgroup.as_ref()))?;
        cgroup::remove(&place.cgroup)
            .map_err(Error::io("cannot remove cgroup", place.cgroup.as_ref()))?;
        // Volumes mounted for it with other owners would be deleted along.
        mount::detach_below(&place.bundle)
            .map_err(Error::io("cannot unmount what is below", &place.bundle))?;
        match std::fs::remove_dir_all(&place.bundle) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("cannot delete", &place.bundle)(error))
            }
            _ => Ok(()),
        }
    })
    .await
    .unwrap_or_else(|panic| Err(Error::Invalid(format!("removing the container failed: {panic}"))))
}
