//! Whole configurations, and the parts that need a whole one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::oci::model::{
    CapabilityRequest, EnvVar, Mount, Profile, Propagation, Resources, UserRequest,
};
use crate::oci::{ImageDefaults, Labels, Namespaces, SandboxFile};

/// What a container is made of, owned.
#[derive(Default)]
struct Case {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    image_env: Vec<String>,
    image_dir: String,
    image_user: String,
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<EnvVar>,
    working_dir: String,
    tty: bool,
    hostname: String,
    mounts: Vec<Mount>,
    security: Security,
    resources: Resources,
    namespaces: Namespaces,
    sandbox_files: Vec<SandboxFile>,
    cgroup: Option<String>,
    annotations: BTreeMap<String, String>,
    selinux: Option<Labels>,
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&each| each.to_owned()).collect()
}

/// A machine that is the same everywhere.
fn machine() -> Host {
    Host {
        cgroup_v2: true,
        swap_limit: true,
        huge_pages: vec!["2MB".to_owned()],
        capabilities: caps::all().into_iter().collect(),
        oom_score_adj: 0,
        lower_oom_score_adj: false,
        apparmor: None,
        thermal_throttle: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned()],
        rdt_classes: None,
        mountinfo: "27 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n".to_owned(),
    }
}

/// A pod's container as the kubelet sends it.
fn typical() -> Case {
    Case {
        entrypoint: strings(&["/bin/app"]),
        cmd: strings(&["--serve"]),
        image_env: strings(&["LANG=C", "PATH=/app/bin:/bin"]),
        image_dir: "/srv".to_owned(),
        env: vec![EnvVar { name: "LANG".to_owned(), value: "de_DE".to_owned() }],
        hostname: "web-0".to_owned(),
        security: Security { seccomp: Profile::RuntimeDefault, ..Default::default() },
        namespaces: Namespaces {
            network: Some("/run/ns/net".into()),
            ipc: Some("/run/ns/ipc".into()),
            uts: Some("/run/ns/uts".into()),
            pid: PidNamespace::New,
            user: None,
        },
        sandbox_files: ["hosts", "resolv.conf", "hostname"]
            .iter()
            .map(|name| SandboxFile {
                host_path: format!("/run/pod/{name}").into(),
                container_path: format!("/etc/{name}").into(),
                readonly: false,
            })
            .chain([SandboxFile {
                host_path: "/run/pod/shm".into(),
                container_path: "/dev/shm".into(),
                readonly: false,
            }])
            .collect(),
        ..Default::default()
    }
}

fn build_case(case: &Case, host: &Host) -> Result<Spec, Error> {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/\napp:x:1000:1000::/:/\n")
        .unwrap();
    std::fs::write(root.path().join("etc/group"), "root:x:0:\nextra:x:2000:app\n").unwrap();
    build_on(
        &Input {
            rootfs: root.path(),
            image: ImageDefaults {
                entrypoint: &case.entrypoint,
                cmd: &case.cmd,
                env: &case.image_env,
                working_dir: &case.image_dir,
                user: &case.image_user,
            },
            command: &case.command,
            args: &case.args,
            env: &case.env,
            working_dir: &case.working_dir,
            tty: case.tty,
            hostname: &case.hostname,
            mounts: &case.mounts,
            devices: &[],
            cdi_devices: &[],
            blockio_config: None,
            privileged_devices: crate::oci::PrivilegedDevices::All,
            security: &case.security,
            selinux: case.selinux.as_ref(),
            resources: &case.resources,
            namespaces: &case.namespaces,
            sandbox_files: &case.sandbox_files,
            cgroup_path: case.cgroup.as_deref().unwrap_or("/kubepods/pod1/c1"),
            annotations: &case.annotations,
        },
        host,
    )
}

/// The configuration as JSON that is the same every time: sets sorted, the random root and
/// the machine's own devices named, the long seccomp rules counted.
fn shown(case: &Case, host: &Host) -> String {
    let mut json = serde_json::to_value(build_case(case, host).unwrap()).unwrap();
    json["root"]["path"] = "[rootfs]".into();
    if let Some(sets) = json["process"]["capabilities"].as_object_mut() {
        for set in sets.values_mut() {
            let mut names: Vec<String> =
                set.as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect();
            names.sort();
            *set = names.join(" ").into();
        }
    }
    let linux = json["linux"].as_object_mut().unwrap();
    if let Some(rules) = linux.get_mut("seccomp").and_then(|seccomp| seccomp.get_mut("syscalls")) {
        *rules = format!("[{} rules]", rules.as_array().unwrap().len()).into();
    }
    if linux["devices"].as_array().is_some_and(|list| !list.is_empty()) {
        linux["devices"] = "[the machine's]".into();
    }
    serde_json::to_string_pretty(&json).unwrap()
}

#[test]
fn a_typical_container() {
    insta::assert_snapshot!(shown(&typical(), &machine()));
}

