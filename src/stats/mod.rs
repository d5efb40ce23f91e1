//! What cgroups, network namespaces and layers use, on v1 and v2 hierarchies alike.
//!
//! The texts are read by pure functions; here is which file is read. Nothing here knows
//! containers or pods: they are cgroup paths, processes and keys. Only `rates` and `lately`
//! remember anything.

pub mod detail;
mod files;
mod lately;
pub mod network;
mod parse;
mod pressure;
pub mod processes;
mod rates;

use std::io;

use files::Files;
pub use lately::Lately;
pub use pressure::{Pressure, Stall};
pub use rates::{PERIOD, Rates};

use crate::sys::cgroup::{self, Version};

/// A reading of one cgroup: what the CRI's statistics tell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// Nanoseconds of CPU time since the cgroup was made.
    pub cpu_nanos: u64,
    /// Memory; `None`: there is no memory controller.
    pub memory: Option<Memory>,
    /// Time lost to waiting.
    pub pressure: Pressures,
}

/// Time lost to waiting for each resource; `None`: the kernel doesn't tell of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressures {
    /// For a CPU.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For disks.
    pub io: Option<Pressure>,
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
    /// Bytes of swap until the limit; `None`: no limit.
    pub swap_available_bytes: Option<u64>,
}

/// Reads a cgroup (`/kubepods/pod1/id`). One that is gone is `NotFound`.
pub fn read(path: &str) -> io::Result<Reading> {
    let memory = cgroup::has_controller("memory").then(|| memory(path)).transpose()?;
    Ok(Reading { cpu_nanos: cpu_nanos(path)?, memory, pressure: pressures(path) })
}

/// Nanoseconds of CPU time since the cgroup was made. One that is gone is `NotFound`.
pub fn cpu_nanos(path: &str) -> io::Result<u64> {
    Ok(match cgroup::version() {
        Version::V1 => Files::of("cpuacct", path)?.number("cpuacct.usage").unwrap_or(0),
        Version::V2 => parse::cpu_v2(&Files::of("cpu", path)?.text("cpu.stat")?),
    })
}

fn memory(path: &str) -> io::Result<Memory> {
    let files = Files::of("memory", path)?;
    let stat = files.text("memory.stat")?;
    Ok(match cgroup::version() {
        Version::V1 => {
            let limits = parse::Limits {
                memory: files.number("memory.limit_in_bytes"),
                with_swap: files.number("memory.memsw.limit_in_bytes"),
            };
            parse::memory_v1(&stat, files.number("memory.usage_in_bytes").unwrap_or(0), limits)
        }
        Version::V2 => {
            let usage = files.number("memory.current").unwrap_or(0);
            let memory = parse::memory_v2(&stat, usage, files.number("memory.max"));
            let swap = files.number("memory.swap.current");
            parse::with_swap(memory, swap, files.number("memory.swap.max"))
        }
    })
}

/// Every controller's pressure file lies in the unified hierarchy, on hybrid machines too.
fn pressures(path: &str) -> Pressures {
    let directory = cgroup::unified_directory(path);
    let Some(files) = directory.and_then(|directory| Files::within(&directory).ok()) else {
        return Pressures::default();
    };
    let read = |name| pressure::parse(&files.text(name).ok()?);
    Pressures {
        cpu: read("cpu.pressure"),
        memory: read("memory.pressure"),
        io: read("io.pressure"),
    }
}

/// How many processes are in a cgroup and below it.
pub fn process_count(path: &str) -> io::Result<u64> {
    Ok(cgroup::processes_counted(path)?.len() as u64)
}
