//! Layers on each other: what a container sees of whiteouts, links and attributes.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::Command;

use super::build::Layer;
use super::{Node, container, imported, read};

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines)]
async fn layers_lie_on_each_other_as_the_image_spec_says() {
    let node = Node::new();
    let capability =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let base = Layer::new()
        .dir(".", 0o755)
        .dir("hidden", 0o755)
        .file("hidden/below", "x")
        .dir("opaque", 0o750)
        .file("opaque/below", "x")
        .dir("opaque/both", 0o755)
        .file("opaque/both/below", "x")
        .dir("late", 0o755)
        .file("late/below", "x")
        .dir("private", 0o700)
        .file("private/file", "lower")
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr")
        .file("gone", "x")
        .file("replaced", "x")
        .file("source", "shared")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("mtime", b"1234567890.123456789"),
        ])
        .program("capable", b"program")
        .raw("setuid", Layer::header(tar::EntryType::Regular, 0o4755, 0), b"")
        .raw("pipe", Layer::header(tar::EntryType::Fifo, 0o600, 0), b"")
        .raw(
            "null",
            {
                let mut h = Layer::header(tar::EntryType::Char, 0o666, 0);
                h.set_device_major(1).unwrap();
                h.set_device_minor(3).unwrap();
                h.set_uid(5);
                h.set_gid(6);
                h
            },
            b"",
        )
        .tar();
    let top = Layer::new()
        .whiteout(".wh.hidden")
        .whiteout(".wh.gone")
        .whiteout(".wh.never-was")
        .whiteout(".wh..wh.plnk")
        .whiteout("opaque/.wh..wh..opq")
        .file("opaque/above", "y")
        .dir("opaque/both", 0o711)
        .file("opaque/both/above", "y")
        // Whiteouts that come after what they must not hide.
        .file("late/above", "y")
        .whiteout(".wh.late")
        .file("again", "y")
        .whiteout(".wh.again")
        .file("private/new", "upper")
        .dir("replaced", 0o755)
        .file("replaced/inside", "y")
        .hardlink("linked", "source")
        .file("lib/through", "y")
        .file("abs/lib/absolute", "y")
        .tar();
    let image = imported(&node, &[base, top]).await.unwrap();
    let id = container();
    let root = node.images.prepare_rootfs(&id, &image).await.unwrap();
    let at = |name: &str| root.join(name);
    let there = |name: &str| at(name).symlink_metadata().is_ok();
    for gone in ["hidden", "gone", "opaque/below", "opaque/both/below", "late/below"] {
        assert!(!there(gone), "{gone} is visible");
    }
    for (name, text) in [
        ("opaque/above", "y"),
        ("opaque/both/above", "y"),
        ("late/above", "y"),
        ("again", "y"),
        ("replaced/inside", "y"),
        ("private/new", "upper"),
        ("private/file", "lower"),
        ("usr/lib/through", "y"),
        ("usr/lib/absolute", "y"),
        ("linked", "shared"),
    ] {
        assert_eq!(read(at(name)), text, "{name}");
    }
    assert_eq!(
        at("private").metadata().unwrap().mode() & 0o7777,
        0o700,
        "the lower directory's mode"
    );
    let (linked, source) = (at("linked").metadata().unwrap(), at("source").metadata().unwrap());
    assert_eq!((linked.ino(), linked.nlink()), (source.ino(), 2));
    assert_eq!(at("setuid").metadata().unwrap().mode() & 0o7777, 0o4755);
    assert!(at("pipe").metadata().unwrap().file_type().is_fifo());
    let null = at("null").metadata().unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.uid(), null.gid()), (nix::sys::stat::makedev(1, 3), 5, 6));
    let capable = at("capable").metadata().unwrap();
    assert_eq!((capable.mtime(), capable.mtime_nsec()), (1_234_567_890, 123_456_789));
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(at("capable"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    // On disk: a whiteout is a 0/0 device, opaqueness an attribute.
    let layer = node.path("layers").join(&image.chain[1][7..]).join("fs");
    assert_eq!(layer.join("hidden").symlink_metadata().unwrap().rdev(), 0);
    assert!(layer.join("hidden").symlink_metadata().unwrap().file_type().is_char_device());
    let length =
        rustix::fs::lgetxattr(layer.join("opaque"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    assert!(layer.join("never-was").symlink_metadata().is_err());
    node.images.release_rootfs(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_layers_and_none() {
    let node = Node::new();
    let layers: Vec<Vec<u8>> = (0..140)
        .map(|n| Layer::new().file(&format!("file-{n}"), "x").file("same", &n.to_string()).tar())
        .collect();
    for (layers, files) in [(layers, 141), (vec![], 0)] {
        let image = imported(&node, &layers).await.unwrap();
        let id = container();
        let root = node.images.prepare_rootfs(&id, &image).await.unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), files);
        std::fs::write(root.join("new"), "x").unwrap();
        // Again: the same, with what was written.
        assert_eq!(node.images.prepare_rootfs(&id, &image).await.unwrap(), root);
        assert_eq!(read(root.join("new")), "x");
        assert_eq!(node.images.release_all_but(&[]).await.unwrap(), std::slice::from_ref(&id));
        assert!(!root.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rootfs_without_its_layers_is_refused_and_leaves_nothing() {
    let node = Node::new();
    let image = imported(&node, &[Layer::new().file("a", "b").tar()]).await.unwrap();
    node.images.remove(&image.id).await.unwrap();
    let error = node.images.prepare_rootfs(&container(), &image).await.unwrap_err().to_string();
    assert!(error.contains("pull the image again"), "{error}");
    assert!(
        node.names("rootfs").is_empty()
            && node.images.release_all_but(&[]).await.unwrap().is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gnu_tar_writes() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir tree && cd tree && printf start > sparse && truncate -s 3M sparse && printf end >> sparse &&
        printf x > \"$(printf 'n%.0s' $(seq 200))\" && ln sparse same && ln -s sparse link &&
        for format in gnu posix; do tar -S --format=$format -cf ../$format.tar . ; done
        for version in 0.0 0.1 1.0; do tar -S --sparse-version=$version --format=posix -cf ../$version.tar ./sparse; done";
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let node = Node::new();
    let image =
        node.images.import(&dir.path().join("gnu.tar"), Some("gnu")).await.unwrap().remove(0);
    let id = container();
    let root = node.images.prepare_rootfs(&id, &image).await.unwrap();
    let expected = std::fs::read(dir.path().join("tree/sparse")).unwrap();
    assert!(std::fs::read(root.join("sparse")).unwrap() == expected, "a sparse file changed");
    let meta = root.join("sparse").metadata().unwrap();
    assert!(meta.blocks() * 512 < 1 << 20, "its holes are filled");
    assert_eq!((meta.nlink(), meta.len()), (2, (3 << 20) + 3));
    assert_eq!(read(root.join("n".repeat(200))), "x");
    assert_eq!(std::fs::read_link(root.join("link")).unwrap().to_str(), Some("sparse"));
    node.images.release_rootfs(&id).await.unwrap();

    // The PAX forms of sparse files would be unpacked wrongly: they are refused, by the file's
    // name and not the archive's own for its data.
    for archive in ["posix.tar", "0.0.tar", "0.1.tar", "1.0.tar"] {
        let path = dir.path().join(archive);
        let error = node.images.import(&path, Some("posix")).await.unwrap_err().to_string();
        let told = "\"./sparse\": sparse files in the PAX form are not supported";
        assert!(error.contains(told), "{archive}: {error}");
    }
    assert_eq!(node.images.list().len(), 1);
    node.assert_tidy();
}

/// The overlay doesn't move a lower layer's directory, so it is emptied where it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaces_a_deep_directory_of_a_lower_layer() {
    let node = Node::new();
    let deep = format!("top/{}", "d/".repeat(300));
    let lower = Layer::new().file(&format!("{deep}file"), "lower").tar();
    let upper = Layer::new().file("top", "a file now").tar();
    let image = imported(&node, &[lower, upper]).await.unwrap();
    let id = container();
    let root = node.images.prepare_rootfs(&id, &image).await.unwrap();
    assert_eq!(read(root.join("top")), "a file now");
    node.images.release_rootfs(&id).await.unwrap();
    node.assert_tidy();
}
