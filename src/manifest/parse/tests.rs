use proptest::prelude::*;

use super::*;
use crate::health::Heal;
use crate::health::RestartPolicy;
use crate::manifest::Facts;
use crate::oci::model::{PidMode, Profile, SelinuxOptions};

const EXAM: &str = include_str!("../../../integration/pods/liveness-exam.yaml");
const FAST: &str = include_str!("../../../integration/pods/liveness-exam-fast.yaml");
const WEB: &str = include_str!("../../../integration/pods/web.yaml");
const TCP: &str = include_str!("../../../integration/pods/tcp.yaml");
const TYPO: &str = include_str!("../../../integration/pods/mistakes/typo.yaml");

#[test]
fn the_liveness_exam_is_read_whole() {
    let plan = parse(EXAM).unwrap().pods.remove(0);
    assert_eq!(plan.sandbox.name, "liveness-exam");
    let name = &plan.containers[0].config.name;
    let probe = plan.health.probes[name].liveness.as_ref().unwrap();
    assert_eq!(probe.handler.to_string(), "exec [ls /tmp/healthy]");
    assert_eq!((probe.initial_delay.as_secs(), probe.period.as_secs()), (10, 5));
    assert_eq!(probe.failure_threshold, 2);
    assert_eq!(plan.health.restart, RestartPolicy::Always);
    assert_eq!(plan.health.heal, Heal::Restart);
    for other in [FAST, WEB, TCP] {
        assert_eq!(parse(other).unwrap().pods.len(), 1);
    }
}

#[test]
fn the_typo_is_told_with_what_was_meant() {
    let errors = parse(TYPO).unwrap_err().to_string();
    assert_eq!(
        errors,
        "11:5: spec.containers[0]: unknown field \"livenessProve\", did you mean \"livenessProbe\"?"
    );
}

fn mistakes(spec: &str) -> String {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
    parse(&text).unwrap_err().to_string()
}

#[test]
fn every_mistake_is_named_by_its_path() {
    for (spec, needle) in [
        ("{}", "spec.containers: has 0 containers"),
        ("{containers: {}}", "spec.containers: a list is wanted"),
        ("{containers: [{name: a}]}", "spec.containers[0]: field \"image\" is missing"),
        ("{containers: [{name: A_b, image: x}]}", "spec.containers[0].name"),
        ("{containers: [{name: a, image: x}, {name: a, image: x}]}", "\"a\" is there twice"),
        (
            "{containers: [{name: a, image: x, imagePullPolicy: always}]}",
            "did you mean \"Always\"?",
        ),
        (
            "{containers: [{name: a, image: x, command: sh}]}",
            "spec.containers[0].command: a list is wanted",
        ),
        (
            "{containers: [{name: a, image: x, args: [1]}]}",
            "spec.containers[0].args[0]: a string is wanted",
        ),
        (
            "{containers: [{name: a, image: x, env: [{name: A=B}]}]}",
            "spec.containers[0].env[0].name",
        ),
        (
            "{containers: [{name: a, image: x, env: [{name: A, valueFrom: {}}]}]}",
            "exactly one of fieldRef",
        ),
        (
            "{containers: [{name: a, image: x, ports: [{}]}]}",
            "spec.containers[0].ports[0]: field \"containerPort\"",
        ),
        (
            "{containers: [{name: a, image: x, ports: [{containerPort: 99999}]}]}",
            "ports[0].containerPort: is 99999",
        ),
        (
            "{containers: [{name: a, image: x, ports: [{containerPort: 1, hostPort: 2}, {containerPort: 3, hostPort: 2}]}]}",
            "host port 2 is there twice",
        ),
        (
            "{containers: [{name: a, image: x, resources: {limits: {cpu: lots}}}]}",
            "resources.limits.cpu: \"lots\" is no quantity",
        ),
        (
            "{containers: [{name: a, image: x, resources: {limits: {cpu: 1}, requests: {cpu: 2}}}]}",
            "resources.requests.cpu: is more",
        ),
        (
            "{containers: [{name: a, image: x, livenessProbe: {}}]}",
            "spec.containers[0].livenessProbe: exactly one",
        ),
        (
            "{containers: [{name: a, image: x}], nodeSelector: {}}",
            "spec: field \"nodeSelector\" is not supported yet",
        ),
        (
            "{containers: [{name: a, image: x}], dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}}",
            "spec.dnsConfig.nameservers: has 4: 3 are allowed",
        ),
        (
            "{containers: [{name: a, image: x}], restartpolicy: Never}",
            "did you mean \"restartPolicy\"?",
        ),
        (
            "{containers: [{name: a, image: x}], restartPolicy: Sometimes}",
            "spec.restartPolicy: is \"Sometimes\"",
        ),
    ] {
        let errors = mistakes(spec);
        assert!(errors.contains(needle), "{spec}\n{errors}");
    }
    for (volume, needle) in [
        (
            "projected: {sources: [{serviceAccountToken: {path: token}}]}",
            "sources[0]: field \"serviceAccountToken\" is not supported yet",
        ),
        ("projected: {sources: [{}]}", "sources[0]: exactly one of configMap, secret, downwardAPI"),
        (
            "downwardAPI: {items: [{path: a, fieldRef: {fieldPath: status.podIP}}]}",
            "items[0].fieldRef.fieldPath: is \"status.podIP\"",
        ),
        (
            "downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.uid}}, {path: a, fieldRef: {fieldPath: metadata.name}}]}",
            "the file a is there twice",
        ),
        (
            "downwardAPI: {items: [{path: a, resourceFieldRef: {containerName: b, resource: limits.cpu}}]}",
            "\"b\" is no container of the pod; there are: a",
        ),
        (
            "downwardAPI: {items: [{path: ../a, fieldRef: {fieldPath: metadata.uid}}]}",
            "a relative path without .. is wanted",
        ),
    ] {
        let errors = mistakes(&format!(
            "{{containers: [{{name: a, image: x}}], volumes: [{{name: v, {volume}}}]}}"
        ));
        assert!(errors.contains(needle), "{volume}\n{errors}");
    }
    let several = mistakes("{containers: [{name: a}], hostNetwork: 7}");
    assert_eq!(several.lines().count(), 2, "{several}");
}

