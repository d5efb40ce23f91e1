//! Joining a client to a container's own streams: Attach.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::config::ContainerConfig;
use super::session::{Session, Streams};
use super::{Error, Place};
use crate::monitor::client::{Attachment, Output};

/// Bytes that wait for the client, of each stream; what is more waits in the kernel, until
/// the monitor finds this reader too slow.
const WAITING: usize = 64 * 1024;
/// Bytes of one piece of input.
const PIECE: usize = 32 * 1024;
/// Sizes that wait to be set.
const SIZES: usize = 8;

/// Attaches to a container that runs. `pod_dir`: the pod's run directory. The session is over
/// when the container's output ends, and with the client's input, unless its end is the
/// container's as well.
pub async fn attach(
    pod_dir: &Path,
    place: &Place,
    config: &ContainerConfig,
    streams: Streams,
) -> Result<Session, Error> {
    let wants = (streams.stdin && config.stdin, streams.stdout, streams.stderr && !config.tty);
    let id = place.id.clone();
    let attachment = Attachment::open(pod_dir, id.as_str(), wants)
        .await
        .map_err(|source| Error::Monitor { id: id.clone(), source })?;
    let attachment = Arc::new(attachment);
    let pipe = |wanted: bool| wanted.then(|| duplex(WAITING)).unzip();
    let (stdin, from_client) = pipe(wants.0);
    let (stdout, out) = pipe(wants.1);
    let (stderr, err) = pipe(wants.2);
    let (resize, sizes) = mpsc::channel(SIZES);

    let ends_with_input = !config.stdin_once || config.tty;
    let task = tokio::spawn(async move {
        let input = async {
            if let Some(from) = from_client
                && feed(from, &attachment).await
                && ends_with_input
            {
                return;
            }
            std::future::pending::<()>().await;
        };
        let sizing = size(sizes, &attachment);
        tokio::select! {
            ended = carry(&attachment, out, err) => ended,
            () = input => Ok(()),
            () = sizing => Ok(()),
        }
    });
    // Dropped with the session: the monitor then sees the client go.
    let task = AbortOnDropHandle::new(task);
    let failed = move |why: String| Error::Attach { id: id.clone(), why };
    let boxed_resize = move |columns, rows| {
        // One of many in a row may be lost.
        resize.try_send((columns, rows)).unwrap_or_default();
    };
    Ok(Session {
        stdin: stdin.map(|stdin| Box::new(stdin) as _),
        stdout: stdout.map(|stdout| Box::new(stdout) as _),
        stderr: stderr.map(|stderr| Box::new(stderr) as _),
        resize: config.tty.then(|| Box::new(boxed_resize) as _),
        ended: Box::pin(async move {
            match task.await {
                Ok(Ok(())) => Ok(0),
                Ok(Err(error)) => Err(failed(error.to_string())),
                Err(panic) => Err(failed(panic.to_string())),
            }
        }),
    })
}

/// Carries output until it ends.
async fn carry(
    attachment: &Attachment,
    mut out: Option<DuplexStream>,
    mut err: Option<DuplexStream>,
) -> std::io::Result<()> {
    loop {
        let (to, data) = match attachment.next().await {
            Ok(Output::Out(data)) => (&mut out, data),
            Ok(Output::Err(data)) => (&mut err, data),
            Ok(Output::Ended) => return Ok(()),
            Err(error) => {
                let why = "its output was cut off: the client was too slow for it";
                return Err(std::io::Error::other(format!("{why} ({error})")));
            }
        };
        if let Some(to) = to
            && to.write_all(&data).await.is_err()
        {
            // Nobody reads any more.
            return Ok(());
        }
    }
}

/// Carries input to its end, and tells of that. False: the container takes no more.
async fn feed(mut from: DuplexStream, attachment: &Attachment) -> bool {
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        if attachment.input(&buffer[..length]).await.is_err() {
            return false;
        }
        if length == 0 {
            return true;
        }
    }
}

async fn size(mut sizes: mpsc::Receiver<(u16, u16)>, attachment: &Attachment) {
    while let Some((columns, rows)) = sizes.recv().await {
        drop(attachment.resize(columns, rows).await);
    }
    std::future::pending::<()>().await;
}
