//! Whose ids a pod with a user namespace gets: no other pod's, and none that people, packages
//! or other programs use.

use super::{Entries, Error, Key, Manifests};
use crate::manifest::OWN_IDS;
use crate::sys::userns::{IdMaps, Range};

/// Where they begin: above all that systemd gives to users, services and containers
/// (UIDS-GIDS of its documentation), far above what a kubelet gives to its pods.
const FIRST: u32 = 0x7000_0000;
/// The first that systemd has named again.
const END: u32 = 0x7ffe_0000;

impl Manifests {
    /// Ids that no pod has: to be recorded before anybody else looks at `entries`.
    pub(super) fn free_ids(&self, entries: &Entries, key: &Key) -> Result<IdMaps, Error> {
        let views = self.inner.pods.views();
        let recorded =
            entries.values().filter_map(|entry| entry.record.plan.sandbox.userns.as_ref());
        let seen = views.iter().filter_map(|view| view.config.userns.as_ref());
        let taken: Vec<Range> = recorded
            .chain(seen)
            .flat_map(|maps| maps.uids.iter().chain(&maps.gids))
            .copied()
            .collect();
        free(&taken).ok_or_else(|| Error::Pod {
            name: key.1.clone(),
            why: "hostUsers: false: the ids of all user namespaces are given away".to_owned(),
        })
    }
}

/// The lowest ids that overlap with none of those that are taken.
fn free(taken: &[Range]) -> Option<IdMaps> {
    let apart = |first: u32| {
        taken.iter().all(|range| {
            let (from, to) =
                (u64::from(range.outside), u64::from(range.outside) + u64::from(range.count));
            to <= u64::from(first) || u64::from(first + OWN_IDS) <= from
        })
    };
    let first = (FIRST..END).step_by(OWN_IDS as usize).find(|first| apart(*first))?;
    let range = Range { inside: 0, outside: first, count: OWN_IDS };
    Some(IdMaps { uids: vec![range], gids: vec![range] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pods_have_the_same_ids() {
        let mut taken = Vec::new();
        for _ in 0..20 {
            let maps = free(&taken).unwrap();
            maps.check().unwrap();
            let new = maps.uids[0];
            assert!(new.outside >= FIRST && new.outside + new.count <= END);
            assert!(taken.iter().all(|old: &Range| new.outside.abs_diff(old.outside) >= OWN_IDS));
            taken.push(new);
        }
        let given_back = taken.remove(7);
        assert_eq!(free(&taken).unwrap().uids, [given_back]);
        let all = Range { inside: 0, outside: FIRST, count: END - FIRST };
        assert_eq!(free(&[all]), None);
    }

    #[test]
    fn ids_that_overlap_a_little_are_taken_too() {
        let taken = Range { inside: 0, outside: FIRST + OWN_IDS - 1, count: 2 };
        assert_eq!(free(&[taken]).unwrap().uids[0].outside, FIRST + 2 * OWN_IDS);
    }
}
