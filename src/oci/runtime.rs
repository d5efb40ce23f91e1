//! Calling runc, crun or youki by the command line they share.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::devices::PrivilegedDevices;
use super::{Error, command};
use crate::meter::{self, System};
use crate::sys::cgroup;

/// How long `delete --force` may take: it waits for the kernel to end the processes.
const DELETE_LIMIT: Duration = Duration::from_secs(30);
/// How long `update` may take: the kernel may have to free memory for it.
const UPDATE_LIMIT: Duration = Duration::from_secs(30);
/// How long `--version` may take.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of output and of error output that a call keeps; the rest is read and dropped.
const MAX_OUTPUT: u64 = 64 * 1024;
/// Bytes from the end of a log that last words are sought in.
const MAX_LOG_TAIL: u64 = 16 * 1024;
/// Characters of last words in an error.
const MAX_WORDS: usize = 1000;
/// Containers listed; a state directory with more isn't one.
const MAX_CONTAINERS: usize = 65_536;
/// In an exec's scratch directory.
const PROCESS_FILE: &str = "process.json";
const LOG_FILE: &str = "runtime.log";

/// An OCI runtime by its command line, which runc, crun and youki share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The handler's name.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// `--root`: where it keeps its state.
    pub root: PathBuf,
    /// haled-monitor, as the parent of what is executed.
    pub keeper: PathBuf,
    /// What is set for this handler.
    pub settings: RuntimeSettings,
}

/// What an operator sets for one handler.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeSettings {
    /// Given to the runtime before any command.
    pub args: Vec<String>,
    /// What privileged containers have of the host's devices.
    pub privileged_devices: PrivilegedDevices,
    /// Patterns of the pod annotations that the runtime is told.
    pub pod_annotations: Vec<String>,
    /// The file of block I/O classes, the same for each handler.
    pub blockio_config: Option<PathBuf>,
}

impl RuntimeSettings {
    /// The annotations that the runtime is told: the container's own, and those of the pod
    /// that a pattern names, where the container has none of that key.
    pub fn annotations(&self, of_pod: &Annotations, of_container: &Annotations) -> Annotations {
        let named = |key: &str| self.pod_annotations.iter().any(|pattern| matches(pattern, key));
        let mut all: Annotations = of_pod
            .iter()
            .filter(|(key, _)| named(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        all.extend(of_container.iter().map(|(key, value)| (key.clone(), value.clone())));
        all
    }
}

type Annotations = BTreeMap<String, String>;

/// Whether a key is of a pattern, in which `*` stands for anything but a slash. One that is no
/// pattern (settings are checked) fits nothing.
fn matches(pattern: &str, key: &str) -> bool {
    let options =
        glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(key, options))
}

/// A command to execute in a container.
#[derive(Debug, Clone)]
pub struct Exec<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Command and arguments.
    pub command: &'a [String],
    /// The container's process (from its config.json): environment, user, capabilities,
    /// working directory and so on are taken from it.
    pub process: &'a oci_spec::runtime::Process,
    /// A terminal: the unix socket that its master is sent over.
    pub console_socket: Option<&'a Path>,
    /// A cgroup below the container's that exists: everything the command starts stays in it.
    /// In the form [`cgroup::create_sub`] gives, and only where
    /// [`Runtime::takes_sub_cgroup`] says so.
    pub sub_cgroup: Option<&'a str>,
    /// Where the runtime writes the command's pid.
    pub pid_file: &'a Path,
}

impl Runtime {
    /// Arguments before any command: those that are set, and `--root DIR`.
    pub fn global_args(&self) -> Vec<String> {
        let root = ["--root".to_owned(), self.root.to_string_lossy().into_owned()];
        self.settings.args.iter().cloned().chain(root).collect()
    }

    /// Whether `exec` can put a command in a cgroup below the container's: runc can, crun on
    /// cgroup v2, youki can't.
    pub fn takes_sub_cgroup(&self) -> bool {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        if file.starts_with("crun") {
            cgroup::version() == cgroup::Version::V2
        } else {
            !file.starts_with("youki")
        }
    }

