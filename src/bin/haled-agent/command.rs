//! A process becomes a command.

use core::mem::MaybeUninit;
use core::ptr::null;

use crate::kernel::{block, copy, length, number, syscall};
use crate::socket::{MAX_WORDS, Order};

const STDOUT: usize = 1;
const STDERR: usize = 2;
/// The variable that says where programs are, as it stands in an environment.
const NAME_OF_PATH: &[u8] = b"PATH=";
/// The kernel's, for a path.
const MAX_PATH: usize = 4096;
const EACCES: isize = -13;
const ENOENT: isize = -2;
const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const X_OK: usize = 1;

/// What every command begins with.
pub(crate) struct Origin {
    pub(crate) environment: *const *const u8,
    /// The signals that are blocked.
    pub(crate) blocked: u64,
}

/// In the child that is to become the command. Returns why it can't.
pub(crate) fn execute(order: &Order, origin: &Origin) -> isize {
    block(origin.blocked);
    syscall(number::SETSID, [0; 6]);
    for (from, to) in [(order.stdout, STDOUT), (order.stderr, STDERR)] {
        let placed = syscall(number::DUP3, [from, to, 0, 0, 0, 0]);
        if placed < 0 {
            return placed;
        }
    }
    let start = order.words;
    let mut words = MaybeUninit::<[*const u8; MAX_WORDS + 1]>::uninit();
    let mut next = words.as_mut_ptr().cast::<*const u8>();
    let mut at = 0;
    // SAFETY: the kernel has written `length` bytes at `start`, the last of them zero; at most
    // MAX_WORDS end with one, as `receive` has seen, so that `next` stays within `words`.
    unsafe {
        while at < order.length {
            *next = start.add(at);
            next = next.add(1);
            at += length(start.add(at)) + 1;
        }
        *next = null();
    }
    search(start, words.as_ptr().cast(), origin.environment)
}

/// Executes a program by its path, or by its name in a directory of PATH.
fn search(name: *const u8, words: *const *const u8, environment: *const *const u8) -> isize {
    // SAFETY: `name` ends with zero.
    let size = unsafe { length(name) };
    // SAFETY: of `size` bytes, which nothing writes to.
    let name = unsafe { core::slice::from_raw_parts(name, size) };
    if name.contains(&b'/') {
        return try_one(name.as_ptr(), words, environment);
    }
    let mut path = MaybeUninit::<[u8; MAX_PATH]>::uninit();
    let path = path.as_mut_ptr().cast::<u8>();
    let mut result = ENOENT;
    for directory in path_of(environment).split(|&byte| byte == b':') {
        // Runtimes take none that depends on where the process stands.
        if directory.first() != Some(&b'/') || directory.len() + size + 2 > MAX_PATH {
            continue;
        }
        // SAFETY: what is written was just seen to fit.
        unsafe {
            copy(directory, path);
            *path.add(directory.len()) = b'/';
            copy(name, path.add(directory.len() + 1));
            *path.add(directory.len() + 1 + size) = 0;
        }
        if syscall(number::FACCESSAT, [AT_FDCWD, path as usize, X_OK, 0, 0, 0]) != 0 {
            continue;
        }
        result = try_one(path, words, environment);
        // A directory may be searched, and can't be executed.
        if result != EACCES {
            return result;
        }
    }
    result
}

fn try_one(path: *const u8, words: *const *const u8, environment: *const *const u8) -> isize {
    syscall(number::EXECVE, [path as usize, words as usize, environment as usize, 0, 0, 0])
}

/// The value of PATH; empty: there is none.
fn path_of(environment: *const *const u8) -> &'static [u8] {
    let mut variable = environment;
    // SAFETY: pointers to texts that end with zero, the last one null (elf(5)); they stay where
    // they are for as long as this program runs.
    unsafe {
        while !(*variable).is_null() {
            let text = core::slice::from_raw_parts(*variable, length(*variable));
            if let Some((name, path)) = text.split_at_checked(NAME_OF_PATH.len())
                && name.iter().eq(NAME_OF_PATH)
            {
                return path;
            }
            variable = variable.add(1);
        }
    }
    &[]
}
