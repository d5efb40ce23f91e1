//! What a cgroup's files tell beyond [`super::read`]: what metrics are made of.
//!
//! A file that isn't there (another kernel, a controller that isn't mounted) is `None` or
//! nothing in a list, never an error: metrics tell what there is.

use std::collections::HashMap;

use super::files::{self, Files};
use super::parse;
use crate::sys::cgroup::{self, Version};

/// v1 writes "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;
/// Devices told of, at most.
const MAX_DISKS: usize = 256;

/// Of one cgroup and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detail {
    /// CPU time by kind, and what its limit has cost; `None`: there is no CPU controller.
    pub cpu: Option<Cpu>,
    /// Memory by kind; `None`: there is no memory controller.
    pub memory: Option<Charges>,
    /// Each device that was used.
    pub disks: Vec<Disk>,
    /// Each size of huge pages.
    pub hugepages: Vec<Hugepages>,
    /// Threads; `None`: there is no pids controller.
    pub threads: Option<Threads>,
    /// What is set.
    pub limits: Limits,
}

/// CPU time since the cgroup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cpu {
    /// Nanoseconds in user space.
    pub user_nanos: u64,
    /// Nanoseconds in the kernel.
    pub system_nanos: u64,
    /// Periods in which it ran under a quota.
    pub periods: u64,
    /// Those of them in which it used its quota up.
    pub throttled_periods: u64,
    /// Nanoseconds that it waited for the next period.
    pub throttled_nanos: u64,
}

/// Memory by kind, in bytes, and how often something happened since the cgroup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charges {
    /// Page cache.
    pub cache: u64,
    /// Mapped files.
    pub mapped_file: u64,
    /// Page cache that was used lately.
    pub active_file: u64,
    /// Page cache that was not.
    pub inactive_file: u64,
    /// The kernel's own.
    pub kernel: u64,
    /// The most it ever was; `None`: the kernel doesn't tell (v2 before Linux 5.19).
    pub highest: Option<u64>,
    /// How often the limit was met, as far as the kernel counts it.
    pub limit_hits: u64,
    /// How many processes the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Page faults of the cgroup without those below it; v2 doesn't part them.
    pub own_page_faults: u64,
    /// Major page faults, in the same way.
    pub own_major_page_faults: u64,
}

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    /// Its number.
    pub major: u32,
    /// Its number.
    pub minor: u32,
    /// What was read from it.
    pub read: Flow,
    /// What was written to it.
    pub written: Flow,
}

/// One direction, since the cgroup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Bytes.
    pub bytes: u64,
    /// Operations.
    pub operations: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hugepages {
    /// `2MB`, as the kernel's files have it.
    pub size: String,
    /// Bytes in use.
    pub usage_bytes: u64,
    /// The most it ever was, in bytes; `None` on v2, which doesn't tell.
    pub highest_bytes: Option<u64>,
}

/// Threads, which is what the kernel's pids controller counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Threads {
    /// Now.
    pub count: u64,
    /// How many there may be.
    pub limit: Option<u64>,
}

/// The limits that are set; `None`: not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Relative weight, v1 scale: 2 to 262144. From v2 as near as its coarser scale allows.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU in each period.
    pub cpu_quota_us: Option<u64>,
    /// Microseconds.
    pub cpu_period_us: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes that are taken last.
    pub memory_reservation_bytes: Option<u64>,
    /// Bytes of swap, on v1 with the memory.
    pub swap_bytes: Option<u64>,
}

