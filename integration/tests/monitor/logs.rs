//! Output into log files.

use std::fs;
use std::io::{BufRead as _, BufReader};

use serde_json::json;

use super::house::{House, joined, until};

#[tokio::test]
async fn a_terminal_is_one_stream() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal; echo err >&2; exit 5";
    let mut spec = house.bundle("tty", &["/bin/sh", "-c", script], |config| {
        config["process"]["terminal"] = json!(true);
    });
    spec.tty = true;
    monitor.start(spec).await.unwrap();
    assert_eq!(notices.exit_of("tty").await.code, 5);
    assert_eq!(house.output("tty"), "terminal\nerr\n");
    assert!(!fs::read_to_string(house.path("logs/tty/0.log")).unwrap().contains("stderr"));
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_terminal_that_is_closed_can_be_opened_again() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    // Closed long enough for the monitor to see it.
    let script = "echo before; exec <&- >&- 2>&-; sleep 0.5; exec >/dev/tty; echo after; exit 6";
    let mut spec = house.bundle("tty", &["/bin/sh", "-c", script], |config| {
        config["process"]["terminal"] = json!(true);
    });
    spec.tty = true;
    monitor.start(spec).await.unwrap();
    assert_eq!(notices.exit_of("tty").await.code, 6);
    assert_eq!(house.output("tty"), "before\nafter\n");
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn standard_input_is_null_or_kept_open() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    monitor.start(house.script("null", "cat; echo done")).await.unwrap();
    assert_eq!(notices.exit_of("null").await.code, 0);
    assert_eq!(house.output("null"), "done\n");
    let mut spec = house.bundle("open", &["/bin/cat"], |_| {});
    spec.stdin = true;
    let started = monitor.start(spec).await.unwrap();
    let input = fs::read_link(format!("/proc/{}/fd/0", started.init.pid)).unwrap();
    assert!(input.to_str().unwrap().starts_with("pipe:"), "{input:?}");
    let error = monitor.shutdown().await.unwrap_err().to_string();
    assert!(error.contains("open has not exited"), "{error}");
    let error = monitor.forget("open").await.unwrap_err().to_string();
    assert!(error.contains("has not exited"), "{error}");
    monitor.signal("open", libc::SIGKILL).await.unwrap();
    assert_eq!(notices.exit_of("open").await.code, 137);
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_line_of_a_megabyte_and_an_end_without_newline() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let script = "head -c 1048576 /dev/zero | tr '\\0' x; echo; printf end";
    let mut spec = house.bundle("long", &["/bin/sh", "-c", script], |config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 438}
        ]);
    });
    spec.stdin = false;
    monitor.start(spec).await.unwrap();
    assert_eq!(notices.exit_of("long").await.code, 0);
    let log = fs::read(house.path("logs/long/0.log")).unwrap();
    assert_eq!(joined(&log), format!("{}\nend", "x".repeat(1 << 20)));
    let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    assert_eq!(lines, 64 + 1, "63 pieces and the full end of the line, and the last piece");
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_hundred_megabytes_come_whole_and_in_order() {
    const LINES: usize = 1_000_000;
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    // 7 digits, 92 of filling and a newline: 100 bytes a line.
    let filling = "f".repeat(92);
    let awk = format!("BEGIN {{ for (i = 0; i < {LINES}; i++) printf \"%07d{filling}\\n\", i }}");
    let spec = house.bundle("much", &["/bin/busybox", "awk", &awk], |_| {});
    let begin = std::time::Instant::now();
    let started = monitor.start(spec).await.unwrap();
    assert!(started.init.pid > 0);
    assert_eq!(notices.exit_of("much").await.code, 0);
    let took = begin.elapsed();
    let stat = fs::read_to_string(format!("/proc/{}/stat", monitor.pid())).unwrap();
    let ticks: Vec<_> = stat.split(' ').skip(13).take(2).collect();
    println!("100 MB in {took:?}, the monitor's ticks in user and kernel: {ticks:?}");
    let log = BufReader::new(fs::File::open(house.path("logs/much/0.log")).unwrap());
    let mut count = 0;
    for line in log.lines() {
        let line = line.unwrap();
        assert_eq!(line.len(), "2016-10-06T00:17:09.669794202Z stdout F ".len() + 99);
        assert_eq!(line[40..47], format!("{count:07}"), "{line}");
        count += 1;
    }
    assert_eq!(count, LINES);
    let pid = monitor.pid();
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    println!("monitor after 100 MB: {}", smaps.lines().find(|l| l.starts_with("Pss:")).unwrap());
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_rotated_log_loses_nothing() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    let script = "i=0; while [ $i -lt 200000 ]; do echo $i; i=$((i+1)); done";
    let spec = house.script("rotate", script);
    let log = spec.log.clone();
    monitor.start(spec).await.unwrap();
    let mut rotated = Vec::new();
    for n in 0..5 {
        until("there is output", || fs::metadata(&log).is_ok_and(|m| m.len() > 0)).await;
        let old = log.with_extension(format!("{n}"));
        fs::rename(&log, &old).unwrap();
        rotated.push(old);
        monitor.reopen_log("rotate").await.unwrap_or_else(|error| {
            // All was said before the last rotations.
            assert!(error.to_string().contains("its log is closed"), "{error}");
            fs::write(&log, "").unwrap();
        });
        if fs::metadata(&log).unwrap().len() == 0 && n > 2 {
            break;
        }
    }
    assert_eq!(notices.exit_of("rotate").await.code, 0);
    rotated.push(log);
    let all: Vec<u8> = rotated.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    let expected = (0..200_000).map(|n| n.to_string() + "\n").collect::<String>();
    assert!(joined(&all) == expected, "lines are missing or out of order");
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_a_log_and_with_a_full_one_containers_run_on() {
    let house = House::new();
    let (monitor, mut notices) = house.spawn().await;
    for (id, log) in [("nolog", ""), ("full", "/dev/full")] {
        let mut spec =
            house.script(id, "i=0; while [ $i -lt 50000 ]; do echo $i; i=$((i+1)); done");
        spec.log = log.into();
        monitor.start(spec).await.unwrap();
        assert_eq!(notices.exit_of(id).await.code, 0);
    }
    let said = fs::read_to_string(house.path("run/monitor.log")).unwrap();
    assert_eq!(said.matches("cannot write the log /dev/full").count(), 1, "{said}");
    assert!(said.contains("bytes of the log /dev/full were dropped"), "{said}");
    let mut spec = house.script("nodir", "true");
    spec.log = "/dev/full/0.log".into();
    let error = monitor.start(spec).await.unwrap_err().to_string();
    assert!(error.contains("/dev/full/0.log"), "{error}");
    monitor.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_ends_no_pod() {
    let house = House::new();
    std::os::unix::fs::symlink("/dev/full", house.path("run/monitor.log")).unwrap();
    let (monitor, mut notices) = house.spawn().await;
    let mut spec = house.script("full", "i=0; while [ $i -lt 9000 ]; do echo $i; i=$((i+1)); done");
    spec.log = "/dev/full".into();
    monitor.start(spec).await.unwrap();
    assert_eq!(notices.exit_of("full").await.code, 0);
    monitor.start(house.script("after", "echo still here")).await.unwrap();
    assert_eq!(notices.exit_of("after").await.code, 0);
    assert_eq!(house.output("after"), "still here\n");
    monitor.shutdown().await.unwrap();
}
