//! The processes beside a daemon's pods, and what they use.

use std::time::Duration;

use crate::daemon::Daemon;

/// The pid of a pod's monitor.
pub(crate) fn monitor_of(daemon: &Daemon, pod: &str) -> u32 {
    let file = daemon.path("state/pods").join(pod).join("monitor.pid");
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// The child of a monitor that is haled-pause.
pub(crate) fn pause_of(monitor: u32) -> u32 {
    let children = format!("/proc/{monitor}/task/{monitor}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let is_pause = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|c| c.trim() == "haled-pause")
    };
    children.split_whitespace().find(is_pause).unwrap().parse().unwrap()
}

/// Proportional set size of a process, in kB (proc(5), smaps_rollup).
pub(crate) fn pss(pid: u32) -> usize {
    pss_of_living(pid).expect("it lives")
}

/// The same; `None`: it has ended.
pub(crate) fn pss_of_living(pid: u32) -> Option<usize> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// What a process has used of the CPU so far, in user and kernel mode (proc(5), stat), to 10 ms.
pub(crate) fn cpu(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = text.rsplit_once(')').unwrap();
    // utime and stime are the fields 14 and 15; what follows the name begins with the third.
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
