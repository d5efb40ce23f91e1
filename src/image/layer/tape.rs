//! Reads a tar stream member by member: ustar, GNU and PAX, with every length bounded.
//!
//! The `tar` crate decodes the 512-byte headers; the walk from one to the next is ours,
//! because the crate reads extension records of any length into memory.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::pax::Extensions;

const BLOCK: usize = 512;
/// Largest PAX extension record or GNU long name, in bytes. Attributes are 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest path or link target: PATH_MAX with its end.
pub(super) const MAX_PATH: usize = 4095;
/// Most data pieces of a sparse file.
const MAX_PIECES: usize = 100_000;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One member, its data still to be read from the tape.
#[derive(Debug, Clone)]
pub(in crate::image) struct Member {
    pub(in crate::image) path: Vec<u8>,
    /// Target of a symlink or hardlink.
    pub(in crate::image) link: Vec<u8>,
    pub(in crate::image) kind: Kind,
    /// Length of the file, holes included.
    pub(in crate::image) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// (offset, length) of the data that is there; none: all of it.
    pub(super) pieces: Option<Vec<(u64, u64)>>,
}

/// A member's name as it is shown in errors.
pub(in crate::image) fn shown(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(200).collect();
    text.escape_debug().to_string()
}

/// The stream. After `next` gave a member its data is read with `Read`.
pub(in crate::image) struct Tape<R> {
    reader: R,
    /// Bytes consumed.
    position: u64,
    /// Data of the current member not read yet.
    left: u64,
    padding: u64,
}

impl<R: Read> Tape<R> {
    pub(in crate::image) fn new(reader: R) -> Self {
        Self { reader, position: 0, left: 0, padding: 0 }
    }

    /// Where the current member's data starts.
    pub(in crate::image) fn position(&self) -> u64 {
        self.position
    }