/// Reads a cgroup. One that is gone has nothing.
pub fn read(path: &str) -> Detail {
    let of = |controller| {
        let files = Files::of(controller, path);
        move |name: &str| files.as_ref().ok()?.text(name).ok()
    };
    let version = cgroup::version();
    Detail {
        cpu: match version {
            Version::V1 => cpu_v1(of("cpu"), of("cpuacct")),
            Version::V2 => cpu_v2(&of("cpu")),
        },
        memory: match version {
            Version::V1 => memory_v1(of("memory")),
            Version::V2 => memory_v2(of("memory")),
        },
        disks: match version {
            Version::V1 => {
                let read = of("blkio");
                let text = |name| read(name).unwrap_or_default();
                disks_v1(
                    &text("blkio.throttle.io_service_bytes_recursive"),
                    &text("blkio.throttle.io_serviced_recursive"),
                )
            }
            Version::V2 => disks_v2(&of("io")("io.stat").unwrap_or_default()),
        },
        hugepages: hugepages(path),
        threads: threads(of("pids")),
        limits: match version {
            Version::V1 => limits_v1(&of("cpu"), &of("memory")),
            Version::V2 => limits_v2(of("cpu"), of("memory")),
        },
    }
}

/// The name of a block device, `/dev/sda`, by its number (proc_partitions(5)).
#[derive(Debug, Clone, Default)]
pub struct DiskNames(HashMap<(u32, u32), String>);

impl DiskNames {
    /// This machine's, at this moment.
    pub fn read() -> Self {
        // Without it devices are told by their numbers.
        let text = files::text("/proc/partitions".as_ref()).unwrap_or_default();
        Self(text.lines().filter_map(partition).collect())
    }

    /// A device that has no name is told by its number, `8:0`.
    pub fn of(&self, disk: &Disk) -> String {
        let number = || format!("{}:{}", disk.major, disk.minor);
        self.0.get(&(disk.major, disk.minor)).cloned().unwrap_or_else(number)
    }
}

fn partition(line: &str) -> Option<((u32, u32), String)> {
    let mut fields = line.split_whitespace();
    let number = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((number, format!("/dev/{}", fields.nth(1)?)))
}

fn number(text: Option<String>) -> Option<u64> {
    parse::number(&text?)
}

fn cpu_v1(
    cpu: impl Fn(&str) -> Option<String>,
    cpuacct: impl Fn(&str) -> Option<String>,
) -> Option<Cpu> {
    let stat = cpu("cpu.stat").unwrap_or_default();
    Some(Cpu {
        user_nanos: number(cpuacct("cpuacct.usage_user"))?,
        system_nanos: number(cpuacct("cpuacct.usage_sys"))?,
        periods: parse::line(&stat, "nr_periods"),
        throttled_periods: parse::line(&stat, "nr_throttled"),
        throttled_nanos: parse::line(&stat, "throttled_time"),
    })
}

fn cpu_v2(cpu: &impl Fn(&str) -> Option<String>) -> Option<Cpu> {
    let stat = cpu("cpu.stat")?;
    let nanos = |key| parse::line(&stat, key).saturating_mul(1000);
    Some(Cpu {
        user_nanos: nanos("user_usec"),
        system_nanos: nanos("system_usec"),
        periods: parse::line(&stat, "nr_periods"),
        throttled_periods: parse::line(&stat, "nr_throttled"),
        throttled_nanos: nanos("throttled_usec"),
    })
}

fn memory_v1(memory: impl Fn(&str) -> Option<String>) -> Option<Charges> {
    let stat = memory("memory.stat")?;
    let oom = memory("memory.oom_control").unwrap_or_default();
    Some(Charges {
        cache: parse::line(&stat, "total_cache"),
        mapped_file: parse::line(&stat, "total_mapped_file"),
        active_file: parse::line(&stat, "total_active_file"),
        inactive_file: parse::line(&stat, "total_inactive_file"),
        kernel: number(memory("memory.kmem.usage_in_bytes")).unwrap_or(0),
        highest: number(memory("memory.max_usage_in_bytes")),
        limit_hits: number(memory("memory.failcnt")).unwrap_or(0),
        oom_kills: parse::line(&oom, "oom_kill"),
        own_page_faults: parse::line(&stat, "pgfault"),
        own_major_page_faults: parse::line(&stat, "pgmajfault"),
    })
}

