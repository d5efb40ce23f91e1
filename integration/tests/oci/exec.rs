//! The runtime's driver with real runc.

use std::path::Path;
use std::process::Stdio;

use haled::oci::{self, Exec};
use haled::sys::cgroup;

use super::rig::{Rig, Wanted};

fn shell(text: &str) -> Vec<String> {
    ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
}

/// Executes to the end; gives code and output.
async fn exec(
    rig: &Rig,
    process: &oci_spec::runtime::Process,
    command: &[String],
    sub_cgroup: Option<&str>,
    scratch: &Path,
) -> (Option<i32>, String) {
    let exec = Exec {
        container: &rig.id,
        command,
        process,
        console_socket: None,
        sub_cgroup,
        pid_file: &scratch.join("pid"),
    };
    let mut command = rig.runtime.exec(&exec, scratch).unwrap();
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn an_exec_has_the_containers_confinement() {
    let rig = Rig::new();
    let mut wanted = Wanted::shell("sleep 600");
    wanted.image_user = "app".to_owned();
    wanted.security.no_new_privs = true;
    wanted.security.seccomp = haled::oci::model::Profile::RuntimeDefault;
    wanted.working_dir = "/data".to_owned();
    wanted.image_env = vec!["A=of the image".to_owned()];
    let process = rig.start(&wanted);
    let scratch = tempfile::tempdir().unwrap();
    let words = shell("id -u; id -G; pwd; echo $A; cat /proc/self/status; exit 7");
    let (code, out) = exec(&rig, &process, &words, None, scratch.path()).await;
    assert_eq!(code, Some(7));
    assert!(out.starts_with("1000\n1000 50000\n/data\nof the image\n"), "{out}");
    assert!(out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t2"), "{out}");
    assert_eq!(oci::exec_failure(scratch.path()), None);
    assert!(scratch.path().join("pid").exists());
}

#[tokio::test]
async fn what_cant_be_executed_is_told_in_the_runtimes_words() {
    let rig = Rig::new();
    let process = rig.start(&Wanted::shell("sleep 600"));
    let scratch = tempfile::tempdir().unwrap();
    let missing = ["/no/such/program".to_owned()];
    let (code, _) = exec(&rig, &process, &missing, None, scratch.path()).await;
    assert_ne!(code, Some(0));
    let words = oci::exec_failure(scratch.path()).unwrap();
    assert!(words.contains("/no/such/program"), "{words}");
}

#[tokio::test]
async fn what_an_exec_leaves_behind_is_found_and_killed() {
    let rig = Rig::new();
    let process = rig.start(&Wanted::shell("sleep 600"));
    let path = rig.cgroup_path();
    let before = cgroup::processes(&path).unwrap();
    assert!(rig.runtime.takes_sub_cgroup());
    let sub = cgroup::create_sub(&path, "exec-1").unwrap();
    let scratch = tempfile::tempdir().unwrap();
    // One of its own session, one orphaned, none with this test's pipes.
    let words = shell(
        "setsid sleep 600 >/dev/null 2>&1 </dev/null & (sleep 601 >/dev/null 2>&1 </dev/null &)
         cat /proc/self/cgroup",
    );
    let (code, out) = exec(&rig, &process, &words, Some(&sub), scratch.path()).await;
    assert_eq!(code, Some(0), "{:?}", oci::exec_failure(scratch.path()));
    assert!(out.contains("exec-1"), "{out}");
    let left = cgroup::processes_sub(&path, "exec-1").unwrap();
    assert_eq!(left.len(), 2, "{left:?}");

    cgroup::kill_sub(&path, "exec-1").unwrap();
    assert_eq!(cgroup::processes_sub(&path, "exec-1").unwrap(), Vec::<i32>::new());
    cgroup::remove_sub(&path, "exec-1").unwrap();
    // The container itself runs on.
    assert_eq!(cgroup::processes(&path).unwrap(), before);
}

#[tokio::test]
async fn a_container_is_listed_and_deleted_with_all_it_runs() {
    let rig = Rig::new();
    assert_eq!(rig.runtime.list().await.unwrap(), Vec::<String>::new());
    rig.start(&Wanted::shell("sleep 600 & sleep 600"));
    assert_eq!(rig.runtime.list().await.unwrap(), std::slice::from_ref(&rig.id));
    rig.runtime.delete(&rig.id).await.unwrap();
    assert_eq!(rig.runtime.list().await.unwrap(), Vec::<String>::new());
    assert_eq!(cgroup::processes(&rig.cgroup_path()).unwrap(), Vec::<i32>::new());
    rig.runtime.delete(&rig.id).await.unwrap();
}

#[tokio::test]
async fn the_runtime_says_its_version() {
    let rig = Rig::new();
    let runtime = &rig.runtime;
    let version = runtime.version().await.unwrap();
    let name = runtime.path.file_name().unwrap().to_str().unwrap();
    assert!(version.starts_with(&format!("{name} version ")), "{version}");
}