    /// The stream after the last member.
    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// The next member; none at the end. An error says at which path it arose.
    pub(in crate::image) fn next(&mut self) -> Result<Option<Member>, String> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let name = shown(&header.path_bytes());
            let at = |why: String| format!("\"{name}\": {why}");
            let size = header.entry_size().map_err(|error| at(error.to_string()))?;
            match header.entry_type() {
                EntryType::XGlobalHeader => {
                    self.extension(size).map_err(at)?;
                }
                EntryType::XHeader => {
                    let records = self.extension(size).map_err(at)?;
                    extensions.read_pax(&records).map_err(at)?;
                }
                EntryType::GNULongName => {
                    extensions.path = Some(long_name(self.extension(size).map_err(at)?));
                }
                EntryType::GNULongLink => {
                    extensions.link = Some(long_name(self.extension(size).map_err(at)?));
                }
                _ => return self.member(&header, extensions, size).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        extensions: Extensions,
        size: u64,
    ) -> Result<Member, String> {
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = shown(&path);
        let at = |why: &str| format!("\"{name}\": {why}");
        let io = |error: io::Error| at(&error.to_string());
        let link = extensions
            .link
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(at("its name or link target is longer than 4095 bytes"));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(at("its name has a zero byte"));
        }
        if extensions.sparse {
            return Err(at("sparse files in the PAX form are not supported: \
                           make the archive without them, or in tar's format \"gnu\""));
        }
        let kind = kind_of(header, &path).map_err(|why| at(&why))?;
        let size = if kind == Kind::File { extensions.size.unwrap_or(size) } else { 0 };
        self.set_data(size).map_err(at)?;
        let mut member = Member {
            path,
            link,
            kind,
            size,
            mode: number(header, 100..108, header.mode()).map_err(io)? & 0o7777,
            uid: owner(
                extensions
                    .uid
                    .map_or_else(|| number(header, 108..116, header.uid()), Ok)
                    .map_err(io)?,
            )
            .map_err(at)?,
            gid: owner(
                extensions
                    .gid
                    .map_or_else(|| number(header, 116..124, header.gid()), Ok)
                    .map_err(io)?,
            )
            .map_err(at)?,
            mtime: match extensions.mtime {
                Some(mtime) => mtime,
                None => (number(header, 136..148, header.mtime()).map_err(io)? as i64, 0),
            },
            device: (0, 0),
            xattrs: extensions.xattrs,
            pieces: None,
        };
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            let device_number = |n: io::Result<Option<u32>>| {
                n.map_err(io)?.ok_or_else(|| at("it has no device number"))
            };
            member.device =
                (device_number(header.device_major())?, device_number(header.device_minor())?);
        }
        if header.entry_type() == EntryType::GNUSparse {
            self.sparse(header, &mut member).map_err(|why| at(&why))?;
        }
        Ok(member)
    }

    /// No file is larger than the signed numbers of the kernel, and sums stay in range.
    fn set_data(&mut self, size: u64) -> Result<(), &'static str> {
        if i64::try_from(size).is_err() {
            return Err("its size is out of range");
        }
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(())
    }

    /// The map of an old GNU sparse file: four pieces in the header, more in blocks after it.
    fn sparse(&mut self, header: &Header, member: &mut Member) -> Result<(), String> {
        let gnu = header.as_gnu().ok_or("a sparse file without a GNU header")?;
        let mut pieces = Vec::new();
        let text = |error: io::Error| error.to_string();
        let mut take = |found: &[tar::GnuSparseHeader]| -> Result<(), String> {
            for piece in found.iter().filter(|piece| !piece.is_empty()) {
                pieces.push((piece.offset().map_err(text)?, piece.length().map_err(text)?));
            }
            if pieces.len() > MAX_PIECES {
                Err("too many pieces in a sparse file".to_owned())
            } else {
                Ok(())
            }
        };
        take(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.reader.read_exact(block.as_mut_bytes()).map_err(text)?;
            self.position += BLOCK as u64;
            take(block.sparse())?;
            more = block.is_extended();
        }
        let full = gnu.real_size().map_err(text)?;
        let (mut end, mut sum) = (0u64, 0u64);
        for &(offset, length) in &pieces {
            let next = offset.checked_add(length).filter(|next| offset >= end && *next <= full);
            end = next.ok_or("the pieces of a sparse file overlap or leave it")?;
            // Not above `end`.
            sum += length;
        }
        if sum != member.size {
            return Err("the pieces of a sparse file don't add up to its data".to_owned());
        }
        member.size = full;
        member.pieces = Some(pieces);
        Ok(())
    }

    /// An extension's data, bounded.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, String> {
        if size > MAX_EXTENSION {
            return Err(format!(
                "an extension record of {size} bytes, {MAX_EXTENSION} are allowed"
            ));
        }
        self.set_data(size)?;
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data).map_err(|error| error.to_string())?;
        Ok(data)
    }

    fn skip_rest(&mut self) -> Result<(), String> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.reader).take(rest), &mut io::sink())
            .map_err(|error| error.to_string())?;
        self.position += skipped;
        (self.left, self.padding) = (0, 0);
        if skipped == rest {
            Ok(())
        } else {
            Err("the archive ends in the middle of a member".to_owned())
        }
    }

    /// The next header with a good checksum; none at the end-of-archive mark or the end.
    fn header(&mut self) -> Result<Option<Header>, String> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut header.as_mut_bytes()[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err("the archive ends in the middle of a header".to_owned()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.position += BLOCK as u64;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        // The checksum's own field counts as spaces.
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u32::from(b) })
            .sum();
        match header.cksum() {
            Ok(told) if told == sum => Ok(Some(header)),
            // Of anything else these would be bytes that nobody calls a name.
            _ if header.as_ustar().is_some() || header.as_gnu().is_some() => {
                Err(format!("\"{}\": a damaged header", shown(&header.path_bytes())))
            }
            _ if self.position == BLOCK as u64 => Err("it is no tar archive".to_owned()),
            _ => Err(format!("a damaged header at byte {}", self.position - BLOCK as u64)),
        }
    }
}

impl<R: Read> Read for Tape<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let length = self.reader.read(&mut buffer[..most])?;
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends in the middle of a member",
            ));
        }
        self.left -= length as u64;
        self.position += length as u64;
        Ok(length)
    }
}

