//! What the securityContext of a pod and of a container may have.

use crate::health::fields::{Field, Shape};

/// Of users and groups: Kubernetes' int32.
const MOST_ID: u64 = i32::MAX as u64;
const ID: Shape = Shape::Number(0, MOST_ID, None);

// What both may say.
const USER: Field = Field::new("runAsUser", ID, "The user's number; without it the image's.");
const GROUP: Field = Field::new("runAsGroup", ID, "The group's number; without it the user's.");
const NON_ROOT: &str = "With true nothing of it is started as root.";
const SECCOMP: Field =
    Field::new("seccompProfile", Shape::Object(SECCOMP_PROFILE), "Which system calls it may make.");

const SELINUX: Field = Field::new(
    "seLinuxOptions",
    Shape::Object(SELINUX_OPTIONS),
    "Its SELinux label; without effect where SELinux isn't active.",
);

pub(in crate::manifest::parse) const POD_SECURITY: &[Field] = &[
    USER,
    GROUP,
    Field::new("runAsNonRoot", Shape::Flag("false"), NON_ROOT),
    SECCOMP,
    SELINUX,
    Field::new("fsGroup", ID, "Owns the files of its volumes, and is among its groups."),
    Field::new("supplementalGroups", Shape::Numbers(0, MOST_ID), "Groups beside the user's."),
    Field::new(
        "sysctls",
        Shape::Objects(SYSCTL),
        "Those that a pod has of its own: of its network, and of its IPC.",
    ),
];
pub(in crate::manifest::parse) const CONTAINER_SECURITY: &[Field] = &[
    USER,
    GROUP,
    Field::new("runAsNonRoot", Shape::Flag("the pod's"), NON_ROOT),
    SECCOMP,
    SELINUX,
    Field::new(
        "allowPrivilegeEscalation",
        Shape::Flag("true"),
        "With false no program gives more rights, as sudo's file would; not for one that is \
         privileged or has SYS_ADMIN.",
    ),
    Field::new("capabilities", Shape::Object(CAPABILITIES), "Parts of root's power."),
    Field::new(
        "privileged",
        Shape::Flag("false"),
        "All of root's power, and the node's devices: as good as root on the node.",
    ),
    Field::new("procMount", Shape::Word(&["Default"], "Default"), "What is hidden of /proc."),
    Field::new(
        "readOnlyRootFilesystem",
        Shape::Flag("false"),
        "With true it writes in its volumes alone.",
    ),
];
pub(in crate::manifest::parse) const SECCOMP_PROFILE: &[Field] = &[
    Field::needed(
        "type",
        Shape::Word(&["RuntimeDefault", "Unconfined", "Localhost"], ""),
        "Without a seccompProfile anywhere it is haled's own, RuntimeDefault.",
    ),
    Field::new(
        "localhostProfile",
        Shape::Text(""),
        "Of Localhost: a file below runtime.seccomp_dir.",
    ),
];
pub(in crate::manifest::parse) const SYSCTL: &[Field] = &[
    Field::needed("name", Shape::Text(""), "net.ipv4.ip_forward, or with slashes."),
    Field::needed("value", Shape::Text(""), "What is written there."),
];
pub(in crate::manifest::parse) const CAPABILITIES: &[Field] = &[
    Field::new("add", Shape::Texts, "NET_ADMIN, or ALL; beside the usual 14."),
    Field::new("drop", Shape::Texts, "MKNOD, or ALL."),
];
pub(in crate::manifest::parse) const SELINUX_OPTIONS: &[Field] = &[
    Field::new("user", Shape::Text("the policy's"), "Also of its files."),
    Field::new("role", Shape::Text("the policy's"), "Of its processes."),
    Field::new("type", Shape::Text("the policy's"), "Of its processes: container_t."),
    Field::new(
        "level",
        Shape::Text("two categories that no other pod has"),
        "Also of its files: s0:c1,c2.",
    ),
];
