//! Images made for tests: layers, configurations, manifests, archives of each form, and a
//! root file system of the static busybox.

use std::fmt::Write as _;
use std::io::Write as _;

use sha2::Digest as _;
use tar::{EntryType, Header};

/// How a layer is stored.
#[derive(Clone, Copy)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer's tar, member by member, in memory.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size as u64);
        header
    }

    /// Any member, its name as it is, `..` and all.
    pub(crate) fn raw(mut self, name: &str, mut header: Header, data: &[u8]) -> Self {
        let field = &mut header.as_mut_bytes()[..100];
        assert!(name.len() <= field.len(), "a raw name must fit the header");
        field.fill(0);
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        let mut header = Self::header(EntryType::Regular, 0o644, text.len());
        self.0.append_data(&mut header, name, text.as_bytes()).unwrap();
        self
    }

    pub(crate) fn program(mut self, name: &str, bytes: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, 0o755, bytes.len());
        self.0.append_data(&mut header, name, bytes).unwrap();
        self
    }

    pub(crate) fn dir(mut self, name: &str, mode: u32) -> Self {
        let mut header = Self::header(EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, format!("{name}/"), &b""[..]).unwrap();
        self
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777, 0);
        header.set_link_name_literal(target).unwrap();
        self.raw(name, header, b"")
    }

    /// PAX records for the next member.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn whiteout(self, name: &str) -> Self {
        self.file(name, "")
    }

    /// The finished tar.
    pub(crate) fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in sha2::Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

pub(crate) fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(tar).unwrap();
            gzip.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(tar, 1).unwrap(),
    }
}

/// An image in all its parts.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) config: Vec<u8>,
    /// Layers as they are stored.
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) tars: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: &'static str,
}

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

impl Built {
    /// From the layers' tars, lowest first, with OCI media types.
    pub(crate) fn oci(layers: &[(Vec<u8>, Packing)]) -> Self {
        Self::of(layers, "amd64", OCI_MANIFEST)
    }

    /// The same with Docker's.
    pub(crate) fn docker(layers: &[(Vec<u8>, Packing)]) -> Self {
        Self::of(layers, "amd64", DOCKER_MANIFEST)
    }

    /// For some architecture.
    pub(crate) fn of(
        layers: &[(Vec<u8>, Packing)],
        architecture: &str,
        media_type: &'static str,
    ) -> Self {
        let tars: Vec<Vec<u8>> = layers.iter().map(|(tar, _)| tar.clone()).collect();
        let blobs: Vec<Vec<u8>> = layers.iter().map(|(tar, packing)| pack(tar, *packing)).collect();
        let diff_ids: Vec<String> = tars.iter().map(|tar| sha256(tar)).collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "User": "1000:1000", "WorkingDir": "/srv",
                       "StopSignal": "SIGUSR1", "Volumes": {"/data": {}}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let docker = media_type == DOCKER_MANIFEST;
        let layer_types: Vec<&str> = layers
            .iter()
            .map(|(_, packing)| match (packing, docker) {
                (Packing::Plain, false) => "application/vnd.oci.image.layer.v1.tar",
                (Packing::Gzip, false) => "application/vnd.oci.image.layer.v1.tar+gzip",
                (Packing::Zstd, false) => "application/vnd.oci.image.layer.v1.tar+zstd",
                (_, true) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            })
            .collect();
        let config_type = if docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        };
        let layers: Vec<_> =
            blobs.iter().zip(layer_types).map(|(blob, kind)| descriptor(kind, blob)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type,
            "config": descriptor(config_type, &config), "layers": layers,
        });
        Self { manifest: manifest.to_string().into_bytes(), config, blobs, tars, media_type }
    }

    /// The same with annotations of its manifest.
    pub(crate) fn annotated(mut self, annotations: &[(&str, &str)]) -> Self {
        let mut manifest: serde_json::Value = serde_json::from_slice(&self.manifest).unwrap();
        for (key, value) in annotations {
            manifest["annotations"][key] = (*value).into();
        }
        self.manifest = manifest.to_string().into_bytes();
        self
    }

    /// `sha256:…` of its configuration.
    pub(crate) fn id(&self) -> String {
        sha256(&self.config)
    }

    /// `sha256:…` of its manifest.
    pub(crate) fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// An OCI layout's files. `annotations` name it.
    pub(crate) fn layout(&self, annotations: &serde_json::Value) -> Vec<(String, Vec<u8>)> {
        let mut entry = descriptor(self.media_type, &self.manifest);
        entry["annotations"] = annotations.clone();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        for blob in [&self.config, &self.manifest].into_iter().chain(&self.blobs) {
            files.push((format!("blobs/sha256/{}", &sha256(blob)[7..]), blob.clone()));
        }
        files
    }

    /// A docker-archive. In the old layout layers that are the same are symlinks.
    pub(crate) fn saved(&self, tags: &[&str]) -> Vec<u8> {
        let names: Vec<String> =
            (0..self.tars.len()).map(|n| format!("layer{n}/layer.tar")).collect();
        let config_name = format!("{}.json", &self.id()[7..]);
        let mut archive = Layer::new();
        for (n, tar) in self.tars.iter().enumerate() {
            archive = match self.tars[..n].iter().position(|earlier| earlier == tar) {
                Some(same) => archive.symlink(&names[n], &format!("../{}", names[same])),
                None => archive.program(&names[n], tar),
            };
        }
        let manifest =
            serde_json::json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
        archive
            .program(&config_name, &self.config)
            .file("manifest.json", &manifest.to_string())
            .tar()
    }
}

/// A descriptor of some bytes.
pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

/// An index of manifests, each with the architecture it is for.
pub(crate) fn index(media_type: &str, manifests: &[(&Built, &str)]) -> Vec<u8> {
    let manifests: Vec<_> = manifests
        .iter()
        .map(|(built, architecture)| {
            let mut entry = descriptor(built.media_type, &built.manifest);
            entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests})
        .to_string()
        .into_bytes()
}

/// Files as a tar.
pub(crate) fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files.iter().fold(Layer::new(), |tar, (name, bytes)| tar.program(name, bytes)).tar()
}

/// A root file system as a tar: the static busybox with a symlink for each applet, users,
/// /tmp, and the mount points a container wants.
pub(crate) fn busybox_rootfs() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    let mut layer = Layer::new();
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "var"] {
        layer = layer.dir(dir, 0o755);
    }
    layer = layer
        .dir("tmp", 0o1777)
        .file(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        .file("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        .program("bin/busybox", &busybox);
    for applet in
        String::from_utf8(applets.stdout).unwrap().lines().filter(|applet| *applet != "busybox")
    {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer.tar()
}
