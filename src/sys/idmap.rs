//! Mounts whose files have other owners than on disk (mount_setattr(2), MOUNT_ATTR_IDMAP).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::userns::IdMaps;

/// Binds a file or directory, with the mounts below it where `recursive`, onto an existing
/// one, with the owners that the user namespace `users` gives its files: who is 0 on disk is
/// that namespace's root.
///
/// The file system must allow it: ext4, xfs, btrfs and tmpfs do.
pub fn bind(source: &Path, target: &Path, users: impl AsFd, recursive: bool) -> io::Result<()> {
    place(&mapped(source, users, recursive)?, target)
}

/// The same, with the mounts below it, and read-only but for those.
pub fn bind_readonly(source: &Path, target: &Path, users: impl AsFd) -> io::Result<()> {
    let tree = mapped(source, users, true)?;
    let attr_set = libc::MOUNT_ATTR_RDONLY;
    set(&tree, &libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 }, false)?;
    place(&tree, target)
}

fn place(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn mapped(source: &Path, users: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let tree = open_tree(CWD, source, flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_fd().as_raw_fd() as u64,
    };
    set(&tree, &attributes, recursive)?;
    Ok(tree)
}

fn set(tree: &OwnedFd, attributes: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads an empty string and the attributes, of the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            CStr::as_ptr(c""),
            libc::AT_EMPTY_PATH | below,
            &raw const *attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether what is in a directory can be mounted so, tried with a user namespace that
/// `program`, which must wait when it is run, is killed in.
pub fn check(directory: &Path, program: &Path, maps: &IdMaps) -> io::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let enter = || Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?);
    // SAFETY: between fork and exec there is one system call.
    unsafe { command.pre_exec(enter) };
    let mut child = command.spawn()?;
    let tried = maps.write(child.id() as i32).and_then(|()| {
        let users = File::open(format!("/proc/{}/ns/user", child.id()))?;
        mapped(directory, users, false).map(drop)
    });
    let ended = child.kill().and_then(|()| child.wait().map(drop));
    tried.and(ended)
}