/// A header's number; a field that was left empty is zero.
fn number<T: Default>(
    header: &Header,
    field: std::ops::Range<usize>,
    read: io::Result<T>,
) -> io::Result<T> {
    let empty = header.as_bytes()[field].iter().all(|&b| b == 0 || b == b' ');
    if empty { Ok(T::default()) } else { read }
}

fn long_name(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|&b| b == 0) {
        data.truncate(end);
    }
    data
}

fn owner(id: u64) -> Result<u32, &'static str> {
    // The largest one means "no one" to the kernel.
    u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or("its owner is out of range")
}

fn kind_of(header: &Header, path: &[u8]) -> Result<Kind, String> {
    Ok(match header.entry_type() {
        // Before ustar a directory was a file with a slash.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::Hardlink,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Fifo => Kind::Fifo,
        other => return Err(format!("an unknown kind of member (type {:#x})", other.as_byte())),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, String> {
        let mut tape = Tape::new(bytes);
        let mut found = Vec::new();
        while let Some(member) = tape.next()? {
            let mut data = Vec::new();
            tape.read_to_end(&mut data).map_err(|error| error.to_string())?;
            found.push((member, data));
        }
        Ok(found)
    }

    fn archive(add: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        add(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o4755);
        header.set_mtime(7);
        header
    }

    #[test]
    fn long_names_times_and_attributes() {
        let long = format!("{}/end", "d".repeat(150));
        let bytes = archive(|tar| {
            tar.append_data(&mut file(3), &long, &b"abc"[..]).unwrap();
            let xattr = ("SCHILY.xattr.user.x", &b"1\n2=\0"[..]);
            tar.append_pax_extensions([xattr, ("mtime", b"-1.5"), ("uid", b"70000")]).unwrap();
            tar.append_data(&mut file(0), "b", &b""[..]).unwrap();
        });
        let found = all(&bytes).unwrap();
        assert_eq!(
            (found[0].0.path.clone(), found[0].1.as_slice()),
            (long.into_bytes(), &b"abc"[..])
        );
        assert_eq!((found[0].0.mode, found[0].0.mtime), (0o4755, (7, 0)));
        let b = &found[1].0;
        assert_eq!((b.uid, b.mtime), (70000, (-2, 500_000_000)));
        assert_eq!(b.xattrs, [(b"user.x".to_vec(), b"1\n2=\0".to_vec())]);
    }

    #[test]
    fn a_huge_extension_is_refused_unread() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        let error = all(header.as_bytes()).unwrap_err();
        assert!(error.contains("extension record"), "{error}");
    }

    #[test]
    fn sizes_that_no_file_can_have_are_refused() {
        for size in [u64::MAX, u64::MAX - 511, i64::MAX as u64 + 1] {
            let bytes = archive(|tar| {
                tar.append_pax_extensions([("size", size.to_string().as_bytes())]).unwrap();
                tar.append_data(&mut file(0), "big", &b""[..]).unwrap();
            });
            let error = all(&bytes).unwrap_err();
            assert!(error.contains("big") && error.contains("out of range"), "{error}");
        }
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let bytes = archive(|tar| tar.append_data(&mut file(2000), "a", &[1u8; 2000][..]).unwrap());
        for end in [100, 700, 1500, 2500] {
            assert!(all(&bytes[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn damaged_headers_end(
            at in 0usize..1536, value in any::<u8>(),
            records in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = archive(|tar| {
                tar.append_pax_extensions([("path", &b"p"[..]), ("size", b"3")]).unwrap();
                tar.append_data(&mut file(3), "a", &b"abc"[..]).unwrap();
            });
            bytes[at] = value;
            // Right checksum, so that the damage gets as far as it can.
            let mut header = Header::from_byte_slice(&bytes[..512]).clone();
            header.set_cksum();
            bytes[..512].copy_from_slice(header.as_bytes());
            drop(all(&bytes));
            drop(Extensions::default().read_pax(&records));
        }
    }
}
