//! Sessions with a real daemon: exec and attach in a real terminal, port-forward, cp, and logs
//! that go on through restarts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use haled::sys::netns;
use nix::sys::signal::{Signal, kill};

use super::terminal::Terminal;
use super::{Ended, ended};
use crate::daemon::{BUSYBOX, Daemon};

/// A pod of one container that runs a script, with more lines of YAML for it.
async fn pod(daemon: &Daemon, name: &str, script: &str, more: &str) {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec:\n  containers:\n  - name: app\n    image: {BUSYBOX}\n    \
         command: [sh, -c, '{script}']\n{more}\n"
    );
    daemon.apply(&manifest).await.unwrap_or_else(|error| panic!("{error}\n{manifest}"));
    run(daemon, &["wait", "pod", name]);
}

/// halectl on the node.
fn halectl(daemon: &Daemon, args: &[&str]) -> Command {
    let socket = daemon.socket().display().to_string();
    let words: Vec<String> = [&[env!("CARGO_BIN_EXE_halectl"), "--socket", &socket], args]
        .concat()
        .iter()
        .map(quoted)
        .collect();
    let mut command = daemon.on_node(&format!("exec {}", words.join(" ")));
    command.stdin(Stdio::null()).env_remove("HALED_ADDRESS");
    command
}

