//! What plugins want, put into a container's configuration: pure, but for the host's devices.
//!
//! It is done by the names that the OCI runtime specification has, and read back: what comes
//! out is a configuration, or an error that names what of it a plugin has got wrong.

use std::collections::BTreeMap;

use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};

use super::api::{
    ContainerAdjustment, Hook, IoPrioClass, LinuxContainerAdjustment, LinuxDevice, LinuxRdt,
    LinuxResources, LinuxScheduler, LinuxSchedulerFlag, LinuxSchedulerPolicy, LinuxSeccomp,
    MpolFlag, MpolMode,
};
use super::wishes::marked;

/// Changes a configuration as plugins want it, all but CDI devices, whose descriptions are not
/// NRI's. An error: what can't be done, or isn't there in the specification.
pub fn apply(spec: Spec, by: &ContainerAdjustment) -> Result<Spec, String> {
    let mut json = serde_json::to_value(spec).map_err(|error| error.to_string())?;
    map(&mut json["annotations"], &by.annotations, |value| json!(value));
    named(&mut json["mounts"], "destination", &by.mounts, |m| {
        (
            &m.destination,
            json!({
                "destination": m.destination, "type": m.r#type, "source": m.source, "options": m.options,
            }),
        )
    });
    // A mount covers what is mounted below it before.
    if let Some(mounts) = json["mounts"].as_array_mut().filter(|_| !by.mounts.is_empty()) {
        let depth = |path: &str| path.split('/').filter(|part| !part.is_empty()).count();
        mounts.sort_by_key(|mount| depth(mount["destination"].as_str().unwrap_or_default()));
    }
    environment(&mut json["process"]["env"], by)?;
    if !by.args.is_empty() {
        json["process"]["args"] = json!(by.args);
    }
    if let Some(hooks) = &by.hooks {
        for (name, added) in [
            ("prestart", &hooks.prestart),
            ("createRuntime", &hooks.create_runtime),
            ("createContainer", &hooks.create_container),
            ("startContainer", &hooks.start_container),
            ("poststart", &hooks.poststart),
            ("poststop", &hooks.poststop),
        ] {
            if !added.is_empty() {
                array(&mut json["hooks"][name]).extend(added.iter().map(hook));
            }
        }
    }
    named(&mut json["process"]["rlimits"], "type", &by.rlimits, |limit| {
        (&limit.r#type, json!({"type": limit.r#type, "hard": limit.hard, "soft": limit.soft}))
    });
    if let Some(by) = &by.linux {
        linux(&mut json, by)?;
    }
    tidy(&mut json);
    serde_json::from_value(json).map_err(|error| error.to_string())
}

fn environment(env: &mut Value, by: &ContainerAdjustment) -> Result<(), String> {
    for variable in &by.env {
        let key = marked(&variable.key).unwrap_or(&variable.key);
        if key.is_empty() || key.contains(['=', '\0']) || variable.value.contains('\0') {
            return Err(format!("{key:?} is no environment variable"));
        }
        let name =
            |there: &Value| there.as_str().and_then(|there| there.split('=').next()) == Some(key);
        let env = array(env);
        env.retain(|there| !name(there));
        if marked(&variable.key).is_none() {
            env.push(json!(format!("{key}={}", variable.value)));
        }
    }
    Ok(())
}

fn hook(hook: &Hook) -> Value {
    let mut json = json!({"path": hook.path, "args": hook.args, "env": hook.env});
    if let Some(timeout) = &hook.timeout {
        json["timeout"] = json!(timeout.value);
    }
    json
}

fn linux(json: &mut Value, by: &LinuxContainerAdjustment) -> Result<(), String> {
    if !by.cgroups_path.is_empty() {
        let why =
            "cgroups_path can't be changed: haled finds a container's cgroup by its pod and id";
        return Err(why.to_owned());
    }
    named(&mut json["linux"]["devices"], "path", &by.devices, |d| (&d.path, device(d)));
    for added in by.devices.iter().filter(|device| marked(&device.path).is_none()) {
        let rule = json!({"allow": true, "type": kind(&added.r#type), "major": added.major,
            "minor": added.minor, "access": "rwm"});
        array(&mut json["linux"]["resources"]["devices"]).push(rule);
    }
    if let Some(by) = &by.resources {
        resources(&mut json["linux"], by)?;
    }
    if let Some(score) = &by.oom_score_adj {
        json["process"]["oomScoreAdj"] = json!(score.value);
    }
    if let Some(priority) = &by.io_priority {
        let class = match priority.class() {
            IoPrioClass::IoprioClassNone => None,
            class => Some(class.as_str_name()),
        };
        json["process"]["ioPriority"] = class
            .map_or(Value::Null, |class| json!({"class": class, "priority": priority.priority}));
    }
    if let Some(policy) = &by.seccomp_policy {
        json["linux"]["seccomp"] = seccomp(policy);
    }
    named(&mut json["linux"]["namespaces"], "type", &by.namespaces, |namespace| {
        let mut json = json!({"type": namespace.r#type});
        if !namespace.path.is_empty() {
            json["path"] = json!(namespace.path);
        }
        (&namespace.r#type, json)
    });
    map(&mut json["linux"]["sysctl"], &by.sysctl, |value| json!(value));
    map(&mut json["linux"]["netDevices"], &by.net_devices, |to| json!({"name": to.name}));
    if let Some(by) = &by.scheduler {
        json["process"]["scheduler"] = scheduler(by)?;
    }
    if let Some(by) = &by.rdt {
        rdt(&mut json["linux"]["intelRdt"], by);
    }
    if let Some(policy) = &by.memory_policy {
        let mode = MpolMode::try_from(policy.mode).map_err(|_| "no such memory policy")?;
        let flags = policy.flags.iter().map(|flag| MpolFlag::try_from(*flag));
        let flags: Vec<_> = flags.collect::<Result<_, _>>().map_err(|_| "no such memory policy")?;
        let flags: Vec<_> = flags.iter().map(MpolFlag::as_str_name).collect();
        json["linux"]["memoryPolicy"] =
            json!({"mode": mode.as_str_name(), "nodes": policy.nodes, "flags": flags});
    }
    Ok(())
}

/// `u` is another word for `c`.
fn kind(kind: &str) -> &str {
    if kind == "u" { "c" } else { kind }
}

fn device(device: &LinuxDevice) -> Value {
    let mut json = json!({"path": device.path, "type": kind(&device.r#type),
        "major": device.major, "minor": device.minor});
    if let Some(mode) = &device.file_mode {
        json["fileMode"] = json!(mode.value);
    }
    if let Some(uid) = &device.uid {
        json["uid"] = json!(uid.value);
    }
    if let Some(gid) = &device.gid {
        json["gid"] = json!(gid.value);
    }
    json
}

fn resources(linux: &mut Value, by: &LinuxResources) -> Result<(), String> {
    if let Some(class) = by.blockio_class.as_ref().filter(|class| !class.value.is_empty()) {
        return Err(format!(
            "blockio_class \"{}\": haled takes none from plugins: name it by the pod's annotation",
            class.value
        ));
    }
    if let Some(class) = &by.rdt_class {
        linux["intelRdt"]["closID"] = json!(class.value);
    }
    let all = &mut linux["resources"];
    let mut set = |path: [&str; 2], value: Option<Value>| {
        if let Some(value) = value {
            all[path[0]][path[1]] = value;
        }
    };
    if let Some(memory) = &by.memory {
        set(["memory", "limit"], memory.limit.as_ref().map(|v| json!(v.value)));
        set(["memory", "reservation"], memory.reservation.as_ref().map(|v| json!(v.value)));
        set(["memory", "swap"], memory.swap.as_ref().map(|v| json!(v.value)));
        set(["memory", "kernel"], memory.kernel.as_ref().map(|v| json!(v.value)));
        set(["memory", "kernelTCP"], memory.kernel_tcp.as_ref().map(|v| json!(v.value)));
        set(["memory", "swappiness"], memory.swappiness.as_ref().map(|v| json!(v.value)));
        let killer = memory.disable_oom_killer.as_ref().map(|v| json!(v.value));
        set(["memory", "disableOOMKiller"], killer);
        set(["memory", "useHierarchy"], memory.use_hierarchy.as_ref().map(|v| json!(v.value)));
    }
    if let Some(cpu) = &by.cpu {
        let text = |text: &String| Some(text).filter(|text| !text.is_empty()).map(|v| json!(v));
        set(["cpu", "shares"], cpu.shares.as_ref().map(|v| json!(v.value)));
        set(["cpu", "quota"], cpu.quota.as_ref().map(|v| json!(v.value)));
        set(["cpu", "period"], cpu.period.as_ref().map(|v| json!(v.value)));
        set(["cpu", "realtimeRuntime"], cpu.realtime_runtime.as_ref().map(|v| json!(v.value)));
        set(["cpu", "realtimePeriod"], cpu.realtime_period.as_ref().map(|v| json!(v.value)));
        set(["cpu", "cpus"], text(&cpu.cpus));
        set(["cpu", "mems"], text(&cpu.mems));
    }
    set(["pids", "limit"], by.pids.as_ref().map(|pids| json!(pids.limit)));
    named(&mut all["hugepageLimits"], "pageSize", &by.hugepage_limits, |limit| {
        (&limit.page_size, json!({"pageSize": limit.page_size, "limit": limit.limit}))
    });
    map(&mut all["unified"], &by.unified, |value| json!(value));
    for rule in &by.devices {
        let mut json = json!({"allow": rule.allow, "access": rule.access});
        if !rule.r#type.is_empty() {
            json["type"] = json!(rule.r#type);
        }
        if let Some(major) = &rule.major {
            json["major"] = json!(major.value);
        }
        if let Some(minor) = &rule.minor {
            json["minor"] = json!(minor.value);
        }
        array(&mut all["devices"]).push(json);
    }
    Ok(())
}

fn seccomp(policy: &LinuxSeccomp) -> Value {
    let rule = |rule: &super::api::LinuxSyscall| {
        let argument = |argument: &super::api::LinuxSeccompArg| {
            json!({"index": argument.index, "value": argument.value,
                "valueTwo": argument.value_two, "op": argument.op})
        };
        let args: Vec<Value> = rule.args.iter().map(argument).collect();
        let mut json = json!({"names": rule.names, "action": rule.action});
        if !args.is_empty() {
            json["args"] = json!(args);
        }
        if let Some(code) = &rule.errno_ret {
            json["errnoRet"] = json!(code.value);
        }
        json
    };
    let mut json = json!({"defaultAction": policy.default_action});
    let mut put = |name: &str, value: Value| {
        let is_empty = match &value {
            Value::Array(list) => list.is_empty(),
            Value::String(text) => text.is_empty(),
            value => value.is_null(),
        };
        if !is_empty {
            json[name] = value;
        }
    };
    put("defaultErrnoRet", json!(policy.default_errno.as_ref().map(|code| code.value)));
    put("architectures", json!(policy.architectures));
    put("flags", json!(policy.flags));
    put("listenerPath", json!(policy.listener_path));
    put("listenerMetadata", json!(policy.listener_metadata));
    put("syscalls", Value::Array(policy.syscalls.iter().map(rule).collect()));
    json
}

fn scheduler(by: &LinuxScheduler) -> Result<Value, String> {
    let unknown = |_| format!("no such scheduler: {by:?}");
    let policy = LinuxSchedulerPolicy::try_from(by.policy).map_err(unknown)?;
    if policy == LinuxSchedulerPolicy::SchedNone {
        return Ok(Value::Null);
    }
    let flags = by.flags.iter().map(|flag| LinuxSchedulerFlag::try_from(*flag).map_err(unknown));
    let flags: Vec<_> = flags.collect::<Result<_, _>>()?;
    let flags: Vec<_> = flags.iter().map(LinuxSchedulerFlag::as_str_name).collect();
    Ok(json!({"policy": policy.as_str_name(), "nice": by.nice, "priority": by.priority,
        "flags": flags, "runtime": by.runtime, "deadline": by.deadline, "period": by.period}))
}

fn rdt(json: &mut Value, by: &LinuxRdt) {
    if by.remove {
        *json = Value::Null;
    }
    if let Some(class) = &by.clos_id {
        json["closID"] = json!(class.value);
    }
    if let Some(schemata) = &by.schemata {
        json["schemata"] = json!(schemata.value);
    }
    if let Some(monitoring) = &by.enable_monitoring {
        json["enableMonitoring"] = json!(monitoring.value);
    }
}

/// The list at a place, made where there is none.
fn array(place: &mut Value) -> &mut Vec<Value> {
    if !place.is_array() {
        *place = json!([]);
    }
    place.as_array_mut().expect("it has just been made one")
}

/// Sets and takes away entries of a list by the name that each has.
fn named<T>(place: &mut Value, key: &str, by: &[T], entry: impl Fn(&T) -> (&String, Value)) {
    for wanted in by {
        let (name, value) = entry(wanted);
        let list = array(place);
        let bare = marked(name).unwrap_or(name);
        list.retain(|there| there[key].as_str() != Some(bare));
        if marked(name).is_none() {
            list.push(value);
        }
    }
}

/// The same of a map.
fn map<V>(place: &mut Value, by: &BTreeMap<String, V>, value: impl Fn(&V) -> Value) {
    for (key, wanted) in by {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let all = place.as_object_mut().expect("it has just been made one");
        match marked(key) {
            Some(gone) => drop(all.remove(gone)),
            None => drop(all.insert(key.clone(), value(wanted))),
        }
    }
}

/// Takes away what looking for it has left: the specification has no nulls.
fn tidy(json: &mut Value) {
    if let Value::Object(map) = json {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(tidy);
    }
}

#[cfg(test)]
mod tests;
