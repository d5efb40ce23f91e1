use super::*;

const HELLO: Call<'_> = Call { destination: "a.b", path: "/o", interface: "a.b", member: "Hello" };

#[test]
fn a_call_is_these_bytes() {
    let header = b"l\x01\0\x01\0\0\0\0\x07\0\0\0\x3e\0\0\0\
        \x01\x01o\0\x02\0\0\0/o\0\0\0\0\0\0\
        \x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0\
        \x02\x01s\0\x03\0\0\0a.b\0\0\0\0\0\
        \x03\x01s\0\x05\0\0\0Hello\0\0\0";
    assert_eq!(HELLO.message(7, &Body::new()), header);
}

#[test]
fn properties_are_these_bytes() {
    let all = [
        ("D", Value::Flag(true)),
        ("T", Value::Number(u64::MAX)),
        ("P", Value::Numbers(&[258])),
        ("B", Value::Texts(&["x"])),
    ];
    let body = Body::new().text("u").properties(&all).empty();
    assert_eq!(body.signature, "sa(sv)a(sa(sv))");
    let expected = b"\x01\0\0\0u\0\0\0\
        \x56\0\0\0\0\0\0\0\
        \x01\0\0\0D\0\x01b\0\0\0\0\x01\0\0\0\
        \x01\0\0\0T\0\x01t\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
        \x01\0\0\0P\0\x02au\0\0\0\x04\0\0\0\x02\x01\0\0\0\0\0\0\
        \x01\0\0\0B\0\x02as\0\0\0\x06\0\0\0\x01\0\0\0x\0";
    let (front, rest) = body.bytes.0.split_at(16);
    assert_eq!(front, &expected[..16]);
    let length = u32::from_le_bytes(front[8..12].try_into().unwrap()) as usize;
    assert_eq!(rest[..length], expected[16..]);
    // What comes then is an array of nothing.
    assert!(rest[length..].iter().all(|byte| *byte == 0));
    assert_eq!(body.bytes.0.len() % 8, 0);
}

/// An answer as systemd sends one, its header fields in another order than ours.
fn answer(kind: u8, name: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.0.extend([b'l', kind, 1, PROTOCOL]);
    out.number(body.len().try_into().unwrap());
    out.number(9);
    out.array(8, |out| {
        out.0.push(REPLY_SERIAL);
        out.signature("u");
        out.number(7);
        out.align(8);
        out.0.push(ERROR_NAME);
        out.signature("s");
        out.text(name);
        out.align(8);
        out.0.push(SIGNATURE);
        out.signature("g");
        out.signature(signature);
    });
    out.align(8);
    out.0.extend(body);
    out.0
}

#[test]
fn an_answer_is_read_with_its_words() {
    let bytes = answer(ERROR, "e.NoSuchUnit", "s", b"\x03\0\0\0no!\0");
    let fixed = bytes[..FIXED].try_into().unwrap();
    assert_eq!(Message::length(&fixed).unwrap(), bytes.len());
    let message = Message::read(&bytes).unwrap();
    assert_eq!((message.kind, message.answers), (ERROR, Some(7)));
    assert_eq!((message.error_name.as_str(), message.words().as_str()), ("e.NoSuchUnit", "no!"));
    let version = answer(RETURN, "", "v", b"\x01s\0\0\x03\0\0\x00252\0");
    assert_eq!(Message::read(&version).unwrap().text_in_variant().unwrap(), "252");
    Message::read(&bytes).unwrap().text_in_variant().unwrap_err();
}

#[test]
fn a_big_endian_answer_is_read() {
    let bytes = b"B\x02\x01\x01\0\0\0\0\0\0\0\x01\0\0\0\x08\x05\x01u\0\0\0\0\x07";
    assert_eq!(Message::length(bytes[..FIXED].try_into().unwrap()).unwrap(), bytes.len());
    assert_eq!(Message::read(bytes).unwrap().answers, Some(7));
}

#[test]
fn what_is_cut_or_changed_is_refused_or_read_but_never_a_panic() {
    let bytes = answer(ERROR, "e.NoSuchUnit", "s", b"\x03\0\0\0no!\0");
    for end in 0..bytes.len() {
        if let Ok(message) = Message::read(&bytes[..end]) {
            // Cut in its body alone.
            assert_eq!((message.answers, message.words().as_str()), (Some(7), ""));
        }
    }
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            drop(Message::length(changed[..FIXED].try_into().unwrap()));
            drop(Message::read(&changed).map(|message| message.words()));
        }
    }
    let huge = b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff";
    assert!(Message::length(huge).unwrap_err().to_string().contains("longer than 1 MiB"));
}
