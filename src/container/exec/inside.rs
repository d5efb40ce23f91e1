//! What a command in a container is by the container's own configuration.

use oci_spec::runtime::{LinuxIdMapping, Process};

use super::super::{Error, Place};

/// What config.json says of it.
pub(super) struct Inside {
    /// The container's process: environment, user, capabilities and so on.
    pub(super) process: Process,
    /// Who on the host is root of its user namespace; `None`: it has none, and root is root.
    pub(super) root: Option<(u32, u32)>,
    /// Who on the host its user is.
    pub(super) user: u32,
}

impl Inside {
    /// Blocks.
    pub(super) fn read(place: &Place) -> Result<Self, Error> {
        let file = place.config_file();
        let wrong = |what: &str| Error::Invalid(format!("{} {what}", file.display()));
        let spec = place.spec()?;
        let linux = spec.linux().as_ref();
        let users = linux.and_then(|linux| linux.uid_mappings().as_deref());
        let groups = linux.and_then(|linux| linux.gid_mappings().as_deref());
        let root =
            users.and_then(|map| outside(map, 0)).zip(groups.and_then(|map| outside(map, 0)));
        let process = spec.process().clone().ok_or_else(|| wrong("has no process"))?;
        let uid = process.user().uid();
        let user = match users {
            None | Some([]) => Some(uid),
            Some(map) => outside(map, uid),
        };
        let user = user.ok_or_else(|| wrong(&format!("maps no user {uid}")))?;
        Ok(Self { process, root, user })
    }
}

/// Who on the host an id of a user namespace is.
fn outside(map: &[LinuxIdMapping], id: u32) -> Option<u32> {
    map.iter().find_map(|range| {
        let offset = id.checked_sub(range.container_id())?;
        (offset < range.size()).then(|| range.host_id().checked_add(offset)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxIdMappingBuilder;

    use super::*;

    #[test]
    fn an_id_is_found_in_its_range() {
        let range = |inside: u32, outside: u32, size: u32| {
            LinuxIdMappingBuilder::default()
                .container_id(inside)
                .host_id(outside)
                .size(size)
                .build()
                .unwrap()
        };
        let map = [range(0, 100_000, 1000), range(1000, 500, 1), range(2000, u32::MAX - 1, 10)];
        for (id, host) in [
            (0, Some(100_000)),
            (999, Some(100_999)),
            (1000, Some(500)),
            (1001, None),
            (2001, Some(u32::MAX)),
            (2002, None),
        ] {
            assert_eq!(outside(&map, id), host, "{id}");
        }
    }
}
