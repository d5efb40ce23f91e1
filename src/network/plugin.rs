//! Calling a plugin: its executable, its environment, its limits.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Attachment, Error, result};
use crate::meter::{self, System};

/// How long a plugin may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How long it may take to tell its version.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
/// What is read of a plugin's answer, in bytes; more is an error.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// What is kept of what a plugin says on standard error, in bytes.
const MAX_STDERR: u64 = 16 * 1024;
/// The interface's name in the pod.
const INTERFACE: &str = "eth0";

/// The executable of a plugin.
pub(super) fn find(plugin: &str, dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    let found = dirs.iter().map(|dir| dir.join(plugin)).find(|path| path.is_file());
    // A type is a file's name, never a path.
    let found = found.filter(|_| !plugin.is_empty() && !plugin.contains('/'));
    found.ok_or_else(|| Error::MissingPlugin { plugin: plugin.to_owned(), dirs: dirs.to_vec() })
}

/// The versions of CNI that a plugin speaks, by its own account (VERSION), or why there are none.
pub(super) async fn versions(
    plugin: &str,
    dirs: &[PathBuf],
    wanted: &str,
) -> Result<Vec<String>, String> {
    let path = find(plugin, dirs).map_err(|error| error.to_string())?;
    let mut child = Command::new(&path)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{} can't be run: {error}", path.display()))?;
    let input = serde_json::json!({ "cniVersion": wanted }).to_string();
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // Most don't read it.
            drop(stdin.write_all(input.as_bytes()).await);
        }
        read(child.stdout.take(), MAX_OUTPUT).await
    };
    let said = timeout(VERSION_LIMIT, talk)
        .await
        .map_err(|_| format!("it said nothing for {} s", VERSION_LIMIT.as_secs()))?;
    let said: Value = serde_json::from_slice(&said).map_err(|error| error.to_string())?;
    let versions = said["supportedVersions"].as_array().ok_or("it named none")?;
    Ok(versions.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) plugin: &'a str,
    pub(super) network: &'a str,
    pub(super) command: &'static str,
    pub(super) attachment: &'a Attachment,
    pub(super) input: &'a Value,
    pub(super) dirs: &'a [PathBuf],
}

impl Call<'_> {
    /// Runs it, measured, and gives its standard output.
    pub(super) async fn run(&self) -> Result<String, Error> {
        meter::timed(System::Cni, self.plugin, self.command, self.run_unmeasured()).await
    }

    async fn run_unmeasured(&self) -> Result<String, Error> {
        let path = find(self.plugin, self.dirs)?;
        let mut child = self
            .command(&path)
            .spawn()
            .map_err(|error| self.failed(format!("{} can't be run: {error}", path.display())))?;
        let group = child.id();
        if let Ok(done) = timeout(LIMIT, self.talk(&mut child)).await {
            done
        } else {
            // With its IPAM plugin and whatever else it has started.
            if let Some(group) = group.and_then(|pid| i32::try_from(pid).ok()) {
                let group = nix::unistd::Pid::from_raw(group);
                let killed = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
                if let Err(error) = killed {
                    tracing::warn!(plugin = self.plugin, %error, "cannot kill a hanging plugin");
                }
            }
            drop(child.wait().await);
            Err(self.failed(format!("it did not end within {} s and was killed", LIMIT.as_secs())))
        }
    }

    fn command(&self, path: &Path) -> Command {
        let attachment = self.attachment;
        // A namespace that is gone is left out, as the specification has it for DEL.
        let gone = self.command == "DEL" && !attachment.netns.exists();
        let netns = if gone { Path::new("") } else { attachment.netns.as_path() };
        let arguments = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &attachment.namespace),
            ("K8S_POD_NAME", &attachment.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &attachment.sandbox_id),
            ("K8S_POD_UID", &attachment.uid),
        ];
        let arguments = arguments.map(|(key, value)| format!("{key}={}", value.replace(';', "")));
        let mut command = Command::new(path);
        command
            // The service manager's are the daemon's own.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", &attachment.sandbox_id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", arguments.join(";"))
            .env("CNI_PATH", std::env::join_paths(self.dirs).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Hands the plugin its configuration and takes its answer.
    async fn talk(&self, child: &mut tokio::process::Child) -> Result<String, Error> {
        let input = self.input.to_string();
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A plugin that doesn't read has its reasons, which its answer gives.
                drop(stdin.write_all(input.as_bytes()).await);
            }
        };
        let ((), output, errors) =
            tokio::join!(write, read(stdout, MAX_OUTPUT), read(stderr, MAX_STDERR));
        let status = child.wait().await.map_err(|error| self.failed(error.to_string()))?;
        let text = String::from_utf8_lossy(&output);
        if status.success() {
            if output.len() as u64 >= MAX_OUTPUT {
                return Err(self.failed(format!("its answer is longer than {MAX_OUTPUT} bytes")));
            }
            return Ok(text.into_owned());
        }
        let why = result::error(&text).unwrap_or_else(|| {
            let said = String::from_utf8_lossy(&errors).trim().to_owned();
            if said.is_empty() { format!("it ended with {status} and said nothing") } else { said }
        });
        Err(self.failed(why))
    }

    fn failed(&self, why: String) -> Error {
        Error::Plugin {
            plugin: self.plugin.to_owned(),
            network: self.network.to_owned(),
            command: self.command,
            why,
        }
    }
}

/// Reads at most `limit` bytes and drops the rest.
async fn read(from: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let mut limited = from.take(limit);
        // A read error ends it like an end of file: the plugin's status says the rest.
        drop(limited.read_to_end(&mut bytes).await);
        drop(tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await);
    }
    bytes
}
