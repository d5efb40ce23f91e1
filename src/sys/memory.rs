//! How the C library's allocator treats this process's memory.
#![allow(unsafe_code)]

/// Has every thread take its memory from the same heap (mallopt(3), M_ARENA_MAX).
///
/// By itself glibc gives each new thread an arena of its own, up to eight a CPU, and what is
/// freed in one is of no use to the others. To be called before there are threads. Other C
/// libraries have no such thing to set.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's, under the allocator's own lock.
    unsafe {
        // It refuses what it doesn't know, and then works as it does by itself.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
