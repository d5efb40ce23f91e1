//! Files in memory that nothing can change any more (memfd_create(2)).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// A sealed file that may be executed, opened for reading alone: while someone could write to it,
/// the kernel would not execute it.
pub fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no such flag, and every one may be executed.
        Err(rustix::io::Errno::INVAL) => memfd_create(name, flags),
        made => made,
    };
    let mut file = File::from(made?);
    file.write_all(content)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_executed_and_not_be_changed() {
        let program = std::fs::read("/bin/true").unwrap();
        let file = sealed("a-test", &program).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        assert_eq!(std::fs::read(&path).unwrap(), program);
        // A new open file for writing may be had, and what is in the file not be changed by it.
        let writer = File::options().write(true).open(&path);
        let written = writer.and_then(|mut writer| writer.write_all(b"x"));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(std::process::Command::new(&path).status().unwrap().success());
    }
}
