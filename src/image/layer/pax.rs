//! Extended headers of tar members (pax(1)): the records, and what of them counts.

use super::tape::shown;

/// Most extended attributes of a member.
const MAX_XATTRS: usize = 128;

/// Overrides from PAX records and GNU long names, for the next member.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// A sparse file in the PAX form, whose member goes by a name of its own.
    pub(super) sparse: bool,
}

impl Extensions {
    /// `length key=value\n`, again and again. Values may hold any byte.
    pub(super) fn read_pax(&mut self, mut records: &[u8]) -> Result<(), String> {
        let bad = || "a damaged PAX record".to_owned();
        while !records.is_empty() {
            // Some writers fill the block with zeros.
            if records.iter().all(|&b| b == 0) {
                break;
            }
            let space =
                records.iter().position(|&b| b == b' ').filter(|&at| at <= 20).ok_or_else(bad)?;
            let length: usize =
                text(&records[..space]).and_then(|t| t.parse().ok()).ok_or_else(bad)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
            self.take(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let number = || {
            text(value)
                .and_then(|t| t.parse::<u64>().ok())
                .ok_or_else(|| format!("a bad PAX number for {}", shown(key)))
        };
        match key {
            // An empty value deletes the override.
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or("a bad PAX mtime")?),
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse = true;
                if key == b"GNU.sparse.name" {
                    self.path = Some(value.to_vec());
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.xattrs.len() == MAX_XATTRS {
                        return Err(format!("more than {MAX_XATTRS} extended attributes"));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// `[-]seconds[.fraction]`, to the nanosecond, rounded down.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let value = text(value)?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    if value.starts_with('-') && nanos > 0 {
        Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos))
    } else {
        Some((seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.25"), Some((12, 250_000_000)));
        assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        for bad in [&b""[..], b"x", b"1.x", b"1.-2", b"\xff", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }
}
