//! What the daemon and a monitor say to each other.
//!
//! One message is one JSON text in one packet of a `SOCK_SEQPACKET` socket. JSON, so that a
//! field can be added without a new version: unknown fields are ignored, missing ones have
//! defaults. `VERSION` rises only when an old reader would misunderstand, and a daemon
//! speaks with monitors of its own version and the one before. Golden texts in the tests
//! hold the form still.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version this build speaks.
pub const VERSION: u32 = 1;

/// The largest packet either side sends or accepts, in bytes.
pub const MAX_PACKET: usize = 128 * 1024;

/// What the daemon asks. Every request gets one reply with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the daemon; comes back in the reply.
    pub id: u64,
    /// What to do.
    pub body: Ask,
}

/// The requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// First on every connection. Replied to with `Inventory`.
    Hello {
        /// The daemon's version.
        version: u32,
    },
    /// Make the namespaces and the pause process. Once in a monitor's life; the same again
    /// is answered with what is there. Replied to with `Pause`.
    Sandbox(SandboxSpec),
    /// Run a container. Replied to with `Started`, or `Error` with the OCI runtime's words.
    Start(StartSpec),
    /// Send a signal to a container's init. Replied to with `Done`; signalling one that has
    /// exited is no error.
    Signal {
        /// The container's id.
        container: String,
        /// The number (signal(7)).
        signal: i32,
    },
    /// Close the log file and open its path again. Replied to with `Done` once done.
    ReopenLog {
        /// The container's id.
        container: String,
    },
    /// Drop an exited container, its exit record included. Replied to with `Done`.
    Forget {
        /// The container's id.
        container: String,
    },
    /// End the pause process and then the monitor. Refused with `Error` while a container
    /// runs. Replied to with `Done` just before the socket closes.
    Shutdown,
}

/// The namespaces and identity of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// The haled-pause executable.
    pub pause: PathBuf,
    /// A new network namespace, its loopback up; else the host's.
    pub network: bool,
    /// A new IPC namespace; else the host's.
    pub ipc: bool,
    /// A new UTS namespace; else the host's.
    pub uts: bool,
    /// A new PID namespace in which pause is PID 1; else the host's.
    pub pid: bool,
    /// Set in the UTS namespace; empty: left as it is.
    pub hostname: String,
    /// `net.ipv4.ip_forward` → `1`: written from inside the namespaces.
    pub sysctls: Vec<(String, String)>,
    /// oom_score_adj of pause, clamped to what the kernel allows.
    pub oom_score_adj: i32,
    /// Where to bind the namespaces that were made: files `net`, `ipc`, `uts` and `pid`.
    pub pins: PathBuf,
}

/// How to run one container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StartSpec {
    /// The container's id.
    pub container: String,
    /// The OCI runtime's executable.
    pub runtime: PathBuf,
    /// Its arguments before the command: `--root DIR`.
    pub runtime_args: Vec<String>,
    /// The bundle: a directory with config.json.
    pub bundle: PathBuf,
    /// The log file; empty: output is thrown away.
    pub log: PathBuf,
    /// A terminal (config.json says the same).
    pub tty: bool,
    /// Keep a standard input open; else it is /dev/null.
    pub stdin: bool,
    /// Close standard input when the first attached client goes.
    pub stdin_once: bool,
    /// memory.oom_control (v1) or memory.events (v2) of the container; its `oom_kill` line
    /// is read after the exit. Empty: none.
    pub oom_events: PathBuf,
    /// -1000 to 1000, written to the init process and clamped; `None`: left to the runtime.
    pub oom_score_adj: Option<i32>,
}

/// What the monitor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// The answer to a request.
    Reply {
        /// The request's id.
        id: u64,
        /// The answer.
        body: Reply,
    },
    /// Something happened; to every connected daemon.
    Event(Event),
}

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Hello`.
    Inventory(Inventory),
    /// To `Sandbox`.
    Pause(Process),
    /// To `Start`.
    Started(Started),
    /// To the others.
    Done,
    /// It could not be done.
    Error {
        /// For people: the object and the cause.
        message: String,
    },
}

/// A process that can't be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// In the host's PID namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat (proc(5)): clock ticks from boot to its start.
    pub start_ticks: u64,
}

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its init.
    pub init: Process,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

/// All a monitor knows, for a daemon that has been away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// The monitor's version.
    pub version: u32,
    /// The pause process, while it lives.
    pub pause: Option<Process>,
    /// Every container not yet forgotten.
    pub containers: Vec<Entry>,
}

/// A container in an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub container: String,
    /// When and as what it was started.
    pub started: Started,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A container's init ended. Its record is on disk, its output in the log, and
    /// `runtime delete --force` has ended what it left behind.
    Exited {
        /// The container's id.
        container: String,
        /// How.
        exit: Exit,
    },
    /// The pause process ended: the sandbox is lost.
    PauseExited,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// The exit code, or 128 + signal.
    pub code: i32,
    /// The signal that ended it; 0: none.
    pub signal: i32,
    /// The kernel's OOM killer took a process of it.
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
}
