//! What a container may have.

use crate::health::fields::{Field, Shape};
use crate::health::schema::{EXEC, FIELDS as PROBE, HTTP_GET};

use super::{CONTAINER_SECURITY, RESTART, VOLUME_MOUNT};

pub(super) const PULL_POLICY: Shape =
    Shape::Word(&["IfNotPresent", "Always", "Never"], "IfNotPresent");
/// What a fieldRef of a variable may name.
const ENV_FIELDS: &str = "metadata.name, metadata.namespace, metadata.uid, \
    metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, \
    spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP, status.podIPs";

pub(in crate::manifest::parse) const CONTAINER: &[Field] = &[
    Field::new(
        "args",
        Shape::Texts,
        "In place of the image's arguments; $(NAME) is a variable of env.",
    ),
    Field::new(
        "command",
        Shape::Texts,
        "In place of the image's entrypoint and arguments; $(NAME) is a variable of env.",
    ),
    Field::new("env", Shape::Objects(ENV), "Variables of its environment."),
    Field::new(
        "envFrom",
        Shape::Objects(ENV_FROM),
        "All of a ConfigMap's or a Secret's as variables; those of env go over them.",
    ),
    Field::needed("image", Shape::Text(""), "Its image: a tag, a digest, or an id."),
    Field::new(
        "imagePullPolicy",
        PULL_POLICY,
        "When it is pulled; for :latest, too, one that is there is enough.",
    ),
    Field::new("lifecycle", Shape::Object(LIFECYCLE), "Hooks; of init containers, sidecars only."),
    Field::new(
        "livenessProbe",
        Shape::Object(PROBE),
        "When it fails, the container is killed and started again.",
    ),
    Field::needed("name", Shape::Text(""), "A DNS label, each in the pod another."),
    Field::new("ports", Shape::Objects(PORT), "Names for ports, and ports of the node."),
    Field::new("readinessProbe", Shape::Object(PROBE), "Whether it is ready."),
    Field::new("resizePolicy", Shape::Other("a list of objects"), "Not looked at."),
    Field::new("resources", Shape::Object(RESOURCES), "What it asks for and what it may have."),
    Field::new(
        "restartPolicy",
        Shape::Word(RESTART, "the pod's"),
        "In place of the pod's. Always makes an init container a sidecar.",
    ),
    Field::new(
        "restartPolicyRules",
        Shape::Objects(RULE),
        "Restarts by exit code, the first that fits, 20 at most; needs a restartPolicy beside it.",
    ),
    Field::new(
        "securityContext",
        Shape::Object(CONTAINER_SECURITY),
        "User, capabilities, seccomp and more; it goes over the pod's.",
    ),
    Field::new("startupProbe", Shape::Object(PROBE), "Holds the others until it has passed."),
    Field::new("stdin", Shape::Flag("false"), "Has a standard input, for attach."),
    Field::new("stdinOnce", Shape::Flag("false"), "It ends with the first that attached."),
    Field::new(
        "terminationMessagePath",
        Shape::Word(&["/dev/termination-log"], "/dev/termination-log"),
        "No message is read from it.",
    ),
    Field::new("terminationMessagePolicy", Shape::Word(&["File"], "File"), "As its path."),
    Field::new("tty", Shape::Flag("false"), "Has a terminal."),
    Field::new("volumeMounts", Shape::Objects(VOLUME_MOUNT), "Where volumes are."),
    Field::new("workingDir", Shape::Text("the image's"), "Where it starts."),
];
pub(in crate::manifest::parse) const ENV: &[Field] = &[
    Field::needed("name", Shape::Text(""), "Printable ASCII without =."),
    Field::new("value", Shape::Text(""), "$(NAME) is a variable before it, $$ a dollar sign."),
    Field::new("valueFrom", Shape::Object(VALUE_FROM), "In place of value; exactly one of these."),
];
pub(in crate::manifest::parse) const VALUE_FROM: &[Field] = &[
    Field::new("fieldRef", Shape::Object(FIELD_REF), "Something of the pod."),
    Field::new("resourceFieldRef", Shape::Object(RESOURCE_REF), "An amount of a container."),
    Field::new("configMapKeyRef", Shape::Object(KEY_REF), "A value of a ConfigMap."),
    Field::new("secretKeyRef", Shape::Object(KEY_REF), "A value of a Secret."),
];
pub(in crate::manifest::parse) const FIELD_REF: &[Field] = &[
    Field::needed("fieldPath", Shape::Other(ENV_FIELDS), "What of it."),
    Field::new("apiVersion", Shape::Text("v1"), "Not looked at."),
];
/// Of a variable, and of a volume, which belongs to no container.
pub(in crate::manifest::parse) const RESOURCE_REF: &[Field] = &[
    Field::new(
        "containerName",
        Shape::Text("the container itself"),
        "Whose; must be there in a volume.",
    ),
    Field::needed(
        "resource",
        Shape::Word(&["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"], ""),
        "Without a limit it is the node's.",
    ),
    Field::new("divisor", Shape::Quantity("1, 1m and 1Mi", "1"), "The unit; rounded up."),
];
pub(in crate::manifest::parse) const KEY_REF: &[Field] = &[
    Field::needed("name", Shape::Text(""), "One in the same file and namespace."),
    Field::needed("key", Shape::Text(""), "Which of its values."),
    OPTIONAL,
];
pub(in crate::manifest::parse) const ENV_FROM: &[Field] = &[
    Field::new("prefix", Shape::Text(""), "What every variable's name begins with."),
    Field::new("configMapRef", Shape::Object(REFERENCE), "Exactly one of the two."),
    Field::new("secretRef", Shape::Object(REFERENCE), "Exactly one of the two."),
];
pub(in crate::manifest::parse) const REFERENCE: &[Field] =
    &[Field::needed("name", Shape::Text(""), "One in the same file and namespace."), OPTIONAL];
