//! haled v1, Images: what halectl does with images beyond the CRI.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, once};
use tokio_util::io::StreamReader;
use tonic::{Request, Response, Status, Streaming};

use super::Streamed;
use crate::cri::Face;
use crate::cri::status::{invalid, of_image, wrong_state};
use crate::image::{Auth, Error, Image, Part, Progress, Stage};
use crate::proto::haled as wire;
use crate::proto::haled::images_server::Images;

/// How often a pull's progress is looked at.
const PROGRESS_LOOK: Duration = Duration::from_millis(100);
/// The bytes of an archive in one message.
const CHUNK: usize = 1 << 20;
/// The messages made ahead of the connection.
const QUEUE: usize = 4;
/// Most images in one archive.
const MAX_EXPORTED: usize = 256;

#[tonic::async_trait]
impl Images for Face {
    type PullStream = Streamed<wire::PullImageProgress>;
    type ImportStream = Streamed<wire::ImportImageProgress>;
    type ExportStream = Streamed<wire::ExportImagesChunk>;

    async fn list(
        &self,
        _: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let users = self.image_users();
        let mut images = Vec::new();
        for image in self.images.list() {
            images.push(self.summary(&image, &users).await);
        }
        Ok(Response::new(wire::ListImagesResponse { images }))
    }

    async fn pull(
        &self,
        request: Request<wire::PullImageRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let auth = request.credentials.map(|given| Auth {
            username: given.username,
            password: given.password,
            auth: given.auth,
            identity_token: given.identity_token,
            registry_token: given.registry_token,
            server_address: given.server_address,
        });
        let (progress, pulling) =
            self.images.pull_watched(&request.reference, auth).map_err(of_image)?;
        // The pull is a task of its own, and goes on if this stream is dropped.
        let message = |parts, done: Option<Arc<Image>>| wire::PullImageProgress {
            id: done.map(|image| image.id.clone()).unwrap_or_default(),
            parts,
        };
        Ok(Response::new(watched(progress, pulling, message)))
    }

    async fn import(
        &self,
        request: Request<Streaming<wire::ImportImageRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.ok_or_else(|| invalid("no archive was sent"))?;
        let rest = stream.map(|message| match message {
            Ok(message) => Ok(message.chunk),
            Err(status) => Err(io::Error::other(status)),
        });
        let reader = Box::pin(StreamReader::new(once(Ok(first.chunk)).chain(rest)));
        let (images, progress) = (self.images.clone(), Arc::<Progress>::default());
        let shown = Arc::clone(&progress);
        let importing = async move {
            let name = Some(first.reference).filter(|name| !name.is_empty());
            let source = Some(first.source).filter(|source| !source.is_empty());
            let source = source.unwrap_or_else(|| "the archive".to_owned());
            images.import_watched(reader, source.as_ref(), name.as_deref(), shown).await
        };
        let message = |parts, done: Option<Vec<Arc<Image>>>| wire::ImportImageProgress {
            images: done.iter().flatten().map(|image| imported(image)).collect(),
            parts,
        };
        Ok(Response::new(watched(progress, importing, message)))
    }

