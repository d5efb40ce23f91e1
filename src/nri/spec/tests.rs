use super::*;
use crate::nri::api::{
    KeyValue, LinuxMemory, LinuxMemoryPolicy, LinuxNamespace, LinuxNetDevice, LinuxPids,
    LinuxSeccompArg, LinuxSyscall, Mount, OptionalInt, OptionalInt64, OptionalString,
    OptionalUInt32, OptionalUInt64, PosixRlimit,
};

fn spec() -> Spec {
    serde_json::from_value(json!({
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["a"], "env": ["A=1", "B=2"],
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}]},
        "mounts": [{"destination": "/a/b", "source": "/x"}, {"destination": "/c", "source": "/x"}],
        "annotations": {"k": "1", "l": "2"},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}],
            "resources": {"memory": {"limit": 1}, "devices": [{"allow": false, "access": "rwm"}]},
            "sysctl": {"net.a": "1"},
        },
    }))
    .unwrap()
}

fn applied(by: &ContainerAdjustment) -> Value {
    serde_json::to_value(apply(spec(), by).unwrap()).unwrap()
}

fn of_linux(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
    ContainerAdjustment { linux: Some(linux), ..Default::default() }
}

#[test]
fn nothing_asked_for_changes_nothing() {
    assert_eq!(apply(spec(), &ContainerAdjustment::default()).unwrap(), spec());
    assert_eq!(apply(spec(), &of_linux(LinuxContainerAdjustment::default())).unwrap(), spec());
}

