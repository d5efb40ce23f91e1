//! Where a pod's cgroups are, made as the cgroup driver has it (docs/decisions/0015).
//!
//! ```text
//!  cgroupfs   /kubepods/burstable/podUID/            the parent, its maker's
//!               ├ SANDBOX                            pause
//!               └ CONTAINER
//!  systemd    …/kubepods-burstable-podUID.slice/     the parent, systemd's
//!               └ haled-SANDBOX.scope/               asked of systemd, delegated
//!                   ├ SANDBOX                        pause
//!                   └ CONTAINER
//! ```
//!
//! Which of the two it is shows in the parent's name, so pods of both can be there at once.

use super::config::SandboxConfig;
use super::{Error, Services};
use crate::id::SandboxId;
use crate::sys::birthplace::Birthplace;
use crate::sys::cgroup;
use crate::sys::systemd::{self, Scope, Slice};

/// The service whose end comes first when the machine shuts down: what it heals must not end
/// before it.
const SERVICE: &str = "haled.service";
/// The parent of pods that name none, where the settings don't say.
const PARENT: &str = "/haled";
const PARENT_SLICE: &str = "haled.slice";

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// haled and the OCI runtime, as directories.
    Cgroupfs,
    /// systemd: slices and scopes.
    Systemd,
}

impl Driver {
    /// As the settings have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// The cgroup parent of pods that come without one.
    pub fn default_parent(self) -> &'static str {
        match self {
            Self::Cgroupfs => PARENT,
            Self::Systemd => PARENT_SLICE,
        }
    }

    /// A cgroup parent in this driver's form; or why it is none.
    pub fn parent(self, text: &str) -> Result<String, String> {
        let text = if text.len() > 1 { text.trim_end_matches('/') } else { text };
        match self {
            Self::Cgroupfs if Slice::is_meant(text) => Err(format!(
                "\"{text}\" is a slice, and haled uses the cgroupfs driver; /kubepods/podX is one \
                 for it. Either cgroupDriver: cgroupfs in the kubelet's configuration, or \
                 [runtime] cgroup_driver = \"systemd\" in haled's"
            )),
            Self::Cgroupfs => match cgroup::check(text) {
                Ok(()) => Ok(text.to_owned()),
                Err(error) => Err(format!("{error}; /kubepods/podX is one")),
            },
            Self::Systemd => match Slice::parse(text) {
                Ok(slice) => Ok(slice.name().to_owned()),
                Err(why) => Err(format!(
                    "{why}, and haled uses the systemd driver. Either cgroupDriver: systemd in \
                     the kubelet's configuration, or [runtime] cgroup_driver = \"cgroupfs\" in haled's"
                )),
            },
        }
    }
}

/// A pod's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// Its parent's path from the hierarchy's root.
    pub parent: String,
    /// What its own are made in: the parent, or its scope.
    pub within: String,
    /// That of pause.
    pub pause: String,
    scope: Option<Scope>,
}

impl Cgroups {
    pub(super) fn of(services: &Services, id: &SandboxId, config: &SandboxConfig) -> Self {
        let given = config.cgroup_parent.trim_end_matches('/');
        let parent = if given.is_empty() { &services.cgroup_parent } else { given };
        let scope = Slice::parse(parent).ok().map(|slice| Scope {
            unit: format!("haled-{id}.scope"),
            description: format!("pod {}/{} of haled", config.namespace, config.name),
            slice,
            outlives: SERVICE,
        });
        let (parent, within) = match &scope {
            Some(scope) => (scope.slice.cgroup(), scope.cgroup()),
            None => (parent.to_owned(), parent.to_owned()),
        };
        Self { parent, pause: format!("{within}/{id}"), within, scope }
    }

    /// Whether what the pod's own are made in holds this pod alone.
    pub fn has_scope(&self) -> bool {
        self.scope.is_some()
    }

    /// Makes pause's, and gives what pause is to be born into. `None`: systemd makes a scope
    /// only of a process that is there ([`Cgroups::take_in`]). Blocks.
    pub(super) fn make(&self) -> Result<Option<Birthplace>, Error> {
        if self.scope.is_some() {
            return Ok(None);
        }
        let made = cgroup::create(&self.pause).and_then(|()| cgroup::birthplace(&self.pause));
        made.map(Some).map_err(Error::io("cannot make cgroup", self.pause.as_ref()))
    }

    /// Makes those that [`Cgroups::make`] couldn't, with pause in its own. Blocks.
    pub(super) fn take_in(&self, pause: i32) -> Result<(), Error> {
        let Some(scope) = &self.scope else { return Ok(()) };
        let of = |doing: &'static str| Error::io(doing, self.pause.as_ref());
        scope.start(pause).map_err(of("cannot make cgroup"))?;
        cgroup::descend(&self.pause, pause).map_err(of("cannot put pause into cgroup"))
    }

    /// Kills what is in pause's. Blocks.
    pub(super) fn end(&self) -> Result<(), Error> {
        cgroup::kill(&self.pause).map_err(Error::io("cannot end what is in", self.pause.as_ref()))
    }

    /// Removes pause's, and the scope with all that is left in it. Gone already is no error.
    /// Blocks.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let remove = |path: &str| {
            cgroup::remove(path).map_err(Error::io("cannot remove cgroup", path.as_ref()))
        };
        remove(&self.pause)?;
        let Some(scope) = &self.scope else { return Ok(()) };
        let of = |doing: &'static str| Error::io(doing, self.within.as_ref());
        cgroup::kill(&self.within).map_err(of("cannot end what is in"))?;
        // The unit first: systemd would go on believing in a scope whose cgroup others remove.
        if systemd::is_here() {
            scope.stop().map_err(of("cannot remove cgroup"))?;
        }
        remove(&self.within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_has_its_drivers_form() {
        let systemd = |text| Driver::Systemd.parent(text);
        let cgroupfs = |text| Driver::Cgroupfs.parent(text);
        assert_eq!(cgroupfs("/kubepods/pod1/").unwrap(), "/kubepods/pod1");
        assert_eq!(systemd("system.slice").unwrap(), "system.slice");
        // As kubelets give it.
        let path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        assert_eq!(systemd(path).unwrap(), "kubepods-burstable-pod1.slice");
        for driver in [Driver::Cgroupfs, Driver::Systemd] {
            assert_eq!(driver.parent(driver.default_parent()).unwrap(), driver.default_parent());
        }
        for (refused, why) in [
            (cgroupfs("kubepods.slice"), "cgroupDriver: cgroupfs"),
            (cgroupfs(path), "cgroup_driver = \"systemd\""),
            (cgroupfs("kubepods"), "it must start with /"),
            (cgroupfs("/"), "a segment is empty"),
            (systemd("/kubepods/pod1"), "cgroupDriver: systemd"),
            (systemd("/kubepods/pod1"), "cgroup_driver = \"cgroupfs\""),
            (systemd("x.scope"), "is no slice"),
            (systemd("/"), "is no slice"),
        ] {
            let refused = refused.unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
