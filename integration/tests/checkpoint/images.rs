//! Checkpoints inside images: pulled from a registry, imported, and ones that only say they are.

use haled::proto::cri;
use tar::EntryType;
use tonic::Code;

use super::{
    COUNTER, allow_restoring, archive, checkpoint, count, counts_beyond, daemon_with_criu, is_empty,
};
use crate::daemon::Daemon;
use crate::image::build::{self, Built, Layer, Packing};
use crate::image::registry::{Mischief, Registry, Tap};

/// checkpointctl's and containerd's annotation, and CRI-O's.
const NAME: &str = "org.criu.checkpoint.container.name";
const CRIO_NAME: &str = "io.kubernetes.cri-o.annotations.checkpoint.name";

fn from_image(name: &str, image: &str) -> cri::ContainerConfig {
    cri::ContainerConfig {
        image: Some(cri::ImageSpec { image: image.into(), ..Default::default() }),
        command: Vec::new(),
        ..Daemon::container(name, "")
    }
}

async fn remove_image(daemon: &Daemon, image: &str) {
    let image = Some(cri::ImageSpec { image: image.into(), ..Default::default() });
    daemon.images().await.remove_image(cri::RemoveImageRequest { image }).await.unwrap();
}

async fn names(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.images().await.list_images(cri::ListImagesRequest::default()).await;
    listed.unwrap().into_inner().images.into_iter().flat_map(|image| image.repo_tags).collect()
}