pub(super) const OPTIONAL: Field =
    Field::new("optional", Shape::Flag("false"), "With true it need not be there.");
pub(in crate::manifest::parse) const PORT: &[Field] = &[
    Field::new("name", Shape::Text(""), "By which probes and port-forward know it."),
    Field::needed("containerPort", Shape::Number(1, 65535, None), "Where it listens."),
    Field::new("hostPort", Shape::Number(1, 65535, None), "The node's port that leads to it."),
    Field::new("hostIP", Shape::Text("all"), "The node's address for hostPort."),
    Field::new("protocol", Shape::Word(&["TCP", "UDP", "SCTP"], "TCP"), "Of hostPort."),
];
pub(in crate::manifest::parse) const RESOURCES: &[Field] = &[
    Field::new("limits", Shape::Object(AMOUNTS), "What it can't have more of."),
    Field::new("requests", Shape::Object(AMOUNTS), "What it is weighed by; at most the limit."),
];
pub(in crate::manifest::parse) const AMOUNTS: &[Field] = &[
    Field::new("cpu", Shape::Quantity("500m and 2", ""), "Cores, or thousandths of one."),
    Field::new("memory", Shape::Quantity("64Mi and 1G", ""), "Bytes; with more it is killed."),
];
pub(in crate::manifest::parse) const LIFECYCLE: &[Field] = &[
    Field::new("postStart", Shape::Object(HOOK), "After the start; if it fails it is killed."),
    Field::new("preStop", Shape::Object(HOOK), "Before the signal to stop, in the grace period."),
];
pub(in crate::manifest::parse) const HOOK: &[Field] = &[
    Field::new("exec", Shape::Object(EXEC), "Runs a command in the container."),
    Field::new("httpGet", Shape::Object(HTTP_GET), "Gets a page."),
    Field::new("sleep", Shape::Object(SLEEP), "Waits."),
];
pub(in crate::manifest::parse) const SLEEP: &[Field] =
    &[Field::needed("seconds", Shape::Number(0, i32::MAX as u64, None), "How long.")];
pub(in crate::manifest::parse) const RULE: &[Field] = &[
    Field::needed(
        "action",
        Shape::Word(&["Restart", "RestartAllContainers"], ""),
        "What is started again: it, or the whole pod from its init containers on.",
    ),
    Field::needed("exitCodes", Shape::Object(EXIT_CODES), "For which ends."),
];
pub(in crate::manifest::parse) const EXIT_CODES: &[Field] = &[
    Field::needed("operator", Shape::Word(&["In", "NotIn"], ""), "One of them, or none of them."),
    Field::needed("values", Shape::Numbers(0, 255), "1 to 255 exit codes."),
];
