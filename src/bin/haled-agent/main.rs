//! Executes commands in a container, as one of its processes: forked from here, they have its
//! confinement, its environment and its working directory.
//!
//! Started by haled through the OCI runtime. Descriptor 3 is this program's own file, 4 a
//! `SOCK_SEQPACKET` socket. Each packet is one command, its words ended by zeros, with three
//! descriptors: standard output, standard error, and a socket that its waiter talks over in
//! frames of two numbers (`container::exec::frame` has them).
//!
//! A waiter is a process between this one and the command. It is the subreaper of all that the
//! command starts, so whoever looks below it finds all of that; it says which process it is and
//! forks only when told to go on; it tells how the command ended, and ends. What the command
//! has left in the background is then reaped here. No crate, no allocation, no C runtime.
#![no_std]
#![no_main]
// Else a loop that copies becomes a call of a C library's function.
#![no_builtins]
#![allow(unsafe_code)]

mod command;
mod kernel;
mod socket;

use core::arch::global_asm;
use core::panic::PanicInfo;
use core::ptr::from_mut;

use command::{Origin, execute};
use kernel::{EINTR, block, close_all, exit, fork, length, map, number, on_child_end, syscall};
use socket::{
    ENDED, GO, HELLO, MAX_PACKET, Order, REFUSED, Received, SOCKET, VERSION, heard, receive, tell,
};

/// What is at descriptor 3 and 4.
const PROGRAM: usize = 3;
/// In process lists.
const NAME: &[u8] = b"haled-agent\0";

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const WNOHANG: usize = 1;
/// Every child, whatever it signals at its end.
const WALL: usize = 0x4000_0000;
const ANY_CHILD: usize = usize::MAX;
const F_SETFD: usize = 2;
const FD_CLOEXEC: usize = 1;
const PR_SET_DUMPABLE: usize = 4;
const PR_SET_NAME: usize = 15;
const PR_SET_CHILD_SUBREAPER: usize = 36;
/// As shells have it for what could not be executed.
const NOT_EXECUTED: usize = 127;

// The kernel enters with the arguments on the stack and no return address; `run` takes their
// place, and expects the alignment a call would give it.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {}", sym run
);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x0, sp", "bl {}", sym run);

/// `stack`: the number of arguments, pointers to them, null, and the same of the environment.
extern "C" fn run(stack: *const usize) -> ! {
    // SAFETY: so has the kernel laid it out (elf(5)), and nothing has written there since.
    let (first, environment) = unsafe {
        let arguments = stack.add(1).cast::<*mut u8>();
        (*arguments, arguments.add(*stack + 1).cast::<*const u8>())
    };
    rename(first);
    syscall(number::CLOSE, [PROGRAM, 0, 0, 0, 0, 0]);
    syscall(number::FCNTL, [SOCKET, F_SETFD, FD_CLOEXEC, 0, 0, 0]);
    // Its socket is haled's: no other process of the container is to take it from here.
    syscall(number::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0]);
    syscall(number::PRCTL, [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0]);
    // Ignored, it leaves no zombie.
    on_child_end(SIG_IGN);
    // A command that signals all processes that it sees doesn't mean those that serve it.
    let origin = Origin { environment, blocked: block(u64::MAX) };
    // Not on the stack, where all of it would be touched, and so be memory.
    let packet = map(MAX_PACKET);
    loop {
        match receive(packet) {
            Received::Order(order) => {
                if fork() == 0 {
                    wait_for_one(&order, &origin);
                }
                // Where there was no fork, the report's end says so.
                close_all(&[order.stdout, order.stderr, order.report]);
            }
            Received::Nonsense => {}
            // Not while it is somebody's reaper.
            Received::Nothing if has_children() => {}
            Received::Nothing => exit(0),
            Received::End => break,
        }
    }
    // With SIGCHLD ignored this returns when there is no child any more.
    while syscall(number::WAIT4, [ANY_CHILD, 0, WALL, 0, 0, 0]) == EINTR {}
    exit(0)
}

/// Between the agent and a command: its reaper, and that of all it starts.
fn wait_for_one(order: &Order, origin: &Origin) -> ! {
    syscall(number::CLOSE, [SOCKET, 0, 0, 0, 0, 0]);
    on_child_end(SIG_DFL);
    syscall(number::PRCTL, [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0]);
    tell(order.report, HELLO, VERSION);
    // Whoever has gone, or has found this process to be none of the container's, says nothing.
    if heard(order.report) != Some(GO) {
        exit(0);
    }
    let command = fork();
    if command == 0 {
        let error = execute(order, origin);
        tell(order.report, REFUSED, -error as i32);
        exit(NOT_EXECUTED);
    }
    if command < 0 {
        tell(order.report, REFUSED, -command as i32);
        exit(0);
    }
    close_all(&[order.stdout, order.stderr]);
    let mut status = 0_i32;
    loop {
        let into = from_mut(&mut status) as usize;
        let ended = syscall(number::WAIT4, [ANY_CHILD, into, WALL, 0, 0, 0]);
        if ended == command {
            tell(order.report, ENDED, status);
        }
        if ended == command || (ended < 0 && ended != EINTR) {
            exit(0);
        }
    }
}

/// Puts this program's name in the place of what it was started by.
fn rename(first: *mut u8) {
    syscall(number::PRCTL, [PR_SET_NAME, NAME.as_ptr() as usize, 0, 0, 0, 0]);
    if first.is_null() {
        return;
    }
    // SAFETY: the first argument, which ends with zero and is this process's to write to.
    unsafe {
        for at in 0..length(first) {
            *first.add(at) = NAME.get(at).copied().unwrap_or(0);
        }
    }
}

fn has_children() -> bool {
    syscall(number::WAIT4, [ANY_CHILD, 0, WALL | WNOHANG, 0, 0, 0]) == 0
}

/// Nothing here panics; the language wants it said.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}
