//! What a registry or an archive says of an image: index, manifest, configuration.
//!
//! Only the fields haled uses. Everything here is read from untrusted bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::Defaults;
use super::digest::Digest;

/// Largest manifest or index read, in bytes (as containerd and registries have it).
pub(super) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image configuration read, in bytes.
pub(super) const MAX_CONFIG: u64 = 8 << 20;
/// Most bytes of an image, compressed and uncompressed.
pub(super) const MAX_SIZE: u64 = 256 << 30;
/// Most layers of an image: overlayfs takes 500 lower directories.
pub(super) const MAX_LAYERS: usize = 500;

/// The media types asked for, Docker's and OCI's.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const IMAGE_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The media types of an image's configuration. Old tools gave none, or the last one.
const CONFIG_TYPES: [&str; 4] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "",
];

/// Why a manifest is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It isn't what it should be.
    Broken(String),
    /// It may be whole, but is something else than a container image.
    NotAnImage(String),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Broken(why) | Self::NotAnImage(why)) = self;
        f.write_str(why)
    }
}

/// A pointer to content.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
    /// Where else it is: of a foreign layer.
    #[serde(default, deserialize_with = "or_default")]
    urls: Vec<String>,
}

impl Descriptor {
    /// Of a layer that came without one.
    pub(super) fn layer(digest: Digest, size: u64, packed: bool) -> Self {
        let media_type = if packed {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        } else {
            "application/vnd.oci.image.layer.v1.tar"
        };
        let (platform, annotations, urls) = Default::default();
        Self { media_type: media_type.to_owned(), digest, size, platform, annotations, urls }
    }

    /// Of a foreign layer, which registries needn't have: where it is, or its type.
    pub(super) fn elsewhere(&self) -> Option<&str> {
        let foreign = ["foreign", "nondistributable"].iter().any(|t| self.media_type.contains(t));
        let own_type = foreign.then_some(&*self.media_type);
        self.urls.first().map(String::as_str).or(own_type)
    }
}

/// What a manifest runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Platform {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) os: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) variant: String,
}

impl Platform {
    /// This machine's.
    pub(super) fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => go_name(other),
        };
        let variant = base_variant(architecture);
        Self { architecture: architecture.into(), os: "linux".into(), variant: variant.into() }
    }

    /// Whether a manifest for `offered` runs here. An absent variant is the base one.
    fn takes(&self, offered: &Self) -> bool {
        let (architecture, variant) = offered.normal();
        offered.os == self.os
            && architecture == self.architecture
            && (variant == self.variant || (self.architecture == "arm" && variant < &*self.variant))
    }

    /// Architecture and variant as they should be written.
    fn normal(&self) -> (&str, &str) {
        let architecture = go_name(&self.architecture);
        let variant = match self.variant.as_str() {
            "" => base_variant(architecture),
            variant => variant,
        };
        (architecture, variant)
    }
}

/// An architecture's name in manifests, which is Go's.
fn go_name(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// What a manifest without a variant is for.
fn base_variant(architecture: &str) -> &'static str {
    match architecture {
        "amd64" => "v1",
        "arm64" => "v8",
        "arm" => "v7",
        _ => "",
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// One image.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// What a manifest's bytes are.
#[derive(Debug)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Image(Manifest),
}

/// Which of several manifests.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    This(&'a Descriptor),
    /// None; what there is, in words.
    None(String),
}

/// `null` is what a missing field is.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    #[serde(default, deserialize_with = "or_default")]
    artifact_type: String,
    config: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
    manifests: Option<Vec<serde_json::Value>>,
}

