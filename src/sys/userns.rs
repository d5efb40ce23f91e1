//! The users and groups of a user namespace (user_namespaces(7)).

use std::fmt::Write as _;
use std::io;

use serde::{Deserialize, Serialize};

/// Lines that the kernel takes in one map since Linux 4.15.
const MAX_RANGES: usize = 340;

/// Consecutive ids, in the namespace and outside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first one in the namespace.
    pub inside: u32,
    /// The first one outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Both maps of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<Range>,
    /// Groups.
    pub gids: Vec<Range>,
}

impl IdMaps {
    /// Whether the kernel will take them, and root is among them.
    pub fn check(&self) -> Result<(), String> {
        for (kind, ranges) in [("uid", &self.uids), ("gid", &self.gids)] {
            if ranges.is_empty() || ranges.len() > MAX_RANGES {
                let count = ranges.len();
                return Err(format!("{count} {kind} mappings: 1 to {MAX_RANGES} are allowed"));
            }
            for range in ranges {
                let fits = |first: u32| first.checked_add(range.count).is_some();
                if range.count == 0 || !fits(range.inside) || !fits(range.outside) {
                    return Err(format!("a {kind} mapping has no ids, or ids beyond 2^32"));
                }
            }
            for first in [|range: &Range| range.inside, |range: &Range| range.outside] {
                let mut sorted: Vec<_> = ranges.iter().map(|r| (first(r), r.count)).collect();
                sorted.sort_unstable();
                if sorted.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
                    return Err(format!("{kind} mappings overlap"));
                }
            }
            if outside(ranges, 0).is_none() {
                return Err(format!("no {kind} mapping has 0, which runs the container's init"));
            }
        }
        Ok(())
    }

    /// The namespace's root as it is seen from outside: user and group.
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((outside(&self.uids, 0)?, outside(&self.gids, 0)?))
    }

    /// Writes them for the namespace of a child that was made in a new one.
    pub fn write(&self, pid: i32) -> io::Result<()> {
        for (file, ranges) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let mut text = String::new();
            for Range { inside, outside, count } in ranges {
                writeln!(text, "{inside} {outside} {count}").map_err(io::Error::other)?;
            }
            // The kernel takes a map in one write only.
            std::fs::write(format!("/proc/{pid}/{file}"), text)?;
        }
        Ok(())
    }
}

fn outside(ranges: &[Range], id: u32) -> Option<u32> {
    let holds = |range: &&Range| id.checked_sub(range.inside).is_some_and(|at| at < range.count);
    let range = ranges.iter().find(holds)?;
    range.outside.checked_add(id - range.inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(ranges: &[(u32, u32, u32)]) -> IdMaps {
        let range = |&(inside, outside, count)| Range { inside, outside, count };
        let list: Vec<_> = ranges.iter().map(range).collect();
        IdMaps { uids: list.clone(), gids: list }
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        for (ranges, needle) in [
            (vec![], "0 uid mappings"),
            (vec![(0, 1000, 0)], "no ids"),
            (vec![(0, u32::MAX, 2)], "beyond"),
            (vec![(1, 1000, 10)], "has 0"),
            (vec![(0, 1000, 10), (9, 5000, 10)], "overlap"),
            (vec![(0, 1000, 10), (10, 1009, 10)], "overlap"),
        ] {
            let error = maps(&ranges).check().unwrap_err();
            assert!(error.contains(needle), "{ranges:?}: {error}");
        }
    }

    #[test]
    fn root_is_found_in_whichever_range_it_is() {
        let maps = maps(&[(5, 500, 5), (0, 100_000, 5)]);
        maps.check().unwrap();
        assert_eq!(maps.root(), Some((100_000, 100_000)));
    }
}
