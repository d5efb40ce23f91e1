//! What a volume and a volumeMount may have.

use crate::health::fields::{Field, Shape};

use super::RESOURCE_REF;
use super::container::{OPTIONAL, PULL_POLICY};

/// What a fieldRef of a volume may name.
const VOLUME_FIELDS: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels, \
    metadata.labels['KEY'], metadata.annotations, metadata.annotations['KEY']";
const MODE: Field = Field::new(
    "mode",
    Shape::Number(0, 0o777, None),
    "Its permissions in place of defaultMode: 0o400 in YAML is 256 in JSON.",
);
const DEFAULT_MODE: Field = Field::new(
    "defaultMode",
    Shape::Number(0, 0o777, Some(0o644)),
    "The files' permissions: 0o644 in YAML is 420 in JSON.",
);
const ITEMS: Field =
    Field::new("items", Shape::Objects(ITEM), "Which keys; without it all, each by its name.");
const FIELD_ITEMS: Field = Field::new("items", Shape::Objects(FIELD_ITEM), "A file each.");

pub(in crate::manifest::parse) const VOLUME: &[Field] = &[
    Field::needed("name", Shape::Text(""), "A DNS label, each in the pod another."),
    Field::new(
        "emptyDir",
        Shape::Object(EMPTY_DIR),
        "A directory that begins empty and goes with the pod. Exactly one of these, as of all \
         that follow.",
    ),
    Field::new("hostPath", Shape::Object(HOST_PATH), "A file or directory of the node."),
    Field::new("configMap", Shape::Object(CONFIG_FILES), "A ConfigMap's values as files."),
    Field::new("secret", Shape::Object(SECRET_FILES), "A Secret's values as files in memory."),
    Field::new("downwardAPI", Shape::Object(OWN_FILES), "What the pod is, as files."),
    Field::new("projected", Shape::Object(PROJECTED), "Several of these in one directory."),
    Field::new(
        "image",
        Shape::Object(IMAGE),
        "The files of an image, read-only, pulled before the pod starts.",
    ),
];
pub(in crate::manifest::parse) const EMPTY_DIR: &[Field] = &[
    Field::new("medium", Shape::Word(&["", "Memory"], ""), "Memory is a tmpfs, else a disk."),
    Field::new(
        "sizeLimit",
        Shape::Quantity("64Mi and 1G", ""),
        "A tmpfs holds no more; on disk a pod that exceeds it is evicted, looked at every 10 s.",
    ),
];
pub(in crate::manifest::parse) const HOST_PATH: &[Field] = &[
    Field::needed("path", Shape::Text(""), "Absolute and without .."),
    Field::new(
        "type",
        Shape::Word(
            &[
                "",
                "DirectoryOrCreate",
                "Directory",
                "FileOrCreate",
                "File",
                "Socket",
                "CharDevice",
                "BlockDevice",
            ],
            "",
        ),
        "What must be there, or is made; without it nothing is looked at.",
    ),
];
pub(in crate::manifest::parse) const CONFIG_FILES: &[Field] = &[
    Field::needed("name", Shape::Text(""), "One in the same file and namespace."),
    ITEMS,
    DEFAULT_MODE,
    OPTIONAL,
];
pub(in crate::manifest::parse) const SECRET_FILES: &[Field] = &[
    Field::needed("secretName", Shape::Text(""), "One in the same file and namespace."),
    ITEMS,
    DEFAULT_MODE,
    OPTIONAL,
];
pub(in crate::manifest::parse) const OWN_FILES: &[Field] = &[FIELD_ITEMS, DEFAULT_MODE];
pub(in crate::manifest::parse) const ITEM: &[Field] = &[
    Field::needed("key", Shape::Text(""), "Which of its values."),
    Field::needed("path", Shape::Text(""), "Where it is: relative and without .."),
    MODE,
];
pub(in crate::manifest::parse) const FIELD_ITEM: &[Field] = &[
    Field::needed("path", Shape::Text(""), "Where it is: relative and without .."),
    MODE,
    Field::new(
        "fieldRef",
        Shape::Object(VOLUME_FIELD_REF),
        "Something of the pod; exactly one of the two.",
    ),
    Field::new(
        "resourceFieldRef",
        Shape::Object(RESOURCE_REF),
        "An amount of a container; exactly one of the two.",
    ),
];
pub(in crate::manifest::parse) const VOLUME_FIELD_REF: &[Field] = &[
    Field::needed("fieldPath", Shape::Other(VOLUME_FIELDS), "What of it."),
    Field::new("apiVersion", Shape::Text("v1"), "Not looked at."),
];
pub(in crate::manifest::parse) const PROJECTED: &[Field] =
    &[Field::new("sources", Shape::Objects(SOURCE), "Each of them one of these."), DEFAULT_MODE];
pub(in crate::manifest::parse) const SOURCE: &[Field] = &[
    Field::new("configMap", Shape::Object(SOURCE_KEYS), "A ConfigMap's values."),
    Field::new("secret", Shape::Object(SOURCE_KEYS), "A Secret's values."),
    Field::new("downwardAPI", Shape::Object(SOURCE_FIELDS), "What the pod is."),
];
pub(in crate::manifest::parse) const SOURCE_KEYS: &[Field] = &[
    Field::needed("name", Shape::Text(""), "One in the same file and namespace."),
    ITEMS,
    OPTIONAL,
];
pub(in crate::manifest::parse) const SOURCE_FIELDS: &[Field] = &[FIELD_ITEMS];
pub(in crate::manifest::parse) const IMAGE: &[Field] = &[
    Field::needed("reference", Shape::Text(""), "A tag or a digest."),
    Field::new("pullPolicy", PULL_POLICY, "When it is pulled."),
];
pub(in crate::manifest::parse) const VOLUME_MOUNT: &[Field] = &[
    Field::needed("name", Shape::Text(""), "Of a volume of the pod."),
    Field::needed("mountPath", Shape::Text(""), "Where it is, each in the container another."),
    Field::new("subPath", Shape::Text(""), "What of the volume: relative and without .."),
    Field::new(
        "subPathExpr",
        Shape::Text(""),
        "In place of subPath; $(NAME) is a variable of env.",
    ),
    Field::new("readOnly", Shape::Flag("false"), "The container can't write there."),
    Field::new(
        "recursiveReadOnly",
        Shape::Word(&["Disabled", "IfPossible", "Enabled"], "Disabled"),
        "What is mounted below it is read-only, too; needs readOnly.",
    ),
    Field::new(
        "mountPropagation",
        Shape::Word(&["None", "HostToContainer", "Bidirectional"], "None"),
        "Who sees what is mounted later: nobody, the container, or the node as well, which needs \
         privileged.",
    ),
];
