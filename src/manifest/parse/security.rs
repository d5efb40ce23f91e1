//! securityContext of a pod and of its containers.

use std::collections::BTreeMap;

use super::objects;
use super::schema::{
    CAPABILITIES, CONTAINER_SECURITY, POD_SECURITY, SECCOMP_PROFILE, SELINUX_OPTIONS, SYSCTL,
};
use crate::health::fields::{Mistakes, Object};
use crate::manifest::OWN_IDS;
use crate::oci::model::{CapabilityRequest, Profile, Security, SelinuxOptions, UserRequest};

const POD_LATER: &[&str] = &[
    "appArmorProfile",
    "fsGroupChangePolicy",
    "seLinuxChangePolicy",
    "supplementalGroupsPolicy",
    "windowsOptions",
];
const CONTAINER_LATER: &[&str] = &["appArmorProfile", "windowsOptions"];
/// The highest uid and gid, as in Kubernetes.
const MAX_ID: u64 = i32::MAX as u64;
/// The same in a pod with users of its own: it has no others.
const MAX_OWN_ID: u64 = OWN_IDS as u64 - 1;

/// What both levels may say; a container's goes before the pod's.
#[derive(Debug, Clone, Default)]
struct Shared {
    user: Option<u32>,
    group: Option<u32>,
    non_root: Option<bool>,
    seccomp: Option<Profile>,
    /// A container's takes the place of the pod's whole.
    selinux: Option<SelinuxOptions>,
}

/// A pod's securityContext.
#[derive(Debug, Default)]
pub(super) struct PodSecurity {
    /// The highest id there is in the pod.
    most: u64,
    shared: Shared,
    groups: Vec<u32>,
    pub(super) fs_group: Option<u32>,
    pub(super) sysctls: BTreeMap<String, String>,
}

impl PodSecurity {
    /// Of the pod's own process, and of containers that say nothing else.
    pub(super) fn selinux(&self) -> SelinuxOptions {
        self.shared.selinux.clone().unwrap_or_default()
    }

    pub(super) fn read(spec: &Object<'_>, mistakes: &mut Mistakes) -> Self {
        let most = if own_users(spec) { MAX_OWN_ID } else { MAX_ID };
        let Some(object) = spec.object("securityContext", mistakes) else {
            return Self { most, ..Self::default() };
        };
        object.known(POD_SECURITY, POD_LATER, mistakes);
        let mut groups = Vec::new();
        for (path, value) in object.list("supplementalGroups", mistakes) {
            match value.as_u64().filter(|id| *id <= most) {
                Some(id) => groups.push(id as u32),
                None => mistakes.add(path, format!("is {value}: 0 to {most} are allowed")),
            }
        }
        let mut sysctls = BTreeMap::new();
        for sysctl in objects(&object, "sysctls", mistakes) {
            sysctl.known(SYSCTL, &[], mistakes);
            let name = sysctl.required("name", mistakes);
            let value = sysctl.required("value", mistakes);
            // Written with slashes or dots, as in Kubernetes.
            sysctls.extend(name.map(|name| name.replace('/', ".")).zip(value));
        }
        let fs_group = id(&object, "fsGroup", most, mistakes);
        // Files of its volumes are for its processes.
        groups.extend(fs_group);
        Self { most, shared: Shared::read(&object, most, mistakes), groups, fs_group, sysctls }
    }
}

impl Shared {
    fn read(object: &Object<'_>, most: u64, mistakes: &mut Mistakes) -> Self {
        Self {
            user: id(object, "runAsUser", most, mistakes),
            group: id(object, "runAsGroup", most, mistakes),
            non_root: object.boolean("runAsNonRoot", mistakes),
            seccomp: seccomp(object, mistakes),
            selinux: selinux(object, mistakes),
        }
    }
}

/// Whether a pod's spec asks for a user namespace. A mistake there is told where it is read.
pub(super) fn own_users(spec: &Object<'_>) -> bool {
    spec.get("hostUsers") == Some(&serde_json::Value::Bool(false))
}

