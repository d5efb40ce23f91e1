//! Layers made to attack: one test an attack. Each must be refused with the path in the
//! error, and leave neither a layer nor anything outside.

use tar::EntryType;

use super::build::Layer;
use super::{Node, imported};

/// Imports the layers, the last of which is hostile.
async fn refused(layers: &[Vec<u8>], path: &str, cause: &str) {
    let node = Node::new();
    let error = imported(&node, layers).await.unwrap_err().to_string();
    assert!(error.contains(path) && error.contains(cause), "{error}");
    assert!(node.images.list().is_empty());
    assert_eq!(node.names("layers").len(), layers.len() - 1, "only what is below is there");
    node.assert_tidy();
}

fn harmless() -> Vec<u8> {
    Layer::new().dir("etc", 0o755).file("etc/passwd", "root").tar()
}

fn file() -> tar::Header {
    Layer::header(EntryType::Regular, 0o644, 4)
}

#[tokio::test]
async fn a_path_that_climbs() {
    for name in ["../escaped", "a/../../escaped", "/../escaped", "a/.."] {
        refused(&[Layer::new().raw(name, file(), b"evil").tar()], name, "climbs").await;
    }
}

#[tokio::test]
async fn an_absolute_path_stays_inside() {
    let node = Node::new();
    let name = format!("/haled-test-{}", super::container().short());
    let image = imported(&node, &[Layer::new().raw(&name, file(), b"evil").tar()]).await.unwrap();
    assert!(!std::path::Path::new(&name).exists());
    assert!(node.path("layers").join(&image.chain[0][7..]).join("fs").join(&name[1..]).exists());
}

#[tokio::test]
async fn writing_through_a_symlink() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let link = |target: &str| Layer::new().symlink("x", target);
    let write = |layer: Layer| layer.raw("x/evil", file(), b"evil").tar();
    refused(&[write(link(target))], "x/evil", "leads to nothing").await;
    refused(&[write(link("../../../../../../etc"))], "x/evil", "climbs above the root").await;
    refused(&[write(link("x"))], "x/evil", "too many symlinks").await;
    // The same with the link in a lower layer.
    refused(&[link(target).tar(), write(Layer::new())], "x/evil", "leads to nothing").await;
    refused(&[link("../../etc").tar(), write(Layer::new())], "x/evil", "climbs above the root")
        .await;
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_written_over_a_symlink_replaces_it() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let node = Node::new();
    let layer =
        Layer::new().symlink("x", outside.path().to_str().unwrap()).raw("x", file(), b"evil").tar();
    imported(&node, &[layer]).await.unwrap();
    assert_eq!(outside.as_file().metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn hardlinks_to_outside() {
    for (target, cause) in [
        ("../../../../etc/shadow", "leaves the image"),
        ("/etc/shadow", "no such file"),
        ("etc/../../shadow", "leaves the image"),
        ("etc", "is a directory"),
        ("", "hardlink to a directory"),
    ] {
        refused(&[harmless(), Layer::new().hardlink("stolen", target).tar()], "stolen", cause)
            .await;
    }
    let through =
        Layer::new().symlink("out", "../../../../etc").hardlink("stolen", "out/shadow").tar();
    refused(&[through], "stolen", "climbs above the root").await;
}

#[tokio::test]
async fn whiteouts_to_outside() {
    for name in [".wh...", ".wh..", ".wh.", "../.wh.etc"] {
        let cause = if name.starts_with("..") { "climbs" } else { "whiteout of nothing" };
        refused(&[harmless(), Layer::new().raw(name, file(), b"evil").tar()], name, cause).await;
    }
    // Through a link to the host: nothing is there to hide.
    let outside = tempfile::NamedTempFile::new().unwrap();
    let dir = outside.path().parent().unwrap().to_str().unwrap();
    let name = format!("x/.wh.{}", outside.path().file_name().unwrap().to_str().unwrap());
    let node = Node::new();
    let layers = [Layer::new().symlink("x", dir).tar(), Layer::new().whiteout(&name).tar()];
    imported(&node, &layers).await.unwrap();
    assert!(outside.path().exists());
}

#[tokio::test]
async fn overlayfs_own_marks() {
    for key in ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.origin"] {
        let layer = Layer::new()
            .pax(&[(&format!("SCHILY.xattr.{key}"), b"/etc")])
            .file("marked", "x")
            .tar();
        refused(&[layer], "marked", key).await;
    }
    let mut device = Layer::header(EntryType::Char, 0o600, 0);
    device.set_device_major(0).unwrap();
    device.set_device_minor(0).unwrap();
    refused(&[Layer::new().raw("white", device, b"").tar()], "white", "overlayfs's own whiteout")
        .await;
}

