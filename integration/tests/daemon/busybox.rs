//! The busybox image: Debian's busybox-static as a root file system, streamed to the daemon.

use super::{BUSYBOX, Daemon};

/// Applets that tests use, by where they are in a busybox image.
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "echo", "touch", "rm", "sleep", "id", "ps", "mkdir", "head", "yes", "seq",
    "true", "false", "wget", "nc", "httpd", "hostname", "kill", "dd", "mount", "ip", "ping", "env",
    "test", "setsid", "nohup", "tail", "wc", "grep", "printf", "od", "awk", "pwd", "date", "tar",
    "stty",
];

/// A root file system's tar.
pub fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = || {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header
    };
    let mut file = |path: &str, mode: u32, content: &[u8]| {
        let mut header = header();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, content).unwrap();
    };
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    file("bin/busybox", 0o755, &busybox);
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/www:/bin/false\n");
    file("etc/group", 0o644, b"root:x:0:\nwww:x:33:\naudio:x:29:www\n");
    file("www/index.html", 0o644, b"it works\n");
    for applet in APPLETS {
        let mut header = header();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    for dir in ["tmp", "root", "proc", "sys", "dev"] {
        let mut header = header();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if dir == "tmp" { 0o1777 } else { 0o755 });
        tar.append_data(&mut header, dir, std::io::empty()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Streams it to the daemon.
pub(super) async fn import(daemon: &Daemon) {
    let imported = daemon.import(BUSYBOX, &tar()).await;
    let imported = imported.unwrap_or_else(|error| panic!("{error}\n{}", daemon.log()));
    assert_eq!(imported.len(), 1);
}
