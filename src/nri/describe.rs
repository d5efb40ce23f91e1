//! A container's configuration in the words of plugins.

use std::collections::BTreeMap;

use oci_spec::runtime::Spec;
use serde_json::Value;

use super::api::{
    Container, Hook, Hooks, HugepageLimit, LinuxContainer, LinuxCpu, LinuxDevice,
    LinuxDeviceCgroup, LinuxMemory, LinuxNamespace, LinuxPids, LinuxRdt, LinuxResources, Mount,
    OptionalBool, OptionalFileMode, OptionalInt, OptionalInt64, OptionalString, OptionalUInt32,
    OptionalUInt64, PosixRlimit, User,
};

/// Puts into `container` what config.json says of it: by the names that the OCI runtime
/// specification has for everything. What isn't there is left out.
pub fn describe(container: &mut Container, spec: &Spec) {
    let Ok(spec) = serde_json::to_value(spec) else { return };
    let process = &spec["process"];
    container.args = texts(&process["args"]);
    container.env = texts(&process["env"]);
    container.mounts = list(&spec["mounts"], mount);
    container.hooks = spec["hooks"].is_object().then(|| hooks(&spec["hooks"]));
    container.rlimits = list(&process["rlimits"], |limit| PosixRlimit {
        r#type: text(&limit["type"]),
        hard: limit["hard"].as_u64().unwrap_or_default(),
        soft: limit["soft"].as_u64().unwrap_or_default(),
    });
    let user = &process["user"];
    container.user = Some(User {
        uid: small(&user["uid"]).unwrap_or_default(),
        gid: small(&user["gid"]).unwrap_or_default(),
        additional_gids: list(&user["additionalGids"], |id| small(id).unwrap_or_default()),
    });
    let linux = &spec["linux"];
    container.linux = Some(LinuxContainer {
        namespaces: list(&linux["namespaces"], |namespace| LinuxNamespace {
            r#type: text(&namespace["type"]),
            path: text(&namespace["path"]),
        }),
        devices: list(&linux["devices"], device),
        resources: Some(resources(&linux["resources"])),
        oom_score_adj: process["oomScoreAdj"].as_i64().map(|value| OptionalInt { value }),
        cgroups_path: text(&linux["cgroupsPath"]),
        sysctl: map(&linux["sysctl"]),
        rdt: linux["intelRdt"].is_object().then(|| LinuxRdt {
            clos_id: optional_text(&linux["intelRdt"]["closID"]),
            ..LinuxRdt::default()
        }),
        ..LinuxContainer::default()
    });
}

fn mount(mount: &Value) -> Mount {
    Mount {
        destination: text(&mount["destination"]),
        r#type: text(&mount["type"]),
        source: text(&mount["source"]),
        options: texts(&mount["options"]),
    }
}

fn hooks(hooks: &Value) -> Hooks {
    let of = |name: &str| {
        list(&hooks[name], |hook| Hook {
            path: text(&hook["path"]),
            args: texts(&hook["args"]),
            env: texts(&hook["env"]),
            timeout: hook["timeout"].as_i64().map(|value| OptionalInt { value }),
        })
    };
    Hooks {
        prestart: of("prestart"),
        create_runtime: of("createRuntime"),
        create_container: of("createContainer"),
        start_container: of("startContainer"),
        poststart: of("poststart"),
        poststop: of("poststop"),
    }
}

fn device(device: &Value) -> LinuxDevice {
    let id = |name: &str| small(&device[name]).map(|value| OptionalUInt32 { value });
    LinuxDevice {
        path: text(&device["path"]),
        r#type: text(&device["type"]),
        major: device["major"].as_i64().unwrap_or_default(),
        minor: device["minor"].as_i64().unwrap_or_default(),
        file_mode: small(&device["fileMode"]).map(|value| OptionalFileMode { value }),
        uid: id("uid"),
        gid: id("gid"),
    }
}

fn resources(from: &Value) -> LinuxResources {
    let signed = |value: &Value| value.as_i64().map(|value| OptionalInt64 { value });
    let unsigned = |value: &Value| value.as_u64().map(|value| OptionalUInt64 { value });
    let (memory, cpu) = (&from["memory"], &from["cpu"]);
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: signed(&memory["limit"]),
            reservation: signed(&memory["reservation"]),
            swap: signed(&memory["swap"]),
            kernel: signed(&memory["kernel"]),
            kernel_tcp: signed(&memory["kernelTCP"]),
            swappiness: unsigned(&memory["swappiness"]),
            disable_oom_killer: memory["disableOOMKiller"]
                .as_bool()
                .map(|value| OptionalBool { value }),
            use_hierarchy: memory["useHierarchy"].as_bool().map(|value| OptionalBool { value }),
        }),
        cpu: Some(LinuxCpu {
            shares: unsigned(&cpu["shares"]),
            quota: signed(&cpu["quota"]),
            period: unsigned(&cpu["period"]),
            realtime_runtime: signed(&cpu["realtimeRuntime"]),
            realtime_period: unsigned(&cpu["realtimePeriod"]),
            cpus: text(&cpu["cpus"]),
            mems: text(&cpu["mems"]),
        }),
        hugepage_limits: list(&from["hugepageLimits"], |limit| HugepageLimit {
            page_size: text(&limit["pageSize"]),
            limit: limit["limit"]
                .as_u64()
                .or(limit["limit"].as_i64().map(i64::cast_unsigned))
                .unwrap_or_default(),
        }),
        unified: map(&from["unified"]),
        devices: list(&from["devices"], |rule| LinuxDeviceCgroup {
            allow: rule["allow"].as_bool().unwrap_or_default(),
            r#type: text(&rule["type"]),
            major: signed(&rule["major"]),
            minor: signed(&rule["minor"]),
            access: text(&rule["access"]),
        }),
        pids: from["pids"]["limit"].as_i64().map(|limit| LinuxPids { limit }),
        ..LinuxResources::default()
    }
}

fn list<T>(value: &Value, each: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().into_iter().flatten().map(each).collect()
}

fn texts(value: &Value) -> Vec<String> {
    list(value, text)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn optional_text(value: &Value) -> Option<OptionalString> {
    value.as_str().map(|value| OptionalString { value: value.to_owned() })
}

fn small(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|value| u32::try_from(value).ok())
}

fn map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), text(value))).collect()
}