fn memory_v2(memory: impl Fn(&str) -> Option<String>) -> Option<Charges> {
    let stat = memory("memory.stat")?;
    let events = memory("memory.events").unwrap_or_default();
    // Linux 5.18 sums it up; before, these are what there is of it.
    let kernel = match parse::line(&stat, "kernel") {
        0 => parse::line(&stat, "kernel_stack") + parse::line(&stat, "slab"),
        sum => sum,
    };
    Some(Charges {
        cache: parse::line(&stat, "file"),
        mapped_file: parse::line(&stat, "file_mapped"),
        active_file: parse::line(&stat, "active_file"),
        inactive_file: parse::line(&stat, "inactive_file"),
        kernel,
        highest: number(memory("memory.peak")),
        limit_hits: parse::line(&events, "max"),
        oom_kills: parse::line(&events, "oom_kill"),
        own_page_faults: parse::line(&stat, "pgfault"),
        own_major_page_faults: parse::line(&stat, "pgmajfault"),
    })
}

/// Lines of `8:0 Read 123`, for bytes and for operations.
fn disks_v1(bytes: &str, operations: &str) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    let mut add = |text: &str, value: fn(&mut Flow) -> &mut u64| {
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (device, kind) = (fields.next().and_then(device), fields.next());
            let count = fields.next().and_then(parse::number);
            let (Some(device), Some(kind), Some(count)) = (device, kind, count) else { continue };
            // Sync, Async and Total are sums of the same operations.
            if kind != "Read" && kind != "Write" {
                continue;
            }
            let Some(disk) = entry(&mut disks, device) else { continue };
            let flow = if kind == "Read" { &mut disk.read } else { &mut disk.written };
            *value(flow) = count;
        }
    };
    add(bytes, |flow| &mut flow.bytes);
    add(operations, |flow| &mut flow.operations);
    disks
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn disks_v2(stat: &str) -> Vec<Disk> {
    let disk = |line: &str| {
        let (number, fields) = line.split_once(' ')?;
        let (major, minor) = device(number)?;
        let value = |key: &str| {
            let field = |field: &str| parse::number(field.strip_prefix(key)?.strip_prefix('=')?);
            fields.split(' ').find_map(field).unwrap_or(0)
        };
        let read = Flow { bytes: value("rbytes"), operations: value("rios") };
        let written = Flow { bytes: value("wbytes"), operations: value("wios") };
        Some(Disk { major, minor, read, written })
    };
    stat.lines().filter_map(disk).take(MAX_DISKS).collect()
}