const CLUSTERS: &str = include_str!("../../../integration/pods/from-a-cluster.yaml");

#[test]
fn what_a_cluster_adds_is_passed_over() {
    let Manifest { pods, warnings } = parse(CLUSTERS).unwrap();
    let [plan] = &pods[..] else { panic!("{pods:?}") };
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.starts_with("pod \"pod\": volume \"kube-api-access-7xk2p\""), "{warning}");
    let volumes: Vec<&str> = plan.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(volumes, ["scratch"]);
    let mounts: Vec<&str> =
        plan.containers[0].mounts.iter().map(|mount| mount.volume.as_str()).collect();
    assert_eq!(mounts, ["scratch"]);
    // Nothing of it is kept, so that what is printed later isn't another's.
    let kept = plan.document.to_string();
    for passed_over in ["worker-2", "resourceVersion", "ReplicaSet", "kube-api-access", "0f9e8d7c"]
    {
        assert!(!kept.contains(passed_over), "{passed_over}: {kept}");
    }
    assert!(plan.document.get("status").is_none());
}

#[test]
fn what_would_be_another_pod_here_is_a_mistake() {
    for (field, needle) in [
        ("serviceAccountName: web", "is \"web\": default is allowed"),
        ("schedulerName: mine", "is \"mine\": default-scheduler is allowed"),
        ("os: {name: windows}", "spec.os.name: is \"windows\": linux is allowed"),
        ("nodeSelector: {disk: ssd}", "field \"nodeSelector\" is not supported yet"),
        ("runtimeClassName: kata", "field \"runtimeClassName\" is not supported yet"),
    ] {
        let errors = mistakes(&format!("{{containers: [{{name: a, image: x}}], {field}}}"));
        assert!(errors.contains(needle), "{field}\n{errors}");
    }
    let errors = mistakes(
        "{containers: [{name: a, image: x, terminationMessagePolicy: FallbackToLogsOnError}]}",
    );
    assert!(
        errors.contains("terminationMessagePolicy: is \"FallbackToLogsOnError\": File is"),
        "{errors}"
    );
}