#[test]
fn a_privileged_container() {
    let case = Case {
        security: Security {
            privileged: true,
            seccomp: Profile::RuntimeDefault,
            ..Default::default()
        },
        ..typical()
    };
    insta::assert_snapshot!(shown(&case, &machine()));
}

#[test]
fn a_container_on_the_hosts_namespaces_of_a_v1_machine() {
    let namespaces = Namespaces { pid: PidNamespace::Host, ..Default::default() };
    let case = Case { namespaces, tty: true, ..typical() };
    insta::assert_snapshot!(shown(&case, &Host { cgroup_v2: false, ..machine() }));
}

#[test]
fn a_restricted_container_with_limits() {
    let case = Case {
        security: Security {
            capabilities: CapabilityRequest {
                add: strings(&["net_bind_service"]),
                drop: strings(&["ALL"]),
                ambient: strings(&["NET_BIND_SERVICE"]),
            },
            user: UserRequest {
                uid: Some(1000),
                supplemental_groups: vec![3000],
                ..Default::default()
            },
            readonly_rootfs: true,
            no_new_privs: true,
            seccomp: Profile::RuntimeDefault,
            ..Default::default()
        },
        resources: Resources {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            cpuset_cpus: "0-1".to_owned(),
            memory_limit_bytes: Some(64 << 20),
            pids_limit: Some(100),
            oom_score_adj: -997,
            hugepage_limits: [("2MB".to_owned(), 0)].into(),
            unified: [("memory.high".to_owned(), "60000000".to_owned())].into(),
            ..Default::default()
        },
        annotations: [("io.kubernetes.pod".to_owned(), "web".to_owned())].into(),
        ..typical()
    };
    insta::assert_snapshot!(shown(&case, &machine()));
}

#[test]
fn a_container_with_volumes() {
    let mount = |inside: &str, readonly, recursive_readonly, propagation| Mount {
        container_path: inside.into(),
        host_path: "/etc".into(),
        readonly,
        recursive_readonly,
        propagation,
        ..Mount::default()
    };
    let case = Case {
        mounts: vec![
            mount("/data/inner/deep", true, true, Propagation::Private),
            mount("/data", false, false, Propagation::Bidirectional),
            mount("/data/inner", true, false, Propagation::HostToContainer),
            mount("/etc/hosts", true, false, Propagation::Private),
            mount("/dev/shm/../mqueue", false, false, Propagation::Private),
        ],
        ..typical()
    };
    insta::assert_snapshot!(shown(&case, &machine()));
}

#[test]
fn command_and_args_go_before_the_image_as_the_cri_has_it() {
    let run = |command: &[&str], args: &[&str], entrypoint: &[&str], cmd: &[&str]| {
        let case = Case {
            command: strings(command),
            args: strings(args),
            entrypoint: strings(entrypoint),
            cmd: strings(cmd),
            ..typical()
        };
        build_case(&case, &machine())
            .map(|spec| spec.process().as_ref().unwrap().args().as_ref().unwrap().join(" "))
    };
    assert_eq!(run(&[], &[], &["e"], &["c"]).unwrap(), "e c");
    assert_eq!(run(&["x"], &[], &["e"], &["c"]).unwrap(), "x");
    assert_eq!(run(&[], &["a"], &["e"], &["c"]).unwrap(), "e a");
    assert_eq!(run(&["x"], &["a"], &["e"], &["c"]).unwrap(), "x a");
    assert_eq!(run(&[], &[], &[], &["c"]).unwrap(), "c");
    assert!(matches!(run(&[], &[], &[], &[]), Err(Error::NoCommand)));
    assert!(run(&[""], &[], &[], &[]).unwrap_err().is_bad_request());
}

#[test]
fn a_mount_of_dev_comes_with_what_is_in_it() {
    let dev = Mount { container_path: "/dev".into(), host_path: "/dev".into(), ..Mount::default() };
    let spec = build_case(&Case { mounts: vec![dev], ..typical() }, &machine()).unwrap();
    let below: Vec<String> = spec
        .mounts()
        .iter()
        .flatten()
        .filter(|mount| mount.destination().starts_with("/dev"))
        .map(|mount| mount.destination().display().to_string())
        .collect();
    assert_eq!(below, ["/dev", "/dev/shm"]);
}

#[test]
fn apparmor_is_named_only_where_the_kernel_has_it() {
    let named = |profile: Option<Profile>, loaded: Option<&[&str]>| {
        let security = Security { apparmor: profile, ..Default::default() };
        let apparmor = loaded.map(|names| strings(names).into_iter().collect());
        apparmor_of(&security, &Host { apparmor, ..machine() })
    };
    let local = || Some(Profile::Localhost("mine".to_owned()));
    assert_eq!(named(None, None).unwrap(), None);
    assert_eq!(named(Some(Profile::RuntimeDefault), Some(&[])).unwrap(), None);
    let loaded = named(None, Some(&["haled-default"])).unwrap();
    assert_eq!(loaded.as_deref(), Some("haled-default"));
    assert_eq!(named(local(), Some(&["mine"])).unwrap().as_deref(), Some("mine"));
    assert!(named(local(), None).unwrap_err().to_string().contains("isn't active"));
    assert!(named(local(), Some(&[])).unwrap_err().to_string().contains("isn't loaded"));
    let free = named(Some(Profile::Unconfined), Some(&["haled-default"])).unwrap();
    assert_eq!(free.as_deref(), Some("unconfined"));
}

