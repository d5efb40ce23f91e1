//! Container logs in the CRI's format, with a real daemon: complete, in order, reopened.

use haled::proto::cri;

use crate::daemon::Daemon;

/// The longest content of one line of a log, in bytes, before it is split.
const SPLIT: usize = 16 * 1024;

/// Time, stream, tag and content of every line, each checked to be well formed.
fn entries(log: &[u8]) -> Vec<(&str, &str, &[u8])> {
    let mut entries = Vec::new();
    assert!(log.ends_with(b"\n"), "the last line is whole");
    for line in log.strip_suffix(b"\n").unwrap_or(log).split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut text = || std::str::from_utf8(parts.next().unwrap()).unwrap();
        let (time, stream, tag) = (text(), text(), text());
        assert!(is_nano_time(time), "{time}");
        assert!(matches!(stream, "stdout" | "stderr"), "{stream}");
        assert!(matches!(tag, "F" | "P"), "{tag}");
        let content = parts.next().unwrap();
        assert!(content.len() <= SPLIT, "{} bytes in one line", content.len());
        entries.push((stream, tag, content));
    }
    entries
}

/// `2026-01-02T03:04:05.000000006Z`: RFC 3339 with nine digits.
fn is_nano_time(time: &str) -> bool {
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000000000Z"
}

#[tokio::test]
async fn both_streams_long_lines_and_a_last_line_without_its_end() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("lines")).await;
    let script = "echo out; echo err >&2; awk 'BEGIN { for (i = 0; i < 1048576; i++) printf \"x\"; print \"\" }'; echo; printf 'no end'";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    daemon.exited(&id).await;
    let log = std::fs::read(daemon.path("logs/lines/app/0.log")).unwrap();
    let entries = entries(&log);
    let of = |stream: &str| -> Vec<(&str, &[u8])> {
        entries.iter().filter(|e| e.0 == stream).map(|e| (e.1, e.2)).collect()
    };
    assert_eq!(of("stderr"), [("F", &b"err"[..])]);
    let out = of("stdout");
    assert_eq!(out[0], ("F", &b"out"[..]));
    let long = &out[1..=64];
    assert!(long[..63].iter().all(|(tag, content)| *tag == "P" && content.len() == SPLIT));
    let whole: usize = out[1..out.len() - 2].iter().map(|(_, content)| content.len()).sum();
    assert_eq!(whole, 1 << 20);
    assert!(out[1..out.len() - 2].iter().all(|(_, content)| content.iter().all(|b| *b == b'x')));
    // What never got its newline stays partial, as containerd has it.
    assert_eq!([out[out.len() - 2].0, out[out.len() - 1].0], ["F", "P"]);
    assert_eq!(out[out.len() - 2].1, b"");
    assert_eq!(out[out.len() - 1].1, b"no end");
}

/// 100 MB in lines that carry their number; the daemon is killed in the middle, and the log
/// rotated on the way.
#[tokio::test]
async fn a_hundred_megabytes_in_order_over_a_killed_daemon_and_a_rotation() {
    let mut daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("flood")).await;
    let script = "awk 'BEGIN { x = sprintf(\"%990s\", \"x\"); for (i = 0; i < 100000; i++) printf \"%08d %s\\n\", i, x }'";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    let log = daemon.path("logs/flood/app/0.log");
    let rotated = daemon.path("logs/flood/app/0.log.1");
    let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    daemon.until("the first megabytes", || size(&log) > 5 << 20).await;
    daemon.kill();
    daemon.until("more while the daemon is away", || size(&log) > 20 << 20).await;
    daemon.launch().await;
    std::fs::rename(&log, &rotated).unwrap();
    let request = cri::ReopenContainerLogRequest { container_id: id.clone() };
    // It may have ended already, and what has ended needs no reopening.
    let reopened = daemon.runtime().await.reopen_container_log(request).await.is_ok();
    let ended = daemon.exited(&id).await;
    assert_eq!(ended.exit_code, 0);
    let mut bytes = std::fs::read(&rotated).unwrap();
    if reopened {
        bytes.extend(std::fs::read(&log).unwrap());
    }
    let entries = entries(&bytes);
    assert_eq!(entries.len(), 100_000);
    for (at, (stream, tag, content)) in entries.iter().enumerate() {
        assert_eq!((*stream, *tag, content.len()), ("stdout", "F", 999), "line {at}");
        assert!(content.starts_with(format!("{at:08} ").as_bytes()), "line {at}");
    }
}