#[test]
fn the_items_of_a_list_are_documents() {
    let pod = |name: &str, more: &str| {
        format!(
            "- {{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: x{more}}}]}}}}\n"
        )
    };
    let list = |items: &str| format!("apiVersion: v1\nkind: List\nitems:\n{items}");
    let two = list(&(pod("a", "") + &pod("b", "")));
    let pods = parse(&two).unwrap().pods;
    assert_eq!(pods.iter().map(|plan| plan.sandbox.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let wrong = list(&(pod("a", "") + &pod("b", ", oops: 1")));
    let told = parse(&wrong).unwrap_err().to_string();
    assert!(told.starts_with("5:") && told.contains(": items[1].spec.containers[0]: "), "{told}");
    let beside = format!("{two}---\n{wrong}");
    let told = parse(&beside).unwrap_err().to_string();
    assert!(told.contains("document[1].items[1].spec.containers[0]: "), "{told}");
    let told = parse("kind: List\nitems: 7\n").unwrap_err().to_string();
    assert!(told.contains("items: a list is wanted"), "{told}");
    assert!(parse("kind: List\nitems: []\n").unwrap_err().to_string().contains("no Pod in it"));
}

#[test]
fn what_is_no_pod_is_told_from_one() {
    for (text, needle) in [
        ("", "no Pod"),
        ("---\n---\n", "no Pod"),
        ("[]", "an object is wanted"),
        (
            "kind: Deployment\napiVersion: apps/v1",
            "kind: is \"Deployment\": Pod, ConfigMap, Secret are allowed",
        ),
        (
            "kind: Pod\napiVersion: v1\nspec: {containers: [{name: a, image: x}]}",
            "metadata: field \"name\"",
        ),
        ("a: [", "line 1"),
        ("a: &a [*a, *a]", ""),
        ("a: 1\na: 2", "a"),
    ] {
        let errors = parse(text).unwrap_err().to_string();
        assert!(errors.contains(needle), "{text}: {errors}");
    }
}

#[test]
fn several_documents_are_several_pods_and_none_comes_twice() {
    let json = r#"{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "b"}, "spec": {"containers": [{"name": "a", "image": "x"}]}}"#;
    let both = format!("{WEB}\n---\n{json}\n");
    assert_eq!(parse(&both).unwrap().pods.len(), 2);
    let twice = parse(&format!("{json}\n---\n{json}\n")).unwrap_err().to_string();
    assert!(twice.contains("is there twice"), "{twice}");
}

#[test]
fn variables_are_expanded_by_those_before_them() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    image: x\n    args: [\"$(B)\", \"$(C)\", \"$$(B)\"]\n    env: [{name: A, value: \"1\"}, {name: B, value: \"$(A)2\"}]\n";
    let plan = parse(text).unwrap().pods.remove(0);
    let config = plan.containers[0].attempt(0, &Facts::default());
    assert_eq!(config.args, ["12", "$(C)", "$(B)"]);
}

#[test]
fn resources_become_cgroup_values() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: x, resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 0.25}}}]}";
    let plan = parse(text).unwrap().pods.remove(0);
    let resources = &plan.containers[0].config.resources;
    assert_eq!((resources.cpu_quota_us, resources.cpu_shares), (Some(50_000), Some(256)));
    assert_eq!(resources.memory_limit_bytes, Some(64 << 20));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z:{}\\[\\],&*\"' \n|>-]{0,200}") {
        drop(parse(&text));
    }
}

