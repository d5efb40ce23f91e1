//! AppArmor, where the kernel has it; and what is said where it hasn't.

use haled::proto::cri::security_profile::ProfileType;

use super::*;

/// A container that tells which profile it has, by either field.
fn profiled(name: &str, field: Option<cri::SecurityProfile>, old: &str) -> cri::ContainerConfig {
    let script = "cat /proc/self/attr/current 2>/dev/null
        mkdir /m && mount -t tmpfs none /m 2>/dev/null && echo mounted; exit 0";
    let mut config = Daemon::host_container(name, script);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.apparmor = field;
    #[allow(deprecated)]
    old.clone_into(&mut security.apparmor_profile);
    // All that keeps it from mounting is the profile.
    security.capabilities =
        Some(cri::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    config
}

fn field(kind: ProfileType, name: &str) -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() }
}

fn is_active() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// Runs it to its end and gives what it said.
async fn said(daemon: &Daemon, pod: &str, config: cri::ContainerConfig) -> String {
    let log = daemon.path("logs/apparmor").join(&config.log_path);
    let id = daemon.run_container(pod, config).await;
    assert_eq!(daemon.exited(&id).await.exit_code, 0);
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned() + "\n").collect()
}

#[tokio::test]
async fn without_apparmor_only_a_profile_of_the_node_is_refused() {
    if is_active() {
        eprintln!("skipped: AppArmor is active here");
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("apparmor")).await;
    for (at, (new, old)) in [
        (Some(field(ProfileType::RuntimeDefault, "")), ""),
        (Some(field(ProfileType::Unconfined, "")), ""),
        (None, "runtime/default"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(said(&daemon, &pod, profiled(&format!("c{at}"), new, old)).await, "mounted\n");
    }
    for (new, old) in [(Some(field(ProfileType::Localhost, "mine")), ""), (None, "localhost/mine")]
    {
        let error = daemon.create(&pod, profiled("local", new, old)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("AppArmor isn't active"), "{error}");
    }
}

#[tokio::test]
async fn the_default_profile_confines_and_others_must_be_loaded() {
    if !is_active() {
        eprintln!("skipped: AppArmor isn't active in this kernel");
        return;
    }
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("apparmor")).await;
    for (at, (new, old, expected)) in [
        (Some(field(ProfileType::RuntimeDefault, "")), "", "haled-default (enforce)\n"),
        (None, "runtime/default", "haled-default (enforce)\n"),
        (None, "", "haled-default (enforce)\n"),
        (None, "localhost/haled-default", "haled-default (enforce)\n"),
        (Some(field(ProfileType::Unconfined, "")), "", "unconfined\nmounted\n"),
        (None, "unconfined", "unconfined\nmounted\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let config = profiled(&format!("c{at}"), new, old);
        assert_eq!(said(&daemon, &pod, config).await, expected, "{}", daemon.log());
    }
    let error = daemon.create(&pod, profiled("local", None, "localhost/mine")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("\"mine\" isn't loaded"), "{error}");
}
