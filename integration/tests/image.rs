//! Tests of `image` with the real parts: docker-registry, the kernel's overlayfs.

pub(crate) mod build;
mod hostile;
mod killed;
mod layers;
pub(crate) mod registry;
mod retries;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use build::{Built, Layer, Packing, index, sha256};
use haled::id::ContainerId;
use haled::image::{Auth, Error, Image, Images, Settings, Stage};
use haled::store::Store;
use registry::{Registry, Tap};

/// Generous: it only ends a test that would hang.
const DEADLINE: Duration = Duration::from_mins(2);

/// An image store of its own. What is mounted below it goes with it.
struct Node {
    images: Images,
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { images: open(dir.path()), dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("images").join(below)
    }

    /// Writes a hosts.toml.
    fn hosts(&self, registry: &str, text: &str) {
        let dir = self.dir.path().join("certs.d").join(registry);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    fn reopen(&mut self) {
        self.images = open(self.dir.path());
    }

    fn names(&self, below: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(below)).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Nothing but finished blobs and layers is on the disk, and what came of blobs whose pull was
    /// cut off, which the next one goes on with.
    fn assert_tidy(&self) {
        assert_eq!(self.names("ingest"), [""; 0]);
        for blob in self.names("blobs/sha256") {
            let bytes = std::fs::read(self.path("blobs/sha256").join(&blob)).unwrap();
            assert_eq!(sha256(&bytes), format!("sha256:{blob}"));
        }
        for layer in self.names("layers") {
            assert!(self.path("layers").join(layer).join("complete").exists());
        }
    }
}

#[allow(clippy::let_underscore_must_use)]
impl Drop for Node {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path("rootfs")).into_iter().flatten().flatten() {
            let merged = entry.path().join("merged");
            // Not mounted any more, as a rule.
            let _ = nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn open(dir: &Path) -> Images {
    let settings = Settings {
        root: dir.join("images"),
        certs_dirs: vec![dir.join("certs.d")],
        parallel_layers: 3,
    };
    Images::open(settings, Store::open(&dir.join("state.db")).unwrap()).unwrap()
}

fn container() -> ContainerId {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    ContainerId::from_random(bytes)
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn three_layers() -> Built {
    Built::oci(&[
        (
            Layer::new().dir("etc", 0o755).file("etc/one", "1").file("etc/two", "2").tar(),
            Packing::Gzip,
        ),
        (Layer::new().file("etc/two", "two").tar(), Packing::Zstd),
        (Layer::new().file("srv/three", "3").tar(), Packing::Plain),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tag_and_by_digest_with_every_packing() {
    let (node, registry) = (Node::new(), Registry::start());
    let built = three_layers();
    registry.push("some/app", "v1", &built);
    let image = node.images.pull(&registry.name("some/app:v1"), None).await.unwrap();
    assert_eq!(image.id, built.id());
    assert_eq!(image.tags, [registry.name("some/app:v1")]);
    let by_digest = registry.name(&format!("some/app@{}", built.digest()));
    assert_eq!(image.digests, std::slice::from_ref(&by_digest));
    let size: usize = built.blobs.iter().map(Vec::len).sum::<usize>() + built.config.len();
    assert_eq!(image.size_bytes, size as u64);
    assert_eq!(image.defaults.user, "1000:1000");
    assert_eq!((&*image.defaults.working_dir, &*image.defaults.stop_signal), ("/srv", "SIGUSR1"));
    assert_eq!(image.defaults.volumes, ["/data"]);

    let id = container();
    let root = node.images.prepare_rootfs(&id, &image).await.unwrap();
    assert_eq!(
        (read(root.join("etc/one")), read(root.join("etc/two"))),
        ("1".into(), "two".into())
    );
    assert_eq!(read(root.join("srv/three")), "3");
    node.images.release_rootfs(&id).await.unwrap();

    let other = Node::new();
    let image = other.images.pull(&by_digest, None).await.unwrap();
    assert_eq!((image.id.clone(), image.tags.len()), (built.id(), 0));
    assert_eq!(image.digests, std::slice::from_ref(&by_digest));
    assert_eq!(other.images.find(&by_digest).unwrap(), image);
    assert_eq!(other.images.find(&image.id[7..19]).unwrap(), image);
    node.assert_tidy();
    other.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_this_machines_image() {
    let (node, registry) = (Node::new(), Registry::start());
    let layer = |text: &str| [(Layer::new().file("which", text).tar(), Packing::Gzip)];
    for (tag, list_type, built) in [
        ("oci", build::OCI_INDEX, Built::oci(&layer("ours"))),
        ("docker", build::DOCKER_LIST, Built::docker(&layer("ours too"))),
    ] {
        let foreign = Built::of(&layer("theirs"), "s390x", built.media_type);
        registry.push("multi", "s390x", &foreign);
        registry.push("multi", "ours", &built);
        let list = index(list_type, &[(&foreign, "s390x"), (&built, "amd64")]);
        registry.push_manifest("multi", tag, list_type, &list);
        let image = node.images.pull(&registry.name(&format!("multi:{tag}")), None).await.unwrap();
        assert_eq!(image.id, built.id());
        // Again: the index is asked for, the manifest in it is here.
        let tap = Tap::before(&registry, None);
        node.images.pull(&format!("{}/multi:{tag}", tap.host), None).await.unwrap();
        assert_eq!(tap.count("/manifests/"), 1);
        // The digest is the index's: what a deployment would pin.
        assert_eq!(image.digests, [registry.name(&format!("multi@{}", sha256(&list)))]);

        let list = index(list_type, &[(&foreign, "s390x")]);
        registry.push_manifest("multi", "other", list_type, &list);
        let error = node.images.pull(&registry.name("multi:other"), None).await.unwrap_err();
        let Error::NoPlatform { offered, .. } = &error else { panic!("{error}") };
        assert_eq!(offered, "linux/s390x");
        let error = node.images.pull(&registry.name("multi:s390x"), None).await.unwrap_err();
        assert!(matches!(error, Error::NoPlatform { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_it_says_is_refused() {
    let registry = Registry::start();
    let built = three_layers();
    registry.push("app", "v1", &built);
    let file = registry.blob_file(&sha256(&built.blobs[1]));
    let good = std::fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    for (bad, expected) in [(flipped, "was asked for, but what came is"), (longer, "bytes")] {
        std::fs::write(&file, bad).unwrap();
        let node = Node::new();
        let error = node.images.pull(&registry.name("app:v1"), None).await.unwrap_err().to_string();
        assert!(error.contains(&sha256(&built.blobs[1])) && error.contains(expected), "{error}");
        assert!(node.images.list().is_empty());
        node.assert_tidy();
    }
    std::fs::write(&file, good).unwrap();

    // A manifest that tells another size, and one whose bytes were changed.
    let mut lying = built.clone();
    let size = format!("\"size\":{}", built.blobs[0].len());
    lying.manifest =
        String::from_utf8(built.manifest.clone()).unwrap().replacen(&size, "\"size\":7", 1).into();
    assert_ne!(lying.manifest, built.manifest);
    registry.push_manifest("app", "lying", lying.media_type, &lying.manifest);
    let node = Node::new();
    let error = node.images.pull(&registry.name("app:lying"), None).await.unwrap_err().to_string();
    assert!(error.contains("should have 7 bytes"), "{error}");
    let manifest = registry.blob_file(&built.digest());
    std::fs::write(&manifest, [&built.manifest[..], b" "].concat()).unwrap();
    let error = node
        .images
        .pull(&registry.name(&format!("app@{}", built.digest())), None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Registry { .. }), "{error}");
    node.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_what_is_not_there() {
    let (node, registry) = (Node::new(), Registry::with_login());
    registry.push("secret/app", "v1", &three_layers());
    let name = registry.name("secret/app:v1");
    let basic = |username: &str, password: &str| {
        Some(Auth { username: username.into(), password: password.into(), ..Auth::default() })
    };
    for auth in
        [None, basic("user", "wrong"), Some(Auth { registry_token: "x".into(), ..Auth::default() })]
    {
        let error = node.images.pull(&name, auth).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Unauthorized { .. }) && text.contains(&name), "{text}");
        assert!(text.contains(&registry.host) && text.contains("pull secret"), "{text}");
    }
    node.images.pull(&name, basic("user", "secret")).await.unwrap();
    let other = Node::new();
    let coded = Auth { auth: "dXNlcjpzZWNyZXQ=".into(), ..Auth::default() };
    other.images.pull(&name, Some(coded)).await.unwrap();

    let error = node
        .images
        .pull(&registry.name("secret/app:nope"), basic("user", "secret"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotInRegistry { .. }), "{error}");
    assert!(matches!(node.images.pull("No/Such:::x", None).await, Err(Error::BadReference { .. })));
    // Nobody listens at port 1.
    let error = node.images.pull("127.0.0.1:1/app:v1", None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Registry { cause, .. } if cause.contains("127.0.0.1:1")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_of_a_hosts_toml() {
    let (node, registry) = (Node::new(), Registry::start());
    let built = three_layers();
    registry.push("library/app", "v1", &built);
    // The first mirror is down, the second one can't resolve tags, the third does.
    let tap = Tap::before(&registry, None);
    node.hosts(
        "docker.io",
        &format!(
            "server = \"https://127.0.0.1:1\"\n[host.\"http://127.0.0.1:1\"]\n\
             [host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}/v2\"]\noverride_path = true\n",
            tap.host, registry.host
        ),
    );
    let image = node.images.pull("app:v1", None).await.unwrap();
    assert_eq!(image.tags, ["docker.io/library/app:v1"]);
    assert_eq!(tap.count("/manifests/v1"), 0);

    node.hosts("quay.io", "[host.\"http://x\"]\nskip = 1");
    let error = node.images.pull("quay.io/app:v1", None).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Hosts { .. }) && text.contains("quay.io/hosts.toml"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_not_the_registrys_fault() {
    let (mut node, registry) = (Node::new(), Registry::start());
    let big = Layer::new().program("big", &vec![7; 1 << 20]).tar();
    registry.push("app", "v1", &Built::oci(&[(big, Packing::Plain)]));
    let (root, flags) = (node.path(""), nix::mount::MsFlags::empty());
    nix::mount::mount(Some("none"), &root, Some("tmpfs"), flags, Some("size=256k")).unwrap();
    node.reopen();
    let tap = Tap::before(&registry, None);
    let result = node.images.pull(&format!("{}/app:v1", tap.host), None).await;
    nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Disk { .. }), "{error}");
    assert_eq!(tap.count("/blobs/"), 2, "the configuration and the layer, once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified_unless_the_hosts_toml_says_otherwise() {
    let registry = Registry::with_tls();
    let url = format!("https://{}", registry.host);
    let authority = registry.authority();
    let pull = async |options: &str, text: &str| {
        let node = Node::new();
        node.hosts("example.org", &format!("server = \"{url}\"\n[host.\"{url}\"]\n{options}\n"));
        let error = node.images.pull("example.org/app:v1", None).await.unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(text), "{options}: {shown}");
        error
    };
    pull("", "certificate").await;
    // Plain HTTP is tried first on loopback, and TLS when the answer to it is an error of 400.
    let error = Node::new().images.pull(&registry.name("app:v1"), None).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    // Talked to, and empty.
    for trusted in [format!("ca = \"{}\"", authority.display()), "skip_verify = true".to_owned()] {
        let error = pull(&trusted, "does not have it").await;
        assert!(matches!(error, Error::NotInRegistry { .. }), "{trusted}: {error}");
    }
    let error = pull("ca = \"/nonexistent.crt\"", "/nonexistent.crt").await;
    assert!(matches!(error, Error::Hosts { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_the_hosts_toml() {
    let registry = Registry::with_client_certificates();
    let url = format!("https://{}", registry.host);
    let authority = registry.authority();
    let (certificate, key) = registry.client();
    let pair = format!("client = [[\"{}\", \"{}\"]]", certificate.display(), key.display());
    for (client, is_taken) in [("", false), (&*pair, true)] {
        let node = Node::new();
        let ca = authority.display();
        let text = format!("server = \"{url}\"\n[host.\"{url}\"]\nca = \"{ca}\"\n{client}\n");
        node.hosts("example.org", &text);
        let error = node.images.pull("example.org/app:v1", None).await.unwrap_err();
        // Talked to, and empty.
        assert_eq!(matches!(error, Error::NotInRegistry { .. }), is_taken, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_client_certificates_the_one_that_the_registry_asks_for() {
    let registry = Registry::with_client_certificates();
    // Another authority's, as good as the right one but for who has signed it.
    let other = Registry::with_client_certificates();
    let url = format!("https://{}", registry.host);
    let pair = |registry: &Registry| {
        let (certificate, key) = registry.client();
        format!("[\"{}\", \"{}\"]", certificate.display(), key.display())
    };
    let (right, wrong) = (pair(&registry), pair(&other));
    let pull = async |client: &str, verify: &str| {
        let node = Node::new();
        let text = format!("server = \"{url}\"\n[host.\"{url}\"]\n{verify}\nclient = {client}\n");
        node.hosts("example.org", &text);
        node.images.pull("example.org/app:v1", None).await.unwrap_err()
    };
    let trusted = format!("ca = \"{}\"", registry.authority().display());
    for (client, is_taken) in [
        (format!("[{wrong}]"), false),
        (format!("[{wrong}, {right}]"), true),
        (format!("[{right}, {wrong}]"), true),
        (format!("[{wrong}, {wrong}]"), false),
    ] {
        let error = pull(&client, &trusted).await;
        assert_eq!(matches!(error, Error::NotInRegistry { .. }), is_taken, "{client}: {error}");
    }
    // The registry's own certificate goes by the same rules as without one of ours.
    let several = format!("[{wrong}, {right}]");
    let error = pull(&several, "").await;
    assert!(matches!(error, Error::Registry { .. }), "{error}");
    let error = pull(&several, "skip_verify = true").await;
    assert!(matches!(error, Error::NotInRegistry { .. }), "{error}");
    // A key that is another certificate's, and a file that is none.
    let (certificate, _) = registry.client();
    let (_, key) = other.client();
    for (client, told) in [
        (format!("[[\"{}\", \"{}\"]]", certificate.display(), key.display()), "KeyMismatch"),
        (format!("[\"{}\"]", certificate.display()), "no certificate with its key"),
        (format!("[{right}, \"/nonexistent.pem\"]"), "it is not there"),
    ] {
        let error = pull(&client, &trusted).await;
        let text = error.to_string();
        assert!(matches!(error, Error::Hosts { .. }) && text.contains(told), "{client}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pulls_fetch_each_blob_once() {
    let (node, registry) = (Node::new(), Registry::start());
    let shared = Layer::new().program("big", &vec![7; 1 << 20]).tar();
    let layers = |n: u8| {
        let own = Layer::new().file("own", &n.to_string()).tar();
        Built::oci(&[(shared.clone(), Packing::Plain), (own, Packing::Gzip)])
    };
    let built: Vec<Built> = (0..3).map(layers).collect();
    for (n, image) in built.iter().enumerate() {
        registry.push("app", &format!("v{n}"), image);
    }
    let tap = Tap::before(&registry, None);
    let mut pulls = tokio::task::JoinSet::new();
    for n in (0..3).chain(0..3) {
        let (images, name) = (node.images.clone(), format!("{}/app:v{n}", tap.host));
        pulls.spawn(async move { images.pull(&name, None).await.unwrap() });
    }
    let pulled = pulls.join_all().await;
    assert_eq!(node.images.list().len(), 3);
    assert!(pulled.iter().all(|image| image.chain[0] == pulled[0].chain[0]));
    for blob in built.iter().flat_map(|image| image.blobs.iter().chain([&image.config])) {
        assert_eq!(tap.count(&format!("/blobs/{}", sha256(blob))), 1);
    }
    node.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_digest_from_two_registries_is_one_image() {
    let (node, one, other) = (Node::new(), Registry::start(), Registry::start());
    let built = three_layers();
    let names = [&one, &other].map(|registry| {
        registry.push("app", "v1", &built);
        registry.name("app:v1")
    });
    let (first, second) =
        tokio::join!(node.images.pull(&names[0], None), node.images.pull(&names[1], None));
    assert_eq!(first.unwrap().id, second.unwrap().id);
    let images = node.images.list();
    assert_eq!((images.len(), images[0].digests.len()), (1, 2));
    let mut names = names.to_vec();
    names.sort();
    assert_eq!(images[0].tags, names);
    // Each name is its registry's, and goes by itself.
    node.images.remove(&names[0]).await.unwrap();
    assert_eq!(node.images.find(&built.id()).unwrap().tags, names[1..]);
    node.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_in_frames_as_zstd_chunked_has_them() {
    let (node, registry) = (Node::new(), Registry::start());
    let tar = Layer::new().file("a", "first").file("b", "second").tar();
    let mut built = Built::oci(&[(tar.clone(), Packing::Zstd)]);
    // A frame for each part of the tar, with skippable frames between and behind them, as
    // zstd:chunked keeps its table of contents.
    let skippable = [&0x184d_2a50u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"toc!"].concat();
    let (start, rest) = tar.split_at(700);
    let packed = |part| build::pack(part, Packing::Zstd);
    let chunked = [packed(start), skippable.clone(), packed(rest), skippable].concat();
    let manifest = String::from_utf8(built.manifest.clone()).unwrap();
    let size = |blob: &[u8]| format!("\"size\":{}}}", blob.len());
    built.manifest = manifest
        .replace(&sha256(&built.blobs[0]), &sha256(&chunked))
        .replace(&size(&built.blobs[0]), &size(&chunked))
        .into();
    built.blobs = vec![chunked];
    registry.push("app", "v1", &built);
    let image = node.images.pull(&registry.name("app:v1"), None).await.unwrap();
    let id = container();
    let root = node.images.prepare_rootfs(&id, &image).await.unwrap();
    assert_eq!((read(root.join("a")), read(root.join("b"))), ("first".into(), "second".into()));
    node.images.release_rootfs(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_for_this_node_says_what_it_is() {
    let (node, registry) = (Node::new(), Registry::start());
    let built = three_layers();
    registry.push("app", "v1", &built);
    let manifest = String::from_utf8(built.manifest.clone()).unwrap();
    let refused = async |tag: &str, text: &str| {
        registry.push_manifest("app", tag, built.media_type, text.as_bytes());
        node.images.pull(&registry.name(&format!("app:{tag}")), None).await.unwrap_err()
    };
    let chart = manifest.replace(
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.cncf.helm.config.v1+json",
    );
    let error = refused("chart", &chart).await;
    let text = error.to_string();
    assert!(matches!(error, Error::NotAnImage { .. }), "{text}");
    assert!(text.contains("artifact of type application/vnd.cncf.helm.config.v1+json"), "{text}");

    // A layer that the registry has only a pointer to.
    let (mut lacking, foreign) = (manifest, sha256(b"elsewhere"));
    lacking = lacking.replace(&sha256(&built.blobs[0]), &foreign).replace(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    );
    let end = format!("\"size\":{}}}", built.blobs[0].len());
    let urls =
        format!("\"size\":{},\"urls\":[\"https://x.example/layer\"]}}", built.blobs[0].len());
    lacking = lacking.replace(&end, &urls);
    let text = refused("foreign", &lacking).await.to_string();
    assert!(text.contains(&foreign) && text.contains("https://x.example/layer"), "{text}");
    assert!(text.contains("pushed with the image"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_not_stop_the_pull() {
    let (node, registry) = (Node::new(), Registry::start());
    registry.push("app", "v1", &three_layers());
    let (images, name) = (node.images.clone(), registry.name("app:v1"));
    let caller = tokio::spawn(async move { images.pull(&name, None).await });
    tokio::task::yield_now().await;
    caller.abort();
    let name = registry.name("app:v1");
    let image =
        tokio::time::timeout(DEADLINE, node.images.pull(&name, None)).await.unwrap().unwrap();
    assert_eq!(image.tags, [name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_waited_for_does_not_answer_the_next_one() {
    let (node, registry) = (Node::new(), Registry::start());
    let (old, new) = (three_layers(), Built::oci(&[(Layer::new().tar(), Packing::Gzip)]));
    registry.push("app", "v1", &old);
    let name = registry.name("app:v1");
    drop(tokio::time::timeout(Duration::ZERO, node.images.pull(&name, None)).await);
    let started = std::time::Instant::now();
    while node.images.find(&name).is_err() {
        assert!(started.elapsed() < DEADLINE, "the pull does not go on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    registry.push("app", "v1", &new);
    // The pull's task ends a moment after its image is listed.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.images.pull(&name, None).await.unwrap().id, new.id());
}

#[test]
fn an_interrupted_pull_leaves_nothing_half_made() {
    let (mut node, registry) = (Node::new(), Registry::start());
    let built = three_layers();
    registry.push("app", "v1", &built);
    let tap = Tap::before(&registry, Some(sha256(&built.blobs[2])));
    let name = format!("{}/app:v1", tap.host);
    // A daemon that ends in the middle: its runtime and every task in it are gone.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let images = node.images.clone();
    let pulled = name.clone();
    runtime.spawn(async move { images.pull(&pulled, None).await });
    let started = std::time::Instant::now();
    while node.names("layers").len() < 2 {
        assert!(started.elapsed() < DEADLINE, "the first layers never came");
        std::thread::sleep(Duration::from_millis(10));
    }
    runtime.shutdown_timeout(DEADLINE);
    assert!(node.images.list().is_empty());
    // What a kill leaves that no destructor clears.
    std::fs::write(node.path("ingest/left"), "half").unwrap();
    node.reopen();
    assert!(node.images.list().is_empty() && node.names("layers").is_empty());
    assert!(node.names("ingest").is_empty() && node.names("blobs/sha256").is_empty());
    // What came of the blob that was cut waits for the rest of it.
    assert_eq!(node.names("partial"), [&sha256(&built.blobs[2])[7..]]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let image = runtime.block_on(node.images.pull(&registry.name("app:v1"), None)).unwrap();
    assert_eq!(image.id, built.id());
    node.assert_tidy();
}

/// A mount stands for whatever can't be deleted.
#[test]
fn what_cannot_be_deleted_does_not_keep_the_store_from_opening() {
    let mut node = Node::new();
    let stuck = node.path("ingest/7/mount");
    std::fs::create_dir_all(&stuck).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &stuck, Some("tmpfs"), flags, None::<&str>).unwrap();
    node.reopen();
    node.reopen();
    node.assert_tidy();
    let moved = node.path("ingest.old/0/7/mount");
    nix::mount::umount2(&moved, nix::mount::MntFlags::MNT_DETACH).unwrap();
    node.reopen();
    let started = std::time::Instant::now();
    while !node.names("ingest.old").is_empty() {
        assert!(started.elapsed() < DEADLINE, "what was left stays");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_move_and_images_go() {
    let (mut node, registry) = (Node::new(), Registry::start());
    let (first, second) =
        (three_layers(), Built::oci(&[(Layer::new().file("a", "b").tar(), Packing::Gzip)]));
    registry.push("app", "v1", &first);
    let name = registry.name("app:v1");
    let old = node.images.pull(&name, None).await.unwrap();
    registry.push("other", "same", &first);
    node.images.pull(&registry.name("other:same"), None).await.unwrap();
    assert_eq!(node.images.find(&old.id).unwrap().tags.len(), 2);
    registry.push("app", "v1", &second);
    let new = node.images.pull(&name, None).await.unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(node.images.find(&name).unwrap().id, new.id);
    node.images.remove(&registry.name("other:same")).await.unwrap();
    // The older one has lost its tags, not its digest.
    let left = node.images.find(&old.id).unwrap();
    assert_eq!((left.tags.len(), left.digests.clone()), (0, old.digests.clone()));
    node.reopen();
    assert_eq!(node.images.find(&old.id).unwrap(), left);

    let id = container();
    let root = node.images.prepare_rootfs(&id, &left).await.unwrap();
    std::fs::write(root.join("written"), vec![1; 100_000]).unwrap();
    assert!(node.images.writable_usage(&id).await.unwrap().bytes >= 100_000);
    let usage = node.images.usage().await.unwrap();
    assert!(usage.bytes > 100_000 && usage.inodes > 10 && usage.path == node.path(""));
    node.images.remove(&old.id).await.unwrap();
    node.images.remove(&old.id).await.unwrap();
    assert_eq!(node.images.list().len(), 1);
    assert!(matches!(node.images.find(&old.digests[0]), Err(Error::NotFound(_))));
    let nameless = node.images.find(&old.id).unwrap();
    assert_eq!((nameless.tags.len(), nameless.digests.len()), (0, 0));
    assert_eq!((&nameless.chain, &nameless.defaults), (&old.chain, &old.defaults));
    // The container goes on, and its layers with it; a restart changes nothing.
    node.reopen();
    assert_eq!(node.images.release_all_but(std::slice::from_ref(&id)).await.unwrap(), []);
    assert_eq!(read(root.join("etc/two")), "two");
    assert_eq!(node.names("layers").len(), 3 + 1);
    // Healing makes the next container before the old one goes.
    let next = container();
    node.images.prepare_rootfs(&next, &node.images.find(&old.id).unwrap()).await.unwrap();
    node.images.release_rootfs(&id).await.unwrap();
    assert_eq!(node.images.find(&old.id).unwrap(), nameless);
    node.images.release_rootfs(&next).await.unwrap();
    assert!(matches!(node.images.find(&old.id), Err(Error::NotFound(_))));
    assert_eq!((node.names("layers").len(), node.names("rootfs").len()), (1, 0));
    node.images.remove(&name).await.unwrap();
    node.images.remove(&name).await.unwrap();
    node.images.release_rootfs(&id).await.unwrap();
    assert!(node.names("layers").is_empty() && node.names("blobs/sha256").is_empty());
    assert!(node.images.list().is_empty());
}

/// An image from layers, by way of a docker-archive.
async fn imported(node: &Node, layers: &[Vec<u8>]) -> Result<Arc<Image>, Error> {
    let layers: Vec<_> = layers.iter().map(|tar| (tar.clone(), Packing::Plain)).collect();
    let archive = node.dir.path().join(format!("{}.tar", container()));
    std::fs::write(&archive, Built::docker(&layers).saved(&["test:v1"])).unwrap();
    node.images.import(&archive, None).await.map(|mut images| images.remove(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_archive() {
    let built = three_layers();
    let same = Layer::new().file("a", "b").tar();
    let saved = Built::docker(&[(same.clone(), Packing::Plain), (same, Packing::Plain)]);
    let containerd = serde_json::json!({"io.containerd.image.name": "quay.io/a/b:v2", "org.opencontainers.image.ref.name": "v2"});
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    for (name, bytes) in built.layout(&containerd) {
        let path = layout.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let node = Node::new();
    let images = node.images.import(&layout, None).await.unwrap();
    assert_eq!(
        (images[0].id.clone(), images[0].tags.clone()),
        (built.id(), vec!["quay.io/a/b:v2".to_owned()])
    );
    assert_eq!(images[0].digests, [format!("quay.io/a/b@{}", built.digest())]);

    let bare = serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
    let archives = [
        ("oci", build::archive(&built.layout(&bare)), None, built.id(), vec![]),
        (
            "named",
            build::archive(&built.layout(&bare)),
            Some("mine"),
            built.id(),
            vec!["docker.io/library/mine:latest"],
        ),
        (
            "docker",
            saved.saved(&["b/c:1", "b/c:2"]),
            None,
            saved.id(),
            vec!["docker.io/b/c:1", "docker.io/b/c:2"],
        ),
    ];
    for (form, tar, name, id, tags) in archives {
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            let node = Node::new();
            let path = dir.path().join(form);
            std::fs::write(&path, build::pack(&tar, packing)).unwrap();
            let images = node.images.import(&path, name).await.unwrap();
            assert_eq!(
                (images.len(), &images[0].id, &images[0].tags[..]),
                (1, &id, &tags.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()[..]),
                "{form}"
            );
            node.assert_tidy();
        }
    }
    for (bad, cause) in [
        (&b"not a tar at all, but long enough to be a header"[..], "middle of a header"),
        (&[b'x'; 2000][..], "no tar archive"),
    ] {
        let path = dir.path().join("bad");
        std::fs::write(&path, bad).unwrap();
        let error = node.images.import(&path, Some("x")).await.unwrap_err().to_string();
        assert!(error.contains(cause) && error.contains(path.to_str().unwrap()), "{error}");
    }
    assert!(matches!(
        node.images.import(Path::new("/nonexistent"), None).await,
        Err(Error::Archive { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_imported() {
    let (node, registry) = (Node::new(), Registry::start());
    let built = three_layers();
    registry.push("app", "v1", &built);
    let name = registry.name("app:v1");
    let pulled = node.images.pull(&name, None).await.unwrap();
    // Without a manifest, and with a layer that is in the other image too.
    let shared = built.tars[0].clone();
    let saved = imported(&node, &[shared, Layer::new().file("own", "1").tar()]).await.unwrap();
    let names = [name.clone(), "test:v1".to_owned()];
    let export = node.images.export(&names).await.unwrap();
    let archive = node.dir.path().join("export.tar");
    export.write(std::fs::File::create(&archive).unwrap()).unwrap();
    let size = std::fs::metadata(&archive).unwrap().len();
    assert!(size.abs_diff(export.size_bytes()) < 64 << 10, "{size} {}", export.size_bytes());
    let other = Node::new();
    let images = other.images.import(&archive, None).await.unwrap();
    let mut ids: Vec<&str> = images.iter().map(|image| &*image.id).collect();
    ids.sort_unstable();
    let mut wanted = [&*pulled.id, &*saved.id];
    wanted.sort_unstable();
    assert_eq!(ids, wanted);
    let again = other.images.find(&name).unwrap();
    assert_eq!(
        (&again.tags, &again.digests, &again.chain),
        (&pulled.tags, &pulled.digests, &pulled.chain)
    );
    assert_eq!(other.images.find("test:v1").unwrap().chain, saved.chain);

    // As docker reads it: manifest.json alone.
    let mut whole = tar::Archive::new(std::fs::File::open(&archive).unwrap());
    let mut parts = Vec::new();
    for entry in whole.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if !["oci-layout", "index.json"].contains(&path.as_str()) {
            parts.push((path, bytes));
        }
    }
    std::fs::write(&archive, build::archive(&parts)).unwrap();
    let docker = Node::new();
    docker.images.import(&archive, None).await.unwrap();
    assert_eq!(docker.images.find(&name).unwrap().chain, pulled.chain);

    let inspected = node.images.inspect(&pulled).await.unwrap();
    assert_eq!(inspected["layers"].as_array().unwrap().len(), 3);
    assert_eq!(inspected["layers"][0]["digest"], sha256(&built.blobs[0]));
    assert_eq!(inspected["config"]["WorkingDir"], "/srv");
    let by_content = node.images.inspect(&saved).await.unwrap();
    assert_eq!(by_content["layers"][0]["digest"], sha256(&built.tars[0]));
    assert!(node.images.unused(false).is_empty());
    let id = container();
    node.images.prepare_rootfs(&id, &saved).await.unwrap();
    assert_eq!(node.images.unused(true), [pulled]);
    node.images.release_rootfs(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_tells_how_far_it_is() {
    let (node, registry) = (Node::new(), Registry::start());
    let built = three_layers();
    registry.push("app", "v1", &built);
    let stalled = sha256(&built.blobs[2]);
    let tap = Tap::before(&registry, Some(stalled.clone()));
    let name = format!("{}/app:v1", tap.host);
    let (progress, pulling) = node.images.pull_watched(&name, None).unwrap();
    let (joined, _) = node.images.pull_watched(&name, None).unwrap();
    let started = std::time::Instant::now();
    let parts = loop {
        let parts = progress.parts();
        let at_rest = parts.iter().filter(|part| part.stage == Stage::Done).count() == 2;
        if at_rest && parts[2].done_bytes > 0 {
            break parts;
        }
        assert!(started.elapsed() < DEADLINE, "{parts:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((&*parts[2].digest, parts[2].stage), (&*stalled, Stage::Fetching));
    assert!(
        parts[2].done_bytes < parts[2].size_bytes && parts[0].done_bytes == parts[0].size_bytes
    );
    assert_eq!(joined.parts(), parts);
    drop(pulling);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_of_several_images() {
    let of = |text: &str| Built::oci(&[(Layer::new().file("a", text).tar(), Packing::Gzip)]);
    let (one, two) = (of("1"), of("2"));
    let layout = |names: &[(&Built, serde_json::Value)]| {
        let mut files = Vec::new();
        let mut entries = Vec::new();
        for (built, annotations) in names {
            let mut all = built.layout(annotations);
            let index: serde_json::Value = serde_json::from_slice(&all[1].1).unwrap();
            entries.push(index["manifests"][0].clone());
            files.extend(all.split_off(2));
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
        files.push(("oci-layout".to_owned(), b"{}".to_vec()));
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        build::archive(&files)
    };
    let reference = |name: &str| serde_json::json!({"org.opencontainers.image.ref.name": name});
    let none = serde_json::json!({});

    let node = Node::new();
    let nameless = layout(&[(&one, none.clone()), (&two, none)]);
    let error = node.images.import_stream(&nameless[..], None).await.unwrap_err().to_string();
    assert!(error.contains(&one.digest()) && error.contains(&two.digest()), "{error}");
    assert!(node.images.list().is_empty());

    let bare = layout(&[(&one, reference("v1")), (&two, reference("v2"))]);
    assert_eq!(node.images.import_stream(&bare[..], None).await.unwrap().len(), 2);

    let same = layout(&[(&one, reference("q.io/a:1")), (&one, reference("q.io/a:2"))]);
    let images = node.images.import_stream(&same[..], None).await.unwrap();
    assert_eq!(
        (images.len(), &images[0].tags[..]),
        (1, &["q.io/a:1", "q.io/a:2"].map(str::to_owned)[..])
    );
    let images = node.images.import_stream(&same[..], Some("mine")).await.unwrap();
    assert!(images[0].tags.contains(&"docker.io/library/mine:latest".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_archive_is_told_by_the_name_it_was_given() {
    let node = Node::new();
    let refused = async |bytes: &[u8]| {
        let source = std::path::Path::new("given.tar");
        let named = Some("z:1");
        let imported = node.images.import_watched(bytes, source, named, Arc::default()).await;
        imported.unwrap_err().to_string()
    };
    let empty = "cannot import given.tar: the archive is empty";
    assert_eq!(refused(b"").await, empty);
    assert_eq!(refused(&[0; 1024]).await, empty);
    // Bytes of something else are no member's name.
    let text = "root:x:0:0:root:/root:/bin/sh\n".repeat(64);
    assert_eq!(refused(text.as_bytes()).await, "cannot import given.tar: it is no tar archive");
    let mut damaged = Layer::new().file("first", "1").file("second", "2").tar();
    damaged[1024 + 100] ^= 1;
    let error = refused(&damaged).await;
    assert_eq!(error, "cannot import given.tar: \"second\": a damaged header");
    let error = refused(&damaged[..700]).await;
    assert!(error.starts_with("cannot import given.tar: "), "{error}");
    let bare = Layer::new().file("first", "1").tar();
    let nameless = node.images.import_stream(&bare[..], None).await.unwrap_err().to_string();
    assert!(nameless.ends_with("give it a name: --name REF"), "{nameless}");
    assert!(node.images.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_cannot_claim_a_digest_that_it_is_not() {
    let (node, built) = (Node::new(), three_layers());
    let path = node.dir.path().join("archive");
    let digest_name = |digest: &str| format!("quay.io/a/b@{digest}");
    let named = |digest: &str| {
        let name = serde_json::json!({"io.containerd.image.name": digest_name(digest)});
        build::archive(&built.layout(&name))
    };
    let wrong = sha256(b"other");
    std::fs::write(&path, named(&wrong)).unwrap();
    let error = node.images.import(&path, None).await.unwrap_err().to_string();
    assert!(error.contains(&wrong) && error.contains(&built.digest()), "{error}");
    let saved = Built::docker(&[(Layer::new().tar(), Packing::Plain)]);
    std::fs::write(&path, saved.saved(&[&digest_name(&wrong)])).unwrap();
    assert!(matches!(node.images.import(&path, None).await, Err(Error::BadReference { .. })));
    // A name is looked at before the stream is.
    for bad in ["No:Such::x", &digest_name(&built.digest())] {
        let never = tokio::io::duplex(1).0;
        let error = node.images.import_stream(never, Some(bad)).await.unwrap_err();
        assert!(matches!(error, Error::BadReference { .. }), "{error}");
    }
    assert!(node.images.list().is_empty());
    let images = node.images.import_stream(&named(&built.digest())[..], None).await.unwrap();
    assert_eq!(images[0].digests, [digest_name(&built.digest())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_file_system_becomes_an_image() {
    let node = Node::new();
    let tar = build::busybox_rootfs();
    let path = node.dir.path().join("busybox.tar");
    std::fs::write(&path, &tar).unwrap();
    let error = node.images.import(&path, None).await.unwrap_err().to_string();
    assert!(error.contains("give it a name"), "{error}");
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let node = Node::new();
        let packed = build::pack(&tar, packing);
        let images = node.images.import_stream(&packed[..], Some("busybox")).await.unwrap();
        let image = &images[0];
        assert_eq!(image.tags, ["docker.io/library/busybox:latest"]);
        assert_eq!(image.defaults.cmd, ["/bin/sh"]);
        assert_eq!(image.chain, [sha256(&tar)]);
        let id = container();
        let root = node.images.prepare_rootfs(&id, image).await.unwrap();
        let output = std::process::Command::new("chroot")
            .arg(&root)
            .args(["/bin/sh", "-c", "ls /etc"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "group\npasswd\n");
        node.images.release_rootfs(&id).await.unwrap();
        node.assert_tidy();
    }
}