const WHOLE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, size: "7"}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
data: {token: c2VjcmV0}
stringData: {user: me}
---
apiVersion: v1
kind: Pod
metadata: {name: whole, labels: {app: web}, annotations: {note: hello}}
spec:
  restartPolicy: OnFailure
  shareProcessNamespace: true
  hostname: other
  hostAliases: [{ip: 10.0.0.1, hostnames: [db, db.example]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [10.0.0.2], searches: [example], options: [{name: ndots, value: "2"}]}
  activeDeadlineSeconds: 60
  securityContext: {runAsUser: 1000, fsGroup: 2000, supplementalGroups: [3000]}
  initContainers:
  - {name: first, image: x}
  - {name: side, image: x, restartPolicy: Always, startupProbe: {exec: {command: ["true"]}}}
  containers:
  - name: app
    image: x
    workingDir: /srv
    envFrom: [{configMapRef: {name: settings}, prefix: S_}]
    env:
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: key, key: token}}}
    - {name: GONE, valueFrom: {secretKeyRef: {name: none, key: token, optional: true}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: BOTH, value: "$(LABEL)-$(TOKEN)"}
    resources: {limits: {memory: 64Mi}}
    lifecycle: {postStart: {exec: {command: ["true"]}}, preStop: {sleep: {seconds: 1}}}
    restartPolicy: Never
    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
    securityContext:
      runAsUser: 1001
      capabilities: {drop: [ALL]}
      allowPrivilegeEscalation: false
      seccompProfile: {type: Unconfined}
    volumeMounts: [{name: scratch, mountPath: /scratch, subPath: a/b}]
  volumes:
  - {name: scratch, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
"#;

#[test]
fn a_pod_with_much_in_it_is_read_whole() {
    let plan = parse(WHOLE).unwrap().pods.remove(0);
    assert_eq!((plan.init.len(), plan.init[0].sidecar, plan.init[1].sidecar), (2, false, true));
    assert_eq!(plan.health.containers["first"].restart, Some(RestartPolicy::OnFailure));
    assert_eq!(plan.sandbox.pid, PidMode::Pod);
    assert_eq!((plan.sandbox.hostname.as_str(), plan.qos.as_str()), ("other", "Burstable"));
    assert_eq!(plan.sandbox.dns.as_ref().unwrap().options, ["ndots:2"]);
    let app = &plan.containers[0];
    let security = &app.config.security;
    assert_eq!((security.user.uid, security.no_new_privs), (Some(1001), true));
    assert_eq!(security.user.supplemental_groups, [3000, 2000]);
    assert_eq!(security.seccomp, Profile::Unconfined);
    assert!(plan.health.restarts("app", 42, false) && !plan.health.restarts("app", 1, false));
    let facts = Facts { ips: vec!["10.88.0.2".into()], ..Facts::default() };
    let config = app.attempt(3, &facts);
    let env: Vec<_> = config.env.iter().map(|env| format!("{}={}", env.name, env.value)).collect();
    let wanted = [
        "S_color=blue",
        "S_size=7",
        "LABEL=web",
        "IP=10.88.0.2",
        "TOKEN=secret",
        "MEMORY=64",
        "BOTH=web-secret",
    ];
    assert_eq!(env, wanted);
    assert_eq!((config.attempt, config.log_path.to_str()), (3, Some("app/3.log")));
}

#[test]
fn a_containers_selinux_options_stand_in_place_of_the_pods() {
    let pod = |options: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  securityContext: {{seLinuxOptions: {options}}}\n  containers:\n  - {{name: a, image: x}}\n  - name: b\n    image: x\n    securityContext: {{seLinuxOptions: {{type: b_t}}}}\n"
        );
        parse(&text).map(|mut manifest| manifest.pods.remove(0))
    };
    let plan = pod("{user: u, role: r, type: t, level: \"s0:c1,c2\"}").unwrap();
    let whole = SelinuxOptions {
        user: "u".into(),
        role: "r".into(),
        kind: "t".into(),
        level: "s0:c1,c2".into(),
    };
    assert_eq!(plan.sandbox.selinux, whole);
    let of = |at: usize| &plan.containers[at].config.security.selinux;
    assert_eq!(of(0), &whole);
    assert_eq!(of(1), &SelinuxOptions { kind: "b_t".into(), ..SelinuxOptions::default() });
    let told = pod("{type: \"a:b\", lvl: x}").unwrap_err().to_string();
    for part in
        ["seLinuxOptions.type: \"a:b\" is no part of an SELinux label", "unknown field \"lvl\""]
    {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_mistake_is_at_its_line_and_column() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    image: x\n    ports:\n    - containerPort: 99999\n  - name: b\n    imagee: x\n";
    let errors = parse(text).unwrap_err();
    let lines = errors.of_file("pod.yaml");
    let starts: Vec<&str> = lines.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(starts, ["pod.yaml:10:7", "pod.yaml:11:5", "pod.yaml:12:5"], "{lines}");
}

#[test]
fn a_word_that_older_yaml_takes_for_a_boolean_is_a_word() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: y}, spec: {containers: [{name: n, image: x, env: [{name: A, value: on}]}]}}";
    assert_eq!(parse(text).unwrap().pods[0].sandbox.name, "y");
    assert!(
        mistakes("{hostPID: yes, containers: [{name: a, image: x}]}").contains("true or false")
    );
}

#[test]
fn mistakes_of_user_namespaces_and_image_volumes_are_named_by_their_path() {
    for (spec, needle) in [
        (
            "{containers: [{name: a, image: x}], hostUsers: false, hostIPC: true}",
            "spec.hostIPC: can't be true beside hostUsers: false",
        ),
        ("{containers: [{name: a, image: x}], hostUsers: 'no'}", "spec.hostUsers: true or false"),
        (
            "{containers: [{name: a, image: x, securityContext: {runAsUser: 65536}}], hostUsers: false}",
            "securityContext.runAsUser: is 65536: whole numbers from 0 to 65535",
        ),
        (
            "{containers: [{name: a, image: x}], hostUsers: false, securityContext: {fsGroup: 70000}}",
            "spec.securityContext.fsGroup: is 70000: whole numbers from 0 to 65535",
        ),
        (
            "{containers: [{name: a, image: x}], volumes: [{name: v, image: {}}]}",
            "volumes[0].image: field \"reference\" is missing",
        ),
        (
            "{containers: [{name: a, image: x}], volumes: [{name: v, image: {reference: x, pullPolicy: never}}]}",
            "did you mean \"Never\"?",
        ),
    ] {
        let errors = mistakes(spec);
        assert!(errors.contains(needle), "{spec}\n{errors}");
    }
}

#[test]
fn of_a_wall_of_mistakes_the_first_are_told() {
    let fields: Vec<String> = (0..5000).map(|at| format!("imagee{at}: y")).collect();
    let text = mistakes(&format!("{{containers: [{{name: a, image: x, {}}}]}}", fields.join(", ")));
    assert!(text.len() < 5000, "{}", text.len());
    assert!(text.starts_with("4:41: spec.containers[0]: unknown field \"imagee0\""), "{text}");
    assert!(text.ends_with(" more mistakes"), "{text}");
    let word = "ä".repeat(9000);
    let long = mistakes(&format!("{{containers: [{{name: a, image: x}}], restartPolicy: {word}}}"));
    assert!(long.len() < 1100 && long.ends_with("ää..."), "{long}");
}
