//! Limits of huge pages for OCI runtimes on cgroup v2: as files, in `unified`.
//!
//! runc keeps those of `hugepageLimits` that a container began with, and writes them again at
//! every update of whatever: what was changed is set back, or the update fails because more
//! are in use by now. And before 1.2 it limits the pages in use alone, not those reserved.
//! What is in `unified` is written as it stands, and an update has its own.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxResources};

const USED: &str = ".max";
const RESERVED: &str = ".rsvd.max";

/// Makes files of the limits, but of those that `unified` has already.
pub fn as_files(resources: &mut LinuxResources) {
    let limits = resources.hugepage_limits().clone().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let mut files = resources.unified().clone().unwrap_or_default();
    for limit in limits {
        for end in [USED, RESERVED] {
            let file = format!("hugetlb.{}{end}", limit.page_size());
            files.entry(file).or_insert_with(|| limit.limit().to_string());
        }
    }
    resources.set_hugepage_limits(None).set_unified(Some(files));
}

/// Makes limits of such files again.
pub fn from_files(resources: &mut LinuxResources) {
    let files = resources.unified().clone().unwrap_or_default();
    let limit = |(file, value): (&String, &String)| {
        let size = file.strip_prefix("hugetlb.")?.strip_suffix(USED)?;
        let mut limit = LinuxHugepageLimit::default();
        limit.set_page_size(size.to_owned()).set_limit(value.parse().ok()?);
        Some(limit).filter(|_| !size.contains('.'))
    };
    let mut limits: Vec<_> = files.iter().filter_map(limit).collect();
    if limits.is_empty() {
        return;
    }
    limits.sort_by(|one, other| one.page_size().cmp(other.page_size()));
    let is_of = |file: &str, size: &str| {
        file.strip_prefix("hugetlb.")
            .and_then(|rest| rest.strip_prefix(size))
            .is_some_and(|end| end == USED || end == RESERVED)
    };
    let rest: HashMap<_, _> = files
        .into_iter()
        .filter(|(file, _)| !limits.iter().any(|limit| is_of(file, limit.page_size())))
        .collect();
    resources.set_hugepage_limits(Some(limits)).set_unified(Some(rest).filter(|it| !it.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: &[(&str, i64)], files: &[(&str, &str)]) -> LinuxResources {
        let limit = |&(size, bytes): &(&str, i64)| {
            let mut limit = LinuxHugepageLimit::default();
            limit.set_page_size(size.to_owned()).set_limit(bytes);
            limit
        };
        let files: HashMap<_, _> =
            files.iter().map(|&(file, value)| (file.to_owned(), value.to_owned())).collect();
        let mut resources = LinuxResources::default();
        resources
            .set_hugepage_limits(Some(all.iter().map(limit).collect()).filter(|_| !all.is_empty()))
            .set_unified(Some(files).filter(|files| !files.is_empty()));
        resources
    }

    #[test]
    fn limits_are_files_and_limits_again() {
        let began = limits(&[("1GB", 0), ("2MB", 4096)], &[("memory.high", "7")]);
        let mut resources = began.clone();
        as_files(&mut resources);
        let files = [
            ("hugetlb.1GB.max", "0"),
            ("hugetlb.1GB.rsvd.max", "0"),
            ("hugetlb.2MB.max", "4096"),
            ("hugetlb.2MB.rsvd.max", "4096"),
            ("memory.high", "7"),
        ];
        assert_eq!(resources, limits(&[], &files));
        from_files(&mut resources);
        assert_eq!(resources, began);
    }

    #[test]
    fn what_unified_says_itself_counts() {
        let mut resources = limits(&[("2MB", 4096)], &[("hugetlb.2MB.max", "max")]);
        as_files(&mut resources);
        let files = [("hugetlb.2MB.max", "max"), ("hugetlb.2MB.rsvd.max", "4096")];
        assert_eq!(resources, limits(&[], &files));
        from_files(&mut resources);
        assert_eq!(resources, limits(&[], &files));
    }

    #[test]
    fn without_any_nothing_changes() {
        let mut resources = limits(&[], &[("memory.high", "7")]);
        let before = resources.clone();
        as_files(&mut resources);
        from_files(&mut resources);
        assert_eq!(resources, before);
    }
}