fn device(number: &str) -> Option<(u32, u32)> {
    let (major, minor) = number.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn entry(disks: &mut Vec<Disk>, (major, minor): (u32, u32)) -> Option<&mut Disk> {
    let at = disks.iter().position(|disk| (disk.major, disk.minor) == (major, minor));
    let at = match at {
        Some(at) => at,
        None if disks.len() < MAX_DISKS => {
            disks.push(Disk { major, minor, ..Disk::default() });
            disks.len() - 1
        }
        None => return None,
    };
    disks.get_mut(at)
}

/// On a hybrid machine the controller may be on either side.
fn hugepages(path: &str) -> Vec<Hugepages> {
    let directory = cgroup::directory("hugetlb", path).or_else(|| cgroup::unified_directory(path));
    let Some(Ok(files)) = directory.map(|directory| Files::within(&directory)) else {
        return Vec::new();
    };
    let read = |name: String| files.number(&name);
    let of = |size: String| {
        let usage = read(format!("hugetlb.{size}.usage_in_bytes"))
            .or_else(|| read(format!("hugetlb.{size}.current")))?;
        let highest = read(format!("hugetlb.{size}.max_usage_in_bytes"));
        Some(Hugepages { size, usage_bytes: usage, highest_bytes: highest })
    };
    cgroup::huge_pages::sizes().into_iter().filter_map(of).collect()
}

fn threads(pids: impl Fn(&str) -> Option<String>) -> Option<Threads> {
    let count = number(pids("pids.current"))?;
    Some(Threads { count, limit: number(pids("pids.max")) })
}

fn limits_v1(
    cpu: &impl Fn(&str) -> Option<String>,
    memory: &impl Fn(&str) -> Option<String>,
) -> Limits {
    let bytes = |name| number(memory(name)).filter(|bytes| *bytes < NO_LIMIT);
    Limits {
        cpu_shares: number(cpu("cpu.shares")),
        // -1, which is no such number: no quota.
        cpu_quota_us: number(cpu("cpu.cfs_quota_us")),
        cpu_period_us: number(cpu("cpu.cfs_period_us")),
        memory_bytes: bytes("memory.limit_in_bytes"),
        memory_reservation_bytes: bytes("memory.soft_limit_in_bytes"),
        swap_bytes: bytes("memory.memsw.limit_in_bytes"),
    }
}

fn limits_v2(
    cpu: impl Fn(&str) -> Option<String>,
    memory: impl Fn(&str) -> Option<String>,
) -> Limits {
    let max = cpu("cpu.max").unwrap_or_default();
    let (quota, period) = max.trim().split_once(' ').unwrap_or_default();
    // The way back of how runtimes make 1 to 10000 out of 2 to 262144.
    let shares = |weight: u64| 2 + weight.saturating_sub(1).saturating_mul(262_142) / 9_999;
    Limits {
        cpu_shares: number(cpu("cpu.weight")).map(shares),
        cpu_quota_us: parse::number(quota),
        cpu_period_us: parse::number(period),
        memory_bytes: number(memory("memory.max")),
        memory_reservation_bytes: number(memory("memory.low")).filter(|bytes| *bytes > 0),
        swap_bytes: number(memory("memory.swap.max")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of files.
    fn files<'a>(all: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        let text = |name: &str| all.iter().find(|(each, _)| *each == name).map(|(_, text)| *text);
        move |name| text(name).map(str::to_owned)
    }

    #[test]
    fn cpu_of_both_versions_is_in_nanoseconds() {
        let wanted = Cpu {
            user_nanos: 7000,
            system_nanos: 2000,
            periods: 5,
            throttled_periods: 4,
            throttled_nanos: 3000,
        };
        let stat = [("cpu.stat", "nr_periods 5\nnr_throttled 4\nthrottled_time 3000\n")];
        let acct = [("cpuacct.usage_user", "7000\n"), ("cpuacct.usage_sys", "2000\n")];
        assert_eq!(cpu_v1(files(&stat), files(&acct)), Some(wanted));
        let stat = "usage_usec 9\nuser_usec 7\nsystem_usec 2\nnr_periods 5\nnr_throttled 4\nthrottled_usec 3\n";
        assert_eq!(cpu_v2(&files(&[("cpu.stat", stat)])), Some(wanted));
        assert_eq!(cpu_v1(files(&[]), files(&[])), None);
        assert_eq!(cpu_v2(&files(&[])), None);
    }

    #[test]
    fn memory_of_version_1_sums_the_hierarchy_but_for_its_own_faults() {
        let stat = "pgfault 1\npgmajfault 2\ntotal_cache 3\ntotal_mapped_file 4\ntotal_active_file 5\ntotal_inactive_file 6\ntotal_pgfault 100\n";
        let all = [
            ("memory.stat", stat),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            ("memory.kmem.usage_in_bytes", "8\n"),
            ("memory.max_usage_in_bytes", "9\n"),
            ("memory.failcnt", "10\n"),
        ];
        let wanted = Charges {
            own_page_faults: 1,
            own_major_page_faults: 2,
            cache: 3,
            mapped_file: 4,
            active_file: 5,
            inactive_file: 6,
            oom_kills: 7,
            kernel: 8,
            highest: Some(9),
            limit_hits: 10,
        };
        assert_eq!(memory_v1(files(&all)), Some(wanted));
        assert_eq!(memory_v1(files(&all[1..])), None);
    }

    #[test]
    fn memory_of_version_2_does_without_what_older_kernels_lack() {
        let stat = "anon 1\nfile 3\nkernel 8\nkernel_stack 2\nslab 3\nfile_mapped 4\nactive_file 5\ninactive_file 6\npgfault 1\npgmajfault 2\n";
        let all = [
            ("memory.stat", stat),
            ("memory.events", "low 0\nhigh 0\nmax 10\noom 8\noom_kill 7\n"),
            ("memory.peak", "9\n"),
        ];
        let found = memory_v2(files(&all)).unwrap();
        assert_eq!((found.cache, found.kernel, found.highest), (3, 8, Some(9)));
        assert_eq!((found.limit_hits, found.oom_kills), (10, 7));
        let old = [("memory.stat", "kernel_stack 2\nslab 3\n")];
        let found = memory_v2(files(&old)).unwrap();
        assert_eq!((found.kernel, found.highest), (5, None));
    }

    #[test]
    fn disks_are_the_same_from_both_versions() {
        let flow = |bytes, operations| Flow { bytes, operations };
        let wanted = [
            Disk { major: 254, minor: 0, read: flow(4096, 1), written: flow(8192, 2) },
            Disk { major: 8, minor: 16, read: flow(0, 0), written: flow(512, 1) },
        ];
        let bytes = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Total 12288\n8:16 Write 512\nTotal 12800\n";
        let operations = "254:0 Read 1\n254:0 Write 2\n8:16 Write 1\nx:y Read 1\n";
        assert_eq!(disks_v1(bytes, operations), wanted);
        let stat = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 wbytes=512 wios=1\nx\n1 rbytes=1\n";
        assert_eq!(disks_v2(stat), wanted);
        assert_eq!(disks_v1("Total 0\n", ""), []);
    }

    #[test]
    fn a_hostile_number_of_disks_is_cut() {
        let line = |at: usize| format!("{at}:0 Read 1\n");
        let text: String = (0..MAX_DISKS + 10).map(line).collect();
        assert_eq!(disks_v1(&text, "").len(), MAX_DISKS);
    }

    #[test]
    fn no_limit_is_none() {
        let cpu = [
            ("cpu.shares", "1024\n"),
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
        ];
        let memory = [
            ("memory.limit_in_bytes", "1048576\n"),
            ("memory.soft_limit_in_bytes", "9223372036854771712\n"),
        ];
        let found = limits_v1(&files(&cpu), &files(&memory));
        let wanted = Limits {
            cpu_shares: Some(1024),
            cpu_period_us: Some(100_000),
            memory_bytes: Some(1_048_576),
            ..Limits::default()
        };
        assert_eq!(found, wanted);
        let cpu = [("cpu.weight", "1\n"), ("cpu.max", "max 100000\n")];
        let memory =
            [("memory.max", "1048576\n"), ("memory.low", "0\n"), ("memory.swap.max", "max\n")];
        let wanted = Limits { cpu_shares: Some(2), ..wanted };
        assert_eq!(limits_v2(files(&cpu), files(&memory)), wanted);
        let cpu = [("cpu.weight", "10000\n"), ("cpu.max", "20000 100000\n")];
        let found = limits_v2(files(&cpu), files(&[]));
        assert_eq!((found.cpu_shares, found.cpu_quota_us), (Some(262_144), Some(20_000)));
        assert_eq!(limits_v2(files(&[]), files(&[])), Limits::default());
    }

    #[test]
    fn names_are_read_as_the_kernel_writes_them() {
        let heading = partition("major minor  #blocks  name");
        assert_eq!(heading, None);
        assert_eq!(partition(" 254  0  264241152 vda"), Some(((254, 0), "/dev/vda".into())));
    }
}
