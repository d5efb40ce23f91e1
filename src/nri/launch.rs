//! Plugins that are installed on the node: programs that haled starts with a socket.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use tokio::net::UnixStream;
use tokio::process::Command;

use super::Settings;
use super::admission::{Launched, full_name};
use crate::sys::inherit;

/// The descriptor a plugin finds its socket at.
const SOCKET: i32 = 3;
/// Bytes of a plugin's configuration.
const CONFIG_LIMIT: u64 = 1 << 20;
/// Plugins of one node.
const PLUGINS_LIMIT: usize = 100;

/// Starts all that are there, in the order of their indices. What can't be started is reported,
/// and the others are.
pub(super) fn all(settings: &Settings) -> Vec<Launched> {
    let dir = &settings.plugin_path;
    let mut names = match programs(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "cannot look for NRI plugins");
            return Vec::new();
        }
    };
    names.sort();
    let started = names.into_iter().take(PLUGINS_LIMIT).map(|name| {
        let launched = launch(settings, &name);
        launched.map_err(|why| tracing::error!(plugin = name, why, "cannot start an NRI plugin"))
    });
    started.filter_map(Result::ok).collect()
}

/// Names of the executable files in a directory.
fn programs(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_program = fs::metadata(entry.path())
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        if is_program {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn launch(settings: &Settings, file: &str) -> Result<Launched, String> {
    let (index, base) = file
        .split_once('-')
        .ok_or_else(|| "its file has no name of a plugin: 10-name is one".to_owned())?;
    let name = full_name(index, base)?;
    let config = config(&settings.plugin_config_path, &name, base)?;
    let (own, theirs) = UnixStream::pair().map_err(|error| format!("no socket: {error}"))?;
    let theirs: OwnedFd = theirs
        .into_std()
        .and_then(|socket| socket.set_nonblocking(false).map(|()| socket))
        .map_err(|error| format!("no socket: {error}"))?
        .into();
    let mut command = std::process::Command::new(settings.plugin_path.join(file));
    command
        .env_clear()
        .env("NRI_PLUGIN_NAME", base)
        .env("NRI_PLUGIN_IDX", index)
        .env("NRI_PLUGIN_SOCKET", SOCKET.to_string())
        .stdin(Stdio::null());
    inherit::give(&mut command, theirs, SOCKET).map_err(|error| format!("no socket: {error}"))?;
    let mut command = Command::from(command);
    let process =
        command.kill_on_drop(true).spawn().map_err(|error| format!("cannot run it: {error}"))?;
    Ok(Launched { name, config, process, socket: own })
}

/// What is written for a plugin, by its full name or else by its name.
fn config(dir: &Path, name: &str, base: &str) -> Result<String, String> {
    use std::io::Read as _;
    for path in [name, base].map(|name| dir.join(format!("{name}.conf"))) {
        let unreadable = |error| format!("cannot read {}: {error}", path.display());
        match fs::File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                let read = file.take(CONFIG_LIMIT + 1).read_to_string(&mut text);
                if read.map_err(unreadable)? as u64 > CONFIG_LIMIT {
                    return Err(format!("{} is longer than 1 MiB", path.display()));
                }
                return Ok(text);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(String::new())
}
