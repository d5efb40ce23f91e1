//! The parts of an image archive: files of a directory, or members of a tar that are only
//! read where they lie, never unpacked by their names.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::layer::{Kind, Tape};

/// Members of an archive that are looked at as parts of an image; a root file system has more.
const MAX_PARTS: usize = 100_000;
/// Links from one member of an archive to another.
const MAX_LINKS: usize = 8;

/// Where an archive's parts are read from.
pub(super) enum Source {
    Directory(PathBuf),
    Tar { plain: PathBuf, parts: HashMap<String, Part> },
}

pub(super) enum Part {
    Data { at: u64, size: u64 },
    Link(String),
}

impl Source {
    /// A plain tar on disk. Only its headers are read.
    pub(super) fn archive(plain: &Path) -> Result<Self, String> {
        let file = File::open(plain).map_err(|error| error.to_string())?;
        let mut tape = Tape::new(io::BufReader::with_capacity(64 << 10, file));
        let (mut parts, mut empty) = (HashMap::new(), true);
        while let Some(member) = tape.next()? {
            empty = false;
            let Ok(name) = std::str::from_utf8(&member.path) else { continue };
            let part = match member.kind {
                Kind::File => Part::Data { at: tape.position(), size: member.size },
                Kind::Symlink | Kind::Hardlink => {
                    let link = String::from_utf8_lossy(&member.link).into_owned();
                    // A hardlink's target is named from the archive's root.
                    Part::Link(if member.kind == Kind::Hardlink {
                        format!("/{link}")
                    } else {
                        link
                    })
                }
                _ => continue,
            };
            if parts.len() < MAX_PARTS {
                parts.insert(normal(name), part);
            }
        }
        if empty {
            return Err("the archive is empty".to_owned());
        }
        Ok(Self::Tar { plain: plain.to_owned(), parts })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(dir) => dir.join(name).is_file(),
            Self::Tar { parts, .. } => parts.contains_key(name),
        }
    }

    /// A part to read, and its size.
    pub(super) fn open(&self, name: &str) -> Result<(Box<dyn Read>, u64), String> {
        let text = |error: io::Error| format!("{name}: {error}");
        match self {
            Self::Directory(dir) => {
                let file = File::open(dir.join(name)).map_err(text)?;
                let size = file.metadata().map_err(text)?.len();
                Ok((Box::new(file), size))
            }
            Self::Tar { plain, parts } => {
                let mut key = normal(name);
                for _ in 0..=MAX_LINKS {
                    match parts.get(&key) {
                        Some(Part::Data { at, size }) => {
                            let mut file = File::open(plain).map_err(text)?;
                            file.seek(SeekFrom::Start(*at)).map_err(text)?;
                            return Ok((Box::new(file.take(*size)), *size));
                        }
                        Some(Part::Link(target)) if target.starts_with('/') => key = normal(target),
                        Some(Part::Link(target)) => {
                            let dir = key.rsplit_once('/').map_or("", |(dir, _)| dir);
                            key = normal(&format!("{dir}/{target}"));
                        }
                        None => return Err(format!("{key} is missing in it")),
                    }
                }
                Err(format!("{name}: too many links"))
            }
        }
    }
}

/// A member's name without `.`, `..` and double slashes: a key, never a path on disk.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_archives_never_leave_them() {
        for (given, key) in [
            ("./a//b", "a/b"),
            ("../../etc", "etc"),
            ("a/../b/layer.tar", "b/layer.tar"),
            ("/", ""),
        ] {
            assert_eq!(normal(given), key);
        }
    }
}
