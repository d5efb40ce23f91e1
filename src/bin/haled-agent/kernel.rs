//! System calls, and what a C library would have on top of them.

// Numbers of registers, which have no other names; and a call that must not become one.
#![allow(clippy::many_single_char_names, clippy::inline_always)]

use core::arch::asm;
use core::ptr::{from_mut, from_ref};

pub(crate) const EINTR: isize = -4;
pub(crate) const SIGCHLD: usize = 17;
pub(crate) const SIG_SETMASK: usize = 2;
pub(crate) const PROT_READ_WRITE: usize = 3;
pub(crate) const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
pub(crate) const NO_FILE: usize = usize::MAX;

#[cfg(target_arch = "x86_64")]
pub(crate) mod number {
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const RECVMSG: usize = 47;
    pub(crate) const CLONE: usize = 56;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const FACCESSAT: usize = 269;
    pub(crate) const DUP3: usize = 292;
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod number {
    pub(crate) const DUP3: usize = 24;
    pub(crate) const FCNTL: usize = 25;
    pub(crate) const FACCESSAT: usize = 48;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const READ: usize = 63;
    pub(crate) const WRITE: usize = 64;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const RT_SIGACTION: usize = 134;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const SETSID: usize = 157;
    pub(crate) const PRCTL: usize = 167;
    pub(crate) const RECVMSG: usize = 212;
    pub(crate) const CLONE: usize = 220;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const WAIT4: usize = 260;
}

/// Memory of its own, of which only what is touched is there.
pub(crate) fn map(size: usize) -> *mut u8 {
    let mapped =
        syscall(number::MMAP, [0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, NO_FILE, 0]);
    if mapped < 0 {
        exit(1);
    }
    mapped as *mut u8
}

/// As fork(2): the child has a copy of everything.
pub(crate) fn fork() -> isize {
    syscall(number::CLONE, [SIGCHLD, 0, 0, 0, 0, 0])
}

/// Blocks these signals and no others. Gives those that were.
pub(crate) fn block(signals: u64) -> u64 {
    let mut before = 0_u64;
    let (set, old) = (from_ref(&signals) as usize, from_mut(&mut before) as usize);
    syscall(number::RT_SIGPROCMASK, [SIG_SETMASK, set, old, size_of::<u64>(), 0, 0]);
    before
}

pub(crate) fn on_child_end(action: usize) {
    // struct sigaction: what to do, flags, what to return by, signals blocked meanwhile.
    let action = [action, 0, 0, 0];
    syscall(number::RT_SIGACTION, [SIGCHLD, from_ref(&action) as usize, 0, size_of::<u64>(), 0, 0]);
}

pub(crate) fn close_all(descriptors: &[usize]) {
    for descriptor in descriptors {
        syscall(number::CLOSE, [*descriptor, 0, 0, 0, 0, 0]);
    }
}

/// Of a text that ends with zero.
pub(crate) unsafe fn length(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: no byte beyond that zero is looked at.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    length
}

/// There must be room for it.
pub(crate) unsafe fn copy(from: &[u8], to: *mut u8) {
    for (at, byte) in from.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { *to.add(at) = *byte };
    }
}

pub(crate) fn exit(code: usize) -> ! {
    loop {
        syscall(number::EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn syscall(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: pointers among the arguments are of live objects that the call may read, or write
    // where they are mutable; what else it clobbers is declared.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn syscall(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: pointers among the arguments are of live objects that the call may read, or write
    // where they are mutable; what else it clobbers is declared.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    result
}
