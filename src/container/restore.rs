//! Going on from a checkpoint: what CRIU must be told so that the processes come back in their
//! new pod and not in a copy of the old one.

use std::fs;
use std::path::{Path, PathBuf};

use super::create::Surroundings;
use super::{Error, Place};
use crate::oci::model::Sharing;

/// CRIU's options, in the bundle.
const CRIU_CONFIG: &str = "criu.conf";
/// CRIU's own marks of an image file (criu/include/magic.h): any, and one of a UTS namespace.
const IMAGE_MAGICS: [u32; 2] = [0x5456_4319, 0x5447_3203];
/// Begins the name of an image of a UTS namespace.
const UTS_IMAGE: &str = "utsns-";

/// Prepares CRIU's `images` for a pod. Gives the file of options.
pub(super) fn prepare(
    place: &Place,
    images: &Path,
    around: &Surroundings,
) -> Result<PathBuf, Error> {
    // A new pod has other addresses: its connections are closed, not taken up again.
    let mut options = vec!["tcp-close".to_owned()];
    // OCI runtimes have network and PID namespaces joined, but these made anew.
    for (name, sharing) in [("uts", around.network), ("ipc", around.ipc)] {
        if sharing == Sharing::Pod {
            let pin = around.dir.join("pins").join(name);
            options.push(format!("join-ns {name}:{}", pin.display()));
        }
    }
    if around.network == Sharing::Pod {
        rename_host(images, &around.hostname)?;
    }
    let path = place.bundle.join(CRIU_CONFIG);
    fs::write(&path, options.join("\n") + "\n").map_err(Error::io("cannot write", &path))?;
    Ok(path)
}

/// CRIU writes the old pod's hostname into the namespace that it joins: it is to write the new
/// one's.
fn rename_host(images: &Path, hostname: &str) -> Result<(), Error> {
    const DOING: &str = "cannot rewrite";
    for entry in fs::read_dir(images).map_err(Error::io(DOING, images))? {
        let entry = entry.map_err(Error::io(DOING, images))?;
        if !entry.file_name().to_string_lossy().starts_with(UTS_IMAGE) {
            continue;
        }
        // haled unpacked it: it is a file, and root's alone.
        let path = entry.path();
        fs::write(&path, uts_image(hostname)).map_err(Error::io(DOING, &path))?;
    }
    Ok(())
}

/// Two magic numbers, the length of the message, and the message (criu/images/utsns.proto):
/// `nodename` and `domainname`.
fn uts_image(hostname: &str) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Utsns {
        #[prost(string, required, tag = "1")]
        nodename: String,
        #[prost(string, required, tag = "2")]
        domainname: String,
    }
    // What the kernel has where nobody has set one.
    let message = Utsns { nodename: hostname.to_owned(), domainname: "(none)".to_owned() };
    let message = prost::Message::encode_to_vec(&message);
    let length = message.len() as u32;
    let head = IMAGE_MAGICS.into_iter().chain([length]).flat_map(u32::to_le_bytes);
    head.chain(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_is_written_as_criu_does() {
        // What CRIU 4.1.1 wrote for the hostname "pod1".
        let expected = [
            0x19, 0x43, 0x56, 0x54, 0x03, 0x32, 0x47, 0x54, 0x0e, 0, 0, 0, 0x0a, 0x04, b'p', b'o',
            b'd', b'1', 0x12, 0x06, b'(', b'n', b'o', b'n', b'e', b')',
        ];
        assert_eq!(uts_image("pod1"), expected);
    }
}
