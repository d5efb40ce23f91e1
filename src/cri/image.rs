//! ImageService: PullImage, ListImages, ImageStatus, RemoveImage, ImageFsInfo.

use std::collections::HashMap;
use std::time::SystemTime;

use serde_json::json;
use tonic::Status;

use super::Face;
use super::status::{invalid, of_image};
use crate::container::state::nanos;
use crate::image::{Auth, Error, Image, Usage};
use crate::proto::cri;

impl Face {
    pub(super) async fn pull_image(
        &self,
        request: cri::PullImageRequest,
    ) -> Result<cri::PullImageResponse, Status> {
        let name = named(request.image)?;
        let auth = request.auth.map(|auth| Auth {
            username: auth.username,
            password: auth.password,
            auth: auth.auth,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
            server_address: auth.server_address,
        });
        let image = self.images.pull(&name, auth).await.map_err(of_image)?;
        Ok(cri::PullImageResponse { image_ref: image.id.clone() })
    }

    pub(super) fn list_images(
        &self,
        request: cri::ListImagesRequest,
    ) -> Result<cri::ListImagesResponse, Status> {
        let wanted = request.filter.and_then(|filter| filter.image).unwrap_or_default().image;
        let found = match self.images.find(&wanted) {
            _ if wanted.is_empty() => self.images.list(),
            Ok(image) => vec![image],
            Err(Error::NotFound(_)) => Vec::new(),
            Err(error) => return Err(of_image(error)),
        };
        Ok(cri::ListImagesResponse { images: found.iter().map(|image| described(image)).collect() })
    }

    pub(super) fn image_status(
        &self,
        request: cri::ImageStatusRequest,
    ) -> Result<cri::ImageStatusResponse, Status> {
        let name = named(request.image)?;
        let image = match self.images.find(&name) {
            Ok(image) => image,
            // No image is an answer, not an error, in the CRI's text.
            Err(Error::NotFound(_)) => return Ok(cri::ImageStatusResponse::default()),
            Err(error) => return Err(of_image(error)),
        };
        let mut info = HashMap::new();
        if request.verbose {
            let more = json!({ "chainIDs": image.chain, "imageSpec": image.defaults });
            info.insert("info".to_owned(), more.to_string());
        }
        Ok(cri::ImageStatusResponse { image: Some(described(&image)), info })
    }

    pub(super) async fn remove_image(
        &self,
        request: cri::RemoveImageRequest,
    ) -> Result<cri::RemoveImageResponse, Status> {
        let name = named(request.image)?;
        self.images.remove(&name).await.map_err(of_image)?;
        Ok(cri::RemoveImageResponse {})
    }

    pub(super) async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse, Status> {
        let usage = self.images.usage().await.map_err(of_image)?;
        let filesystem = filesystem(&usage);
        Ok(cri::ImageFsInfoResponse {
            image_filesystems: vec![filesystem.clone()],
            // Writable layers lie beside the images.
            container_filesystems: vec![filesystem],
        })
    }
}

pub(super) fn filesystem(usage: &Usage) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: nanos(SystemTime::now()),
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: usage.path.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(cri::UInt64Value { value: usage.bytes }),
        inodes_used: Some(cri::UInt64Value { value: usage.inodes }),
    }
}

fn named(image: Option<cri::ImageSpec>) -> Result<String, Status> {
    match image {
        Some(image) if !image.image.is_empty() => Ok(image.image),
        _ => Err(invalid("image.image is empty: name one, like docker.io/library/busybox:1.36")),
    }
}

fn described(image: &Image) -> cri::Image {
    // The image's User, as a number where it is one; a group after a colon doesn't count.
    let user = image.defaults.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<u32>().ok();
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size_bytes,
        uid: uid.map(|uid| cri::Int64Value { value: uid.into() }),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: Some(cri::ImageSpec {
            image: image.tags.first().or(image.digests.first()).unwrap_or(&image.id).clone(),
            ..Default::default()
        }),
        pinned: image.pinned,
    }
}