#[tokio::test]
async fn reopening_follows_a_rename_and_asks_for_a_running_container() {
    let daemon = Daemon::start().await;
    let pod = daemon.run(&daemon.sandbox("rotate")).await;
    let script = "i=0; while ! test -e /tmp/end; do i=$((i+1)); echo $i; sleep 0.02; done";
    let id = daemon.run_container(&pod, Daemon::container("app", script)).await;
    let reopen = || async {
        let request = cri::ReopenContainerLogRequest { container_id: id.clone() };
        daemon.runtime().await.reopen_container_log(request).await
    };
    let mut all = Vec::new();
    for round in 0..5 {
        daemon.until("lines", || daemon.log_lines("rotate", "app/0.log").len() > 3).await;
        let old = daemon.path(&format!("logs/rotate/app/old-{round}"));
        std::fs::rename(daemon.path("logs/rotate/app/0.log"), old).unwrap();
        reopen().await.unwrap();
        all.extend(daemon.log_lines("rotate", &format!("app/old-{round}")));
    }
    daemon.exec(&id, &["touch", "/tmp/end"]).await;
    daemon.exited(&id).await;
    all.extend(daemon.log_lines("rotate", "app/0.log"));
    let numbers: Vec<usize> = all.iter().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "{numbers:?}");
    let error = reopen().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition, "{error}");
}

/// No kubelet looks after a pod of a manifest: haled keeps its log within limits, and what was
/// cut off continues in the next file without a line lost.
#[tokio::test]
async fn the_log_of_a_manifest_s_pod_is_rotated_and_goes_with_the_pod() {
    let daemon = Daemon::start_with("[log]\nmax_size = \"64KiB\"\nmax_files = 10\n").await;
    let script = "i=0; while true; do i=$((i+1)); printf '%08d %0500d\\n' $i 0; [ $((i % 100)) != 0 ] || sleep 1; done";
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: talker}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: app\n    image: busybox\n    command: [sh, -c, \"{}\"]\n",
        script.replace('\\', "\\\\")
    );
    daemon.apply(&manifest).await.unwrap();
    let logs = daemon.path("root/logs");
    let files = || -> Vec<std::path::PathBuf> {
        let all = std::fs::read_dir(&logs).into_iter().flatten().flatten();
        let inside =
            all.flat_map(|pod| std::fs::read_dir(pod.path().join("app")).into_iter().flatten());
        let mut files: Vec<_> = inside.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files
    };
    let compressed =
        || files().iter().filter(|path| path.extension() == Some("gz".as_ref())).count();
    daemon.until("two rotations", || compressed() > 0).await;

    // Sorted by name, the current file comes first.
    let mut files_now = files();
    files_now.rotate_left(1);
    let mut numbers = Vec::new();
    for path in files_now {
        let bytes = std::fs::read(&path).unwrap();
        let mut text = String::new();
        if path.extension() == Some("gz".as_ref()) {
            let mut decoder = flate2::read::GzDecoder::new(&bytes[..]);
            std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
        } else {
            text = String::from_utf8(bytes).unwrap();
        }
        let number = |line: &str| line.split(' ').nth(3).unwrap().parse::<u32>().unwrap();
        let whole = &text[..text.rfind('\n').unwrap_or(0)];
        numbers.extend(whole.lines().map(number));
    }
    assert!(numbers.len() > 200, "{}", numbers.len());
    assert!(numbers.iter().copied().eq(1..=u32::try_from(numbers.len()).unwrap()));

    let request = haled::proto::haled::DeleteRequest {
        namespace: "default".into(),
        name: "talker".into(),
        grace_seconds: None,
        no_wait: false,
    };
    daemon.haled().await.delete(request).await.unwrap();
    assert_eq!(files(), Vec::<std::path::PathBuf>::new());
    daemon.nothing_is_left().await;
}