/// A container's confinement, and whether it mustn't run as root.
pub(super) fn security(
    object: &Object<'_>,
    pod: &PodSecurity,
    mistakes: &mut Mistakes,
) -> (Security, bool) {
    let own = object.object("securityContext", mistakes);
    let mut security = Security::default();
    let mut shared = Shared::default();
    let mut path = object.path.clone();
    if let Some(own) = own {
        path.clone_from(&own.path);
        own.known(CONTAINER_SECURITY, CONTAINER_LATER, mistakes);
        shared = Shared::read(&own, pod.most, mistakes);
        let flag = |name, mistakes: &mut Mistakes| own.boolean(name, mistakes);
        security.privileged = flag("privileged", mistakes).unwrap_or(false);
        security.readonly_rootfs = flag("readOnlyRootFilesystem", mistakes).unwrap_or(false);
        security.capabilities = capabilities(&own, mistakes);
        let escalation = flag("allowPrivilegeEscalation", mistakes);
        security.no_new_privs = escalation == Some(false);
        let all_powers = security.privileged
            || security
                .capabilities
                .add
                .iter()
                .any(|name| name.trim_start_matches("CAP_").eq_ignore_ascii_case("SYS_ADMIN"));
        if security.no_new_privs && all_powers {
            let what = "can't be false for a container that is privileged or has SYS_ADMIN";
            mistakes.add(own.at("allowPrivilegeEscalation"), what);
        }
        own.word(CONTAINER_SECURITY, "procMount", mistakes);
    }
    let user = shared.user.or(pod.shared.user);
    let non_root = shared.non_root.or(pod.shared.non_root).unwrap_or(false);
    if non_root && user == Some(0) {
        mistakes.add(path, "runAsNonRoot is true and runAsUser is 0: it can't be both");
    }
    security.user = UserRequest {
        uid: user,
        gid: shared.group.or(pod.shared.group),
        name: None,
        supplemental_groups: pod.groups.clone(),
        strict_groups: false,
    };
    // haled's default for a pod nobody else looks after, as a kubelet with SeccompDefault has it.
    let seccomp = shared.seccomp.or_else(|| pod.shared.seccomp.clone());
    security.seccomp = seccomp.unwrap_or(Profile::RuntimeDefault);
    security.selinux = shared.selinux.or_else(|| pod.shared.selinux.clone()).unwrap_or_default();
    (security, non_root)
}

fn id(object: &Object<'_>, field: &str, most: u64, mistakes: &mut Mistakes) -> Option<u32> {
    object.integer(field, 0..=most, mistakes).map(|id| id as u32)
}

fn capabilities(object: &Object<'_>, mistakes: &mut Mistakes) -> CapabilityRequest {
    let Some(capabilities) = object.object("capabilities", mistakes) else {
        return CapabilityRequest::default();
    };
    capabilities.known(CAPABILITIES, &[], mistakes);
    CapabilityRequest {
        add: capabilities.strings("add", mistakes),
        drop: capabilities.strings("drop", mistakes),
        ambient: Vec::new(),
    }
}

/// Which parts a label can have is said by the room that makes it.
fn selinux(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<SelinuxOptions> {
    let options = object.object("seLinuxOptions", mistakes)?;
    options.known(SELINUX_OPTIONS, &[], mistakes);
    let mut part = |name: &str| {
        let part = options.string(name, mistakes).unwrap_or_default();
        if !SelinuxOptions::can_have(name, &part) {
            mistakes.add(options.at(name), format!("{part:?} is no part of an SELinux label"));
        }
        part
    };
    Some(SelinuxOptions {
        user: part("user"),
        role: part("role"),
        kind: part("type"),
        level: part("level"),
    })
}

fn seccomp(object: &Object<'_>, mistakes: &mut Mistakes) -> Option<Profile> {
    let profile = object.object("seccompProfile", mistakes)?;
    profile.known(SECCOMP_PROFILE, &[], mistakes);
    profile.required("type", mistakes)?;
    let kind = profile.word(SECCOMP_PROFILE, "type", mistakes)?;
    let local = profile.string("localhostProfile", mistakes);
    match (kind, local) {
        ("Localhost", Some(path))
            if !path.is_empty() && !path.split('/').any(|part| part == "..") =>
        {
            Some(Profile::Localhost(path))
        }
        ("Localhost", _) => {
            let what =
                "Localhost needs the path of a profile below runtime.seccomp_dir, without ..";
            mistakes.add(profile.at("localhostProfile"), what);
            None
        }
        (_, Some(_)) => {
            mistakes.add(profile.at("localhostProfile"), "is only for type Localhost");
            None
        }
        ("Unconfined", None) => Some(Profile::Unconfined),
        _ => Some(Profile::RuntimeDefault),
    }
}
