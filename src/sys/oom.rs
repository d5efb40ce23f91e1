//! The OOM killer's preference for a process (proc(5), oom_score_adj).

use std::io;

/// The bounds the kernel takes.
pub const RANGE: std::ops::RangeInclusive<i32> = -1000..=1000;

const OWN: &str = "/proc/self/oom_score_adj";

/// This process's oom_score_adj.
pub fn own() -> io::Result<i32> {
    let text = std::fs::read_to_string(OWN)?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, OWN))
}

/// Sets this process's oom_score_adj to the wanted value or, without CAP_SYS_RESOURCE, to the
/// nearest one the kernel allows. Returns what was set.
pub fn set_own_clamped(wanted: i32) -> io::Result<i32> {
    set_clamped_at(OWN, wanted)
}

/// The same for another process: one in a user namespace of its own may not lower its own.
pub fn set_clamped(pid: i32, wanted: i32) -> io::Result<i32> {
    set_clamped_at(&format!("/proc/{pid}/oom_score_adj"), wanted)
}

fn set_clamped_at(file: &str, wanted: i32) -> io::Result<i32> {
    let wanted = wanted.clamp(*RANGE.start(), *RANGE.end());
    nearest(wanted, own()?, |value| std::fs::write(file, value.to_string()))
}

/// The floor is not readable, so it is searched for: between what is refused and what is
/// already the case, in at most 11 steps.
fn nearest(
    wanted: i32,
    current: i32,
    mut set: impl FnMut(i32) -> io::Result<()>,
) -> io::Result<i32> {
    match set(wanted) {
        Ok(()) => return Ok(wanted),
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => {}
    }
    let (mut refused, mut allowed) = (wanted, current);
    while allowed - refused > 1 {
        let middle = refused + (allowed - refused) / 2;
        match set(middle) {
            Ok(()) => allowed = middle,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = middle,
            Err(error) => return Err(error),
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(wanted: i32, floor: i32, current: i32) -> (i32, i32) {
        let mut last = current;
        let chosen = nearest(wanted, current, |value| {
            if value < floor {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            last = value;
            Ok(())
        });
        (chosen.unwrap(), last)
    }

    #[test]
    fn what_the_kernel_refuses_ends_at_its_floor() {
        assert_eq!(settle(-999, -1000, 0), (-999, -999));
        assert_eq!(settle(-999, 0, 0), (0, 0));
        assert_eq!(settle(-999, -500, 200), (-500, -500));
        assert_eq!(settle(-999, 100, 300), (100, 100));
        assert_eq!(settle(500, 0, 0), (500, 500));
    }

    #[test]
    fn another_error_is_passed_on() {
        let failing = nearest(-999, 0, |_| Err(io::ErrorKind::NotFound.into()));
        assert_eq!(failing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
