//! What a manifest's Pod may have, for the parser and for `halectl explain`. What is described
//! in words alone has its fields where it is read, and in docs/guide.md.

use crate::health::fields::{Field, Shape};
use crate::health::schema::{EXEC, FIELDS as PROBE, HTTP_GET};

/// The largest time, in seconds.
const MOST_SECONDS: u64 = u32::MAX as u64;
const GUIDE: &str = "see docs/guide.md for its fields";

/// What can be explained.
pub const EXPLAINED: &[Field] = &[
    Field::new("pod", Shape::Object(POD), "A Pod of Kubernetes v1, as haled takes it."),
    Field::new(
        "probe",
        Shape::Object(PROBE),
        "A startup, liveness or readiness probe, in a manifest or in an annotation \
         startup.haled/CONTAINER, liveness.haled/CONTAINER, readiness.haled/CONTAINER.",
    ),
];
pub(super) const POD: &[Field] = &[
    Field::new("apiVersion", Shape::Needed, "v1."),
    Field::new("kind", Shape::Needed, "Pod."),
    Field::new("metadata", Shape::Object(METADATA), "What it goes by."),
    Field::new("spec", Shape::Object(SPEC), "What runs; must be there."),
];
pub(super) const METADATA: &[Field] = &[
    Field::new("name", Shape::Needed, "The pod's name: a DNS subdomain."),
    Field::new("namespace", Shape::Text("default"), "Where the name is unique: a DNS label."),
    Field::new("labels", Shape::Map, "What selectors look at."),
    Field::new("annotations", Shape::Map, "For programs, haled's own among them."),
    // In all that kubectl writes; a null one is as good as none.
    Field::new("creationTimestamp", Shape::Other("a time"), "Not looked at."),
];
pub(super) const SPEC: &[Field] = &[
    Field::new(
        "activeDeadlineSeconds",
        Shape::Number(1, MOST_SECONDS, None),
        "The pod has failed when it has run for so long.",
    ),
    Field::new("containers", Shape::Objects(CONTAINER), "What runs side by side; at least one."),
    Field::new("dnsConfig", Shape::Other(GUIDE), "What is added to resolv.conf."),
    Field::new(
        "dnsPolicy",
        Shape::Word(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
        "Whose resolv.conf it has: None is dnsConfig's alone, all others are the node's.",
    ),
    Field::new("hostAliases", Shape::Other(GUIDE), "Lines of /etc/hosts."),
    Field::new("hostIPC", Shape::Flag, "The node's IPC namespace."),
    Field::new("hostNetwork", Shape::Flag, "The node's network."),
    Field::new("hostPID", Shape::Flag, "The node's processes are seen."),
    Field::new(
        "hostUsers",
        Shape::Other("true or false; default true"),
        "With false the pod has users of its own: its root is nobody on the node.",
    ),
    Field::new("hostname", Shape::Text("the pod's name"), "A DNS label."),
    Field::new(
        "initContainers",
        Shape::Objects(CONTAINER),
        "Run before the containers, one after the other, each to its end; one with \
         restartPolicy Always is a sidecar and stays.",
    ),
    Field::new(
        "restartPolicy",
        Shape::Word(&["Always", "OnFailure", "Never"]),
        "When a container that has ended is started again.",
    ),
    Field::new("securityContext", Shape::Other(GUIDE), "Users, groups, seccomp, sysctls of all."),
    Field::new("shareProcessNamespace", Shape::Flag, "The containers see each other's processes."),
    Field::new(
        "terminationGracePeriodSeconds",
        Shape::Number(0, MOST_SECONDS, Some(30)),
        "From the signal to stop to the kill.",
    ),
    Field::new("volumes", Shape::Other(GUIDE), "What volumeMounts mount."),
];
pub(super) const CONTAINER: &[Field] = &[
    Field::new("args", Shape::Texts, "In place of the image's arguments."),
    Field::new("command", Shape::Texts, "In place of the image's entrypoint."),
    Field::new("env", Shape::Other(GUIDE), "Variables of its environment."),
    Field::new("envFrom", Shape::Other(GUIDE), "All of a ConfigMap's or a Secret's as variables."),
    Field::new("image", Shape::Needed, "Its image: a tag, a digest, or an id."),
    Field::new(
        "imagePullPolicy",
        Shape::Text("IfNotPresent"),
        "IfNotPresent, Always or Never; for :latest, too, one that is there is enough.",
    ),
    Field::new("lifecycle", Shape::Object(LIFECYCLE), "Hooks; of init containers, sidecars only."),
    Field::new(
        "livenessProbe",
        Shape::Object(PROBE),
        "When it fails, the container is killed and started again.",
    ),
    Field::new("name", Shape::Needed, "A DNS label, each in the pod another."),
    Field::new("ports", Shape::Objects(PORT), "Names for ports, and ports of the node."),
    Field::new("readinessProbe", Shape::Object(PROBE), "Whether it is ready."),
    Field::new("resources", Shape::Object(RESOURCES), "What it asks for and what it may have."),
    Field::new(
        "restartPolicy",
        Shape::Word(&["Always", "OnFailure", "Never"]),
        "In place of the pod's; without it the pod's holds.",
    ),
    Field::new("restartPolicyRules", Shape::Other(GUIDE), "Restarts by exit code."),
    Field::new("securityContext", Shape::Other(GUIDE), "User, capabilities, seccomp and more."),
    Field::new("startupProbe", Shape::Object(PROBE), "Holds the others until it has passed."),
    Field::new("stdin", Shape::Flag, "Has a standard input, for attach."),
    Field::new("stdinOnce", Shape::Flag, "It ends with the first that attached."),
    Field::new("tty", Shape::Flag, "Has a terminal."),
    Field::new("volumeMounts", Shape::Other(GUIDE), "Where volumes are."),
    Field::new("workingDir", Shape::Text("the image's"), "Where it starts."),
];
pub(super) const PORT: &[Field] = &[
    Field::new("name", Shape::Text(""), "By which probes and port-forward know it."),
    Field::new("containerPort", Shape::Number(1, 65535, None), "Must be there."),
    Field::new("hostPort", Shape::Number(1, 65535, None), "The node's port that leads to it."),
    Field::new("hostIP", Shape::Text("all"), "The node's address for hostPort."),
    Field::new("protocol", Shape::Word(&["TCP", "UDP", "SCTP"]), "Of hostPort."),
];
pub(super) const RESOURCES: &[Field] = &[
    Field::new("limits", Shape::Object(AMOUNTS), "What it can't have more of."),
    Field::new("requests", Shape::Object(AMOUNTS), "What it is weighed by; at most the limit."),
];
pub(super) const AMOUNTS: &[Field] = &[
    Field::new("cpu", Shape::Other("500m, 2"), "Cores, or thousandths of one."),
    Field::new("memory", Shape::Other("64Mi, 1G"), "Bytes; with more it is killed."),
];
pub(super) const LIFECYCLE: &[Field] = &[
    Field::new("postStart", Shape::Object(HOOK), "After the start; if it fails it is killed."),
    Field::new("preStop", Shape::Object(HOOK), "Before the signal to stop, in the grace period."),
];
pub(super) const HOOK: &[Field] = &[
    Field::new("exec", Shape::Object(EXEC), "Runs a command in the container."),
    Field::new("httpGet", Shape::Object(HTTP_GET), "Gets a page."),
    Field::new("sleep", Shape::Object(SLEEP), "Waits."),
];
pub(super) const SLEEP: &[Field] =
    &[Field::new("seconds", Shape::Number(0, i32::MAX as u64, None), "Must be there.")];