fn quoted(word: &&str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn run(daemon: &Daemon, args: &[&str]) -> Ended {
    ended(halectl(daemon, args).output().unwrap())
}

fn fed(daemon: &Daemon, args: &[&str], input: &[u8]) -> Output {
    let mut command = halectl(daemon, args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let feeding = std::thread::spawn(move || stdin.write_all(&input).ok());
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    output
}

/// halectl in a terminal on the node.
fn terminal(daemon: &Daemon, args: &[&str]) -> Terminal {
    let socket = daemon.socket().display().to_string();
    let words = [&[env!("CARGO_BIN_EXE_halectl"), "--socket", &socket], args].concat();
    Terminal::run(&words, Some(daemon.process_id()))
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_in_a_terminal_is_a_terminal_and_leaves_ours_as_it_was() {
    let mut daemon = Daemon::start().await;
    pod(&daemon, "web", "exec sleep 600", "").await;
    let exec = ["exec", "-it", "web", "--", "sh"];
    let mut shell = terminal(&daemon, &exec);
    shell.until("# ");
    assert!(shell.is_raw());
    shell.keys("stty size\r");
    shell.until("30 100");
    shell.resize(120, 40);
    // The new size is on its way: it is asked for until it is there.
    shell.keys("until stty size | grep 120; do :; done\r");
    shell.until("40 120");
    // Keys are the command's: the interrupt ends what it runs, not halectl.
    shell.keys("sh -c \"echo be''gun; exec sleep 600\"\r");
    shell.until("begun");
    shell.keys("\u{3}");
    shell.until("# ");
    shell.keys("exit 7\r");
    assert_eq!(shell.end().code(), Some(7));
    assert!(shell.is_plain());

    // A signal from elsewhere.
    let mut shell = terminal(&daemon, &exec);
    shell.until("# ");
    kill(shell.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(shell.end().code(), Some(128 + 15));
    assert!(shell.is_plain());

    // haled dies.
    let mut shell = terminal(&daemon, &exec);
    shell.until("# ");
    daemon.kill();
    assert_eq!(shell.end().code(), Some(1));
    assert!(shell.is_plain());
    shell.until("the session with haled broke off");
    daemon.launch().await;

    // Standard input that is none is told, and done without.
    let (code, out, error) = run(&daemon, &["exec", "-it", "web", "--", "tty"]);
    assert_eq!((code, out.as_str()), (Some(127), ""), "{error}");
    assert!(error.starts_with("halectl: standard input is no terminal: going on without one\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_passes_on_input_output_and_codes() {
    let daemon = Daemon::start().await;
    pod(&daemon, "web", "exec sleep 600", "").await;
    let (code, out, error) =
        run(&daemon, &["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((code, out.as_str(), error.as_str()), (Some(3), "out\n", "err\n"));
    let (code, _, error) = run(&daemon, &["exec", "web", "--", "nosuch"]);
    assert_eq!(code, Some(127), "{error}");
    assert_eq!(error.matches("executable file not found").count(), 1, "{error}");
    let (code, _, error) = run(&daemon, &["exec", "web", "--", "/etc/passwd"]);
    assert_eq!(code, Some(126), "{error}");
    let (code, _, error) = run(&daemon, &["exec", "-t", "web", "--", "/nosuch"]);
    assert_eq!(code, Some(127), "{error}");
    assert!(error.starts_with("halectl: command /nosuch can't be run in container "), "{error}");

    // More than all pipes on the way hold, in both directions at once.
    let bytes: Vec<u8> =
        (0u32..8 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = fed(&daemon, &["exec", "-i", "web", "--", "cat"], &bytes);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());

    // By other names.
    let uid = daemon.pod("web").await.unwrap().uid;
    for name in ["default/web", "pod/web", uid.as_str(), &uid[..8]] {
        assert_eq!(run(&daemon, &["exec", name, "--", "echo", "a"]).1, "a\n", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_joins_and_leaves_a_container() {
    let daemon = Daemon::start().await;
    pod(&daemon, "shell", "exec sh", "    stdin: true\n    tty: true\n").await;
    let mut shell = terminal(&daemon, &["attach", "-it", "shell"]);
    shell.until("press enter");
    shell.keys("echo got-$((40+2))\r");
    shell.until("got-42");
    shell.keys("\u{10}\u{11}");
    assert_eq!(shell.end().code(), Some(0));
    shell.until("detached; the container runs on");
    assert!(shell.is_plain());
    let still = daemon.pod("shell").await.unwrap();
    assert_eq!(
        (still.containers[0].state.as_str(), still.containers[0].restart_count),
        ("Running", 0)
    );

    pod(&daemon, "plain", "while :; do echo tick; sleep 0.1; done", "").await;
    let mut plain = terminal(&daemon, &["attach", "-it", "plain"]);
    plain.until("has no terminal: going on without it");
    plain.until("tick");
}

/// A connection on the node.
fn dial(daemon: &Daemon, to: &str) -> TcpStream {
    let namespace = format!("/proc/{}/ns/net", daemon.process_id());
    netns::within(namespace.as_ref(), || TcpStream::connect(to)).unwrap()
}

/// Lines of a child's standard output.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_and_found_again_after_a_restart() {
    let mut daemon = Daemon::start().await;
    let ports = "    ports: [{name: http, containerPort: 8080}]\n    \
                 readinessProbe: {exec: {command: [wget, -q, -O, /dev/null, \
                 \"http://127.0.0.1:8080/index.html\"]}, periodMilliseconds: 100}\n";
    pod(&daemon, "web", "exec httpd -f -p 127.0.0.1:8080 -h /www", ports).await;
    let mut child =
        halectl(&daemon, &["port-forward", "web", ":http", "7001:7", "--address", "127.0.0.1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut told = lines(&mut child);
    let first = told.next().unwrap();
    let address = first.strip_prefix("Forwarding from ").unwrap().strip_suffix(" -> 8080").unwrap();
    assert_eq!(told.next().unwrap(), "Forwarding from 127.0.0.1:7001 -> 7");

    let get = |mut stream: TcpStream| {
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("it works\n"), "{answer}");
    };
    // One that says nothing holds up no other.
    let silent = dial(&daemon, address);
    get(dial(&daemon, address));
    get(dial(&daemon, address));
    // The local end is closed first: the answer still comes.
    let mut half = dial(&daemon, address);
    half.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    drop(silent);
    assert!(told.next().unwrap().starts_with("Handling connection for "));

    // Nothing listens there: the connection ends, and why is told.
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut closed = dial(&daemon, "127.0.0.1:7001");
    assert_eq!(closed.read_to_end(&mut Vec::new()).unwrap(), 0);
    let error = errors.find(|line| line.contains("port 7")).unwrap();
    assert!(error.contains("Connection refused"), "{error}");

    daemon.kill();
    daemon.launch().await;
    get(dial(&daemon, address));
    child.kill().unwrap();
    child.wait().unwrap();

    let (code, _, error) = run(&daemon, &["port-forward", "web", "1:htpp"]);
    assert_eq!(code, Some(1));
    assert_eq!(error, "halectl: pod default/web has no port named \"htpp\": it has http\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_both_ways() {
    let daemon = Daemon::start().await;
    pod(&daemon, "web", "exec sleep 600", "").await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir_all(path("tree/deep")).unwrap();
    std::fs::write(path("tree/a"), "a").unwrap();
    let large: Vec<u8> = (0u32..3 << 20).map(|n| ((n * 7) >> 8) as u8).collect();
    std::fs::write(path("tree/deep/large"), &large).unwrap();
    let well = |args: &[&str]| {
        let (code, out, error) = run(&daemon, args);
        assert_eq!((code, out.as_str(), error.as_str()), (Some(0), "", ""), "{args:?}");
    };
    let inside = |command: &str| run(&daemon, &["exec", "web", "--", "sh", "-c", command]).1;

    well(&["cp", &path("tree"), "web:/tmp"]);
    let listed = "tree:\na\ndeep\n\ntree/deep:\nlarge\na";
    assert_eq!(inside("cd /tmp && ls tree tree/deep && cat tree/a"), listed);
    well(&["cp", &path("tree/a"), "default/web:/tmp/b", "-c", "app"]);
    assert_eq!(inside("cat /tmp/b"), "a");

    well(&["cp", "web:/tmp/tree", &path("back")]);
    assert!(std::fs::read(path("back/deep/large")).unwrap() == large);
    well(&["cp", "web:/tmp/tree/a", dir.path().to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(path("a")).unwrap(), "a");

    inside("cd /tmp/tree && ln -s /etc/passwd link");
    let (code, _, error) = run(&daemon, &["cp", "web:/tmp/tree", &path("again")]);
    assert_eq!(code, Some(0));
    assert_eq!(error, "halectl: left out: ./tree/link, a link to /etc/passwd\n");

    let (code, _, error) = run(&daemon, &["cp", "web:/nosuch", &path("none")]);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("halectl: container \"app\": tar: ./nosuch"), "{error}");
    let (code, _, error) = run(&daemon, &["cp", &path("nosuch"), "web:/tmp"]);
    let expected = format!("halectl: cannot read {}: No such file or directory", path("nosuch"));
    assert!(code == Some(1) && error.starts_with(&expected), "{error}");
    let (code, _, error) = run(&daemon, &["cp", "web:/a", "web:/b"]);
    assert!(code == Some(1) && error.contains("one of the two must be POD:PATH"), "{error}");
    inside("rm /bin/tar");
    let (_, _, error) = run(&daemon, &["cp", "web:/tmp/tree", &path("none")]);
    assert!(error.contains("there is no tar in its image"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_goes_on_through_restarts_to_the_pods_end() {
    let daemon = Daemon::start_with("[healing]\nbackoff_initial = \"100ms\"\n").await;
    let script = "n=$(cat /data/n 2>/dev/null || echo 0); echo begun $n; n=$((n+1)); \
                  echo $n > /data/n; test $n -gt 3";
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: job, labels: {{app: job}}}}\nspec:\n  \
         containers:\n  - name: app\n    image: {BUSYBOX}\n    command: [sh, -c, '{script}']\n    \
         volumeMounts: [{{name: data, mountPath: /data}}]\n  restartPolicy: OnFailure\n  \
         volumes: [{{name: data, emptyDir: {{}}}}]\n"
    );
    daemon.apply(&manifest).await.unwrap();
    run(
        &daemon,
        &["wait", "pod", "job", "--for=jsonpath={.status.containerStatuses[0].containerID}"],
    );
    let (code, out, error) = run(&daemon, &["logs", "-f", "job"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    // Which attempt was the first to be seen, nobody knows; from it on each is there.
    let all = ["begun 0\n", "begun 1\n", "begun 2\n", "begun 3\n"];
    assert!((0..4).any(|first| all[first..].concat() == out), "{out:?}");

    let previous = run(&daemon, &["logs", "job", "--previous", "--prefix", "--timestamps"]);
    assert!(previous.1.starts_with("[job/app] 20") && previous.1.ends_with("begun 2\n"));
    let (_, out, _) = run(&daemon, &["logs", "-l", "app=job", "--since-time=2100-01-01T00:00:00Z"]);
    assert_eq!(out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_logs_are_followed_at_once_in_colour_on_a_terminal() {
    let daemon = Daemon::start().await;
    for name in ["one", "two"] {
        pod(&daemon, name, "while :; do echo it is me; sleep 0.1; done", "").await;
    }
    let mut shown = terminal(&daemon, &["logs", "-f", "-l", "app in (one,two)"]);
    shown.until("\u{1b}[36m[one/app]\u{1b}[0m it is me");
    shown.until("\u{1b}[33m[two/app]\u{1b}[0m it is me");
    shown.until("\u{1b}[36m[one/app]\u{1b}[0m it is me");
    let socket = daemon.socket().display().to_string();
    let words = ["env", "NO_COLOR=1", env!("CARGO_BIN_EXE_halectl"), "--socket", &socket];
    let words = [&words, &["logs", "-f", "one", "two"][..]].concat();
    let mut plain = Terminal::run(&words, Some(daemon.process_id()));
    let seen = plain.until("[two/app] it is me");
    assert!(!seen.contains('\u{1b}'), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_versions_are_the_daemons_own() {
    let daemon = Daemon::start_with("[healing]\nbackoff_initial = \"100ms\"\n").await;
    let (code, settings, _) = run(&daemon, &["config"]);
    assert_eq!(code, Some(0));
    for line in [
        "backoff_initial = \"100ms\" # default: \"10s\"\n".to_owned(),
        format!("# halectl: the socket is {}, by --socket\n", daemon.socket().display()),
        format!("root = \"{}\" # default: \"/var/lib/haled\"\n", daemon.path("root").display()),
    ] {
        assert!(settings.contains(&line), "{line} is not in\n{settings}");
    }
    let file = daemon.path("again.toml");
    std::fs::write(&file, settings).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_haled"))
        .args(["config", "check"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let (code, explained, _) = run(&daemon, &["explain", "pod.spec.containers.livenessProbe"]);
    assert_eq!(code, Some(0));
    for part in [
        "pod.spec.containers.livenessProbe  <object>\n",
        "\n  periodSeconds  <integer>  1 to 2147483647; default 10\n    From run to run.\n",
    ] {
        assert!(explained.contains(part), "{explained}");
    }
    let (_, whole, _) = run(&daemon, &["explain", "probe", "--recursive"]);
    assert!(whole.contains("\n    scheme  <string>  HTTP, HTTPS; default HTTP\n"), "{whole}");
    let (code, _, error) = run(&daemon, &["explain", "pod.spec.container"]);
    let told = "halectl: pod.spec has no field \"container\" that haled takes; did you mean \
                \"containers\"?\n";
    assert_eq!((code, error.as_str()), (Some(1), told));
    let (_, roots, _) = run(&daemon, &["explain"]);
    for root in ["pod", "probe", "configmap", "secret"] {
        assert!(roots.contains(&format!("{root}  <object>\n")), "{roots}");
    }
    let (_, volumes, _) = run(&daemon, &["explain", "pods.spec.volumes.emptyDir.sizeLimit"]);
    assert!(volumes.contains("sizeLimit  <quantity>  such as 64Mi and 1G\n"), "{volumes}");
    let (_, versions, _) = run(&daemon, &["version"]);
    assert!(versions.contains("runc version ") && versions.contains(", the default"), "{versions}");
}
