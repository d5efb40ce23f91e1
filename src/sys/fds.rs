//! Descriptors in bulk.
#![allow(unsafe_code)]

use std::io;

/// Closes every descriptor from `first` on, whoever opened it (close_range(2)).
///
/// Only for a program's first lines and a child's last: a descriptor that something still
/// owns would be closed under it.
pub fn close_from(first: u32) -> io::Result<()> {
    range(first, 0)
}

/// Marks every descriptor from `first` on to be closed by exec.
pub fn close_from_on_exec(first: u32) -> io::Result<()> {
    range(first, libc::CLOSE_RANGE_CLOEXEC)
}

fn range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: three numbers; what it means for owners is said at the callers' docs.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