#[test]
fn entries_are_set_replaced_and_taken_away() {
    let mount = |destination: &str| Mount {
        destination: destination.into(),
        source: "/y".into(),
        r#type: "bind".into(),
        ..Default::default()
    };
    let variable = |key: &str| KeyValue { key: key.into(), value: "3".into() };
    let hook =
        Hook { path: "/h".into(), timeout: Some(OptionalInt { value: 4 }), ..Default::default() };
    let after = applied(&ContainerAdjustment {
        env: vec![variable("-A"), variable("B"), variable("C")],
        mounts: vec![mount("-/c"), mount("/a/b"), mount("/a")],
        annotations: [("-k".into(), String::new()), ("l".into(), "3".into())].into(),
        args: vec!["b".into()],
        rlimits: vec![PosixRlimit { r#type: "RLIMIT_CORE".into(), hard: 3, soft: 2 }],
        hooks: Some(super::super::api::Hooks { poststop: vec![hook], ..Default::default() }),
        ..Default::default()
    });
    assert_eq!(after["process"]["env"], json!(["B=3", "C=3"]));
    assert_eq!(after["process"]["args"], json!(["b"]));
    assert_eq!(after["process"]["rlimits"], json!([{"type": "RLIMIT_CORE", "hard": 3, "soft": 2}]));
    let destinations: Vec<_> =
        after["mounts"].as_array().unwrap().iter().map(|mount| &mount["destination"]).collect();
    // What covers another comes before it.
    assert_eq!(destinations, ["/a", "/a/b"]);
    assert_eq!(after["annotations"], json!({"l": "3"}));
    assert_eq!(after["hooks"]["poststop"][0]["path"], "/h");
    assert_eq!(after["hooks"]["poststop"][0]["timeout"], 4);
}

#[test]
fn linux_is_what_plugins_want() {
    let memory = LinuxMemory {
        limit: Some(OptionalInt64 { value: 2 }),
        swappiness: Some(OptionalUInt64 { value: 3 }),
        ..Default::default()
    };
    let resources = LinuxResources {
        memory: Some(memory),
        pids: Some(LinuxPids { limit: 4 }),
        rdt_class: Some(OptionalString { value: "gold".into() }),
        unified: [("memory.low".into(), "5".into())].into(),
        ..Default::default()
    };
    let namespace =
        |kind: &str, path: &str| LinuxNamespace { r#type: kind.into(), path: path.into() };
    let device = LinuxDevice {
        path: "/dev/x".into(),
        r#type: "u".into(),
        major: 1,
        minor: 3,
        uid: Some(OptionalUInt32 { value: 7 }),
        ..Default::default()
    };
    let argument = LinuxSeccompArg { value: 1, op: "SCMP_CMP_EQ".into(), ..Default::default() };
    let rule = LinuxSyscall {
        names: vec!["chown".into()],
        action: "SCMP_ACT_ERRNO".into(),
        errno_ret: Some(OptionalUInt32 { value: 1 }),
        args: vec![argument],
    };
    let seccomp = LinuxSeccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        architectures: vec!["SCMP_ARCH_X86_64".into()],
        syscalls: vec![rule],
        ..Default::default()
    };
    let scheduler = LinuxScheduler {
        policy: LinuxSchedulerPolicy::SchedBatch as i32,
        nice: 5,
        flags: vec![LinuxSchedulerFlag::SchedFlagKeepPolicy as i32],
        ..Default::default()
    };
    let policy = LinuxMemoryPolicy {
        mode: MpolMode::MpolBind as i32,
        nodes: "0".into(),
        flags: vec![MpolFlag::MpolFStaticNodes as i32],
    };
    let after = applied(&of_linux(LinuxContainerAdjustment {
        resources: Some(resources),
        namespaces: vec![namespace("-pid", ""), namespace("network", "/n")],
        devices: vec![device],
        sysctl: [("-net.a".into(), String::new()), ("net.b".into(), "2".into())].into(),
        seccomp_policy: Some(seccomp),
        oom_score_adj: Some(OptionalInt { value: 6 }),
        scheduler: Some(scheduler),
        memory_policy: Some(policy),
        net_devices: [("eth9".into(), LinuxNetDevice { name: "eth0".into() })].into(),
        ..Default::default()
    }));
    let linux = &after["linux"];
    assert_eq!(linux["resources"]["memory"], json!({"limit": 2, "swappiness": 3}));
    assert_eq!(linux["resources"]["pids"]["limit"], 4);
    assert_eq!(linux["resources"]["unified"], json!({"memory.low": "5"}));
    assert_eq!(linux["intelRdt"]["closID"], "gold");
    let kinds = json!([{"type": "mount"}, {"type": "network", "path": "/n"}]);
    assert_eq!(linux["namespaces"], kinds);
    assert_eq!(linux["devices"][0]["type"], "c");
    assert_eq!(linux["devices"][0]["uid"], 7);
    let rules = linux["resources"]["devices"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[1]["allow"]), (2, &json!(true)));
    assert_eq!(linux["sysctl"], json!({"net.b": "2"}));
    assert_eq!(linux["seccomp"]["defaultAction"], "SCMP_ACT_ALLOW");
    assert_eq!(linux["seccomp"]["syscalls"][0]["errnoRet"], 1);
    assert_eq!(linux["memoryPolicy"]["mode"], "MPOL_BIND");
    assert_eq!(linux["netDevices"]["eth9"]["name"], "eth0");
    assert_eq!(after["process"]["oomScoreAdj"], 6);
    assert_eq!(after["process"]["scheduler"]["policy"], "SCHED_BATCH");
}

#[test]
fn what_can_not_be_is_named() {
    let refused = |by: ContainerAdjustment| apply(spec(), &by).unwrap_err();
    let path = LinuxContainerAdjustment { cgroups_path: "/x".into(), ..Default::default() };
    assert!(refused(of_linux(path)).contains("cgroups_path"));
    let class = Some(OptionalString { value: "fast".into() });
    let resources = Some(LinuxResources { blockio_class: class, ..Default::default() });
    let class = LinuxContainerAdjustment { resources, ..Default::default() };
    assert!(refused(of_linux(class)).contains("fast"));
    let seccomp = LinuxSeccomp { default_action: "NOTHING".into(), ..Default::default() };
    let seccomp = LinuxContainerAdjustment { seccomp_policy: Some(seccomp), ..Default::default() };
    assert!(refused(of_linux(seccomp)).contains("NOTHING"));
    let scheduler = LinuxScheduler { policy: 99, ..Default::default() };
    let scheduler = LinuxContainerAdjustment { scheduler: Some(scheduler), ..Default::default() };
    assert!(refused(of_linux(scheduler)).contains("no such scheduler"));
    let env = vec![KeyValue { key: "A=B".into(), value: String::new() }];
    assert!(refused(ContainerAdjustment { env, ..Default::default() }).contains("A=B"));
}