impl Document {
    /// Reads a manifest or an index. Its fields say which one it is. One that has those of
    /// both, or a media type that says otherwise, is refused: what else reads it might take
    /// it for the other (CVE-2021-41190).
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unfit> {
        let json = |error: serde_json::Error| {
            Unfit::Broken(format!("its manifest can't be read: {error}"))
        };
        let shape: Shape = serde_json::from_slice(bytes).map_err(json)?;
        if shape.schema_version != 2 {
            return Err(Unfit::Broken(format!(
                "its manifest has schema version {}, which is long obsolete; only 2 is read",
                shape.schema_version
            )));
        }
        let media_type = shape.media_type.as_str();
        let known = INDEX_TYPES.contains(&media_type) || IMAGE_TYPES.contains(&media_type);
        let ambiguous = || {
            Err(if known || media_type.is_empty() {
                Unfit::Broken(format!(
                    "its manifest (\"{media_type}\") is neither clearly an image nor an index"
                ))
            } else {
                Unfit::NotAnImage(format!("its manifest is of type {media_type}"))
            })
        };
        match (shape.config.is_some(), shape.layers.is_some(), shape.manifests) {
            (false, false, Some(_)) if IMAGE_TYPES.contains(&media_type) => ambiguous(),
            (true, _, None) if INDEX_TYPES.contains(&media_type) => ambiguous(),
            (false, false, Some(manifests)) => {
                let host = Platform::host();
                let known = manifests.into_iter().filter_map(|entry| self::known(&host, entry));
                known.collect::<Result<_, _>>().map(Self::Index).map_err(json)
            }
            (true, _, None) => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
                manifest.check_types(&shape.artifact_type).map_err(Unfit::NotAnImage)?;
                manifest.check().map_err(Unfit::Broken)?;
                Ok(Self::Image(manifest))
            }
            _ => ambiguous(),
        }
    }
}

/// An index's entry; none: it can't be read, and is for another platform.
fn known(
    host: &Platform,
    entry: serde_json::Value,
) -> Option<Result<Descriptor, serde_json::Error>> {
    let platform = entry.get("platform").and_then(|p| Platform::deserialize(p).ok());
    match Descriptor::deserialize(entry) {
        Err(_) if platform.is_some_and(|platform| !host.takes(&platform)) => None,
        result => Some(result),
    }
}