fn entries(daemon: &Daemon, below: &str) -> usize {
    std::fs::read_dir(daemon.path("root/images").join(below)).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_on_from_a_registrys_image_and_again_when_that_is_removed() {
    let Some(daemon) = daemon_with_criu().await else { return };
    let (layers, blobs) = (entries(&daemon, "layers"), entries(&daemon, "blobs/sha256"));
    let first = daemon.run(&daemon.sandbox("first")).await;
    let script = format!("rm /etc/passwd; {COUNTER}");
    let id = daemon.run_container(&first, Daemon::container("counter", &script)).await;
    counts_beyond(&daemon, &id, 20).await;
    let file = daemon.path("counter.tar");
    checkpoint(&daemon, &id, &file, 60).await.unwrap();
    daemon.remove_pod(&first).await;

    // As `buildah from scratch`, `buildah add` and `buildah config --annotation` make one.
    let layer = (std::fs::read(&file).unwrap(), Packing::Gzip);
    std::fs::remove_file(&file).unwrap();
    let registry = Registry::start();
    registry.push("counter", "saved", &Built::oci(&[layer]).annotated(&[(NAME, "counter")]));
    let tap = Tap::at(daemon.listener(), &registry, |_| Mischief::None);
    let name = format!("{}/counter:saved", tap.host);
    let image = daemon.pull(&name).await.unwrap();

    let mut second = daemon.sandbox("second");
    for (key, value) in [("haled/heal", "restart"), ("haled/restart-policy", "Always")] {
        second.annotations.insert(key.into(), value.into());
    }
    let second = daemon.run(&second).await;
    let id = daemon.run_container(&second, from_image("again", &image)).await;
    counts_beyond(&daemon, &id, 20).await;
    let now = count(&daemon, &id).await;
    counts_beyond(&daemon, &id, now).await;
    let status = daemon.status(&id).await;
    assert_eq!(status.image.unwrap().image, crate::daemon::BUSYBOX);
    assert_ne!(daemon.exec(&id, &["ls", "/etc/passwd"]).await.0, 0);
    assert_eq!(daemon.exec(&id, &["hostname"]).await.1.trim(), "second");

    // What a container goes on from stays for its restarts, whoever removes the image.
    remove_image(&daemon, &name).await;
    assert_eq!(names(&daemon).await, [crate::daemon::BUSYBOX]);
    let process = nix::unistd::Pid::from_raw(daemon.pid(&id).await);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    let id = daemon.attempt(&second, "again", 1).await;
    counts_beyond(&daemon, &id, 20).await;
    daemon.remove_pod(&second).await;
    daemon.nothing_is_left().await;
    // And no longer.
    assert_eq!((entries(&daemon, "layers"), entries(&daemon, "blobs/sha256")), (layers, blobs));
}

/// Imports an image of these layers as `name`.
async fn imported(daemon: &Daemon, name: &str, annotation: &str, layers: Vec<Layer>) -> String {
    let layers: Vec<_> = layers.into_iter().map(|layer| (layer.tar(), Packing::Gzip)).collect();
    let built = Built::oci(&layers).annotated(&[(annotation, "app")]);
    let archive = build::archive(&built.layout(&serde_json::json!({})));
    daemon.import(name, &archive).await.unwrap().remove(0).id
}

#[tokio::test]
async fn an_image_that_is_no_whole_checkpoint_is_refused_and_leaves_nothing() {
    let mut daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("careful")).await;
    let container = |image: &str| {
        let linux = Daemon::host_container("app", "").linux;
        cri::ContainerConfig { linux, ..from_image("app", image) }
    };
    let config = format!("{{\"rootfsImageName\": \"{}\"}}", crate::daemon::BUSYBOX);
    let spec = r#"{"process": {"args": ["/bin/sh"]}}"#;
    let bare = || Layer::new().file("config.dump", &config).file("spec.dump", spec);
    let whole = || bare().file("checkpoint/inventory.img", "nothing that CRIU knows");

    let name = "docker.io/library/saved:1";
    imported(&daemon, name, CRIO_NAME, vec![whole()]).await;
    let error = daemon.create(&pod, container(name)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("runtime.restore_checkpoints = true"), "{error}");

    allow_restoring(&daemon);
    daemon.terminate();
    daemon.launch().await;
    let link = |name: &str| Layer::new().symlink(name, "/etc");
    let fifo = Layer::header(EntryType::Fifo, 0o644, 0);
    let evil = archive(&[("../../evil", b"x")]);
    let cases: Vec<(Vec<Layer>, &str)> = vec![
        (vec![Layer::new().file("spec.dump", spec)], "it has no config.dump"),
        (vec![whole(), Layer::new().whiteout(".wh.spec.dump")], "it has no spec.dump"),
        (vec![bare()], "it has no checkpoint/inventory.img"),
        (vec![whole(), link("config.dump")], "\"config.dump\": it must be a file"),
        (vec![bare(), link("checkpoint")], "\"checkpoint\": it must be a file"),
        (vec![whole().raw("rootfs-diff.tar", fifo, b"")], "\"rootfs-diff.tar\": it must be"),
        (vec![whole().dir("checkpoint/a", 0o755)], "\"checkpoint/a\": it must be a file"),
        (vec![whole().file("deleted.files", "[\"/../etc\"]")], "climbs"),
        (vec![whole().program("rootfs-diff.tar", &evil)], "climbs"),
        (vec![whole(), Layer::new().file("config.dump", "{}")], "names no image"),
    ];
    for (layers, why) in cases {
        imported(&daemon, name, NAME, layers).await;
        let error = daemon.create(&pod, container(name)).await.unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{why}: {error}");
        assert!(error.message().contains(why) && error.message().contains(name), "{why}: {error}");
        assert!(is_empty(&daemon.path("root/images/rootfs")), "{why}");
    }
    assert!(daemon.containers(&pod).await.is_empty());

    // Of several layers, and its form is right: CRIU, or the runtime that finds none, has the
    // last word.
    let images = Layer::new().file("checkpoint/inventory.img", "nothing that CRIU knows");
    let id = imported(&daemon, name, NAME, vec![bare(), images]).await;
    let id = daemon.create(&pod, container(&id)).await.unwrap();
    let request = cri::StartContainerRequest { container_id: id.clone() };
    let error = daemon.runtime().await.start_container(request).await.unwrap_err();
    assert!(error.message().contains("can't be started"), "{error}");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn a_manifest_cannot_go_on_from_a_checkpoint_and_is_told_so() {
    let daemon = Daemon::start_without_network().await;
    let layer = Layer::new().file("checkpoint/inventory.img", "nothing");
    imported(&daemon, "docker.io/library/saved:1", NAME, vec![layer]).await;
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: saved\nspec:\n  hostNetwork: true\n  \
                    containers:\n  - name: app\n    image: saved:1\n    imagePullPolicy: Never\n";
    daemon.apply(manifest).await.unwrap();
    let began = std::time::Instant::now();
    loop {
        let pod = daemon.pod("saved").await;
        let told = pod
            .iter()
            .flat_map(|pod| &pod.containers)
            .any(|container| container.message.contains("is a checkpoint of container \"app\""));
        if told {
            break;
        }
        let log = daemon.log();
        assert!(began.elapsed() < crate::daemon::PATIENCE, "it is not told: {pod:?}\n{log}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
