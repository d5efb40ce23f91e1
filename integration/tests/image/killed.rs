//! A daemon that is killed in the middle of a pull, of an import, and of writing down what came
//! of one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use haled::proto::{cri, haled as wire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;

use super::build::{Built, Layer, Packing, archive, sha256};
use super::registry::{Mischief, Registry, Tap};
use crate::daemon::{BUSYBOX, Daemon, PATIENCE};

const LARGE: usize = 8 << 20;

/// What is in the store of images, but for what is being thrown away.
fn stored(daemon: &Daemon) -> BTreeSet<PathBuf> {
    let mut stored = BTreeSet::new();
    for dir in ["blobs/sha256", "layers", "ingest", "partial", "rootfs"] {
        let path = daemon.path("root/images").join(dir);
        for entry in std::fs::read_dir(path).unwrap() {
            stored.insert(Path::new(dir).join(entry.unwrap().file_name()));
        }
    }
    stored
}

/// Every blob is what it is called, every layer is whole, and nothing waits to be thrown away.
async fn is_sound(daemon: &Daemon) {
    let images = daemon.path("root/images");
    for entry in std::fs::read_dir(images.join("blobs/sha256")).unwrap().flatten() {
        let digest = sha256(&std::fs::read(entry.path()).unwrap());
        assert_eq!(digest[7..], *entry.file_name().to_str().unwrap());
    }
    for entry in std::fs::read_dir(images.join("layers")).unwrap().flatten() {
        assert!(entry.path().join("complete").exists(), "{}", entry.path().display());
    }
    for dir in ["ingest", "ingest.old"] {
        let is_empty = || std::fs::read_dir(images.join(dir)).unwrap().next().is_none();
        daemon.until(dir, is_empty).await;
    }
}

async fn tags(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.images().await.list_images(cri::ListImagesRequest::default()).await;
    let mut tags: Vec<String> =
        listed.unwrap().into_inner().images.into_iter().flat_map(|image| image.repo_tags).collect();
    tags.sort();
    tags
}

async fn remove(daemon: &Daemon, image: &str) -> Result<(), tonic::Status> {
    let image = Some(cri::ImageSpec { image: image.into(), ..Default::default() });
    let request = cri::RemoveImageRequest { image };
    daemon.images().await.remove_image(request).await.map(drop)
}

