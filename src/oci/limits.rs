//! Limits, checked against what the kernel takes (cgroups(7), the kernel's cgroup-v1 and
//! cgroup-v2 documents).

use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxIntelRdt, LinuxMemory, LinuxPids,
    LinuxResources,
};

use super::Error;
use super::host::Host;
use super::huge_pages;
use super::model::Resources;

/// cpu.shares, v1 scale.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// cpu.cfs_period_us.
const PERIOD_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// cpu.cfs_quota_us: the kernel's least, and the most that its arithmetic holds.
const QUOTA_US: std::ops::RangeInclusive<i64> = 1_000..=(1 << 44) - 1;
/// The kernel's PID_MAX_LIMIT.
const MAX_PIDS: i64 = 4_194_304;
/// Bytes of one value of `unified`, and entries there.
const MAX_UNIFIED: usize = 4096;
/// oom_score_adj (proc(5)).
const OOM_SCORE_ADJ: std::ops::RangeInclusive<i32> = -1000..=1000;

/// The oom_score_adj that can be set: the wanted one, but not below this process's own
/// where it lacks CAP_SYS_RESOURCE.
pub fn clamp_oom_score_adj(wanted: i32, own: i32, can_lower: bool) -> i32 {
    let wanted = wanted.clamp(*OOM_SCORE_ADJ.start(), *OOM_SCORE_ADJ.end());
    if can_lower { wanted } else { wanted.max(own) }
}

pub(super) fn oom_score_adj(wanted: i32, host: &Host) -> Result<i32, Error> {
    if !OOM_SCORE_ADJ.contains(&wanted) {
        let why = "is out of range: -1000 to 1000";
        return Err(Error::invalid("resources.oom_score_adj", wanted, why));
    }
    let score = clamp_oom_score_adj(wanted, host.oom_score_adj, host.lower_oom_score_adj);
    if score != wanted {
        // As true of every later container as of this one.
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            tracing::warn!(
                wanted,
                set = score,
                "oom_score_adj can't be lowered without CAP_SYS_RESOURCE: containers get haled's own"
            );
        });
    }
    Ok(score)
}

pub(super) fn resources(
    wanted: &Resources,
    rules: Vec<LinuxDeviceCgroup>,
    host: &Host,
) -> Result<LinuxResources, Error> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(Some(rules))
        .set_memory(memory(wanted, host)?)
        .set_cpu(cpu(wanted)?)
        .set_pids(pids(wanted)?)
        .set_hugepage_limits(hugepages(wanted, host)?)
        .set_unified(unified(wanted, host)?);
    Ok(resources)
}

/// The limits of a container that is there already, checked against this machine: what an
/// update hands to the runtime, and the oom_score_adj that can be set. Blocks for some reads
/// below /proc and /sys.
pub fn limits(wanted: &Resources) -> Result<(LinuxResources, i32), Error> {
    let host = Host::read()?;
    let mut limits = resources(wanted, Vec::new(), &host)?;
    // Its devices stay as they are.
    limits.set_devices(None);
    if host.cgroup_v2 {
        huge_pages::as_files(&mut limits);
    }
    Ok((limits, oom_score_adj(wanted.oom_score_adj, &host)?))
}

/// Zero and -1 are both "unlimited" to the CRI.
fn bytes(field: &str, value: Option<i64>) -> Result<Option<i64>, Error> {
    match value {
        Some(value) if value < -1 => {
            Err(Error::invalid(field, value, "is no number of bytes: 0 or -1 is unlimited"))
        }
        value => Ok(value.filter(|&value| value != 0)),
    }
}

fn memory(wanted: &Resources, host: &Host) -> Result<Option<LinuxMemory>, Error> {
    let limit = bytes("resources.memory_limit_bytes", wanted.memory_limit_bytes)?;
    let swap = bytes("resources.memory_swap_bytes", wanted.memory_swap_bytes)?;
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        let why = format!("is below memory_limit_bytes ({limit}), which it includes");
        return Err(Error::invalid("resources.memory_swap_bytes", swap, why));
    }
    // Without a word on swap there is none: a limit of memory that swap stretches is none.
    let swap = swap.or(limit).filter(|_| host.swap_limit);
    if limit.is_none() && swap.is_none() {
        return Ok(None);
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit).set_swap(swap);
    Ok(Some(memory))
}

