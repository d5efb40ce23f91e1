//! halectl as a program, against a stand-in for haled on a socket of the test's own.

mod credentials;
mod images;
mod server;
mod sessions;
mod shells;
mod showing;
mod terminal;
mod unreachable;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use server::Server;

fn halectl(address: &Path, args: &[&str]) -> Command {
    // As from a terminal: jobs in the background of a script ignore the signal.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_halectl")]);
    command.env_remove("HALED_ADDRESS").arg("--address").arg(address).args(args);
    command.stdin(Stdio::null());
    command
}

/// Code, stdout, stderr.
type Ended = (Option<i32>, String, String);

fn ended(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn run(server: &Server, args: &[&str]) -> Ended {
    ended(halectl(&server.socket(), args).output().unwrap())
}

fn well(server: &Server, args: &[&str]) -> String {
    let (code, out, error) = run(server, args);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{args:?}");
    out
}

fn badly(server: &Server, args: &[&str]) -> String {
    let (code, out, error) = run(server, args);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {error}");
    error
}

#[test]
fn a_manifest_is_applied_from_a_file_and_from_stdin() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    std::fs::write(&file, "kind: Pod\n").unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        well(&server, &["apply", "-f", file]),
        "pod/a created\npod/b in namespace other replaced\npod/c unchanged\n"
    );
    let mut child = halectl(&server.socket(), &["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"from stdin").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(
        server.asked(),
        [format!("apply {file} \"kind: Pod\\n\""), "apply stdin \"from stdin\"".into()]
    );
}

#[test]
fn the_manifests_of_a_directory_are_applied() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (b, a) = (write("b.yml", "b"), write("a.yaml", "livenessProve"));
    let (c, deep) = (write("c.json", "a warning"), write("deep/er/d.yaml", "d"));
    write("README.md", "no manifest");
    write(".hidden.yaml", "hidden");
    let path = dir.path().to_str().unwrap();
    let (code, out, error) = run(&server, &["apply", "-f", path, "-R", "--dry-run"]);
    // One that is wrong keeps nothing back.
    let one = "pod/a created (dry run)\npod/b in namespace other replaced (dry run)\n\
               pod/c unchanged (dry run)\n";
    assert_eq!((code, out), (Some(1), one.repeat(3)), "{error}");
    assert!(
        error.ends_with(&format!("halectl: {c}: pod \"a\": something is left out\n")),
        "{error}"
    );
    let asked = |file: &str, text: &str| format!("apply {file} {text:?} dry");
    let wanted =
        [asked(&a, "livenessProve"), asked(&b, "b"), asked(&c, "a warning"), asked(&deep, "d")];
    assert_eq!(server.asked(), wanted);
    let empty = dir.path().join("deep");
    let empty = empty.to_str().unwrap();
    assert_eq!(
        badly(&server, &["apply", "-f", empty]),
        format!("halectl: {empty}: no .yaml, .yml or .json is in it; with -R also below it\n")
    );
    let (code, _, error) = run(&server, &["apply", "-f", "https://example.org/pod.yaml"]);
    assert_eq!(code, Some(2), "{error}");
    let remedy = "URLs aren't fetched: curl -sSfL https://example.org/pod.yaml | halectl";
    assert!(error.contains(remedy), "{error}");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn a_refused_manifest_is_told_line_by_line() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    std::fs::write(&file, "livenessProve").unwrap();
    assert_eq!(
        badly(&server, &["apply", "-f", file.to_str().unwrap()]),
        "halectl: spec.containers[0]: unknown field \"livenessProve\", did you mean \
         \"livenessProbe\"?\nhalectl: spec: the second mistake\n"
    );
    assert_eq!(
        badly(&server, &["apply", "-f", "/nowhere.yaml"]),
        "halectl: cannot read /nowhere.yaml: No such file or directory (os error 2)\n"
    );
}