    /// `exec`, ready to be given its stdio and spawned. `scratch` is an existing directory
    /// of this one exec's own: it takes the process file and the runtime's log, and is the
    /// caller's to remove once the command has ended.
    ///
    /// The command's exit status is that of what was executed. Where it is other than 0 and
    /// [`exec_failure`] finds words in `scratch`, the runtime itself failed.
    pub fn exec(&self, exec: &Exec<'_>, scratch: &Path) -> Result<Command, Error> {
        self.exec_with_descriptors(exec, scratch, 0)
    }

    /// [`Runtime::exec`] that hands descriptors 3 to 2 + `descriptors` on.
    pub fn exec_with_descriptors(
        &self,
        exec: &Exec<'_>,
        scratch: &Path,
        descriptors: u32,
    ) -> Result<Command, Error> {
        check_id(exec.container)?;
        if !self.path.exists() {
            return Err(self.missing());
        }
        if exec.sub_cgroup.is_some() && !self.takes_sub_cgroup() {
            let why = format!("{} can't execute in one on this machine", self.name);
            return Err(Error::unsupported("sub-cgroup", why));
        }
        let process = scratch.join(PROCESS_FILE);
        write_process(exec, &process)?;

        let mut command = Command::new(&self.keeper);
        let score = exec.process.oom_score_adj();
        let score = score.map_or_else(|| "-".to_owned(), |score| score.to_string());
        command.arg("--exec").arg(exec.pid_file).arg(score).arg(&self.path);
        command.args(self.global_args());
        command.arg("--log").arg(scratch.join(LOG_FILE)).args(["--log-format", "json"]);
        command.args(["exec", "--detach"]).arg("--process").arg(process);
        command.arg("--pid-file").arg(exec.pid_file);
        if let Some(cgroup) = exec.sub_cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        if descriptors > 0 {
            command.arg("--preserve-fds").arg(descriptors.to_string());
        }
        if let Some(socket) = exec.console_socket {
            command.arg("--console-socket").arg(socket);
        }
        command.arg(exec.container);
        Ok(command)
    }

    /// Whether it keeps state of this container: what `delete` would remove.
    pub fn knows(&self, container: &str) -> bool {
        self.root.join(container).exists()
    }

