//! Manifests on this machine: files, directories, standard input; and what `delete -f` needs
//! of them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Failure;
use super::options::DEFAULT_NAMESPACE;

/// The longest manifest that is sent, in bytes; what haled takes may be less.
const LIMIT: u64 = 8 << 20;
/// How the names of manifests end.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// The files that are meant: each that is named, and those of each directory, in their order.
pub(super) fn files(named: &[PathBuf], recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in named {
        if let Some(url) = path.to_str().filter(|text| is_url(text)) {
            let why = format!("URLs aren't fetched: curl -sSfL {url} | halectl … -f -");
            return Err(Failure::Usage(why));
        }
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        add_directory(path, recursive, &mut files)?;
        if files.len() == before {
            let below = if recursive { "" } else { "; with -R also below it" };
            let why = format!("{}: no .yaml, .yml or .json is in it{below}", path.display());
            return Err(Failure::Message(why));
        }
    }
    Ok(files)
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Nothing hidden, and no directory by a link, which could lead in a circle.
fn add_directory(dir: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::Message(format!("cannot read {}: {error}", dir.display()));
    let mut entries: Vec<_> =
        std::fs::read_dir(dir).and_then(Iterator::collect::<Result<_, _>>).map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let fits = |end: &std::ffi::OsStr| ENDINGS.iter().any(|known| end == *known);
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            if recursive {
                add_directory(&path, true, files)?;
            }
        } else if path.extension().is_some_and(fits) {
            files.push(path);
        }
    }
    Ok(())
}

/// The text and what to call it in errors.
pub(super) async fn read(file: &Path) -> Result<(Vec<u8>, String), Failure> {
    let owned = file.to_owned();
    let is_stdin = file == Path::new("-");
    let source = if is_stdin { "stdin".to_owned() } else { file.display().to_string() };
    let read = move || {
        let mut bytes = Vec::new();
        if is_stdin {
            std::io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes)?;
        } else {
            std::fs::File::open(owned)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
        }
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = tokio::task::spawn_blocking(read).await.expect("reading doesn't panic");
    match bytes {
        Ok(bytes) if bytes.len() as u64 > LIMIT => Err(Failure::Message(format!(
            "{source} is longer than {} MiB: that is no manifest",
            LIMIT >> 20
        ))),
        Ok(bytes) => Ok((bytes, source)),
        Err(error) => Err(Failure::Message(format!("cannot read {source}: {error}"))),
    }
}

/// --namespace beside a manifest.
pub(super) fn refuse_namespace(namespace: Option<&str>) -> Result<(), Failure> {
    match namespace {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(
            "--namespace says nothing about a manifest: set metadata.namespace in it".to_owned(),
        )),
    }
}

/// What `delete -f` needs of a document, and no more.
#[derive(Deserialize)]
struct Document {
    kind: Option<String>,
    metadata: Option<Metadata>,
    /// Of a List.
    #[serde(default)]
    items: Vec<Option<Document>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

/// Namespace and name of every pod in a manifest.
pub(super) fn named_pods(manifest: &[u8], source: &str) -> Result<Vec<(String, String)>, Failure> {
    let failed = |why: String| Failure::Message(format!("{source}: {why}"));
    let text = std::str::from_utf8(manifest).map_err(|error| failed(error.to_string()))?;
    let documents: Vec<Option<Document>> =
        serde_saphyr::from_multiple(text).map_err(|error| failed(error.to_string()))?;
    let opened = documents.into_iter().flatten().flat_map(|document| match &document.kind {
        Some(kind) if kind == "List" => document.items.into_iter().flatten().collect(),
        _ => vec![document],
    });
    let mut pods = Vec::new();
    for document in opened.filter(|document| document.kind.as_deref() == Some("Pod")) {
        let metadata = document.metadata.ok_or_else(|| failed("metadata is missing".into()))?;
        let name = metadata.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| failed("metadata.name is missing".into()))?;
        pods.push((metadata.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.into()), name));
    }
    if pods.is_empty() {
        return Err(failed("there is no document of kind Pod in it".into()));
    }
    Ok(pods)
}
