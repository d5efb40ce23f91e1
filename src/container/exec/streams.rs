//! The pipes between a command and whoever reads what it writes.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;

use super::MAX_OUTPUT;

/// Which streams a command is to have as pipes; the others are /dev/null.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)]
pub(in super::super) struct Wanted {
    pub(in super::super) stdin: bool,
    pub(in super::super) stdout: bool,
    pub(in super::super) stderr: bool,
}

impl Wanted {
    /// What a command gives whose input nobody writes.
    pub(super) const OUTPUTS: Self = Self { stdin: false, stdout: true, stderr: true };
}

/// The ends of a command's pipes that stay here.
#[derive(Debug, Default)]
pub(in super::super) struct Ends {
    pub(in super::super) stdin: Option<pipe::Sender>,
    pub(in super::super) stdout: Option<pipe::Receiver>,
    pub(in super::super) stderr: Option<pipe::Receiver>,
}

/// Makes them, for `owner`: another's pipe can't be opened by its path in /dev. Gives the
/// command's ends and ours.
pub(super) fn pipes(
    wanted: Wanted,
    owner: Option<(u32, u32)>,
) -> io::Result<([Option<OwnedFd>; 3], Ends)> {
    let pipe = || {
        let (reader, writer) = io::pipe()?;
        if let Some((user, group)) = owner {
            // Both ends are one inode's.
            std::os::unix::fs::fchown(&writer, Some(user), Some(group))?;
        }
        Ok::<_, io::Error>((reader, writer))
    };
    let output = |wanted: bool| {
        if !wanted {
            return Ok::<_, io::Error>((None, None));
        }
        let (reader, writer) = pipe()?;
        Ok((Some(writer.into()), Some(pipe::Receiver::from_owned_fd(reader.into())?)))
    };
    let mut ends = Ends::default();
    let mut stdin = None;
    if wanted.stdin {
        let (reader, writer) = pipe()?;
        stdin = Some(reader.into());
        ends.stdin = Some(pipe::Sender::from_owned_fd(writer.into())?);
    }
    let (stdout, ours) = output(wanted.stdout)?;
    ends.stdout = ours;
    let (stderr, ours) = output(wanted.stderr)?;
    ends.stderr = ours;
    Ok(([stdin, stdout, stderr], ends))
}

/// Reads to the end, keeping at most `MAX_OUTPUT`. A read error ends it like an end of file:
/// what was read counts.
pub(super) async fn collect(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let room = MAX_OUTPUT - into.len();
        into.extend_from_slice(&chunk[..read.min(room)]);
    }
}
