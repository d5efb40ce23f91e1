use proptest::prelude::*;

use super::*;

fn headers() -> impl Strategy<Value = Headers> {
    proptest::collection::btree_map("[a-z][a-z-]{0,12}", "[ -~]{0,40}", 0..6)
        .prop_map(|pairs| Headers(pairs.into_iter().collect()))
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = 1..0x8000_0000_u32;
    let data = proptest::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        (id.clone(), 0..0x8000_0000_u32, any::<bool>(), any::<bool>(), headers()).prop_map(
            |(id, associated, fin, unidirectional, headers)| Frame::SynStream {
                id,
                associated,
                fin,
                unidirectional,
                headers
            }
        ),
        (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply {
            id,
            fin,
            headers
        }),
        (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers {
            id,
            fin,
            headers
        }),
        (id.clone(), any::<u32>()).prop_map(|(id, status)| Frame::RstStream { id, status }),
        proptest::collection::vec((any::<u8>(), 0..0x0100_0000_u32, any::<u32>()), 0..4)
            .prop_map(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (0..0x8000_0000_u32, any::<u32>())
            .prop_map(|(last, status)| Frame::GoAway { last, status }),
        (0..0x8000_0000_u32, 0..0x8000_0000_u32)
            .prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
        (id, any::<bool>(), data).prop_map(|(id, fin, data)| Frame::Data {
            id,
            fin,
            data: data.into()
        }),
    ]
}

/// Neighbouring pieces of a stream's data as one, since where they are cut means nothing.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for frame in frames {
        match (all.last_mut(), frame) {
            (
                Some(Frame::Data { id, fin, data }),
                Frame::Data { id: next, fin: last, data: more },
            ) if *id == next && !*fin => {
                *data = [&data[..], &more[..]].concat().into();
                *fin = last;
            }
            (_, frame) => all.push(frame),
        }
    }
    all
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_wherever_it_is_cut(
        frames in proptest::collection::vec(frame(), 0..12),
        cuts in proptest::collection::vec(1..64_usize, 1..40),
    ) {
        let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
        for frame in &frames {
            encoder.encode(frame, &mut bytes);
        }
        let (mut decoder, mut decoded) = (Decoder::default(), Vec::new());
        let mut cuts = cuts.iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            rest = after;
            decoder.buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode().unwrap() {
                decoded.push(frame);
            }
        }
        prop_assert!(decoder.buffer.is_empty());
        prop_assert_eq!(joined(decoded), joined(frames));
    }

    #[test]
    fn no_bytes_make_it_panic_or_hoard(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for lead in [&[][..], &[0x80, 3, 0, 1, 0, 0, 3, 0], &[0x80, 3, 0, 4, 0, 0, 1, 4]] {
            let mut decoder = Decoder::default();
            decoder.buffer.extend_from_slice(lead);
            decoder.buffer.extend_from_slice(&bytes);
            let mut left = 4000;
            while left > 0 && matches!(decoder.decode(), Ok(Some(_))) {
                left -= 1;
            }
            prop_assert!(left > 0);
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, Error> {
    let mut decoder = Decoder::default();
    decoder.buffer.extend_from_slice(bytes);
    decoder.decode()
}

#[test]
fn data_is_given_as_it_comes_and_its_end_last() {
    let mut decoder = Decoder::default();
    decoder.buffer.extend_from_slice(&[0, 0, 0, 5, 1, 0, 0, 4, b'a', b'b']);
    let piece = |fin, data: &'static [u8]| Frame::Data { id: 5, fin, data: data.into() };
    assert_eq!(decoder.decode(), Ok(Some(piece(false, b"ab"))));
    assert_eq!(decoder.decode(), Ok(None));
    decoder.buffer.extend_from_slice(b"cd");
    assert_eq!(decoder.decode(), Ok(Some(piece(true, b"cd"))));
    assert_eq!(decode(&[0, 0, 0, 5, 1, 0, 0, 0]), Ok(Some(piece(true, b""))));
}

#[test]
fn what_is_no_spdy_is_refused_and_what_is_unknown_is_skipped() {
    assert_eq!(decode(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), Err(Error::Version(2)));
    assert_eq!(decode(&[0x80, 3, 0, 1, 0, 1, 0, 1]), Err(Error::TooLong(65537)));
    assert_eq!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]), Err(Error::Malformed("PING")));
    assert_eq!(decode(&[0; 8]), Err(Error::Malformed("DATA")));
    assert_eq!(
        decode(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]),
        Err(Error::Malformed("RST_STREAM"))
    );
    assert_eq!(
        decode(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        Err(Error::Malformed("SETTINGS"))
    );
    let skipped = [0x80, 3, 0, 99, 0, 0, 0, 1, 7, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    assert_eq!(decode(&skipped), Ok(Some(Frame::Ping(1))));
}
