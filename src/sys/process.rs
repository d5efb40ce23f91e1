//! Processes by pidfd and start time, so that a number is never taken for a later process.

use std::io;
use std::os::fd::OwnedFd;

/// Field 22 of /proc/PID/stat: clock ticks from boot to the process's start (proc(5)).
pub fn start_ticks(_pid: i32) -> io::Result<u64> {
    todo!()
}

/// A pidfd of the process that has this number and this start; `None`: it is gone.
pub fn open(_pid: i32, _start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    todo!()
}

/// Sends a signal by pidfd (pidfd_send_signal(2)). The process is gone: no error.
pub fn signal(_pidfd: &OwnedFd, _signal: i32) -> io::Result<()> {
    todo!()
}