    async fn export(
        &self,
        request: Request<wire::ExportImagesRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let names = request.into_inner().images;
        if names.is_empty() || names.len() > MAX_EXPORTED {
            return Err(invalid(format!("1 to {MAX_EXPORTED} images can be exported at once")));
        }
        let export = self.images.export(&names).await.map_err(of_image)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let first = wire::ExportImagesChunk { chunk: Bytes::new(), size: export.size_bytes() };
        let failing = sender.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let failing = sender.clone();
            if sender.blocking_send(Ok(first)).is_err() {
                return;
            }
            let chunks = io::BufWriter::with_capacity(CHUNK, Chunks(sender));
            match export.write(chunks) {
                // The client has gone.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    let status = Status::internal(format!("cannot read an image: {error}"));
                    // It may have gone meanwhile.
                    failing.blocking_send(Err(status)).ok();
                }
                _ => {}
            }
        });
        tokio::spawn(async move {
            // The end of the stream would tell that the archive is whole.
            if let Err(panic) = writing.await {
                failing.send(Err(Status::internal(panic.to_string()))).await.ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveImageRequest>,
    ) -> Result<Response<wire::RemoveImageResponse>, Status> {
        let request = request.into_inner();
        let image = self.images.find(&request.image).map_err(of_image)?;
        let users = self.image_users().remove(&image.id).unwrap_or_default();
        let last = self.images.is_last_name(&request.image).map_err(of_image)?;
        if last && !request.force && !users.is_empty() {
            return Err(wrong_state(format!(
                "image \"{}\" is used by {}: delete what uses it, or force the removal",
                request.image,
                users.join(", ")
            )));
        }
        self.images.remove(&request.image).await.map_err(of_image)?;
        let left = self.images.find(&image.id).ok();
        let still = |name: &String| {
            left.as_ref()
                .is_some_and(|left| left.tags.contains(name) || left.digests.contains(name))
        };
        let names = image.tags.iter().chain(&image.digests);
        let untagged: Vec<String> = names.filter(|name| !still(name)).cloned().collect();
        let listed = self.images.list().iter().any(|other| other.id == image.id);
        let deleted = if listed { String::new() } else { image.id.clone() };
        Ok(Response::new(wire::RemoveImageResponse { untagged, deleted }))
    }

    async fn prune(
        &self,
        request: Request<wire::PruneImagesRequest>,
    ) -> Result<Response<wire::PruneImagesResponse>, Status> {
        let all = request.into_inner().all;
        let users = BTreeMap::new();
        let mut removed = Vec::new();
        let before = self.images.usage().await.map_err(of_image)?.bytes;
        for image in self.images.unused(all) {
            let summary = self.summary(&image, &users).await;
            self.images.remove(&image.id).await.map_err(of_image)?;
            removed.push(summary);
        }
        let after = self.images.usage().await.map_err(of_image)?.bytes;
        let freed = before.saturating_sub(after);
        Ok(Response::new(wire::PruneImagesResponse { removed, freed }))
    }

    async fn inspect(
        &self,
        request: Request<wire::InspectImageRequest>,
    ) -> Result<Response<wire::InspectImageResponse>, Status> {
        let image = self.images.find(&request.into_inner().image).map_err(of_image)?;
        let mut object = self.images.inspect(&image).await.map_err(of_image)?;
        object["usedBy"] = self.image_users().remove(&image.id).unwrap_or_default().into();
        Ok(Response::new(wire::InspectImageResponse { json: object.to_string() }))
    }
}

impl Face {
    /// The containers that stand on each image, by its id: as `namespace/pod/container`, or by
    /// id where a container is just coming or going.
    fn image_users(&self) -> BTreeMap<String, Vec<String>> {
        let mut names = BTreeMap::new();
        for pod in &self.pods.views() {
            for container in &pod.containers {
                let (namespace, pod) = (&pod.config.namespace, &pod.config.name);
                let name = format!("{namespace}/{pod}/{}", container.config.name);
                names.insert(container.id.to_string(), name);
            }
        }
        let named = |id: String| names.get(&id).cloned().unwrap_or(id);
        let sorted = |ids: BTreeSet<String>| {
            ids.into_iter().map(named).collect::<BTreeSet<_>>().into_iter().collect()
        };
        self.images.users().into_iter().map(|(image, ids)| (image, sorted(ids))).collect()
    }

    async fn summary(
        &self,
        image: &Image,
        users: &BTreeMap<String, Vec<String>>,
    ) -> wire::ImageSummary {
        // One that can't be read is listed all the same.
        let created = self.images.created(image).await.unwrap_or_default();
        wire::ImageSummary {
            id: image.id.clone(),
            tags: image.tags.clone(),
            digests: image.digests.clone(),
            size: image.size_bytes,
            created,
            pinned: image.pinned,
            used_by: users.get(&image.id).cloned().unwrap_or_default(),
        }
    }
}

/// The parts at first and whenever one has changed, and at last what came of the work.
fn watched<T: Send + 'static, M: Send + 'static>(
    progress: Arc<Progress>,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    message: impl Fn(Vec<wire::PullPart>, Option<T>) -> M + Send + 'static,
) -> Streamed<M> {
    let start = Some((Box::pin(work), progress, Vec::new(), message));
    Box::pin(futures_util::stream::unfold(start, |state| async move {
        let (mut work, progress, told, message) = state?;
        loop {
            let done = tokio::time::timeout(PROGRESS_LOOK, &mut work).await;
            let parts = progress.parts();
            let now = || parts.iter().map(part).collect();
            if let Ok(done) = done {
                let last = done.map_err(of_image).map(|done| message(now(), Some(done)));
                return Some((last, None));
            }
            if parts != told {
                let next = Ok(message(now(), None));
                return Some((next, Some((work, progress, parts, message))));
            }
        }
    }))
}

fn imported(image: &Image) -> wire::ImportedImage {
    wire::ImportedImage { id: image.id.clone(), references: image.tags.clone() }
}

fn part(part: &Part) -> wire::PullPart {
    use wire::pull_part::Stage as Wire;
    wire::PullPart {
        digest: part.digest.clone(),
        size: part.size_bytes,
        done: part.done_bytes,
        stage: match part.stage {
            Stage::Waiting => Wire::Waiting,
            Stage::Fetching => Wire::Fetching,
            Stage::Fetched => Wire::Fetched,
            Stage::Unpacking => Wire::Unpacking,
            Stage::Done => Wire::Done,
        }
        .into(),
    }
}

/// A writer whose writes are messages.
struct Chunks(mpsc::Sender<Result<wire::ExportImagesChunk, Status>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = &bytes[..bytes.len().min(CHUNK)];
        let chunk = wire::ExportImagesChunk { chunk: Bytes::copy_from_slice(taken), size: 0 };
        self.0.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
