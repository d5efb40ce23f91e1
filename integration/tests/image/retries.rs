//! A registry that doesn't behave: what may pass is tried again, what was cut is gone on with.

use std::sync::atomic::{AtomicUsize, Ordering};

use haled::image::Error;

use super::Node;
use super::build::{Built, Layer, Packing, sha256};
use super::registry::{Mischief, Registry, Tap};

/// More than the tries of one request.
const MANY: usize = 12;
const LARGE: usize = 8 << 20;
/// What a cut answer brings: enough to count.
const PIECE: usize = 5 << 18;

/// An image with one layer of about `LARGE` bytes, pushed as `app:v1`; and the layer's digest.
fn pushed(registry: &Registry) -> (Built, String) {
    let tar = Layer::new().program("big", &vec![7; LARGE]).tar();
    let built = Built::oci(&[(tar, Packing::Plain)]);
    registry.push("app", "v1", &built);
    let layer = sha256(&built.blobs[0]);
    (built, layer)
}

/// Says how often it has been called.
fn counted(script: impl Fn(usize, &str) -> Mischief + Send + Sync) -> impl Fn(&str) -> Mischief {
    let count = AtomicUsize::new(0);
    move |line| script(count.fetch_add(1, Ordering::Relaxed), line)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_survives_what_passes() {
    let (node, registry) = (Node::new(), Registry::start());
    let (built, _) = pushed(&registry);
    // The manifest, the configuration and the layer fail in three ways each, one at a time.
    let tap = Tap::with(
        &registry,
        counted(|n, _| match n % 4 {
            0 => Mischief::Status("503 Service Unavailable"),
            1 => Mischief::Refuse,
            2 => Mischief::Status("429 Too Many Requests\r\nRetry-After: 0"),
            _ => Mischief::None,
        }),
    );
    let image = node.images.pull(&format!("{}/app:v1", tap.host), None).await.unwrap();
    assert_eq!(image.id, built.id());
    assert_eq!(tap.count(""), 12);
    node.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_blob_is_gone_on_with() {
    let (node, registry) = (Node::new(), Registry::start());
    let (_, layer) = pushed(&registry);
    // More pieces than there are tries.
    let wanted = layer.clone();
    let tap = Tap::with(&registry, move |line| {
        if line.contains(&wanted) { Mischief::Cut(PIECE) } else { Mischief::None }
    });
    node.images.pull(&format!("{}/app:v1", tap.host), None).await.unwrap();
    let asked = tap.seen(&layer);
    assert_eq!(asked.len(), 7, "{asked:?}");
    assert!(!asked[0].contains("bytes="), "{asked:?}");
    for (n, line) in asked.iter().enumerate().skip(1) {
        let from = n * PIECE;
        assert!(line.to_ascii_lowercase().ends_with(&format!("range: bytes={from}-")), "{line}");
    }
    node.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pull_leaves_a_part_that_the_next_one_uses_even_after_a_restart() {
    let (mut node, registry) = (Node::new(), Registry::start());
    let (built, layer) = pushed(&registry);
    let wanted = layer.clone();
    let tap = Tap::with(
        &registry,
        counted(move |_, line| match () {
            () if !line.contains(&wanted) => Mischief::None,
            () if line.contains("bytes=") => Mischief::Status("404 Not Found"),
            () => Mischief::Cut(LARGE / 2),
        }),
    );
    let error = node.images.pull(&format!("{}/app:v1", tap.host), None).await.unwrap_err();
    assert!(matches!(error, Error::NotInRegistry { .. }), "{error}");
    assert_eq!(node.names("partial"), [&layer[7..]]);
    assert!(node.images.list().is_empty());
    assert!(node.images.usage().await.unwrap().bytes >= (LARGE / 2) as u64);

    node.reopen();
    // By another host: a digest is the same everywhere.
    let tap = Tap::before(&registry, None);
    let image = node.images.pull(&format!("{}/app:v1", tap.host), None).await.unwrap();
    assert_eq!(image.id, built.id());
    let range = format!("bytes={}-", LARGE / 2);
    assert!(tap.seen(&layer)[0].ends_with(&range), "{:?}", tap.seen(&layer));
    node.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_and_a_wrong_part_cost_a_fresh_start() {
    let registry = Registry::start();
    let (built, layer) = pushed(&registry);
    for (second, requests) in [
        (|| Mischief::NoRange, 2),
        (|| Mischief::Status("416 Range Not Satisfiable"), 3),
        (|| Mischief::Status("206 Partial Content\r\nContent-Range: bytes 7-8/9"), 3),
        // Found out only at the end.
        (|| Mischief::Flip, 3),
    ] as [(fn() -> Mischief, usize); 4]
    {
        let node = Node::new();
        let wanted = layer.clone();
        let cut = AtomicUsize::new(0);
        let tap = Tap::with(&registry, move |line| {
            if !line.contains(&wanted) {
                return Mischief::None;
            }
            match cut.fetch_add(1, Ordering::Relaxed) {
                0 => Mischief::Cut(1000),
                1 => second(),
                _ => Mischief::None,
            }
        });
        let image = node.images.pull(&format!("{}/app:v1", tap.host), None).await.unwrap();
        assert_eq!(image.id, built.id());
        assert_eq!(tap.count(&layer), requests);
        node.assert_tidy();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_host_goes_on_where_the_first_one_stopped() {
    let (node, registry) = (Node::new(), Registry::start());
    let (built, layer) = pushed(&registry);
    let wanted = layer.clone();
    let mirror = Tap::with(&registry, move |line| match () {
        () if !line.contains(&wanted) => Mischief::None,
        () if line.contains("bytes=") => Mischief::Status("500 Internal Server Error"),
        () => Mischief::Cut(5000),
    });
    let upstream = Tap::before(&registry, None);
    node.hosts(
        "example.org",
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", upstream.host, mirror.host),
    );
    let image = node.images.pull("example.org/app:v1", None).await.unwrap();
    assert_eq!(image.id, built.id());
    assert_eq!(upstream.count("/manifests/"), 0);
    let asked = upstream.seen(&layer);
    assert!(asked.len() == 1 && asked[0].ends_with("bytes=5000-"), "{asked:?}");
    node.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_passes_ends() {
    let registry = Registry::start();
    let (_, layer) = pushed(&registry);
    // Forever the same: too few bytes, however often.
    let wanted = layer.clone();
    let tap = Tap::with(&registry, move |line| match () {
        () if !line.contains(&wanted) => Mischief::None,
        () if line.contains("bytes=") => Mischief::Status("416 Range Not Satisfiable"),
        () => Mischief::Cut(LARGE / 2),
    });
    let node = Node::new();
    let error = node.images.pull(&format!("{}/app:v1", tap.host), None).await.unwrap_err();
    assert!(matches!(error, Error::Registry { .. }), "{error}");
    assert!(tap.count(&layer) <= MANY, "{}", tap.count(&layer));

    // Longer than anybody waits: not waited for at all.
    let busy = "429 Too Many Requests\r\nRetry-After: 3600";
    let tap = Tap::with(&registry, move |_| Mischief::Status(busy));
    let error = node.images.pull(&format!("{}/app:v1", tap.host), None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("429") && text.contains("asks for 3600 s"), "{text}");
    assert_eq!(tap.count(""), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_has_not_moved_costs_a_look_at_the_headers() {
    let (node, registry) = (Node::new(), Registry::start());
    let (built, _) = pushed(&registry);
    let deaf = std::sync::Arc::new(AtomicUsize::new(0));
    let script = deaf.clone();
    let tap = Tap::with(&registry, move |line| {
        let is_deaf = script.load(Ordering::Relaxed) == 1;
        if is_deaf && line.starts_with("HEAD") {
            Mischief::Status("405 Method Not Allowed")
        } else {
            Mischief::None
        }
    });
    let name = format!("{}/app:v1", tap.host);
    let pull = async || node.images.pull(&name, None).await.unwrap();
    let requests = || (tap.seen("HEAD ").len(), tap.count("/manifests/"), tap.count("/blobs/"));
    pull().await;
    assert_eq!(requests(), (0, 1, 2));
    assert_eq!(pull().await.id, built.id());
    assert_eq!(requests(), (1, 1, 2));
    deaf.store(1, Ordering::Relaxed);
    pull().await;
    assert_eq!(requests(), (2, 2, 2));
    deaf.store(0, Ordering::Relaxed);
    let other = Built::oci(&[(Layer::new().file("a", "b").tar(), Packing::Gzip)]);
    registry.push("app", "v1", &other);
    assert_eq!(pull().await.id, other.id());
}