fn apparmor_of(security: &Security, host: &Host) -> Result<Option<String>, Error> {
    super::apparmor::profile(security, host)
}

#[test]
fn hostile_input_is_refused_with_its_name() {
    let text = |case: Case| {
        let error = build_case(&case, &machine()).unwrap_err();
        assert!(error.is_bad_request(), "{error}");
        error.to_string()
    };
    let var = |name: &str, value: &str| EnvVar { name: name.into(), value: value.into() };
    let cases: Vec<(&str, Case)> = vec![
        ("args[1]", Case { command: strings(&["a", "b\0c"]), ..typical() }),
        ("args[0]", Case { command: vec!["x".repeat(200_000)], ..typical() }),
        ("env[0]", Case { env: vec![var("", "x")], ..typical() }),
        ("env[0]", Case { env: vec![var("A=B", "x")], ..typical() }),
        ("env[0]", Case { env: vec![var("A\0", "x")], ..typical() }),
        ("env[0] (A)", Case { env: vec![var("A", "x\0")], ..typical() }),
        ("image env[0]", Case { image_env: strings(&["NOVALUE"]), ..typical() }),
        ("working_dir", Case { working_dir: "relative".into(), ..typical() }),
        ("working_dir", Case { working_dir: "/a\0b".into(), ..typical() }),
        ("hostname", Case { hostname: "a".repeat(65), ..typical() }),
        ("cgroup_path", Case { cgroup: Some("relative".into()), ..typical() }),
        ("cgroup_path", Case { cgroup: Some("/a/../../b".into()), ..typical() }),
        ("annotations", Case { annotations: [(String::new(), String::new())].into(), ..typical() }),
        ("masked_paths[0]", {
            let masked_paths = Some(strings(&["proc"]));
            Case { security: Security { masked_paths, ..Default::default() }, ..typical() }
        }),
        ("namespaces.network", {
            let network = Some("net".into());
            Case { namespaces: Namespaces { network, ..Default::default() }, ..typical() }
        }),
    ];
    for (name, case) in cases {
        let said = text(case);
        assert!(said.starts_with(name), "{name}: {said}");
        assert!(said.len() < 300, "{said}");
    }
}

proptest! {
    /// Against a map: for each name the last value, containers over images, once.
    #[test]
    fn the_environment_is_merged(
        image in proptest::collection::vec(("[A-D]", "[a-z=]{0,3}"), 0..8),
        own in proptest::collection::vec(("[A-D]", "[a-z=]{0,3}"), 0..8),
    ) {
        let case = Case {
            image_env: image.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            env: own
                .iter()
                .map(|(name, value)| EnvVar { name: name.clone(), value: value.clone() })
                .collect(),
            ..typical()
        };
        let spec = build_case(&case, &machine()).unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        let merged: BTreeMap<&str, &str> = env.iter().map(|v| v.split_once('=').unwrap()).collect();
        prop_assert_eq!(merged.len(), env.len());
        let mut expected: BTreeMap<&str, &str> = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOSTNAME", "web-0"),
        ]
        .into();
        expected.extend(image.iter().chain(&own).map(|(name, value)| (name.as_str(), value.as_str())));
        prop_assert_eq!(merged, expected);
    }
}

#[test]
fn labels_are_the_processes_and_the_mounts() {
    let mount = "system_u:object_r:container_file_t:s0:c1,c2".to_owned();
    let process = "system_u:system_r:container_t:s0:c1,c2".to_owned();
    let labels = Labels { process: Some(process.clone()), mount: mount.clone() };
    let labelled = |labels| Case { selinux: labels, ..typical() };
    let spec = build_case(&labelled(Some(labels)), &machine()).unwrap();
    let of_process = |spec: &Spec| spec.process().as_ref().unwrap().selinux_label().clone();
    let of_mounts = |spec: &Spec| spec.linux().as_ref().unwrap().mount_label().clone();
    assert_eq!((of_process(&spec), of_mounts(&spec)), (Some(process), Some(mount.clone())));
    // A privileged container's.
    let labels = Labels { process: None, mount: mount.clone() };
    let spec = build_case(&labelled(Some(labels)), &machine()).unwrap();
    assert_eq!((of_process(&spec), of_mounts(&spec)), (None, Some(mount)));
    let spec = build_case(&labelled(None), &machine()).unwrap();
    assert_eq!((of_process(&spec), of_mounts(&spec)), (None, None));
}