#[test]
fn pods_are_listed() {
    let server = Server::start();
    let columns = |text: &str| -> Vec<Vec<String>> {
        let words = |line: &str| line.split_whitespace().take(4).map(str::to_owned).collect();
        text.lines().map(words).collect()
    };
    let table = columns(&well(&server, &["get", "pods"]));
    assert_eq!(table, [["NAME", "READY", "STATUS", "RESTARTS"], ["web", "1/2", "Running", "0"]]);
    let table = columns(&well(&server, &["get", "po", "-A"]));
    assert_eq!(table[2], ["other", "db", "1/1", "Running"]);
    let json = well(&server, &["-n", "other", "get", "pod", "db", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["metadata"]["name"], "db");

    assert_eq!(
        badly(&server, &["get", "pods", "db"]),
        "halectl: there is no pod default/db; there is one in namespace other: -n other\n"
    );
    assert_eq!(
        badly(&server, &["get", "pods", "wbe"]),
        "halectl: there is no pod default/wbe; did you mean web?\n"
    );
    let names = |args: &[&str]| well(&server, &[&["get", "pods", "-o", "name"], args].concat());
    for args in [
        &["other/db"][..],
        &["uid-db"],
        &["-A", "-l", "app=db"],
        &["-A", "-l", "app notin (web)"],
        &["-n", "other"],
    ] {
        assert_eq!(names(args), "pod/db\n", "{args:?}");
    }
    assert_eq!(names(&["other/db", "web", "default/web"]), "pod/db\npod/web\n");
    let none = run(&server, &["get", "pods", "-l", "app=db"]);
    let told = "halectl: there are no pods with these labels in namespace \"default\"\n";
    assert_eq!(none, (Some(0), String::new(), told.to_owned()));
    let (code, out, error) = run(&server, &["-n", "empty", "get", "pods"]);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert_eq!(error, "halectl: there are no pods in namespace \"empty\"\n");
}

#[test]
fn a_pod_is_described_with_its_events() {
    let server = Server::start();
    let text = well(&server, &["describe", "pod", "web"]);
    for part in ["Name:               web\n", "  side:\n", "Unhealthy", "message 1"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(server.asked(), ["events default/web"]);
    let two = well(&server, &["describe", "pods", "web", "other/db"]);
    assert!(two.contains("\n\n\nName:               db\n"), "{two}");
}

#[test]
fn logs_are_bytes_as_they_were() {
    let server = Server::start();
    let output = halectl(&server.socket(), &["logs", "web"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told, "halectl: defaulted to container \"app\" out of: app, side\n");
    assert_eq!(output.stdout, b"first \xff\nline 1\nline 2\n");
    let text = well(&server, &["logs", "--timestamps", "-p", "-c", "app", "--tail", "3", "web"]);
    assert!(text.contains("\n2023-11-14T22:13:20.000000001Z line 1\n"), "{text}");
    assert_eq!(
        server.asked(),
        [
            "logs default/web \"app\" tail None previous false since 0",
            "logs default/web \"app\" tail Some(3) previous true since 0"
        ]
    );
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let server = Server::start();
    let mut child = halectl(&server.socket(), &["logs", "-f", "web", "-c", "app"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = Vec::new();
    BufReader::new(child.stdout.take().unwrap()).read_until(b'\n', &mut first).unwrap();
    assert_eq!(first, b"first \xff\n");
    let (code, _, error) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, error.as_str()), (Some(0), ""));
}

#[test]
fn events_come_as_they_happen_until_interrupted() {
    let server = Server::start();
    let mut child = halectl(&server.socket(), &["events", "-w", "--time", "offset", "web"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("TIME "));
    assert!(lines.next().unwrap().starts_with("+0.0s "));
    let words = lines.next().unwrap();
    let words: Vec<_> = words.split_whitespace().collect();
    assert_eq!(words, ["+1.5s", "Warning", "Unhealthy", "pod/web:app", "message", "1"]);
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    // What is waited for is said where there is no such pod.
    let mut child = halectl(&server.socket(), &["events", "-w", "never"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(
        told.take(2).collect::<Vec<_>>(),
        ["halectl: there is no pod default/never", "halectl: waiting for events of that name"]
    );
    child.kill().unwrap();
    child.wait().unwrap();

    let table = well(&server, &["events"]);
    assert!(table.starts_with("LAST SEEN "), "{table}");
    assert_eq!(server.asked(), ["events /", "events /", "events default/"]);
    // Of one that is gone, and of one that never was.
    assert!(well(&server, &["events", "gone"]).contains("pod/gone"));
    let (code, _, error) = run(&server, &["events", "never"]);
    assert_eq!((code, error.as_str()), (Some(1), "halectl: there is no pod default/never\n"));
    let labelled = well(&server, &["events", "-A", "-l", "app=web"]);
    assert!(labelled.contains("pod/web") && !labelled.contains("pod/gone"), "{labelled}");
}

#[test]
fn logs_of_several_have_prefixes_and_limits() {
    let server = Server::start();
    let text = well(&server, &["logs", "-A", "-l", "app", "--all-containers", "--since", "5m"]);
    let prefixes = ["[default/web/app] ", "[default/web/side] ", "[other/db/db] "];
    assert!(prefixes.iter().all(|prefix| text.contains(prefix)), "{text}");
    assert!(!text.contains('\u{1b}'), "colour on no terminal: {text}");
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.contains(" tail Some(10) ")), "{asked:?}");
    let since: i64 = asked[0].rsplit(' ').next().unwrap().parse().unwrap();
    let now = jiff::Timestamp::now().as_nanosecond() as i64;
    let ago = std::time::Duration::from_nanos((now - since) as u64).as_secs();
    assert!((300..360).contains(&ago), "{ago}");

    well(&server, &["logs", "web", "-c", "app", "--since-time", "1970-01-01T00:00:01.000000002Z"]);
    assert!(server.asked().last().unwrap().ends_with(" since 1000000002"));
    assert_eq!(
        badly(&server, &["logs", "web", "-c", "sied"]),
        "halectl: pod default/web has no container \"sied\", did you mean \"side\"?\n"
    );
}

#[test]
fn exec_with_a_time_limit_passes_on_output_and_code() {
    let server = Server::start();
    let exec = ["exec", "web", "-c", "app", "--timeout", "0", "--", "42", "-l"];
    let output = halectl(&server.socket(), &exec).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(42), &b"out\xff\n"[..]));
    assert_eq!(output.stderr, b"err\n");
    let (code, _, error) = run(&server, &["exec", "--timeout", "3", "web", "--", "0"]);
    assert_eq!(
        (code, error.as_str()),
        (Some(0), "halectl: defaulted to container \"app\" out of: app, side\nerr\n")
    );
    assert_eq!(server.asked(), ["exec a [\"42\", \"-l\"] 0", "exec a [\"0\"] 3"]);
    assert_eq!(
        badly(&server, &["exec", "web", "-c", "side", "--", "ls"]),
        "halectl: container \"side\" of pod default/web is not running: Waiting\n"
    );
}

#[test]
fn every_pod_to_delete_is_tried() {
    let server = Server::start();
    let (code, out, error) =
        run(&server, &["delete", "pod", "missing", "web", "--grace-period", "0"]);
    assert_eq!((code, out.as_str()), (Some(1), "pod/web deleted\n"));
    assert_eq!(error, "halectl: there is no pod default/missing\n");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    std::fs::write(
        &file,
        "kind: Pod\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: b, namespace: n}",
    )
    .unwrap();
    // All at once: whichever is done first.
    let lines = |args: &[&str]| {
        let mut lines: Vec<String> = well(&server, args).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (file, db) = (file.to_str().unwrap(), "pod/db in namespace other");
    assert_eq!(lines(&["delete", "-f", file]), ["pod/a deleted", "pod/b in namespace n deleted"]);
    assert_eq!(well(&server, &["delete", "pod/missing", "--ignore-not-found"]), "");
    let both = [format!("{db} deleted"), "pod/web deleted".to_owned()];
    assert_eq!(lines(&["delete", "pods", "--all", "-A"]), both);
    assert_eq!(lines(&["delete", "pods", "-A", "-l", "app=db"]), both[..1]);
    let begun = format!("{db} is being deleted\n");
    assert_eq!(well(&server, &["delete", "pod", "other/db", "--wait=false"]), begun);
    let mut asked = server.asked();
    asked.sort();
    assert_eq!(
        asked,
        [
            "delete default/a None",
            "delete default/web None",
            "delete default/web Some(0)",
            "delete n/b None",
            "delete other/db None",
            "delete other/db None",
            "delete other/db None no wait"
        ]
    );
}

#[test]
fn pods_that_take_long_hold_up_no_others() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.json");
    let pod = |name: &str| format!(r#"{{"kind": "Pod", "metadata": {{"name": "{name}"}}}}"#);
    let items = [pod("slow"), pod("a"), pod("missing")].join(", ");
    std::fs::write(&file, format!(r#"{{"kind": "List", "items": [{items}]}}"#)).unwrap();
    let delete =
        |more: &[&str]| run(&server, &[&["delete", "-f", file.to_str().unwrap()], more].concat());
    let (code, out, error) = delete(&["--timeout", "2s"]);
    assert_eq!((code, out.as_str()), (Some(1), "pod/a deleted\n"), "{error}");
    assert_eq!(
        error,
        "halectl: there is no pod default/missing\n\
         halectl: pod/slow is not gone yet: it goes on being deleted\n"
    );
    let (code, out, error) = delete(&["--ignore-not-found", "--wait=false"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["pod/a is being deleted", "pod/slow is being deleted"]);
}

#[test]
fn an_archive_is_sent_whole_in_small_messages() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    let bytes: Vec<u8> =
        (0u32..3_500_001).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let sum = bytes.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let expected = format!("import \"x:1\" {} {sum:x} ", bytes.len());
    let printed = format!("docker.io/library/x:latest sha256:{}\n", "d".repeat(64));
    let file = file.to_str().unwrap();
    assert_eq!(well(&server, &["image", "import", "--name", "x:1", file]), printed);

    // The same through a pipe.
    let stdin = std::fs::File::open(file).unwrap();
    let mut command = halectl(&server.socket(), &["image", "import", "--name", "x:1", "-"]);
    assert_eq!(ended(command.stdin(stdin).output().unwrap()), (Some(0), printed, String::new()));
    assert_eq!(server.asked(), [expected.clone(), expected]);
}

#[test]
fn a_directory_is_sent_as_a_tar() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::write(dir.path().join("bin/sh"), "#!").unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();
    let (code, _, error) =
        run(&server, &["image", "import", "--name", "x", dir.path().to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (Some(0), "halectl: left out, being sockets: sock\n"));
    let asked = server.asked();
    assert!(asked[0].ends_with(" bin bin/sh") || asked[0].ends_with(" bin/ bin/sh"), "{asked:?}");
}

#[test]
fn an_archive_that_cannot_be_read_to_its_end_never_looks_whole() {
    let server = Server::start();
    // Files of sysfs say they have a page and give less.
    let directory = "/sys/class/net/lo/statistics";
    let error = badly(&server, &["image", "import", "--name", "x", directory]);
    assert!(error.starts_with(&format!("halectl: cannot read {directory}: ")), "{error}");
    assert!(error.ends_with("it got shorter while it was read\n"), "{error}");
    // Whether the stand-in noticed the break before it was stopped or not: it saw no end.
    assert!(server.asked().iter().all(|asked| asked == "import broke"), "{:?}", server.asked());
    assert_eq!(
        badly(&server, &["image", "import", "/nowhere.tar"]),
        "halectl: cannot read /nowhere.tar: No such file or directory (os error 2)\n"
    );
}

#[test]
fn an_import_that_is_refused_early_says_why() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(
        badly(&server, &["image", "import", "--name", "refused", file.to_str().unwrap()]),
        "halectl: \"refused\" is no good name\n"
    );
}

#[test]
fn images_are_listed_pulled_and_removed() {
    let server = Server::start();
    let table = well(&server, &["image", "ls"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    let row = [
        "docker.io/library/busybox",
        "latest",
        "<none>",
        "eeeeeeeeeeee",
        "-",
        "2.16MB",
        "default/web/app",
    ];
    assert_eq!(rows[1..], [row]);
    let id = format!("sha256:{}\n", "e".repeat(64));
    assert_eq!(well(&server, &["image", "ls", "-q"]), id);
    // No terminal, no progress.
    assert_eq!(well(&server, &["image", "pull", "busybox"]), id);
    assert_eq!(badly(&server, &["image", "pull", "nginx"]), "halectl: no registry has \"nginx\"\n");
    let (code, out, error) = run(&server, &["image", "rm", "bsybox", "used", "busybox"]);
    assert_eq!((code, out.as_str()), (Some(1), "busybox removed\n"));
    assert_eq!(
        error,
        "halectl: image \"bsybox\" is not on this node\n\
         halectl: image \"used\" is used by default/web/app\n"
    );
    well(&server, &["image", "rm", "-f", "busybox"]);
    let freed = "docker.io/library/busybox:latest removed\n2.16MB freed\n";
    assert_eq!(well(&server, &["image", "prune", "--all"]), freed);
    assert_eq!(
        server.asked(),
        [
            "rmi bsybox false",
            "rmi used false",
            "rmi busybox false",
            "rmi busybox true",
            "prune true"
        ]
    );
    assert_eq!(well(&server, &["image", "inspect", "-o", "yaml", "a"]), "- id: a\n  layers: []\n");
    let json: serde_json::Value =
        serde_json::from_str(&well(&server, &["image", "inspect", "a", "b"])).unwrap();
    assert_eq!((&json[0]["id"], &json[1]["id"]), (&"a".into(), &"b".into()));
}

#[test]
fn an_archive_has_its_name_only_when_it_is_whole() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.tar");
    let path = file.to_str().unwrap();
    let error = badly(&server, &["image", "export", "-o", path, "broken"]);
    assert_eq!(error, "halectl: the disk is gone\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(well(&server, &["image", "export", "-o", path, "busybox"]), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "archive");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(well(&server, &["image", "export", "busybox"]), "archive");
}

#[test]
fn all_versions_are_printed() {
    let server = Server::start();
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(
        well(&server, &["version"]),
        format!(
            "halectl   {own}\n\
             haled     9.9.9              CRI v1\n\
             crun      none               it is not there\n\
             runc      runc version 1.1   /usr/bin/runc, the default\n"
        )
    );
    let json: serde_json::Value =
        serde_json::from_str(&well(&server, &["version", "-o", "json"])).unwrap();
    assert_eq!(json["client"]["version"], own);
    assert_eq!(json["server"]["version"], "9.9.9");
    assert_eq!(json["runtimes"][1]["version"], "runc version 1.1");
    let nowhere = halectl(Path::new("/nowhere.sock"), &["version"]).output().unwrap();
    let (code, out, _) = ended(nowhere);
    assert_eq!((code, out), (Some(1), format!("halectl   {own}\n")));
}

#[test]
fn the_settings_are_printed_as_a_file() {
    let server = Server::start();
    let socket = server.socket();
    assert_eq!(
        well(&server, &["config"]),
        format!(
            "# halectl: the socket is {}, by --address\n\
             # haled 9.9.9: the settings in force\nroot = \"/r\"\n",
            socket.display()
        )
    );
}

#[test]
fn a_typo_is_told_with_what_was_meant() {
    let server = Server::start();
    let (code, _, error) = run(&server, &["decsribe", "pod", "web"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("a similar subcommand exists: 'describe'"), "{error}");
}

#[test]
fn manual_pages_are_made_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    well(&server, &["man", dir.path().to_str().unwrap()]);
    for page in ["halectl.1", "halectl-exec.1", "halectl-image-pull.1"] {
        let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(text.contains(".TH halectl"), "{text}");
    }
    let page = std::fs::read_to_string(dir.path().join("halectl-exec.1")).unwrap();
    assert!(page.contains("halectl exec \\-it web"), "{page}");
    for section in [".SH EXAMPLES", ".SH \"EXIT STATUS\"", ".SH \"SEE ALSO\"\nhalectl(1)"] {
        assert!(page.contains(section), "{section}: {page}");
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_code_2() {
    let server = Server::start();
    for args in [&["get", "nodes"][..], &["apply"], &["exec", "web"], &[]] {
        let (code, out, error) = run(&server, args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {error}");
    }
}

#[test]
fn a_script_can_wait_and_reads_the_exit_code() {
    let server = Server::start();
    let waits = |args: &[&str]| {
        let (code, out, error) = run(&server, &[&["wait", "pod"], args].concat());
        (code, out + &error)
    };
    let met = (Some(0), "pod/web condition met\n".to_owned());
    assert_eq!(waits(&["web", "--for", "phase=Running"]), met);
    let never = "halectl: there is no pod default/none\n".to_owned();
    assert_eq!(waits(&["none"]), (Some(3), never));
    assert_eq!(waits(&["none", "--for=delete"]).0, Some(0));
    let both = "pod/web condition met\npod/db condition met\n".to_owned();
    let (code, told) = waits(&["-A", "--for=create"]);
    assert!(code == Some(2) && told.contains("Name them"), "{told}");
    let running = ["-A", "--for=jsonpath={.status.phase}=Running"];
    assert_eq!(waits(&running), (Some(0), both));
    let late = "halectl: pod/web: timed out after 1s\n".to_owned();
    assert_eq!(waits(&["web", "--for", "delete", "--timeout", "1"]), (Some(1), late));
    assert_eq!(waits(&["web", "--for", "phase=Ready"]).0, Some(2));
}

#[test]
fn a_list_is_printed_as_names_or_yaml() {
    let server = Server::start();
    assert_eq!(well(&server, &["get", "pods", "-A", "-o", "name"]), "pod/web\npod/db\n");
    let yaml = well(&server, &["get", "pod", "web", "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
}
