//! Compressed streams, known by their first bytes and not by what a manifest claims, and
//! the hash and bound on what comes out of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::image::digest::{Digest, Hasher};

const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// zstd's skippable frames have these last three bytes and 0x50..=0x5f before them.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// The largest zstd window accepted: 2^27 bytes, which is what its tools accept.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The uncompressed stream of a plain, gzip or zstd one.
pub(in crate::image) fn decoded(
    reader: impl Read + Send + 'static,
) -> io::Result<Box<dyn Read + Send>> {
    let mut buffered = BufReader::with_capacity(64 << 10, reader);
    let start = buffered.fill_buf()?;
    let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && &start[1..4] == ZSTD_SKIPPABLE;
    if start.starts_with(GZIP) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)))
    } else if start.starts_with(ZSTD) || skippable {
        let mut decoder = zstd::Decoder::with_buffer(buffered)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(buffered))
    }
}

/// What a layer's blob is when it is unpacked, and whether it is packed at all.
pub(in crate::image) fn diff_id(blob: &Path) -> io::Result<(Digest, bool)> {
    let mut start = [0; 4];
    let length = File::open(blob)?.read(&mut start)?;
    let packed = start[..length].starts_with(GZIP) || start[..length].starts_with(ZSTD);
    let (digest, _) = Measured::new(decoded(File::open(blob)?)?, u64::MAX).finish()?;
    Ok((digest, packed))
}

/// Hashes what passes, and ends with an error when more than `limit` bytes came.
pub(super) struct Measured<R> {
    inner: R,
    hasher: Hasher,
    left: u64,
    limit: u64,
}

impl<R: Read> Measured<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self { inner, hasher: Hasher::default(), left: limit, limit }
    }

    /// Reads the rest, and gives the digest of the whole and what is left of the limit.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.finish(), self.left))
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if length as u64 > self.left {
            return Err(io::Error::other(format!(
                "it expands to more than {} bytes, too much for its compressed size",
                self.limit
            )));
        }
        self.left -= length as u64;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}
