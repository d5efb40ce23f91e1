//! The texts of cgroup files (the kernel's cgroup-v1/memory.rst and cgroup-v2.rst).

use super::Memory;

/// v1 writes "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// A file with one number; `max` and anything else is none.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of a `key value` line; 0 where there is none.
pub(super) fn line(text: &str, key: &str) -> u64 {
    let value = |line: &str| number(line.strip_prefix(key)?.strip_prefix(' ')?);
    text.lines().find_map(value).unwrap_or(0)
}

/// The values of several such lines, found in one pass.
fn lines<const N: usize>(text: &str, keys: [&str; N]) -> [Option<u64>; N] {
    let mut values = [None; N];
    for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(at) = keys.iter().position(|wanted| *wanted == key) {
            values[at] = number(value);
        }
    }
    values
}

/// cpu.stat of v2, in nanoseconds.
pub(super) fn cpu_v2(stat: &str) -> u64 {
    line(stat, "usage_usec").saturating_mul(1000)
}

/// The limits of a v1 cgroup, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// Of memory.
    pub(super) memory: Option<u64>,
    /// Of memory and swap together.
    pub(super) with_swap: Option<u64>,
}

pub(super) fn memory_v1(stat: &str, usage: u64, limits: Limits) -> Memory {
    let keys =
        ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault", "total_swap"];
    let [inactive, rss, faults, major_faults, swap] = lines(stat, keys);
    let memory = of_stat(usage, [inactive, rss, faults, major_faults]);
    let limited = |limit: Option<u64>| limit.filter(|limit| *limit < NO_LIMIT);
    // What is left for swap alone, as runtimes set the two limits.
    let swap_limit = match (limited(limits.memory), limited(limits.with_swap)) {
        (Some(memory), Some(both)) => Some(both.saturating_sub(memory)),
        _ => None,
    };
    with_swap(with_limit(memory, limits.memory), swap, swap_limit)
}

pub(super) fn memory_v2(stat: &str, usage: u64, limit: Option<u64>) -> Memory {
    let values = lines(stat, ["inactive_file", "anon", "pgfault", "pgmajfault"]);
    with_limit(of_stat(usage, values), limit)
}

/// `stat`: inactive file cache, anonymous memory, page faults, major ones.
fn of_stat(usage: u64, stat: [Option<u64>; 4]) -> Memory {
    let [inactive, rss, faults, major_faults] = stat.map(Option::unwrap_or_default);
    Memory {
        usage_bytes: usage,
        working_set_bytes: usage.saturating_sub(inactive),
        rss_bytes: rss,
        page_faults: faults,
        major_page_faults: major_faults,
        ..Memory::default()
    }
}

fn with_limit(memory: Memory, limit: Option<u64>) -> Memory {
    let limit = limit.filter(|limit| *limit < NO_LIMIT);
    let available_bytes = limit.map(|limit| limit.saturating_sub(memory.working_set_bytes));
    Memory { available_bytes, ..memory }
}

/// Adds swap; `swap`: `None` where it isn't accounted.
pub(super) fn with_swap(memory: Memory, swap: Option<u64>, limit: Option<u64>) -> Memory {
    let available = swap.zip(limit).map(|(swap, limit)| limit.saturating_sub(swap));
    Memory { swap_bytes: swap, swap_available_bytes: available, ..memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_sums_are_the_hierarchys() {
        let stat = "cache 1\nrss 2\ninactive_file 3\ntotal_rss 4096\ntotal_inactive_file 1000\ntotal_pgfault 7\ntotal_pgmajfault 1\ntotal_swap 0\n";
        let limit = |memory| Limits { memory: Some(memory), with_swap: None };
        let memory = memory_v1(stat, 10_000, limit(20_000));
        assert_eq!(memory.working_set_bytes, 9_000);
        assert_eq!(memory.available_bytes, Some(11_000));
        assert_eq!((memory.rss_bytes, memory.page_faults, memory.major_page_faults), (4096, 7, 1));
        assert_eq!((memory.swap_bytes, memory.swap_available_bytes), (Some(0), None));
        assert_eq!(memory_v1(stat, 1, limit(9_223_372_036_854_771_712)).available_bytes, None);
        assert_eq!(memory_v1(stat, 1, Limits::default()).working_set_bytes, 0);
    }

    #[test]
    fn version_1_swap_is_what_the_two_limits_leave() {
        let stat = "total_rss 1\ntotal_swap 100\n";
        let limits = |memory, with_swap| Limits { memory: Some(memory), with_swap };
        let swap = |limits| memory_v1(stat, 1, limits).swap_available_bytes;
        assert_eq!(swap(limits(1000, Some(1500))), Some(400));
        assert_eq!(swap(limits(1000, Some(1000))), Some(0));
        assert_eq!(swap(limits(1000, Some(9_223_372_036_854_771_712))), None);
        assert_eq!(swap(limits(1000, None)), None);
    }

    #[test]
    fn version_2_is_read_line_by_line() {
        let stat = "anon 4096\ninactive_file 1000\npgfault 7\npgmajfault 1\n";
        let memory = memory_v2(stat, 10_000, number("max\n"));
        assert_eq!((memory.working_set_bytes, memory.available_bytes), (9_000, None));
        assert_eq!((memory.rss_bytes, memory.swap_bytes), (4096, None));
        let swapping = with_swap(memory, Some(5), number("12\n"));
        assert_eq!((swapping.swap_bytes, swapping.swap_available_bytes), (Some(5), Some(7)));
        assert_eq!(with_swap(memory, Some(5), None).swap_available_bytes, None);
        assert_eq!(cpu_v2("usage_usec 12\nuser_usec 3\n"), 12_000);
        assert_eq!(cpu_v2("garbage"), 0);
    }
}
