//! Images mounted as volumes.

use super::*;

fn with_image(name: &str, sub_path: &str, script: &str) -> cri::ContainerConfig {
    let mut config = Daemon::container(name, script);
    config.mounts = vec![image(BUSYBOX, sub_path)];
    config
}

fn image(name: &str, sub_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: "/volume".into(),
        readonly: true,
        image: Some(cri::ImageSpec { image: name.into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_image_is_mounted_and_kept_while_it_is_used() {
    let mut daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("images")).await;
    let id = daemon.run_container(&pod, with_image("all", "", "exec sleep 600")).await;
    let script = "/volume/bin/busybox echo runs; touch /volume/x 2>&1 | grep -o Read-only";
    assert_eq!(daemon.exec(&id, &["sh", "-c", script]).await.1, "runs\nRead-only\n");
    let part = daemon.run_container(&pod, with_image("part", "bin", "exec sleep 600")).await;
    assert_eq!(daemon.exec(&part, &["/volume/busybox", "echo", "part"]).await.1, "part\n");

    let status = daemon.status(&part).await;
    let mount = &status.mounts[0];
    let told = mount.image.as_ref().unwrap();
    assert_eq!((told.image.as_str(), mount.image_sub_path.as_str()), (BUSYBOX, "bin"));
    assert_eq!(told.image_ref, status.image_id);
    assert!(mount.host_path.is_empty(), "{mount:?}");

    // RemoveImage leaves what is in use, over a restart too.
    let request = cri::RemoveImageRequest {
        image: Some(cri::ImageSpec { image: BUSYBOX.into(), ..Default::default() }),
    };
    daemon.images().await.remove_image(request).await.unwrap();
    daemon.kill();
    daemon.launch().await;
    assert_eq!(daemon.exec(&part, &["/volume/busybox", "echo", "still"]).await.1, "still\n");

    daemon.stop_pod(&pod).await;
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
    let left = std::fs::read_dir(daemon.path("root/images/layers")).unwrap().count();
    assert_eq!(left, 0, "nothing needs the layers any more");
}

#[tokio::test]
async fn an_image_in_a_user_namespace_is_its_roots() {
    let daemon = Daemon::start().await;
    open_the_way(&daemon);
    let pod = daemon.run(&sandbox(&daemon, "images", own_users())).await;
    let mut config = container("app", "exec sleep 600");
    config.mounts = vec![image(BUSYBOX, "")];
    let id = daemon.run_container(&pod, config).await;
    let (_, seen) =
        daemon.exec(&id, &["busybox", "stat", "-c", "%u", "/volume", "/volume/bin/busybox"]).await;
    assert_eq!(seen, "0\n0\n");
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}

#[tokio::test]
async fn an_image_volume_that_cannot_be_is_refused_by_name() {
    let daemon = Daemon::start_without_network().await;
    let pod = daemon.run(&daemon.host_sandbox("images")).await;
    for (mount, code, needle) in [
        (image("example.com/none:1", ""), Code::NotFound, "example.com/none:1"),
        (image(BUSYBOX, "no/such"), Code::InvalidArgument, "no/such"),
        (image(BUSYBOX, "../bin"), Code::InvalidArgument, "../bin"),
        (image(BUSYBOX, "/bin"), Code::InvalidArgument, "relative"),
        (
            cri::Mount { host_path: "/etc".into(), ..image(BUSYBOX, "") },
            Code::InvalidArgument,
            "not both",
        ),
        (
            cri::Mount { readonly: false, ..image(BUSYBOX, "") },
            Code::InvalidArgument,
            "only be mounted with readonly",
        ),
        (cri::Mount { image: None, ..image("", "bin") }, Code::InvalidArgument, "needs an image"),
    ] {
        let mut config = Daemon::host_container("app", "true");
        config.mounts = vec![mount];
        let error = daemon.create(&pod, config).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(needle), "{needle}: {error}");
    }
    daemon.remove_pod(&pod).await;
    daemon.nothing_is_left().await;
}