#[tokio::test]
async fn overlong_names() {
    let long = "n".repeat(256);
    refused(&[Layer::new().file(&format!("d/{long}"), "x").tar()], "nnnn", "longer than 255").await;
    let deep = vec!["d"; 2049].join("/");
    refused(&[Layer::new().file(&deep, "x").tar()], "d/d/d", "longer than 4095").await;
    let deep = vec!["d"; 600].join("/");
    refused(&[Layer::new().file(&deep, "x").tar()], "d/d/d", "name too long").await;
}

#[tokio::test]
async fn a_bomb() {
    // 2 GiB of zeros in a few kilobytes, more than 1 GiB and 200 times its size.
    let node = Node::new();
    let mut header = Layer::header(EntryType::Regular, 0o644, 0);
    header.set_size(2 << 30);
    header.set_path("zeros").unwrap();
    header.set_cksum();
    let tar = std::io::Read::chain(
        &header.as_bytes()[..],
        std::io::Read::take(std::io::repeat(0), (2 << 30) + 1024),
    );
    let bomb = zstd::encode_all(tar, 1).unwrap();
    let error = node.images.import_stream(&bomb[..], Some("bomb")).await.unwrap_err().to_string();
    assert!(error.contains("expands to more than"), "{error}");
    assert!(node.images.list().is_empty());
    node.assert_tidy();
}

#[tokio::test]
async fn a_sparse_file_larger_than_any_disk() {
    let mut header = Layer::header(EntryType::GNUSparse, 0o644, 0);
    header.as_gnu_mut().unwrap().set_real_size(1 << 50);
    refused(&[Layer::new().raw("sparse", header, b"").tar()], "sparse", "too large in all").await;
}

/// The overlay copies a lower layer's file up when it is linked to, once a layer.
#[tokio::test]
async fn links_to_a_large_file_of_a_lower_layer() {
    let mut header = Layer::header(EntryType::GNUSparse, 0o644, 0);
    header.as_gnu_mut().unwrap().set_real_size(200 << 30);
    let large = Layer::new().raw("large", header, b"").tar();
    let link = Layer::new().hardlink("link", "large").tar();
    refused(&[large, link], "link", "too large in all").await;
}

#[tokio::test]
async fn a_cut_or_damaged_archive() {
    let mut tar = Layer::new().file("whole", "x").program("cut", &vec![1; 5000]).tar();
    tar.truncate(4000);
    refused(&[tar.clone()], "cut", "ends in the middle").await;
    let mut damaged = Layer::new().file("first", "x").file("second", "x").tar();
    damaged[1024 + 20] ^= 1;
    refused(&[damaged], "second", "damaged header").await;
    refused(
        &[Layer::new().raw("odd", Layer::header(EntryType::new(b'Z'), 0o644, 0), b"").tar()],
        "odd",
        "unknown kind",
    )
    .await;
}

#[tokio::test]
async fn a_root_that_is_no_directory() {
    refused(
        &[Layer::new().raw("./", Layer::header(EntryType::Fifo, 0o644, 0), b"").tar()],
        "./",
        "must be a directory",
    )
    .await;
}
