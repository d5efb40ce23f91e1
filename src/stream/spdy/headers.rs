//! Header blocks: names and values, compressed with one zlib state for a connection and
//! direction, so that every block must be read, in order.

use bytes::{Buf as _, BufMut as _};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Error;

/// What both sides' zlib begins with: the SPDY/3 specification's, section 2.6.10.1.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Bytes of a block, decompressed.
pub const MAX_BLOCK: usize = 64 * 1024;
/// Headers in a block.
pub const MAX_HEADERS: usize = 128;

/// Names and values in their order. Names are lower-case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of a name; of several, which SPDY parts by NUL, the first.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        value.split('\0').next()
    }
}

/// Reads the blocks of one direction.
#[derive(Debug)]
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// The headers of the next block.
    pub fn read(&mut self, compressed: &[u8]) -> Result<Headers, Error> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, compressed: &[u8]) -> Result<Vec<u8>, Error> {
        // One byte more than may be, so that what is too long is seen.
        let mut block = Vec::with_capacity(MAX_BLOCK + 1);
        let began = self.0.total_in();
        loop {
            let done = (self.0.total_in() - began) as usize;
            let before = (done, block.len());
            let rest = &compressed[done..];
            match self.0.decompress_vec(rest, &mut block, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(Error::Headers),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| Error::Headers)?;
                    continue;
                }
                Err(_) => return Err(Error::Headers),
            }
            if block.len() > MAX_BLOCK {
                return Err(Error::Headers);
            }
            let now = ((self.0.total_in() - began) as usize, block.len());
            if now.0 == compressed.len() && now == before {
                return Ok(block);
            }
            if now == before {
                // No progress, and something is left that zlib doesn't want.
                return Err(Error::Headers);
            }
        }
    }
}

/// Writes the blocks of one direction.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Default for Deflater {
    fn default() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(DICTIONARY).expect("nothing has been compressed yet");
        Self(compress)
    }
}

impl Deflater {
    /// Appends the next block to `out`.
    pub fn write(&mut self, headers: &Headers, out: &mut Vec<u8>) {
        let block = serialize(headers);
        let began = self.0.total_in();
        loop {
            let done = (self.0.total_in() - began) as usize;
            out.reserve(block.len() / 2 + 64);
            self.0
                .compress_vec(&block[done..], out, FlushCompress::Sync)
                .expect("the compressor is fed in order");
            let all_in = (self.0.total_in() - began) as usize == block.len();
            // A flush is whole only when zlib left room.
            if all_in && out.len() < out.capacity() {
                return;
            }
        }
    }
}

fn serialize(headers: &Headers) -> Vec<u8> {
    let mut block = Vec::new();
    block.put_u32(headers.0.len() as u32);
    for (name, value) in &headers.0 {
        for text in [name, value] {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
    }
    block
}

fn parse(mut block: &[u8]) -> Result<Headers, Error> {
    fn text(block: &mut &[u8]) -> Result<String, Error> {
        let length = block.try_get_u32().map_err(|_| Error::Headers)? as usize;
        let (text, rest) = block.split_at_checked(length).ok_or(Error::Headers)?;
        *block = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Error::Headers)
    }
    let count = block.try_get_u32().map_err(|_| Error::Headers)? as usize;
    if count > MAX_HEADERS {
        return Err(Error::Headers);
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        let value = text(&mut block)?;
        if headers.iter().any(|(known, _)| *known == name) {
            return Err(Error::Headers);
        }
        headers.push((name, value));
    }
    if block.is_empty() { Ok(Headers(headers)) } else { Err(Error::Headers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn the_dictionary_is_the_specifications() {
        let mut first = Vec::new();
        Deflater::default().write(&headers(&[]), &mut first);
        // CMF, FLG with FDICT, and the dictionary's Adler-32 as the specification has it.
        assert_eq!(first[1] & 0x20, 0x20);
        assert_eq!(first[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_share_one_state() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let all = [
            headers(&[("streamtype", "stdin")]),
            headers(&[]),
            headers(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            headers(&[("many", "one\0two")]),
            headers(&[("long", &"x".repeat(60_000))]),
        ];
        for sent in &all {
            let mut block = Vec::new();
            deflater.write(sent, &mut block);
            assert_eq!(inflater.read(&block).unwrap(), *sent);
        }
        assert_eq!(all[3].get("many"), Some("one"));
        assert_eq!(all[3].get("none"), None);
    }

    #[test]
    fn a_bomb_and_nonsense_are_refused() {
        let mut bomb = Vec::new();
        Deflater::default().write(&headers(&[("a", &"x".repeat(MAX_BLOCK))]), &mut bomb);
        assert!(bomb.len() < 1024);
        assert_eq!(Inflater::default().read(&bomb), Err(Error::Headers));
        for junk in [&b""[..], b"x", b"\x78\x9c\x00", &[0xff; 100]] {
            assert_eq!(Inflater::default().read(junk), Err(Error::Headers));
        }
        for block in [
            &[0, 0, 0, 1][..],
            &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0, 7],
            &[0, 0, 0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 1, b'A', 0, 0, 0, 0],
        ] {
            assert_eq!(parse(block), Err(Error::Headers), "{block:?}");
        }
    }
}
