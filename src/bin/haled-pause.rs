//! Holds a pod's namespaces open, and as PID 1 of a shared PID namespace reaps its orphans.
//!
//! Ends with 0 on SIGTERM or SIGINT; no other signal's action is changed. No crate, no
//! allocation, no C runtime: three system calls in a loop, about 1 KB on disk.
#![no_std]
#![no_main]
// A call of it would be a stack frame for each.
#![allow(unsafe_code, clippy::inline_always)]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::ptr::{from_ref, null};

const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const ANY_CHILD: usize = usize::MAX;
const ECHILD_OR_NONE: isize = 0;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 128;
    pub(crate) const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
    pub(crate) const WAIT4: usize = 260;
}

// The kernel enters with the arguments on the stack and no return address; `run` expects
// the alignment a call would give it.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {}", sym run);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "bl {}", sym run);

/// Waits for the three signals, which are blocked so that none is lost between two waits,
/// nor dropped by the kernel because this is a PID namespace's init.
extern "C" fn run() -> ! {
    let signals: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    let set = from_ref(&signals) as usize;
    syscall(number::RT_SIGPROCMASK, [SIG_BLOCK, set, 0, size_of::<u64>()]);
    loop {
        let info_and_timeout = null::<u8>() as usize;
        let arguments = [set, info_and_timeout, info_and_timeout, size_of::<u64>()];
        match syscall(number::RT_SIGTIMEDWAIT, arguments).cast_unsigned() {
            SIGINT | SIGTERM => exit(0),
            // One SIGCHLD may stand for many children.
            SIGCHLD => while syscall(number::WAIT4, [ANY_CHILD, 0, WNOHANG, 0]) > ECHILD_OR_NONE {},
            // EINTR after a stop and continue.
            _ => {}
        }
    }
}

fn exit(code: usize) -> ! {
    loop {
        syscall(number::EXIT_GROUP, [code, 0, 0, 0]);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn syscall(number: usize, [a, b, c, d]: [usize; 4]) -> isize {
    let result;
    // SAFETY: the four system calls used read at most the eight bytes of a live signal set,
    // write nothing, and clobber what is declared.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn syscall(number: usize, [a, b, c, d]: [usize; 4]) -> isize {
    let result;
    // SAFETY: the four system calls used read at most the eight bytes of a live signal set,
    // write nothing, and clobber what is declared.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, options(nostack));
    }
    result
}

/// Nothing here panics; the language wants it said.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}