    /// `delete --force`; a container that isn't there is no error.
    pub async fn delete(&self, container: &str) -> Result<(), Error> {
        check_id(container)?;
        let mut command = Command::new(&self.path);
        command.args(self.global_args()).args(["delete", "--force", container]);
        match self.run(command, "delete", container, DELETE_LIMIT).await {
            Ok(_) => Ok(()),
            // Each of them has its own words for it; a container that is there has a
            // directory.
            Err(Error::Runtime { .. }) if !self.knows(container) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `update --resources FILE`: the limits of a container that is there.
    pub async fn update(&self, container: &str, resources: &Path) -> Result<(), Error> {
        check_id(container)?;
        let mut command = Command::new(&self.path);
        command.args(self.global_args()).args(["update", "--resources"]).arg(resources);
        command.arg(container);
        self.run(command, "update", container, UPDATE_LIMIT).await.map(drop)
    }

    /// The ids in its state directory. None yet: none.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let failed = |error| Error::host(format!("list {}", self.root.display()), error);
        let mut entries = match tokio::fs::read_dir(&self.root).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut ids = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_directory = entry.file_type().await.is_ok_and(|kind| kind.is_dir());
            if is_directory && check_id(&name).is_ok() {
                ids.push(name);
            }
            if ids.len() > MAX_CONTAINERS {
                let message = format!("over {MAX_CONTAINERS} directories are there");
                return Err(failed(std::io::Error::other(message)));
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// The first line of `--version`.
    pub async fn version(&self) -> Result<String, Error> {
        let mut command = Command::new(&self.path);
        command.arg("--version");
        let output = self.run(command, "--version", "", VERSION_LIMIT).await?;
        let line = output.lines().next().unwrap_or_default().trim();
        if line.is_empty() {
            return Err(self.failed("--version", "", "it said nothing".to_owned()));
        }
        Ok(line.chars().take(MAX_WORDS).collect())
    }

    /// Whether it can make mounts recursively read-only, by its own account (OCI runtime-spec,
    /// features). One that gives none can't.
    pub async fn mounts_recursively_readonly(&self) -> bool {
        let mut command = Command::new(&self.path);
        command.arg("features");
        let Ok(text) = self.run(command, "features", "", VERSION_LIMIT).await else {
            return false;
        };
        let features: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let options = features["mountOptions"].as_array();
        options.is_some_and(|options| options.iter().any(|option| option == "rro"))
    }

    /// Runs to the end within a limit, measured. Gives the standard output.
    pub(super) async fn run(
        &self,
        command: Command,
        verb: &'static str,
        container: &str,
        limit: Duration,
    ) -> Result<String, Error> {
        let work = self.run_unmeasured(command, verb, container, limit);
        meter::timed(System::Oci, &self.name, verb, work).await
    }

    async fn run_unmeasured(
        &self,
        mut command: Command,
        verb: &'static str,
        container: &str,
        limit: Duration,
    ) -> Result<String, Error> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.missing(),
            _ => Error::host(format!("start {}", self.path.display()), error),
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let whole = async { tokio::join!(child.wait(), bounded(stdout), bounded(stderr)) };
        let Ok((status, output, errors)) = tokio::time::timeout(limit, whole).await else {
            // Killed as the child is dropped; tokio reaps it.
            let (runtime, container) = (self.name.clone(), container.to_owned());
            return Err(Error::TimedOut { runtime, command: verb, container, limit });
        };
        let status =
            status.map_err(|error| Error::host(format!("wait for {}", self.name), error))?;
        if status.success() {
            return Ok(output);
        }
        let message = last_words(&errors).unwrap_or_else(|| status.to_string());
        Err(self.failed(verb, container, message))
    }

    fn failed(&self, command: &'static str, container: &str, message: String) -> Error {
        let (runtime, container) = (self.name.clone(), container.to_owned());
        Error::Runtime { runtime, command, container, message }
    }

    fn missing(&self) -> Error {
        Error::NoRuntime { name: self.name.clone(), path: self.path.clone() }
    }
}

/// Why the runtime didn't execute a command, from the scratch directory of its
/// [`Runtime::exec`]; `None`: it has no error to tell, so the exit code is the command's.
pub fn exec_failure(scratch: &Path) -> Option<String> {
    let tail = log_tail(&scratch.join(LOG_FILE))?;
    tail.lines().any(is_error).then(|| last_words(&tail)).flatten()
}

/// The last words in a runtime's log, as it writes by `--log FILE`.
pub fn log_words(log: &Path) -> Option<String> {
    last_words(&log_tail(log)?)
}

pub(super) fn log_tail(log: &Path) -> Option<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_LOG_TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(MAX_LOG_TAIL).read_to_end(&mut tail).ok()?;
    Some(String::from_utf8_lossy(&tail).into_owned())
}

/// Whether a line of a log, JSON or logfmt, is an error's.
fn is_error(line: &str) -> bool {
    ["\"level\":\"error\"", "level=error", "\"level\":\"fatal\"", "level=fatal"]
        .iter()
        .any(|mark| line.contains(mark))
}

/// What a runtime said last: the message of a JSON or logfmt line, or the plain line. Of
/// several lines the last that is an error counts, else the last that isn't empty.
pub(super) fn last_words(text: &str) -> Option<String> {
    let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| is_error(line)).or_else(|| lines().next())?;
    let json = serde_json::from_str::<serde_json::Value>(line).ok();
    let words = match json.as_ref().and_then(|json| json.get("msg")).and_then(|msg| msg.as_str()) {
        Some(message) => message.to_owned(),
        None => match line.split_once("msg=\"") {
            Some((_, message)) => {
                message.strip_suffix('"').unwrap_or(message).replace("\\\"", "\"")
            }
            None => line.to_owned(),
        },
    };
    Some(words.chars().take(MAX_WORDS).collect())
}

