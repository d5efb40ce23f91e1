//! CDI devices, described on a node whose /etc is a copy.

use super::*;

/// A description, put where a node's vendor would put it; and a file to mount.
fn describe(daemon: &Daemon) {
    let text = r#"{
        "cdiVersion": "0.6.0",
        "kind": "example.com/thing",
        "containerEdits": { "env": ["ALL=1"] },
        "devices": [
            { "name": "one", "containerEdits": {
                "env": ["ONE=1", "PATH=/opt:/bin"],
                "additionalGids": [4711],
                "deviceNodes": [{ "path": "/dev/thing", "hostPath": "/dev/null", "permissions": "rw" }],
                "mounts": [{ "hostPath": "HOSTNAME", "containerPath": "/opt/driver", "options": ["ro"] }],
                "hooks": [{ "hookName": "createRuntime", "path": "/bin/touch", "args": ["touch", "HOOKED"] }]
            } },
            { "name": "two", "containerEdits": { "env": ["TWO=1"] } },
            { "name": "bad", "containerEdits": { "deviceNodes": [{ "path": "/dev/no-such" }] } }
        ]
    }"#;
    let file = daemon.path("driver");
    std::fs::write(&file, "the driver\n").unwrap();
    let hooked = daemon.path("hooked");
    let text = text
        .replace("HOSTNAME", file.to_str().unwrap())
        .replace("HOOKED", hooked.to_str().unwrap());
    std::fs::write(daemon.path("thing.json"), text).unwrap();
    let dir = daemon.path("etc").display().to_string();
    let script = format!(
        "cp -a /etc {dir} && mkdir -p {dir}/cdi && cp {} {dir}/cdi/ && mount --bind {dir} /etc",
        daemon.path("thing.json").display()
    );
    assert!(daemon.on_node(&script).status().unwrap().success());
}

#[tokio::test]
async fn devices_by_name_bring_all_that_belongs_to_them() {
    let daemon = Daemon::start_without_network().await;
    describe(&daemon);
    let pod = daemon.run(&daemon.host_sandbox("cdi")).await;
    let mut config = Daemon::host_container("app", "exec sleep 600");
    config.cdi_devices = vec![cri::CdiDevice { name: "example.com/thing=one".into() }];
    config
        .annotations
        .insert("cdi.k8s.io/plugin_x".into(), "example.com/thing=two,example.com/thing=one".into());
    let id = daemon.run_container(&pod, config).await;
    let script = "echo $ALL $ONE $TWO $PATH; cat /opt/driver; touch /opt/driver 2>/dev/null ||
        echo read-only; test -c /dev/thing && echo x > /dev/thing && echo writes; id -G";
    let (_, seen) = daemon.exec(&id, &["/bin/sh", "-c", script]).await;
    assert_eq!(seen, "1 1 1 /opt:/bin\nthe driver\nread-only\nwrites\n0 4711\n");
    assert!(daemon.path("hooked").exists(), "the hook has run");

    for (name, needle) in [
        ("example.com/thing=three", "no description in /etc/cdi or /var/run/cdi"),
        ("example.com/thing=bad", "/dev/no-such"),
        ("thing", "vendor.com/class=device"),
    ] {
        let mut config = Daemon::host_container("bad", "true");
        config.cdi_devices = vec![cri::CdiDevice { name: name.into() }];
        let error = daemon.create(&pod, config).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(needle), "{needle}: {error}");
    }
    daemon.remove_pod(&pod).await;
    assert!(daemon.on_node("umount /etc").status().unwrap().success());
    daemon.nothing_is_left().await;
}
