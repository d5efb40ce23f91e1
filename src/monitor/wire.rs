//! What the daemon and a monitor say to each other.
//!
//! One message is one JSON text in one packet of a `SOCK_SEQPACKET` socket. JSON, so that a
//! field can be added without a new version: unknown fields are ignored, missing ones have
//! defaults. `VERSION` rises only when an old reader would misunderstand, and a daemon
//! speaks with monitors of its own version and the one before. Golden texts in the tests
//! hold the form still.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::birthplace::Birthplace;
use crate::sys::userns::IdMaps;

/// The version this build speaks.
pub const VERSION: u32 = 1;

/// Whether a daemon of one version understands a monitor of another.
pub(super) fn speaks(daemon: u32, monitor: u32) -> bool {
    monitor >= 1 && (monitor == daemon || monitor.checked_add(1) == Some(daemon))
}

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
    /// Run a container. Replied to with `Started`, or `Error` with the OCI runtime's words,
    /// once nothing of the failed start is left. The same again joins the start under way, or
    /// is answered with what is there; something else under the same id is an `Error`.
    Start(StartSpec),
    /// The same, but the container goes on from [`StartSpec::restore`]. A request of its own, so
    /// that a monitor that doesn't know it refuses it, and doesn't start the container anew.
    Restore(StartSpec),
    /// Send a signal to a container's init. Replied to with `Done`; signalling one that has
    /// exited is no error.
    Signal {
        /// The container's id.
        container: String,
        /// The number (signal(7)).
        signal: i32,
    },
    /// Close the log file and open its path again. Replied to with `Done` once done; with
    /// `Error` when it can't be opened, the old file then stays, or the container has exited.
    ReopenLog {
        /// The container's id.
        container: String,
    },
    /// Join this connection to a container that runs. Replied to with `Done`, and from then on
    /// the connection carries the container's streams, as `attach` has it, and no requests.
    Attach {
        /// The container's id.
        container: String,
        /// Input comes from here too.
        #[serde(default)]
        stdin: bool,
        /// Standard output, or the terminal's, goes here too.
        #[serde(default)]
        stdout: bool,
        /// Standard error goes here too.
        #[serde(default)]
        stderr: bool,
    },
    /// Drop an exited container, its exit record included. Replied to with `Done`, also for
    /// one that isn't known; with `Error` until its exit has been told.
    Forget {
        /// The container's id.
        container: String,
    },
    /// End the pause process and then the monitor. Refused with `Error` while a container
    /// runs. The monitor takes the pins of the namespaces away, mounts and files (so CNI's
    /// DEL comes before), and its socket; exit records stay. Replied to with `Done` just
    /// before the socket closes. After the loss of a monitor the pins are the daemon's to undo.
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
    /// `net.ipv4.ip_forward` → `1`: written from inside the namespaces. Only what belongs to
    /// a namespace made here: `net.*`, and `kernel.shm*`, `kernel.msg*`, `kernel.sem` and
    /// `fs.mqueue.*` of IPC. Names as sysctl(8) takes them.
    pub sysctls: Vec<(String, String)>,
    /// oom_score_adj of pause, clamped to what the kernel allows.
    pub oom_score_adj: i32,
    /// A new user namespace with these ids, which owns the other new ones; else the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<IdMaps>,
    /// The cgroup that pause is born into; `None`: the monitor's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Birthplace>,
    /// The SELinux label that pause is executed with; empty: as the policy has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Where to bind the namespaces that were made: files `user`, `net`, `ipc`, `uts` and
    /// `pid` in this directory, which is made.
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
    /// Whose the pipes are, user and group: root of a user namespace can't open ours again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdio_owner: Option<(u32, u32)>,
    /// memory.oom_control (v1) or memory.events (v2) of the container; its `oom_kill` line
    /// is read after the exit. Empty: none.
    pub oom_events: PathBuf,
    /// -1000 to 1000, clamped to what the kernel allows. Set before the runtime runs, and
    /// inherited by init, so config.json has none; `None`: left to the runtime.
    pub oom_score_adj: Option<i32>,
    /// What it goes on from; `None`: it starts anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// Where the processes of a container are that was checkpointed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The directory with CRIU's images.
    pub images: PathBuf,
    /// Where CRIU's log goes.
    pub work: PathBuf,
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
    /// Its init. One that ended before it was looked at may have no start (0).
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
    /// How it ended, if it has, and all that `Event::Exited` promises is done.
    #[serde(default)]
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::sys::userns::Range;

    /// A text that any build of this version writes and reads.
    #[track_caller]
    fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, text: &str) {
        assert_eq!(serde_json::to_string(value).unwrap(), text);
        assert_eq!(&serde_json::from_str::<T>(text).unwrap(), value);
    }

    fn request(body: Ask) -> Request {
        Request { id: 7, body }
    }

    fn reply(body: Reply) -> Say {
        Say::Reply { id: 7, body }
    }

    const EXIT: Exit =
        Exit { code: 137, signal: 9, oom_killed: true, started_at: 11, finished_at: 12 };

    fn started() -> Started {
        Started { init: Process { pid: 42, start_ticks: 4242 }, at: 11 }
    }

    #[test]
    fn requests_in_golden_text() {
        assert_eq!(VERSION, 1, "a new version needs golden texts of its own beside these");
        golden(&request(Ask::Hello { version: 1 }), r#"{"id":7,"body":{"hello":{"version":1}}}"#);
        let signal = Ask::Signal { container: "c".into(), signal: 15 };
        golden(&request(signal), r#"{"id":7,"body":{"signal":{"container":"c","signal":15}}}"#);
        let reopen = Ask::ReopenLog { container: "c".into() };
        golden(&request(reopen), r#"{"id":7,"body":{"reopen_log":{"container":"c"}}}"#);
        let container = "c".into();
        let attach = Ask::Attach { container, stdin: true, stdout: true, stderr: false };
        golden(
            &request(attach),
            concat!(
                r#"{"id":7,"body":{"attach":{"container":"c","stdin":true,"stdout":true,"#,
                r#""stderr":false}}}"#
            ),
        );
        let forget = Ask::Forget { container: "c".into() };
        golden(&request(forget), r#"{"id":7,"body":{"forget":{"container":"c"}}}"#);
        golden(&request(Ask::Shutdown), r#"{"id":7,"body":"shutdown"}"#);
    }

    #[test]
    fn specifications_in_golden_text() {
        let sandbox = SandboxSpec {
            pause: "/x/haled-pause".into(),
            network: true,
            ipc: true,
            uts: true,
            pid: false,
            hostname: "pod".into(),
            sysctls: vec![("net.ipv4.ip_forward".into(), "1".into())],
            oom_score_adj: -998,
            userns: None,
            cgroup: None,
            label: String::new(),
            pins: "/x/ns".into(),
        };
        let range = Range { inside: 0, outside: 65536, count: 10 };
        let own = IdMaps { uids: vec![range], gids: vec![range] };
        golden(
            &request(Ask::Sandbox(SandboxSpec {
                userns: Some(own),
                cgroup: Some(Birthplace { unified: Some("/u/c".into()), v1: vec!["/m/c".into()] }),
                label: "u:r:t:s0".into(),
                ..SandboxSpec::default()
            })),
            concat!(
                r#"{"id":7,"body":{"sandbox":{"pause":"","network":false,"ipc":false,"#,
                r#""uts":false,"pid":false,"hostname":"","sysctls":[],"oom_score_adj":0,"#,
                r#""userns":{"uids":[{"inside":0,"outside":65536,"count":10}],"#,
                r#""gids":[{"inside":0,"outside":65536,"count":10}]},"#,
                r#""cgroup":{"unified":"/u/c","v1":["/m/c"]},"label":"u:r:t:s0","pins":""}}}"#
            ),
        );
        golden(
            &request(Ask::Sandbox(sandbox)),
            concat!(
                r#"{"id":7,"body":{"sandbox":{"pause":"/x/haled-pause","network":true,"#,
                r#""ipc":true,"uts":true,"pid":false,"hostname":"pod","#,
                r#""sysctls":[["net.ipv4.ip_forward","1"]],"oom_score_adj":-998,"#,
                r#""pins":"/x/ns"}}}"#
            ),
        );
        let start = StartSpec {
            container: "c".into(),
            runtime: "/usr/sbin/runc".into(),
            runtime_args: vec!["--root".into(), "/r".into()],
            bundle: "/b".into(),
            log: "/l/0.log".into(),
            tty: false,
            stdin: true,
            stdin_once: true,
            stdio_owner: None,
            oom_events: "/e".into(),
            oom_score_adj: Some(1000),
            restore: None,
        };
        golden(
            &request(Ask::Start(start)),
            concat!(
                r#"{"id":7,"body":{"start":{"container":"c","runtime":"/usr/sbin/runc","#,
                r#""runtime_args":["--root","/r"],"bundle":"/b","log":"/l/0.log","tty":false,"#,
                r#""stdin":true,"stdin_once":true,"oom_events":"/e","oom_score_adj":1000}}}"#
            ),
        );
        let restore = Some(Restore { images: "/i".into(), work: "/w".into() });
        golden(
            &request(Ask::Restore(StartSpec { restore, ..StartSpec::default() })),
            concat!(
                r#"{"id":7,"body":{"restore":{"container":"","runtime":"","runtime_args":[],"#,
                r#""bundle":"","log":"","tty":false,"stdin":false,"stdin_once":false,"#,
                r#""oom_events":"","oom_score_adj":null,"#,
                r#""restore":{"images":"/i","work":"/w"}}}}"#
            ),
        );
    }

    #[test]
    fn answers_in_golden_text() {
        let inventory = Inventory {
            version: 1,
            pause: Some(Process { pid: 41, start_ticks: 4141 }),
            containers: vec![
                Entry { container: "c".into(), started: started(), exit: Some(EXIT) },
                Entry { container: "d".into(), started: started(), exit: None },
            ],
        };
        golden(
            &reply(Reply::Inventory(inventory)),
            concat!(
                r#"{"reply":{"id":7,"body":{"inventory":{"version":1,"#,
                r#""pause":{"pid":41,"start_ticks":4141},"containers":[{"container":"c","#,
                r#""started":{"init":{"pid":42,"start_ticks":4242},"at":11},"#,
                r#""exit":{"code":137,"signal":9,"oom_killed":true,"started_at":11,"#,
                r#""finished_at":12}},{"container":"d","#,
                r#""started":{"init":{"pid":42,"start_ticks":4242},"at":11},"exit":null}]}}}}"#
            ),
        );
        golden(
            &reply(Reply::Pause(Process { pid: 41, start_ticks: 4141 })),
            r#"{"reply":{"id":7,"body":{"pause":{"pid":41,"start_ticks":4141}}}}"#,
        );
        golden(
            &reply(Reply::Started(started())),
            concat!(
                r#"{"reply":{"id":7,"body":{"started":"#,
                r#"{"init":{"pid":42,"start_ticks":4242},"at":11}}}}"#
            ),
        );
        golden(&reply(Reply::Done), r#"{"reply":{"id":7,"body":"done"}}"#);
        golden(
            &reply(Reply::Error { message: "no".into() }),
            r#"{"reply":{"id":7,"body":{"error":{"message":"no"}}}}"#,
        );
    }

    #[test]
    fn events_and_records_in_golden_text() {
        golden(
            &Say::Event(Event::Exited { container: "c".into(), exit: EXIT }),
            concat!(
                r#"{"event":{"exited":{"container":"c","exit":{"code":137,"signal":9,"#,
                r#""oom_killed":true,"started_at":11,"finished_at":12}}}}"#
            ),
        );
        golden(&Say::Event(Event::PauseExited), r#"{"event":"pause_exited"}"#);
        golden(
            &EXIT,
            r#"{"code":137,"signal":9,"oom_killed":true,"started_at":11,"finished_at":12}"#,
        );
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over_and_what_it_left_out_has_defaults() {
        let text = r#"{"id":7,"later":1,"body":{"hello":{"version":1,"later":[{}]}}}"#;
        assert_eq!(
            serde_json::from_str::<Request>(text).unwrap(),
            request(Ask::Hello { version: 1 })
        );
        let text = r#"{"id":7,"body":{"start":{"container":"c","later":{"x":null}}}}"#;
        let start = StartSpec { container: "c".into(), ..StartSpec::default() };
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request(Ask::Start(start)));
        let text = r#"{"id":7,"body":{"sandbox":{}}}"#;
        let empty = request(Ask::Sandbox(SandboxSpec::default()));
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), empty);
        let text = r#"{"reply":{"id":7,"body":{"inventory":{"later":0}}}}"#;
        let empty = reply(Reply::Inventory(Inventory::default()));
        assert_eq!(serde_json::from_str::<Say>(text).unwrap(), empty);
        let text = r#"{"container":"c","started":{"init":{"pid":42,"start_ticks":4242},"at":11}}"#;
        let entry = Entry { container: "c".into(), started: started(), exit: None };
        assert_eq!(serde_json::from_str::<Entry>(text).unwrap(), entry);
        assert_eq!(serde_json::from_str::<Exit>(r#"{"later":1}"#).unwrap(), Exit::default());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text in "[\\[{\"a-z0-9:,]{0,40}") {
            assert!(serde_json::from_slice::<Request>(&bytes).is_err());
            drop(serde_json::from_str::<Request>(&text));
            drop(serde_json::from_str::<Say>(&text));
        }
    }

    /// The most an inventory says fits in a packet.
    #[test]
    fn a_full_inventory_fits_in_a_packet() {
        let process = Process { pid: i32::MAX, start_ticks: u64::MAX };
        let entry = Entry {
            container: "f".repeat(128),
            started: Started { init: process, at: i64::MIN },
            exit: Some(Exit {
                code: i32::MIN,
                signal: i32::MIN,
                oom_killed: false,
                started_at: i64::MIN,
                finished_at: i64::MIN,
            }),
        };
        let containers = vec![entry; super::super::answer::MAX_CONTAINERS];
        let inventory = Inventory { version: u32::MAX, pause: Some(process), containers };
        let packet = serde_json::to_vec(&reply(Reply::Inventory(inventory))).unwrap();
        assert!(packet.len() <= MAX_PACKET, "{}", packet.len());
    }
}