fn cpu(wanted: &Resources) -> Result<Option<LinuxCpu>, Error> {
    let shares = wanted.cpu_shares.filter(|&shares| shares != 0);
    let quota = wanted.cpu_quota_us.filter(|&quota| quota != 0);
    let period = wanted.cpu_period_us.filter(|&period| period != 0);
    if let Some(shares) = shares.filter(|shares| !SHARES.contains(shares)) {
        let why = "is out of range: 2 to 262144";
        return Err(Error::invalid("resources.cpu_shares", shares, why));
    }
    if let Some(quota) = quota.filter(|quota| *quota != -1 && !QUOTA_US.contains(quota)) {
        let why = "is out of range: at least 1000 µs, or -1 for unlimited";
        return Err(Error::invalid("resources.cpu_quota_us", quota, why));
    }
    if let Some(period) = period.filter(|period| !PERIOD_US.contains(period)) {
        let why = "is out of range: 1000 to 1000000 µs";
        return Err(Error::invalid("resources.cpu_period_us", period, why));
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(shares).set_quota(quota).set_period(period);
    cpu.set_cpus(list("resources.cpuset_cpus", &wanted.cpuset_cpus)?);
    cpu.set_mems(list("resources.cpuset_mems", &wanted.cpuset_mems)?);
    Ok(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
}

/// `0-2,4` (cpuset(7)); empty: not set.
fn list(field: &str, text: &str) -> Result<Option<String>, Error> {
    let number = |text: &str| text.parse::<u16>().ok();
    let range = |part: &str| match part.split_once('-') {
        None => number(part).is_some(),
        Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
    };
    if text.is_empty() {
        Ok(None)
    } else if text.split(',').all(range) {
        Ok(Some(text.to_owned()))
    } else {
        Err(Error::invalid(field, text, "is no list of numbers such as 0-2,4"))
    }
}

fn pids(wanted: &Resources) -> Result<Option<LinuxPids>, Error> {
    let Some(limit) = wanted.pids_limit.filter(|&limit| limit != 0) else { return Ok(None) };
    if !(-1..=MAX_PIDS).contains(&limit) {
        let why = format!("is out of range: 1 to {MAX_PIDS}, 0 or -1 for unlimited");
        return Err(Error::invalid("resources.pids_limit", limit, why));
    }
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    Ok(Some(pids))
}

/// The kubelet sends a zero for every page size, controller or not: those of sizes that can't
/// be limited say nothing.
fn hugepages(wanted: &Resources, host: &Host) -> Result<Option<Vec<LinuxHugepageLimit>>, Error> {
    let mut limits = Vec::new();
    for (size, &bytes) in &wanted.hugepage_limits {
        let field = || format!("resources.hugepage_limits[{size}]");
        let Ok(limit) = i64::try_from(bytes) else {
            return Err(Error::invalid(field(), bytes, "is no number of bytes: it is too large"));
        };
        if host.huge_pages.contains(size) {
            let mut one = LinuxHugepageLimit::default();
            one.set_page_size(size.clone()).set_limit(limit);
            limits.push(one);
        } else if host.huge_pages.is_empty() && limit > 0 {
            let why = "this machine has no hugetlb cgroup controller to limit huge pages with";
            return Err(Error::unsupported(field(), why));
        } else if limit > 0 {
            let why = format!("is for no size of this machine's: {}", host.huge_pages.join(", "));
            return Err(Error::invalid(field(), limit, why));
        }
    }
    Ok(Some(limits).filter(|limits| !limits.is_empty()))
}

fn unified(
    wanted: &Resources,
    host: &Host,
) -> Result<Option<std::collections::HashMap<String, String>>, Error> {
    let field = "resources.unified";
    if wanted.unified.is_empty() {
        return Ok(None);
    }
    if !host.cgroup_v2 {
        return Err(Error::unsupported(field, "its files are cgroup v2's, this machine is on v1"));
    }
    if wanted.unified.len() > MAX_UNIFIED {
        let why = format!("entries are too many: at most {MAX_UNIFIED}");
        return Err(Error::invalid(field, wanted.unified.len(), why));
    }
    for (file, value) in &wanted.unified {
        let plain = |each: u8| each.is_ascii_alphanumeric() || b"._-".contains(&each);
        // `cgroup.*` moves and kills processes: no limit is there.
        let is_limit = file.split_once('.').is_some_and(|(controller, rest)| {
            !controller.is_empty() && !rest.is_empty() && controller != "cgroup"
        });
        if !file.bytes().all(plain) || file.contains("..") || !is_limit {
            return Err(Error::invalid(field, file, "is no file of a controller: memory.high is"));
        }
        if value.contains('\0') || value.len() > MAX_UNIFIED {
            let field = format!("{field}[{file}]");
            return Err(Error::invalid(field, value, "is no value: it holds NUL or is too long"));
        }
    }
    Ok(Some(wanted.unified.clone().into_iter().collect()))
}

/// The class of resctrl, which must be there: whoever runs the node makes it.
pub(super) fn rdt(wanted: &Resources, host: &Host) -> Result<Option<LinuxIntelRdt>, Error> {
    let Some(class) = &wanted.rdt_class else { return Ok(None) };
    let field = "resources.rdt_class";
    let Some(classes) = &host.rdt_classes else {
        let why = format!("{class:?} needs resctrl, which isn't mounted at /sys/fs/resctrl");
        return Err(Error::unsupported(field, why));
    };
    if !classes.contains(class) {
        let known: Vec<&str> = classes.iter().map(String::as_str).collect();
        let why = format!("is no class of /sys/fs/resctrl; there are: {}", known.join(", "));
        return Err(Error::invalid(field, class, why));
    }
    let mut rdt = LinuxIntelRdt::default();
    rdt.set_clos_id(Some(class.clone()));
    Ok(Some(rdt))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host() -> Host {
        Host {
            cgroup_v2: true,
            swap_limit: true,
            huge_pages: vec!["1GB".into(), "2MB".into()],
            capabilities: [].into(),
            oom_score_adj: 0,
            lower_oom_score_adj: true,
            apparmor: None,
            thermal_throttle: vec![],
            rdt_classes: None,
            mountinfo: String::new(),
        }
    }

    fn on(host: &Host, change: impl FnOnce(&mut Resources)) -> Result<LinuxResources, Error> {
        let mut wanted = Resources::default();
        change(&mut wanted);
        resources(&wanted, vec![], host)
    }

    #[test]
    fn the_score_is_never_below_our_own_unless_we_may() {
        for (wanted, own, can_lower, expected) in [
            (-998, 0, false, 0),
            (-998, 0, true, -998),
            (-998, -500, false, -500),
            (500, 0, false, 500),
            (5000, 0, true, 1000),
            (i32::MIN, 0, true, -1000),
        ] {
            assert_eq!(clamp_oom_score_adj(wanted, own, can_lower), expected);
        }
    }

    #[test]
    fn a_memory_limit_without_swap_leaves_no_swap() {
        let with = |limit, swap, host: &Host| {
            let memory = on(host, |wanted| {
                wanted.memory_limit_bytes = limit;
                wanted.memory_swap_bytes = swap;
            });
            memory.unwrap().memory().map(|memory| (memory.limit(), memory.swap()))
        };
        let accounted = host();
        let bare = Host { swap_limit: false, ..host() };
        assert_eq!(with(Some(64), None, &accounted), Some((Some(64), Some(64))));
        assert_eq!(with(Some(64), Some(-1), &accounted), Some((Some(64), Some(-1))));
        assert_eq!(with(Some(64), Some(128), &accounted), Some((Some(64), Some(128))));
        assert_eq!(with(Some(64), Some(128), &bare), Some((Some(64), None)));
        assert_eq!(with(Some(0), None, &accounted), None);
    }

    #[test]
    fn zeros_are_unlimited() {
        let result = on(&host(), |wanted| {
            wanted.cpu_shares = Some(0);
            wanted.cpu_quota_us = Some(0);
            wanted.cpu_period_us = Some(0);
            wanted.pids_limit = Some(0);
        });
        let result = result.unwrap();
        assert!(result.cpu().is_none() && result.pids().is_none() && result.memory().is_none());
    }

    #[test]
    fn absurd_values_are_refused_by_name() {
        type Change = fn(&mut Resources);
        let cases: [(&str, Change); 16] = [
            ("memory_limit_bytes", |r| r.memory_limit_bytes = Some(i64::MIN)),
            ("memory_swap_bytes", |r| {
                r.memory_limit_bytes = Some(100);
                r.memory_swap_bytes = Some(50);
            }),
            ("cpu_shares", |r| r.cpu_shares = Some(1)),
            ("cpu_shares", |r| r.cpu_shares = Some(u64::MAX)),
            ("cpu_quota_us", |r| r.cpu_quota_us = Some(999)),
            ("cpu_quota_us", |r| r.cpu_quota_us = Some(i64::MAX)),
            ("cpu_quota_us", |r| r.cpu_quota_us = Some(-2)),
            ("cpu_period_us", |r| r.cpu_period_us = Some(1_000_001)),
            ("pids_limit", |r| r.pids_limit = Some(i64::MAX)),
            ("pids_limit", |r| r.pids_limit = Some(-2)),
            ("cpuset_cpus", |r| r.cpuset_cpus = "0-".into()),
            ("cpuset_mems", |r| r.cpuset_mems = "3-1".into()),
            ("hugepage_limits", |r| {
                r.hugepage_limits.insert("16GB".into(), 1);
            }),
            ("hugepage_limits", |r| {
                r.hugepage_limits.insert("2MB".into(), u64::MAX);
            }),
            ("unified", |r| {
                r.unified.insert("../memory.max".into(), "1".into());
            }),
            ("unified", |r| {
                r.unified.insert("cgroup.procs".into(), "1".into());
            }),
        ];
        for (name, change) in cases {
            let error = on(&host(), change).unwrap_err();
            assert!(error.is_bad_request() && error.to_string().contains(name), "{error}");
        }
        assert!(oom_score_adj(1001, &host()).is_err());
    }

    #[test]
    fn a_class_of_resctrl_must_be_there() {
        let wanted = Resources { rdt_class: Some("gold".into()), ..Resources::default() };
        let with = |classes: &[&str]| Host {
            rdt_classes: Some(classes.iter().map(|&class| class.to_owned()).collect()),
            ..host()
        };
        let given = rdt(&wanted, &with(&["gold", "silver"])).unwrap().unwrap();
        assert_eq!(given.clos_id().as_deref(), Some("gold"));
        let missing = rdt(&wanted, &with(&["silver"])).unwrap_err().to_string();
        assert!(missing.contains("there are: silver"), "{missing}");
        assert!(rdt(&wanted, &host()).unwrap_err().to_string().contains("isn't mounted"));
        assert_eq!(rdt(&Resources::default(), &host()).unwrap(), None);
    }

    #[test]
    fn what_the_machine_lacks_is_said_unless_nothing_was_wanted() {
        let v1 = Host { cgroup_v2: false, huge_pages: vec![], ..host() };
        let huge = |bytes| {
            on(&v1, |r| {
                r.hugepage_limits.insert("2MB".into(), bytes);
            })
        };
        assert!(huge(0).unwrap().hugepage_limits().is_none());
        assert!(huge(4).unwrap_err().to_string().contains("no hugetlb"));
        let of_another = on(&host(), |r| {
            r.hugepage_limits = [("16GB".into(), 0), ("2MB".into(), 4)].into();
        });
        assert_eq!(of_another.unwrap().hugepage_limits().as_ref().unwrap().len(), 1);
        let unified = on(&v1, |r| {
            r.unified.insert("memory.high".into(), "1".into());
        });
        assert!(unified.unwrap_err().to_string().contains("cgroup v2"));
    }

    proptest! {
        #[test]
        fn any_numbers_are_taken_or_refused_without_a_panic(
            shares: Option<u64>, quota: Option<i64>, period: Option<u64>, limit: Option<i64>,
            swap: Option<i64>, pids: Option<i64>, cpus in "[0-9,-]{0,12}",
        ) {
            drop(on(&host(), |r| {
                r.cpu_shares = shares;
                r.cpu_quota_us = quota;
                r.cpu_period_us = period;
                r.memory_limit_bytes = limit;
                r.memory_swap_bytes = swap;
                r.pids_limit = pids;
                r.cpuset_cpus = cpus;
            }));
        }
    }
}
