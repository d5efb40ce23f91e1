//! What the documents of a manifest may have: the one table that the parser goes by and that
//! `halectl explain` shows. `every_field` compares it with what the parser does.

mod container;
mod security;
mod volumes;

use crate::health::fields::{Field, Shape};
use crate::health::schema::FIELDS as PROBE;

pub(super) use container::*;
pub(super) use security::*;
pub(super) use volumes::*;

/// The largest time, in seconds.
const MOST_SECONDS: u64 = u32::MAX as u64;

/// What can be explained.
pub const EXPLAINED: &[Field] = &[
    Field::new("pod", Shape::Object(POD), "A Pod of Kubernetes v1, as haled takes it."),
    Field::new(
        "probe",
        Shape::Object(PROBE),
        "A startup, liveness or readiness probe, in a manifest or in an annotation \
         startup.haled/CONTAINER, liveness.haled/CONTAINER, readiness.haled/CONTAINER.",
    ),
    Field::new(
        "configmap",
        Shape::Object(CONFIG_MAP),
        "Texts and files for the pods of the same file: as variables, and in volumes.",
    ),
    Field::new(
        "secret",
        Shape::Object(SECRET),
        "As a ConfigMap; its files are only in memory, and root alone can read haled's database.",
    ),
];
pub(super) const POD: &[Field] = &[
    API_VERSION,
    Field::needed("kind", Shape::Text(""), "Pod."),
    Field::needed("metadata", Shape::Object(METADATA), "What it goes by."),
    Field::needed("spec", Shape::Object(SPEC), "What runs."),
];
pub(super) const CONFIG_MAP: &[Field] = &[
    API_VERSION,
    Field::needed("kind", Shape::Text(""), "ConfigMap."),
    Field::needed("metadata", Shape::Object(METADATA), "What it goes by."),
    IMMUTABLE,
    Field::new("data", Shape::Map, "Texts by key."),
    Field::new("binaryData", Shape::Map, "Files by key, in base64."),
];
pub(super) const SECRET: &[Field] = &[
    API_VERSION,
    Field::needed("kind", Shape::Text(""), "Secret."),
    Field::needed("metadata", Shape::Object(METADATA), "What it goes by."),
    IMMUTABLE,
    Field::new("type", Shape::Text("Opaque"), "Not looked at."),
    Field::new("data", Shape::Map, "Values by key, in base64."),
    Field::new("stringData", Shape::Map, "Values by key, as text; they go over data."),
];
const API_VERSION: Field = Field::needed("apiVersion", Shape::Text(""), "v1.");
const IMMUTABLE: Field = Field::new("immutable", Shape::Flag("false"), "Not looked at.");
pub(super) const METADATA: &[Field] = &[
    Field::needed("name", Shape::Text(""), "A DNS subdomain."),
    Field::new("namespace", Shape::Text("default"), "Where the name is unique: a DNS label."),
    Field::new("labels", Shape::Map, "A pod's: what selectors look at."),
    Field::new("annotations", Shape::Map, "A pod's: for programs, haled's own among them."),
    // In all that kubectl writes; a null one is as good as none.
    Field::new("creationTimestamp", Shape::Other("a time"), "Not looked at."),
];
pub(super) const SPEC: &[Field] = &[
    Field::new(
        "activeDeadlineSeconds",
        Shape::Number(1, MOST_SECONDS, None),
        "The pod has failed when it has run for so long.",
    ),
    Field::new("automountServiceAccountToken", Shape::Flag("true"), "Not looked at."),
    Field::needed("containers", Shape::Objects(CONTAINER), "What runs side by side: 1 to 64."),
    Field::new("dnsConfig", Shape::Object(DNS_CONFIG), "What is added to resolv.conf."),
    Field::new(
        "dnsPolicy",
        Shape::Word(
            &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
            "ClusterFirst",
        ),
        "Whose resolv.conf it has: None is dnsConfig's alone, all others are the node's.",
    ),
    Field::new("enableServiceLinks", Shape::Flag("true"), "Not looked at."),
    Field::new("hostAliases", Shape::Objects(HOST_ALIAS), "Lines of /etc/hosts."),
    Field::new("hostIPC", Shape::Flag("false"), "The node's IPC namespace."),
    Field::new("hostNetwork", Shape::Flag("false"), "The node's network."),
    Field::new("hostPID", Shape::Flag("false"), "The node's processes are seen."),
    Field::new(
        "hostUsers",
        Shape::Flag("true"),
        "With false the pod has users of its own: its root is nobody on the node, and ids end at \
         65535.",
    ),
    Field::new("hostname", Shape::Text("the pod's name"), "A DNS label."),
    Field::new(
        "initContainers",
        Shape::Objects(CONTAINER),
        "Run before the containers, one after the other, each to its end; one with \
         restartPolicy Always is a sidecar and stays.",
    ),
    Field::new("os", Shape::Object(OS), "What the pod is made for."),
    Field::new(
        "preemptionPolicy",
        Shape::Word(&["PreemptLowerPriority", "Never"], "PreemptLowerPriority"),
        "Not looked at.",
    ),
    Field::new("priority", Shape::Other("a whole number"), "Not looked at."),
    Field::new("priorityClassName", Shape::Text(""), "Not looked at."),
    Field::new(
        "restartPolicy",
        Shape::Word(RESTART, "Always"),
        "When a container that has ended is started again.",
    ),
    Field::new(
        "schedulerName",
        Shape::Word(&["default-scheduler"], "default-scheduler"),
        "There is one node, and nothing to choose.",
    ),
    Field::new(
        "securityContext",
        Shape::Object(POD_SECURITY),
        "Users, groups, seccomp and sysctls of all; what a container says itself goes over it.",
    ),
    Field::new("serviceAccount", SERVICE_ACCOUNT, "The same as serviceAccountName."),
    Field::new("serviceAccountName", SERVICE_ACCOUNT, "There is no API server, and no token."),
    Field::new(
        "shareProcessNamespace",
        Shape::Flag("false"),
        "The containers see each other's processes.",
    ),
    Field::new(
        "terminationGracePeriodSeconds",
        Shape::Number(0, MOST_SECONDS, Some(30)),
        "From the signal to stop to the kill.",
    ),
    Field::new("tolerations", Shape::Other("a list of objects"), "Not looked at."),
    Field::new("volumes", Shape::Objects(VOLUME), "What volumeMounts mount."),
];
const SERVICE_ACCOUNT: Shape = Shape::Word(&["default"], "default");
pub(super) const OS: &[Field] =
    &[Field::needed("name", Shape::Word(&["linux"], ""), "An operating system.")];
/// Of pods and of containers.
const RESTART: &[&str] = &["Always", "OnFailure", "Never"];
pub(super) const DNS_CONFIG: &[Field] = &[
    Field::new(
        "nameservers",
        Shape::Texts,
        "IP addresses, 3 at most; dnsPolicy None needs one, else they come after the node's.",
    ),
    Field::new(
        "searches",
        Shape::Texts,
        "Domains, 32 at most and 2048 characters in all; after the node's.",
    ),
    Field::new("options", Shape::Objects(DNS_OPTION), "They go over the node's."),
];
pub(super) const DNS_OPTION: &[Field] = &[
    Field::needed("name", Shape::Text(""), "As in resolv.conf(5): ndots."),
    Field::new("value", Shape::Text(""), "What stands after the colon."),
];
pub(super) const HOST_ALIAS: &[Field] = &[
    Field::needed("ip", Shape::Text(""), "An IP address."),
    Field::needed("hostnames", Shape::Texts, "Its names, in lower case."),
];