/// An image of a small layer and a large one.
fn built() -> Built {
    let small = Layer::new().file("etc/small", "small").tar();
    let large = Layer::new().program("large", &vec![7; LARGE]).tar();
    Built::oci(&[(small, Packing::Gzip), (large, Packing::Plain)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_a_pull_has_a_part_left_that_the_next_pull_goes_on_with() {
    let mut daemon = Daemon::start_without_network().await;
    let before = stored(&daemon);
    let (registry, built) = (Registry::start(), built());
    registry.push("app", "v1", &built);
    let large = sha256(&built.blobs[1]);
    let wanted = large.clone();
    let tap = Tap::at(daemon.listener(), &registry, move |line| {
        if line.contains(&wanted) { Mischief::Stall } else { Mischief::None }
    });
    let part = daemon.path("root/images/partial").join(&large[7..]);
    let reached = || part.metadata().map_or(0, |meta| meta.len());
    let name = format!("{}/app:v1", tap.host);
    tokio::select! {
        answer = daemon.pull(&name) => panic!("{answer:?}"),
        // And the small layer is unpacked.
        () = daemon.until("half of the layer", || {
            reached() as usize > LARGE / 2 - 4096 && stored(&daemon).len() > before.len() + 4
        }) => {}
    }
    let came = reached();
    daemon.kill();
    daemon.launch().await;
    assert_eq!(tags(&daemon).await, [BUSYBOX]);
    is_sound(&daemon).await;
    let mut left = stored(&daemon);
    assert!(left.remove(&Path::new("partial").join(&large[7..])));
    assert_eq!((left, reached()), (before.clone(), came));

    let tap = Tap::at(daemon.listener(), &registry, |_| Mischief::None);
    let name = format!("{}/app:v1", tap.host);
    daemon.pull(&name).await.unwrap();
    let asked = tap.seen(&large);
    assert!(asked.len() == 1 && asked[0].ends_with(&format!("bytes={came}-")), "{asked:?}");
    is_sound(&daemon).await;
    remove(&daemon, &name).await.unwrap();
    assert_eq!(stored(&daemon), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_while_an_archive_is_sent_keeps_nothing_of_it() {
    let mut daemon = Daemon::start_without_network().await;
    let before = stored(&daemon);
    let whole = archive(&built().layout(&serde_json::json!({})));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut own = daemon.own_images().await;
    let importing = tokio::spawn(async move {
        let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = own.import(messages).await?.into_inner();
        answers.message().await.map(drop)
    });
    let name = "docker.io/library/cut:1";
    for chunk in whole[..whole.len() / 2].chunks(1 << 20) {
        let message = wire::ImportImageRequest {
            reference: name.into(),
            chunk: chunk.to_vec().into(),
            ..Default::default()
        };
        sender.send(message).await.unwrap();
    }
    let spooled = || {
        let ingest = std::fs::read_dir(daemon.path("root/images/ingest")).unwrap().flatten();
        ingest.map(|entry| entry.metadata().unwrap().len()).sum::<u64>()
    };
    daemon.until("some of the archive", || spooled() > 1 << 20).await;
    daemon.kill();
    importing.await.unwrap().unwrap_err();
    daemon.launch().await;
    is_sound(&daemon).await;
    assert_eq!(stored(&daemon), before);

    daemon.import(name, &whole).await.unwrap();
    assert_eq!(tags(&daemon).await, [BUSYBOX, name]);
    remove(&daemon, name).await.unwrap();
    assert_eq!(stored(&daemon), before);
}

/// Kills a process as soon as something is so, and tells what it was.
fn kill_when<T: Send + 'static>(
    pid: u32,
    mut so: impl FnMut() -> Option<T> + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let pid = Pid::from_raw(pid.try_into().unwrap());
    std::thread::spawn(move || {
        let began = Instant::now();
        loop {
            if let Some(found) = so() {
                kill(pid, Signal::SIGKILL).unwrap();
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "it never came to that");
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_while_it_unpacks_an_import_has_it_whole_or_not_at_all() {
    let mut daemon = Daemon::start_without_network().await;
    let before = stored(&daemon);
    let mut layer = Layer::new();
    for n in 0..5000 {
        layer = layer.file(&format!("files/{n}"), "small");
    }
    let small = Layer::new().file("etc/small", "small").tar();
    let built = Built::oci(&[(small, Packing::Gzip), (layer.tar(), Packing::Gzip)]);
    let whole = archive(&built.layout(&serde_json::json!({})));
    let name = "docker.io/library/cut:1";
    let layers = daemon.path("root/images/layers");
    let count = move || std::fs::read_dir(&layers).unwrap().count();
    let at_first = count();
    // The small layer is whole, and with the next one it has begun.
    let killer = kill_when(daemon.process_id(), move || (count() > at_first).then_some(()));
    let imported = daemon.import(name, &whole).await;
    killer.join().unwrap();
    daemon.kill();
    daemon.launch().await;
    is_sound(&daemon).await;
    match tags(&daemon).await {
        // It was quicker than the signal.
        tags if tags == [BUSYBOX, name] => remove(&daemon, name).await.unwrap(),
        tags => {
            assert_eq!(tags, [BUSYBOX]);
            imported.unwrap_err();
        }
    }
    assert_eq!(stored(&daemon), before);
}

/// The names of an image, as another process sees them in the daemon's records.
fn recorded(database: &Path) -> usize {
    let connection = Connection::open(database).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    let query = "SELECT count(*) FROM record WHERE kind = 'image-name' AND key LIKE '%/many:%'";
    let count: i64 = connection.query_row(query, [], |row| row.get(0)).unwrap();
    count.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_and_all_its_names_come_and_go_together_whenever_the_daemon_is_killed() {
    const NAMES: usize = 2000;
    let mut daemon = Daemon::start_without_network().await;
    let before = stored(&daemon);
    let names: Vec<String> = (0..NAMES).map(|n| format!("docker.io/library/many:{n:04}")).collect();
    let built = Built::docker(&[(Layer::new().file("a", "a").tar(), Packing::Plain)]);
    let saved = built.saved(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let database = daemon.path("root/haled.db");
    assert_eq!(recorded(&database), 0);

    // At the first name that is seen.
    let seen = database.clone();
    let killer = kill_when(daemon.process_id(), move || Some(recorded(&seen)).filter(|n| *n > 0));
    drop(daemon.import("", &saved).await);
    assert_eq!(killer.join().unwrap(), NAMES);
    daemon.kill();
    daemon.launch().await;
    assert_eq!(tags(&daemon).await.len(), NAMES + 1);
    is_sound(&daemon).await;

    // At the first one that is missed.
    let seen = database.clone();
    let killer =
        kill_when(daemon.process_id(), move || Some(recorded(&seen)).filter(|n| *n < NAMES));
    drop(remove(&daemon, &built.id()).await);
    assert_eq!(killer.join().unwrap(), 0);
    daemon.kill();
    daemon.launch().await;
    assert_eq!(tags(&daemon).await, [BUSYBOX]);
    is_sound(&daemon).await;
    assert_eq!(stored(&daemon), before);
}
