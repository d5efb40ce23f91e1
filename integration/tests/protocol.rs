//! Our protocol files against the real CRI: the same messages, numbers, types and methods.
//!
//! The other side is the descriptor inside the Go module k8s.io/cri-api, at the version that
//! `integration/clients/go.mod` pins, printed by `integration/clients/describe`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use protox::prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};

const PACKAGE: &str = "runtime.v1";

#[test]
fn the_cri_is_wire_identical_to_the_real_one() {
    let Some(theirs) = real_cri() else {
        return;
    };
    let ours = our_cri();
    let mut differences = String::new();
    for line in theirs.difference(&ours) {
        writeln!(differences, "- {line}").unwrap();
    }
    for line in ours.difference(&theirs) {
        writeln!(differences, "+ {line}").unwrap();
    }
    assert!(differences.is_empty(), "the CRI has (-), proto/cri/v1 has (+):\n{differences}");
    let methods = ours.iter().filter(|line| line.starts_with("rpc ")).count();
    assert_eq!(methods, 41, "methods of the CRI at v0.36");
}

/// `None`, after saying so, where there is no Go.
fn real_cri() -> Option<BTreeSet<String>> {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/clients");
    let output = match Command::new("go").args(["run", "./describe"]).current_dir(clients).output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: go is not on the PATH, so there is no real CRI to compare with");
            return None;
        }
        Err(error) => panic!("cannot run go: {error}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "integration/clients/describe failed:\n{stderr}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

/// What `proto/cri/v1` declares, in the lines that `describe` prints.
fn our_cri() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = ["cri/v1/runtime_service.proto", "cri/v1/image_service.proto"];
    let set = protox::compile(files, [root]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let mut lines = BTreeSet::new();
    for message in pool.all_messages().filter(|m| m.package_name() == PACKAGE) {
        lines.extend(describe_message(&message));
    }
    for r#enum in pool.all_enums().filter(|e| e.package_name() == PACKAGE) {
        lines.extend(describe_enum(&r#enum));
    }
    for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
        lines.insert(format!(
            "rpc {} {} {} streams={},{}",
            method.full_name(),
            method.input().full_name(),
            method.output().full_name(),
            method.is_client_streaming(),
            method.is_server_streaming(),
        ));
    }
    lines
}

fn describe_message(message: &MessageDescriptor) -> Vec<String> {
    let head = format!("message {} map_entry={}", message.full_name(), message.is_map_entry());
    std::iter::once(head).chain(message.fields().map(|field| describe_field(&field))).collect()
}

fn describe_field(field: &FieldDescriptor) -> String {
    let cardinality = match field.cardinality() {
        Cardinality::Optional => "optional",
        Cardinality::Required => "required",
        Cardinality::Repeated => "repeated",
    };
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(r#enum) => r#enum.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let options = field.field_descriptor_proto().options.clone().unwrap_or_default();
    format!(
        "field {}.{} {} {cardinality} {kind} oneof={} presence={} packed={} deprecated={}",
        field.parent_message().full_name(),
        field.number(),
        field.name(),
        field.containing_oneof().map_or("-".to_owned(), |oneof| oneof.name().to_owned()),
        field.supports_presence(),
        field.is_packed(),
        options.deprecated(),
    )
}

fn describe_enum(r#enum: &EnumDescriptor) -> Vec<String> {
    let name = r#enum.full_name();
    r#enum.values().map(|v| format!("value {name}.{} {}", v.number(), v.name())).collect()
}
