//! What cgroups use: CPU time and memory, from v1 and v2 hierarchies alike.
//!
//! `parse` is pure; here is only which file is read. Nothing here knows containers, and
//! nothing is kept: a rate is the difference of two readings, which its caller has.

mod parse;

use std::io;
use std::path::Path;

use crate::sys::cgroup::{self, Version};

/// The longest cgroup file that is read, in bytes: memory.stat has about 2 KiB.
const MAX_FILE: u64 = 64 * 1024;

/// A reading of one cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Nanoseconds of CPU time since the cgroup was made.
    pub cpu_nanos: u64,
    /// Memory; `None`: there is no memory controller.
    pub memory: Option<Memory>,
}

/// Memory of a cgroup, as cAdvisor counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Bytes, caches included.
    pub usage_bytes: u64,
    /// Bytes that can't be taken back at once: usage less the inactive file cache.
    pub working_set_bytes: u64,
    /// Bytes until the limit, by working set; `None`: no limit.
    pub available_bytes: Option<u64>,
    /// Bytes of anonymous memory.
    pub rss_bytes: u64,
    /// Since the cgroup was made.
    pub page_faults: u64,
    /// Since the cgroup was made.
    pub major_page_faults: u64,
    /// Bytes in swap; `None`: swap isn't accounted.
    pub swap_bytes: Option<u64>,
}

/// Reads a cgroup (`/kubepods/pod1/id`). One that is gone is `NotFound`.
pub fn read(path: &str) -> io::Result<Reading> {
    let cpu_nanos = match cgroup::version() {
        Version::V1 => parse::number(&file(path, "cpuacct", "cpuacct.usage")?).unwrap_or(0),
        Version::V2 => parse::cpu_v2(&file(path, "cpu", "cpu.stat")?),
    };
    let memory = cgroup::has_controller("memory").then(|| memory(path)).transpose()?;
    Ok(Reading { cpu_nanos, memory })
}

fn memory(path: &str) -> io::Result<Memory> {
    let file = |name| file(path, "memory", name);
    let stat = file("memory.stat")?;
    match cgroup::version() {
        Version::V1 => {
            let usage = parse::number(&file("memory.usage_in_bytes")?);
            let limit = parse::number(&file("memory.limit_in_bytes")?);
            Ok(parse::memory_v1(&stat, usage.unwrap_or(0), limit))
        }
        Version::V2 => {
            let usage = parse::number(&file("memory.current")?);
            let limit = parse::number(&file("memory.max")?);
            let swap = file("memory.swap.current").ok();
            let swap = swap.as_deref().and_then(parse::number);
            Ok(parse::memory_v2(&stat, usage.unwrap_or(0), limit, swap))
        }
    }
}

fn file(path: &str, controller: &str, name: &str) -> io::Result<String> {
    let directory = cgroup::directory(controller, path);
    bounded(&directory.ok_or(io::ErrorKind::NotFound)?.join(name))
}

fn bounded(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}
