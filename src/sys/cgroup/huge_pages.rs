//! Huge pages by size, named as cgroup files name them: `2MB`, `1GB`.

use std::fs;

/// The kernel's sizes, in order of their names; none: it has no huge pages.
pub fn sizes() -> Vec<String> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<String> =
        entries.filter_map(|entry| size(entry.file_name().to_str()?)).collect();
    sizes.sort();
    sizes
}

/// `hugepages-2048kB` as cgroup files have it.
fn size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        large if large >= 1 << 20 => format!("{}GB", large >> 20),
        middle if middle >= 1 << 10 => format!("{}MB", middle >> 10),
        small => format!("{small}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_as_in_cgroups() {
        assert_eq!(size("hugepages-2048kB").as_deref(), Some("2MB"));
        assert_eq!(size("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!(size("hugepages-64kB").as_deref(), Some("64KB"));
        assert_eq!(size("x"), None);
    }
}
