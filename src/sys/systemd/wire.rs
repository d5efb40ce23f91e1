//! Messages of D-Bus, as far as systemd is called with them (D-Bus Specification, "Type
//! System" and "Message Protocol"): no connection here.

use std::io;

/// A method call, the answer to one, and a refusal.
const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
/// The version of the protocol.
const PROTOCOL: u8 = 1;
/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
/// Bytes of a message before its header fields.
pub(super) const FIXED: usize = 16;
/// The longest message that is read, in bytes; the bus itself lets 128 MiB pass.
const MAX_MESSAGE: usize = 1 << 20;

/// What a property can be set to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// `b`.
    Flag(bool),
    /// `t`.
    Number(u64),
    /// `au`.
    Numbers(&'a [u32]),
    /// `s`.
    Text(&'a str),
    /// `as`.
    Texts(&'a [&'a str]),
}

/// A call's arguments and their types.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    signature: String,
    bytes: Writer,
}

impl Body {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// `s`.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        self.bytes.text(text);
        self
    }

    /// `a(sv)`.
    pub(super) fn properties(mut self, all: &[(&str, Value<'_>)]) -> Self {
        self.signature.push_str("a(sv)");
        self.bytes.array(8, |bytes| {
            for (name, value) in all {
                bytes.align(8);
                bytes.text(name);
                bytes.variant(*value);
            }
        });
        self
    }

    /// `a(sa(sv))` without any: StartTransientUnit takes further units there.
    pub(super) fn empty(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        self.bytes.array(8, |_| ());
        self
    }
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

impl Call<'_> {
    /// The call as bytes.
    pub(super) fn message(&self, serial: u32, body: &Body) -> Vec<u8> {
        let mut out = Writer::default();
        out.0.extend([b'l', CALL, 0, PROTOCOL]);
        out.number(u32::try_from(body.bytes.0.len()).unwrap_or(u32::MAX));
        out.number(serial);
        out.array(8, |out| {
            for (code, kind, text) in [
                (PATH, 'o', self.path),
                (DESTINATION, 's', self.destination),
                (INTERFACE, 's', self.interface),
                (MEMBER, 's', self.member),
                (SIGNATURE, 'g', &body.signature),
            ] {
                // Without arguments there is no signature.
                if !text.is_empty() {
                    out.align(8);
                    out.0.push(code);
                    out.signature(&kind.to_string());
                    if kind == 'g' { out.signature(text) } else { out.text(text) }
                }
            }
        });
        out.align(8);
        out.0.extend(&body.bytes.0);
        out.0
    }
}

/// Bytes in this order: little-endian, which every receiver takes.
#[derive(Debug, Clone, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `align`: of its elements, even where there are none.
    fn array(&mut self, align: usize, write: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        write(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: Value<'_>) {
        match value {
            Value::Flag(flag) => {
                self.signature("b");
                self.number(u32::from(flag));
            }
            Value::Number(number) => {
                self.signature("t");
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.array(4, |out| numbers.iter().for_each(|number| out.number(*number)));
            }
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Texts(texts) => {
                self.signature("as");
                self.array(4, |out| texts.iter().for_each(|text| out.text(text)));
            }
        }
    }
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    /// Which call it answers.
    pub(super) answers: Option<u32>,
    /// Of a refusal.
    pub(super) error_name: String,
    signature: String,
    body: Reader,
}

impl Message {
    /// Bytes of the whole message that begins with these [`FIXED`] ones.
    pub(super) fn length(fixed: &[u8; FIXED]) -> io::Result<usize> {
        let mut reader = Reader::new(fixed)?;
        reader.at = 4;
        let body = reader.number()? as usize;
        reader.at = 12;
        let fields = reader.number()? as usize;
        let length = fields.checked_next_multiple_of(8).and_then(|f| f.checked_add(FIXED + body));
        match length {
            Some(length) if length <= MAX_MESSAGE => Ok(length),
            _ => Err(bad("it is longer than 1 MiB")),
        }
    }

    /// Reads a whole one.
    pub(super) fn read(bytes: &[u8]) -> io::Result<Self> {
        let mut reader = Reader::new(bytes)?;
        let kind = bytes.get(1).copied().ok_or_else(short)?;
        reader.at = 12;
        let fields_end = FIXED + reader.number()? as usize;
        let (mut answers, mut error_name, mut signature) = (None, String::new(), String::new());
        while reader.at < fields_end {
            reader.align(8);
            let code = reader.byte()?;
            match reader.signature()?.as_str() {
                "u" => {
                    let number = reader.number()?;
                    if code == REPLY_SERIAL {
                        answers = Some(number);
                    }
                }
                "s" | "o" => {
                    let text = reader.text()?;
                    if code == ERROR_NAME {
                        error_name = text;
                    }
                }
                "g" => signature = reader.signature()?,
                other => return Err(bad(&format!("a header field is of type {other:?}"))),
            }
        }
        reader.align(8);
        let rest = bytes.get(reader.at..).ok_or_else(short)?;
        let body = Reader { bytes: rest.to_vec(), at: 0, big: reader.big };
        Ok(Self { kind, answers, error_name, signature, body })
    }

    /// What a refusal says for people.
    pub(super) fn words(&self) -> String {
        let text =
            if self.signature.starts_with('s') { self.body.clone().text() } else { Err(short()) };
        text.unwrap_or_default()
    }

    /// The text in an answer of type `v`.
    pub(super) fn text_in_variant(&self) -> io::Result<String> {
        let mut body = self.body.clone();
        if self.signature != "v" || body.signature()? != "s" {
            return Err(bad("it holds no text"));
        }
        body.text()
    }
}

/// Bytes in the order that their sender has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reader {
    bytes: Vec<u8>,
    at: usize,
    big: bool,
}

impl Reader {
    fn new(bytes: &[u8]) -> io::Result<Self> {
        let big = match bytes.first() {
            Some(b'l') => false,
            Some(b'B') => true,
            _ => return Err(bad("it has no byte order")),
        };
        Ok(Self { bytes: bytes.to_vec(), at: 0, big })
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let end = self.at.checked_add(count).ok_or_else(short)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(short)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> io::Result<u32> {
        self.align(4);
        let big = self.big;
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(io::Error::other)?;
        Ok(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> io::Result<String> {
        let length = self.number()? as usize;
        self.ended(length)
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = self.byte()?.into();
        self.ended(length)
    }

    /// Text with a NUL behind it.
    fn ended(&mut self, length: usize) -> io::Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec());
        self.take(1)?;
        text.map_err(|_| bad("a text is not UTF-8"))
    }
}

fn short() -> io::Error {
    bad("it ends too early")
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a message of D-Bus: {why}"))
}

#[cfg(test)]
mod tests;
