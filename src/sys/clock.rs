//! Whether the machine's clock is kept right (adjtimex(2)).
#![allow(unsafe_code)]

use std::io;

/// Whether something (chrony, systemd-timesyncd, ntpd, a hypervisor's) keeps it to true time.
pub fn is_synchronised() -> io::Result<bool> {
    // SAFETY: all zeros is a value of this type: it asks, and changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into what is lent to it.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0)
}