impl Manifest {
    /// Charts, signatures, models and the like have the form of an image.
    fn check_types(&self, artifact_type: &str) -> Result<(), String> {
        let config = self.config.media_type.as_str();
        if !CONFIG_TYPES.contains(&config) {
            let kind = if artifact_type.is_empty() { config } else { artifact_type };
            return Err(format!("it is an artifact of type {kind}"));
        }
        let kind =
            |layer: &&Descriptor| !layer.media_type.is_empty() && !layer.media_type.contains("tar");
        match self.layers.iter().find(kind) {
            Some(layer) => Err(format!(
                "its layer {} is of type {}, which is no file system's",
                layer.digest, layer.media_type
            )),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.layers.len() > MAX_LAYERS {
            return Err(format!("it has {} layers, {MAX_LAYERS} are allowed", self.layers.len()));
        }
        if self.config.size > MAX_CONFIG {
            return Err(format!(
                "its configuration has {} bytes, {MAX_CONFIG} are allowed",
                self.config.size
            ));
        }
        let size = self.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        if size > MAX_SIZE {
            return Err(format!("its layers have {size} bytes, {MAX_SIZE} are allowed"));
        }
        for layer in &self.layers {
            if layer.media_type.contains("encrypted") {
                return Err(format!("layer {} is encrypted, which is not supported", layer.digest));
            }
        }
        Ok(())
    }
}

/// The manifest for this platform: of several the one with the highest variant, of those
/// the first. One without a platform only where none has one that fits (its configuration
/// is then asked).
pub(super) fn choose<'a>(host: &Platform, manifests: &'a [Descriptor]) -> Choice<'a> {
    let fitting = manifests.iter().rev().filter_map(|descriptor| {
        let platform = descriptor.platform.as_ref().filter(|platform| host.takes(platform))?;
        Some((descriptor, platform.normal().1))
    });
    // The last of equals, which is the first before `rev`.
    let best = fitting.max_by_key(|(_, variant)| *variant).map(|(descriptor, _)| descriptor);
    if let Some(found) = best.or_else(|| manifests.iter().find(|d| d.platform.is_none())) {
        return Choice::This(found);
    }
    // Builders put attestations beside the images, as of an unknown platform.
    let named = manifests.iter().filter_map(|d| d.platform.as_ref()).filter(|p| p.os != "unknown");
    let mut offered: Vec<String> = Vec::new();
    for platform in named.map(ToString::to_string) {
        if !offered.contains(&platform) {
            offered.push(platform);
        }
    }
    Choice::None(if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") })
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    #[serde(rename = "config")]
    execution: Option<Execution>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

impl Config {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes)
            .map_err(|error| format!("its configuration can't be read: {error}"))
    }

    /// The digests of the uncompressed layers, lowest first.
    pub(super) fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// Its platform, where it is another than this machine's. One that says none fits.
    pub(super) fn foreign(&self, host: &Platform) -> Option<&Platform> {
        let silent = self.platform.os.is_empty() || self.platform.architecture.is_empty();
        (!silent && !host.takes(&self.platform)).then_some(&self.platform)
    }

    pub(super) fn defaults(self) -> Defaults {
        let config = self.execution.unwrap_or_default();
        Defaults {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default().into_keys().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(architecture: &str, variant: &str) -> Descriptor {
        let platform = Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        };
        let digest = Digest::of(format!("{architecture}{variant}").as_bytes());
        Descriptor {
            media_type: String::new(),
            digest,
            size: 1,
            platform: Some(platform),
            annotations: BTreeMap::new(),
            urls: Vec::new(),
        }
    }

    fn amd64() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), variant: "v1".into() }
    }

    #[test]
    fn the_first_that_fits_is_chosen() {
        let manifests =
            [entry("s390x", ""), entry("amd64", "v3"), entry("amd64", ""), entry("amd64", "v1")];
        let Choice::This(found) = choose(&amd64(), &manifests) else { panic!("none") };
        assert_eq!(found.digest, manifests[2].digest);
        let mut others = manifests[..2].to_vec();
        others.push(entry("s390x", ""));
        let mut attestation = entry("unknown", "");
        attestation.platform.as_mut().unwrap().os = "unknown".into();
        others.push(attestation);
        let Choice::None(offered) = choose(&amd64(), &others) else { panic!("one") };
        assert_eq!(offered, "linux/s390x, linux/amd64/v3");
    }

    #[test]
    fn arm_takes_the_best_of_older_variants() {
        let arm = |variant: &str| Platform {
            os: "linux".into(),
            architecture: "arm".into(),
            variant: variant.into(),
        };
        let manifests = [entry("arm", "v5"), entry("arm", "v7"), entry("arm", "v6")];
        for (host, best) in [("v7", 1), ("v6", 2), ("v5", 0)] {
            let Choice::This(found) = choose(&arm(host), &manifests) else { panic!("none") };
            assert_eq!(found.digest, manifests[best].digest, "{host}");
        }
        let unnamed = [entry("arm", "")];
        assert!(matches!(choose(&arm("v7"), &unnamed), Choice::This(_)));
        assert!(matches!(choose(&arm("v6"), &unnamed), Choice::None(_)));
        let kernels_name = [entry("x86_64", "")];
        assert!(matches!(choose(&amd64(), &kernels_name), Choice::This(_)));
    }

    #[test]
    fn one_without_a_platform_is_the_last_resort() {
        let mut silent = entry("", "");
        silent.platform = None;
        let manifests = [entry("arm64", "v8"), silent];
        let Choice::This(found) = choose(&amd64(), &manifests) else { panic!("none") };
        assert_eq!(found.digest, manifests[1].digest);
    }

    #[test]
    fn what_is_both_or_neither_or_too_large_is_refused() {
        let descriptor =
            |size: u64| format!("{{\"digest\":\"{}\",\"size\":{size}}}", Digest::of(b""));
        let typed = |media_type: &str, rest: &str| {
            format!("{{\"schemaVersion\":2,\"mediaType\":\"{media_type}\",{rest}}}")
        };
        let (small, large) = (descriptor(1), descriptor(MAX_SIZE));
        let too_large =
            format!("{{\"schemaVersion\":2,\"config\":{small},\"layers\":[{large},{small}]}}");
        for bad in [
            "{}",
            "[]",
            "x",
            "{\"schemaVersion\":1,\"fsLayers\":[]}",
            "{\"schemaVersion\":2,\"config\":{},\"manifests\":[]}",
            "{\"schemaVersion\":2}",
            &too_large,
            "{\"schemaVersion\":2,\"layers\":[],\"manifests\":[]}",
            &typed(INDEX_TYPES[0], &format!("\"config\":{small}")),
            &typed(IMAGE_TYPES[1], "\"manifests\":[]"),
        ] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_image_is_told_by_its_type() {
        let digest = Digest::of(b"");
        let descriptor =
            |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1}}"#);
        let manifest = |more: &str, config: &str, layer: &str| {
            format!(
                r#"{{"schemaVersion":2,{more}"config":{},"layers":[{}]}}"#,
                descriptor(config),
                descriptor(layer)
            )
        };
        let (layer, config) = ("application/vnd.oci.image.layer.v1.tar+gzip", CONFIG_TYPES[0]);
        let helm = "application/vnd.cncf.helm.config.v1+json";
        let empty = "application/vnd.oci.empty.v1+json";
        let artifact = r#""artifactType":"application/vnd.example","#;
        let strange = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}"#;
        for (text, told) in [
            (manifest("", helm, layer), helm),
            (manifest(artifact, empty, empty), "artifact of type application/vnd.example"),
            (manifest("", config, "application/vnd.model"), "type application/vnd.model, which"),
            (strange.to_owned(), "application/vnd.oci.artifact.manifest.v1+json"),
        ] {
            match Document::parse(text.as_bytes()) {
                Err(Unfit::NotAnImage(why)) => assert!(why.contains(told), "{why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for kind in ["", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", layer] {
            let Ok(Document::Image(image)) = Document::parse(manifest("", "", kind).as_bytes())
            else {
                panic!("{kind}")
            };
            assert_eq!(image.layers[0].elsewhere().is_some(), kind.contains("foreign"));
        }
    }

    #[test]
    fn what_cannot_be_read_for_other_platforms_is_passed_over() {
        let digest = Digest::of(b"");
        let entry = |architecture: &str, digest: &str| {
            format!(
                r#"{{"digest":"{digest}","size":1,"annotations":null,
                    "platform":{{"os":"linux","variant":null,"architecture":"{architecture}"}}}}"#
            )
        };
        let index = |entries: &[String]| {
            Document::parse(
                format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).as_bytes(),
            )
        };
        let sha512 = format!("sha512:{}", "0".repeat(128));
        let host = Platform::host().architecture;
        let good = entry(&host, &digest.to_string());
        let Ok(Document::Index(found)) = index(&[entry("s390x", &sha512), good.clone()]) else {
            panic!("refused")
        };
        assert_eq!(found.len(), 1);
        assert!(index(&[entry(&host, &sha512), good]).is_err());
        let nulls = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":null}}"#
        );
        assert!(matches!(Document::parse(nulls.as_bytes()), Ok(Document::Image(_))));
    }

    #[test]
    fn nulls_in_a_configuration_are_defaults() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":["A=b"],
            "Volumes":{"/data":{}},"Entrypoint":null},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = Config::parse(text.as_bytes()).unwrap();
        assert!(config.diff_ids().is_empty() && config.foreign(&amd64()).is_none());
        let defaults = config.defaults();
        assert_eq!(
            (defaults.env, defaults.volumes),
            (vec!["A=b".to_owned()], vec!["/data".to_owned()])
        );
    }
}
