//! SPDY frames, in whatever pieces they come. The first byte says how they are cut.
#![no_main]

use haled::stream::spdy::frame::{Decoder, Encoder, Frame, MAX_CONTROL};
use libfuzzer_sys::fuzz_target;

/// Bytes of a frame before its payload.
const HEAD: usize = 8;

/// All frames until the first that is none.
fn decode(data: &[u8], piece: usize) -> (Vec<Frame>, bool) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in data.chunks(piece.max(1)) {
        decoder.buffer.extend_from_slice(piece);
        loop {
            match decoder.decode() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (joined(frames), true),
            }
        }
    }
    (joined(frames), false)
}

/// Data comes in pieces that depend on how it was cut: pieces of a frame in a row become one.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for frame in frames {
        if let (
            Some(Frame::Data { id, fin: fin @ false, data }),
            Frame::Data { id: of, fin: last, data: more },
        ) = (all.last_mut(), &frame)
            && id == of
        {
            *data = [&data[..], more].concat().into();
            *fin = *last;
        } else {
            all.push(frame);
        }
    }
    all
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, data)) = data.split_first() else { return };
    let (whole, broken) = decode(data, usize::MAX);
    assert_eq!(decode(data, piece.into()), (whole.clone(), broken));
    // What was understood is understood the same once it is written again.
    let (mut encoder, mut bytes, mut written) = (Encoder::default(), Vec::new(), Vec::new());
    for frame in whole {
        let begin = bytes.len();
        encoder.encode(&frame, &mut bytes);
        let control = !matches!(frame, Frame::Data { .. });
        if control && bytes.len() - begin > HEAD + MAX_CONTROL {
            // Another compressor can have made of its headers less than ours does.
            bytes.truncate(begin);
            break;
        }
        written.push(frame);
    }
    let (again, broken) = decode(&bytes, usize::MAX);
    assert!(!broken);
    assert_eq!(again, written);
});
