//! What is set for each runtime handler.

use haled::proto::cri;

use crate::daemon::Daemon;

/// A privileged container of a pod with that handler.
async fn privileged(daemon: &Daemon, handler: &str) -> (String, String) {
    let mut config = daemon.host_sandbox(handler);
    config.annotations.insert("example.com/told".into(), "pod".into());
    config.annotations.insert("example.com/both".into(), "pod".into());
    config.annotations.insert("example.org/kept".into(), "pod".into());
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let request =
        cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
    let response = daemon.runtime().await.run_pod_sandbox(request).await;
    let pod = response.unwrap_or_else(|error| panic!("{error}\n{}", daemon.log()));
    let pod = pod.into_inner().pod_sandbox_id;
    let mut config = Daemon::host_container("app", "exec sleep 600");
    config.annotations.insert("example.com/both".into(), "own".into());
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let null = |path: &str| cri::Device {
        host_path: "/dev/null".into(),
        container_path: path.into(),
        permissions: "rwm".into(),
    };
    config.devices.push(null("/dev/asked"));
    let id = daemon.run_container(&pod, config).await;
    (pod, id)
}

fn annotation(daemon: &Daemon, pod: &str, id: &str, key: &str) -> Option<String> {
    let config = format!("state/pods/{pod}/containers/{id}/config.json");
    let config = std::fs::read_to_string(daemon.path(&config)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["annotations"][key].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_handlers_settings_are_its_own() {
    let roots = tempfile::tempdir().unwrap();
    let root = roots.path().join("own");
    let settings = format!(
        "[runtime.handlers.bare]\npath = \"runc\"\nargs = [\"--debug\"]\nroot = \"{}\"\n\
         privileged_without_host_devices = true\npod_annotations = [\"example.com/*\"]\n\
         [runtime.handlers.open]\npath = \"runc\"\nprivileged_without_host_devices = true\n\
         privileged_without_host_devices_all_devices_allowed = true\n",
        root.display()
    );
    let mut daemon = Daemon::start_with(&settings).await;
    // /dev/kmsg is none that every container has.
    let sees = ["test", "-e", "/dev/kmsg"];
    let makes = "mknod /tmp/kmsg c 1 11 && head -c 0 /tmp/kmsg";
    let makes = ["/bin/busybox", "sh", "-c", &makes.replace("mknod", "/bin/busybox mknod")];
    let asked = ["sh", "-c", "echo x > /dev/asked"];

    let (pod, usual) = privileged(&daemon, "runc").await;
    assert_eq!(daemon.exec(&usual, &sees).await.0, 0);
    assert_eq!(annotation(&daemon, &pod, &usual, "example.com/told"), None);
    let (_, open) = privileged(&daemon, "open").await;
    assert_ne!(daemon.exec(&open, &sees).await.0, 0);
    assert_eq!(daemon.exec(&open, &makes).await.0, 0);
    let (pod, bare) = privileged(&daemon, "bare").await;
    assert_ne!(daemon.exec(&bare, &sees).await.0, 0);
    assert_ne!(daemon.exec(&bare, &makes).await.0, 0);
    assert_eq!(daemon.exec(&bare, &asked).await.0, 0);
    let told = |key: &str| annotation(&daemon, &pod, &bare, key);
    assert_eq!(told("example.com/told").as_deref(), Some("pod"));
    assert_eq!(told("example.com/both").as_deref(), Some("own"));
    assert_eq!(told("example.org/kept"), None);

    // Its state is where it was set to be, and found there again.
    assert!(root.join(&bare).is_dir());
    daemon.kill();
    daemon.launch().await;
    assert_eq!(daemon.exec(&bare, &asked).await.0, 0);
    daemon.stop(&bare, 0).await;
    assert!(!root.join(&bare).exists());
}