/// Reads to the end, and keeps the first [`MAX_OUTPUT`] bytes.
async fn bounded(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let Some(stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let mut first = stream.take(MAX_OUTPUT);
    if first.read_to_end(&mut kept).await.is_ok() {
        // A reader that stopped here would end the runtime by SIGPIPE, or block it.
        drop(tokio::io::copy(&mut first.into_inner(), &mut tokio::io::sink()).await);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// An id becomes an argument and a path segment.
pub(super) fn check_id(id: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && id.len() <= 255 && id.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::invalid("container", id, "is no container id"))
}

/// The container's process with another command line.
fn write_process(exec: &Exec<'_>, path: &Path) -> Result<(), Error> {
    command::check("command", exec.command)?;
    if exec.command.first().is_none_or(String::is_empty) {
        let why = "names no program: the command is empty";
        return Err(Error::invalid("command", exec.command, why));
    }
    let mut process = exec.process.clone();
    process.set_args(Some(exec.command.to_vec())).set_terminal(Some(exec.console_socket.is_some()));
    process.set_console_size(None);
    let mut env = process.env().clone().unwrap_or_default();
    if exec.console_socket.is_some() && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
        process.set_env(Some(env));
    }
    let failed = |error| Error::host(format!("write {}", path.display()), error);
    let json = serde_json::to_vec(&process).map_err(|error| failed(error.into()))?;
    // New and private: it holds the environment, and two execs must never share one.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(&json).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(path: &str) -> Runtime {
        Runtime {
            name: "runc".into(),
            path: path.into(),
            root: "/no/such/root".into(),
            keeper: "/no/such/keeper".into(),
            settings: RuntimeSettings::default(),
        }
    }

    #[test]
    fn a_handlers_arguments_go_before_the_root() {
        let mut runtime = runtime("/no/such/runc");
        runtime.settings.args = vec!["--debug".into()];
        assert_eq!(runtime.global_args(), ["--debug", "--root", "/no/such/root"]);
    }

    #[test]
    fn a_star_is_anything_but_a_slash() {
        for (pattern, key, fits) in [
            ("a.b/c", "a.b/c", true),
            ("a.b/*", "a.b/c", true),
            ("a.b/*", "a.b/", true),
            ("a.b/*", "a.b/c/d", false),
            ("a.b/*", "x.a.b/c", false),
            ("*/c", "a.b/c", true),
            ("*b*/*d", "a.b.b/c.d.d", true),
            ("*b*/*d", "a.b.b/c.d.e", false),
            ("*", "a/b", false),
            ("*", "", true),
            ("a", "", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, key), fits, "{pattern} {key}");
        }
    }

    #[test]
    fn a_containers_annotation_goes_over_its_pods() {
        let of = |all: &[(&str, &str)]| {
            all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let settings =
            RuntimeSettings { pod_annotations: vec!["a/*".into()], ..Default::default() };
        let pod: Annotations = of(&[("a/one", "pod"), ("a/two", "pod"), ("b/one", "pod")]);
        let own: Annotations = of(&[("a/one", "own"), ("c", "own")]);
        let wanted: Annotations = of(&[("a/one", "own"), ("a/two", "pod"), ("c", "own")]);
        assert_eq!(settings.annotations(&pod, &own), wanted);
        assert_eq!(RuntimeSettings::default().annotations(&pod, &own), own);
    }

    #[test]
    fn the_last_words_are_found_in_every_form() {
        for (text, words) in [
            ("", None),
            ("\n \n", None),
            ("plain\n", Some("plain")),
            ("time=\"x\" level=error msg=\"no \\\"x\\\"\"\n", Some("no \"x\"")),
            ("{\"level\":\"error\",\"msg\":\"bad\",\"time\":\"t\"}\n", Some("bad")),
            (
                "{\"level\":\"error\",\"msg\":\"bad\"}\n{\"level\":\"info\",\"msg\":\"x\"}",
                Some("bad"),
            ),
            ("a\n{broken json\n", Some("{broken json")),
        ] {
            assert_eq!(last_words(text).as_deref(), words, "{text}");
        }
        assert_eq!(last_words(&"x".repeat(9999)).unwrap().len(), MAX_WORDS);
    }

    #[tokio::test]
    async fn a_missing_runtime_is_named_with_a_remedy() {
        let missing = runtime("/no/such/runc");
        let text = missing.version().await.unwrap_err().to_string();
        assert_eq!(
            text,
            "OCI runtime \"runc\" not found at /no/such/runc: install runc or set \
             runtime.handlers.runc.path"
        );
        assert_eq!(missing.list().await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_failed_call_carries_the_runtimes_words() {
        let home = tempfile::tempdir().unwrap();
        let script = home.path().join("runc");
        let text = "#!/bin/sh\necho '{\"level\":\"error\",\"msg\":\"it broke\"}' >&2\nexit 1\n";
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(&script)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap();
        let mut broken = runtime(script.to_str().unwrap());
        broken.root = home.path().to_owned();
        std::fs::create_dir(home.path().join("abc")).unwrap();
        let text = loop {
            // Another test's fork may hold the script open for writing for a moment.
            match broken.delete("abc").await {
                Err(Error::Host { source, .. }) if source.raw_os_error() == Some(libc::ETXTBSY) => {
                }
                other => break other.unwrap_err().to_string(),
            }
        };
        assert_eq!(text, "runc delete abc: it broke");
        assert_eq!(broken.list().await.unwrap(), ["abc"]);
        // The same failure for one that isn't there is none.
        broken.delete("gone").await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let limit = Duration::from_millis(50);
        let error = runtime("/bin/sleep").run(command, "list", "c", limit).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }

    #[test]
    fn an_id_is_never_an_option_or_a_path() {
        for bad in ["", "-f", "--force", "a/b", "..", ".a", "a b", "a\0", &"a".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        check_id(&"0a".repeat(32)).unwrap();
    }

    #[test]
    fn an_exec_keeps_the_containers_process_but_its_command() {
        let scratch = tempfile::tempdir().unwrap();
        let mut process = oci_spec::runtime::Process::default();
        process.set_env(Some(vec!["A=1".into()])).set_args(Some(vec!["old".into()]));
        let words = ["ls".to_owned(), "-l".to_owned()];
        let exec = Exec {
            container: "abc",
            command: &words,
            process: &process,
            console_socket: Some(Path::new("/c")),
            sub_cgroup: Some("pids:/x"),
            pid_file: Path::new("/p"),
        };
        let command = runtime("/bin/sh").exec_with_descriptors(&exec, scratch.path(), 2).unwrap();
        let args: Vec<_> =
            command.as_std().get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let tail = ["--cgroup", "pids:/x", "--preserve-fds", "2", "--console-socket", "/c", "abc"];
        assert_eq!(args[..6], ["--exec", "/p", "-", "/bin/sh", "--root", "/no/such/root"]);
        assert_eq!(args[args.len() - tail.len()..], tail);
        let written = std::fs::read(scratch.path().join(PROCESS_FILE)).unwrap();
        let written: oci_spec::runtime::Process = serde_json::from_slice(&written).unwrap();
        assert_eq!(written.args().as_ref().unwrap(), &words);
        assert_eq!(written.env().as_ref().unwrap(), &["A=1", "TERM=xterm"]);
        // One scratch directory, one exec.
        assert!(runtime("/bin/sh").exec(&exec, scratch.path()).is_err());
        let empty = Exec { command: &[], ..exec.clone() };
        let other = tempfile::tempdir().unwrap();
        assert!(runtime("/bin/sh").exec(&empty, other.path()).unwrap_err().is_bad_request());
        let gone = runtime("/no/such").exec(&exec, other.path()).unwrap_err();
        assert!(matches!(gone, Error::NoRuntime { .. }));
    }
}
