//! Readings as samples of metrics.

use std::time::SystemTime;

use super::names::{self, Labels, Metric};
use crate::container::state::nanos;
use crate::proto::cri;
use crate::stats::detail::{Charges, Cpu, Detail, DiskNames, Limits};
use crate::stats::network::Interface;
use crate::stats::processes::Processes;
use crate::stats::{Memory, Pressures, Reading};
use crate::sys::filesystem::Filesystem;

const NANOS: u64 = 1_000_000_000;

/// The samples of one container or pod.
#[derive(Debug)]
pub(super) struct Samples {
    labels: Labels,
    timestamp: i64,
    list: Vec<cri::Metric>,
}

impl Samples {
    /// None yet; all of them are of this moment.
    pub(super) fn new(labels: Labels, now: SystemTime) -> Self {
        Self { labels, timestamp: nanos(now), list: Vec::new() }
    }

    pub(super) fn into_list(self) -> Vec<cri::Metric> {
        self.list
    }

    fn add(&mut self, metric: &Metric, value: u64) {
        self.add_with(metric, [], value);
    }

    /// `extra`: the values of the metric's own labels.
    fn add_with<const N: usize>(&mut self, metric: &Metric, extra: [&str; N], value: u64) {
        debug_assert_eq!(metric.extra.len(), N, "{}", metric.name);
        let labels = self.labels.values().into_iter().chain(extra).map(str::to_owned);
        self.list.push(cri::Metric {
            name: metric.name.to_owned(),
            timestamp: self.timestamp,
            metric_type: metric.kind.into(),
            label_values: labels.collect(),
            value: Some(cri::UInt64Value { value }),
        });
    }

    /// When it was read, and when it started.
    pub(super) fn times(&mut self, started_at: i64) {
        self.add(&names::LAST_SEEN, seconds(self.timestamp));
        self.add(&names::START_TIME, seconds(started_at));
    }

    /// What a cgroup tells.
    pub(super) fn cgroup(&mut self, reading: &Reading, detail: &Detail, disks: &DiskNames) {
        self.add_with(&names::CPU_USAGE, ["total"], reading.cpu_nanos / NANOS);
        if let Some(cpu) = &detail.cpu {
            self.cpu(cpu, detail.limits.cpu_quota_us.is_some());
        }
        if let Some((memory, charges)) = reading.memory.as_ref().zip(detail.memory.as_ref()) {
            self.memory(memory, charges);
        }
        self.disks(detail, disks);
        for pages in &detail.hugepages {
            self.add_with(&names::HUGETLB_USAGE, [&pages.size], pages.usage_bytes);
            if let Some(highest) = pages.highest_bytes {
                self.add_with(&names::HUGETLB_MAX_USAGE, [&pages.size], highest);
            }
        }
        if let Some(threads) = &detail.threads {
            self.add(&names::THREADS, threads.count);
            self.add(&names::THREADS_MAX, threads.limit.unwrap_or(0));
        }
        self.limits(&detail.limits, reading.memory.is_some());
        self.pressures(&reading.pressure);
    }

    fn cpu(&mut self, cpu: &Cpu, limited: bool) {
        self.add(&names::CPU_USER, cpu.user_nanos / NANOS);
        self.add(&names::CPU_SYSTEM, cpu.system_nanos / NANOS);
        // Without a quota there are no periods.
        if limited {
            self.add(&names::CFS_PERIODS, cpu.periods);
            self.add(&names::CFS_THROTTLED_PERIODS, cpu.throttled_periods);
            self.add(&names::CFS_THROTTLED, cpu.throttled_nanos / NANOS);
        }
    }

    fn memory(&mut self, memory: &Memory, charges: &Charges) {
        self.add(&names::MEMORY_USAGE, memory.usage_bytes);
        self.add(&names::MEMORY_WORKING_SET, memory.working_set_bytes);
        self.add(&names::MEMORY_RSS, memory.rss_bytes);
        self.add(&names::MEMORY_CACHE, charges.cache);
        self.add(&names::MEMORY_ACTIVE_FILE, charges.active_file);
        self.add(&names::MEMORY_INACTIVE_FILE, charges.inactive_file);
        self.add(&names::MEMORY_MAPPED_FILE, charges.mapped_file);
        self.add(&names::MEMORY_KERNEL, charges.kernel);
        // Not accounted: nothing is known to be swapped out.
        self.add(&names::MEMORY_SWAP, memory.swap_bytes.unwrap_or(0));
        if let Some(highest) = charges.highest {
            self.add(&names::MEMORY_MAX_USAGE, highest);
        }
        self.add(&names::MEMORY_FAILCNT, charges.limit_hits);
        self.add(&names::OOM_EVENTS, charges.oom_kills);
        for (kind, own, all) in [
            ("pgfault", charges.own_page_faults, memory.page_faults),
            ("pgmajfault", charges.own_major_page_faults, memory.major_page_faults),
        ] {
            self.add_with(&names::MEMORY_FAILURES, [kind, "container"], own);
            self.add_with(&names::MEMORY_FAILURES, [kind, "hierarchy"], all);
        }
    }

    fn disks(&mut self, detail: &Detail, names: &DiskNames) {
        for disk in &detail.disks {
            let device = names.of(disk);
            let (major, minor) = (disk.major.to_string(), disk.minor.to_string());
            for (operation, flow) in [("Read", disk.read), ("Write", disk.written)] {
                let labels = [device.as_str(), &major, &minor, operation];
                self.add_with(&names::BLKIO, labels, flow.bytes);
            }
            self.add_with(&names::FS_READS_BYTES, [&device], disk.read.bytes);
            self.add_with(&names::FS_READS, [&device], disk.read.operations);
            self.add_with(&names::FS_WRITES_BYTES, [&device], disk.written.bytes);
            self.add_with(&names::FS_WRITES, [&device], disk.written.operations);
        }
    }

    fn limits(&mut self, limits: &Limits, has_memory: bool) {
        for (metric, value) in [
            (&names::SPEC_CPU_PERIOD, limits.cpu_period_us),
            (&names::SPEC_CPU_QUOTA, limits.cpu_quota_us),
            (&names::SPEC_CPU_SHARES, limits.cpu_shares),
        ] {
            if let Some(value) = value {
                self.add(metric, value);
            }
        }
        if has_memory {
            self.add(&names::SPEC_MEMORY_LIMIT, limits.memory_bytes.unwrap_or(0));
            let reservation = limits.memory_reservation_bytes.unwrap_or(0);
            self.add(&names::SPEC_MEMORY_RESERVATION, reservation);
            self.add(&names::SPEC_MEMORY_SWAP, limits.swap_bytes.unwrap_or(0));
        }
    }

    fn pressures(&mut self, pressures: &Pressures) {
        for (pressure, waiting, stalled) in [
            (pressures.cpu, &names::PRESSURE_CPU_WAITING, &names::PRESSURE_CPU_STALLED),
            (pressures.memory, &names::PRESSURE_MEMORY_WAITING, &names::PRESSURE_MEMORY_STALLED),
            (pressures.io, &names::PRESSURE_IO_WAITING, &names::PRESSURE_IO_STALLED),
        ] {
            if let Some(pressure) = pressure {
                self.add(waiting, pressure.some.total_nanos / NANOS);
                self.add(stalled, pressure.full.total_nanos / NANOS);
            }
        }
    }

    /// What processes hold open; `open_files`: how many files the first may.
    pub(super) fn processes(&mut self, processes: &Processes, open_files: Option<u64>) {
        self.add(&names::PROCESSES, processes.count);
        self.add(&names::FILE_DESCRIPTORS, processes.descriptors);
        self.add(&names::SOCKETS, processes.sockets);
        if let Some(limit) = open_files {
            self.add_with(&names::ULIMITS_SOFT, ["max_open_files"], limit);
        }
    }

    /// A writable layer's bytes, and the file system it is on.
    pub(super) fn layer(&mut self, used_bytes: u64, on: &Filesystem) {
        let device = [on.source.as_str()];
        self.add_with(&names::FS_USAGE, device, used_bytes);
        self.add_with(&names::FS_LIMIT, device, on.bytes);
        self.add_with(&names::FS_INODES, device, on.inodes);
        self.add_with(&names::FS_INODES_FREE, device, on.inodes_free);
    }

    /// Traffic of one interface.
    pub(super) fn interface(&mut self, interface: &Interface) {
        let (received, sent) = (interface.received, interface.sent);
        for (metric, value) in [
            (&names::NETWORK_RECEIVED_BYTES, received.bytes),
            (&names::NETWORK_RECEIVED_PACKETS, received.packets),
            (&names::NETWORK_RECEIVED_DROPPED, received.dropped),
            (&names::NETWORK_RECEIVED_ERRORS, received.errors),
            (&names::NETWORK_SENT_BYTES, sent.bytes),
            (&names::NETWORK_SENT_PACKETS, sent.packets),
            (&names::NETWORK_SENT_DROPPED, sent.dropped),
            (&names::NETWORK_SENT_ERRORS, sent.errors),
        ] {
            self.add_with(metric, [&interface.name], value);
        }
    }
}

fn seconds(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0) / NANOS
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::stats::Pressure;
    use crate::stats::detail::{Disk, Hugepages, Threads};

    /// Everything that can be read, read.
    fn full() -> Vec<cri::Metric> {
        let labels = Labels { pod: "pod".into(), ..Labels::default() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(7_500);
        let mut samples = Samples::new(labels, now);
        samples.times(5_999_999_999);
        let pressure = Some(Pressure::default());
        let reading = Reading {
            cpu_nanos: 3_999_999_999,
            memory: Some(Memory::default()),
            pressure: Pressures { cpu: pressure, memory: pressure, io: pressure },
        };
        let pages =
            Hugepages { size: "2MB".into(), usage_bytes: 2 << 20, highest_bytes: Some(4 << 20) };
        let detail = Detail {
            cpu: Some(Cpu::default()),
            memory: Some(Charges { highest: Some(1), ..Charges::default() }),
            disks: vec![Disk { major: 254, ..Disk::default() }],
            hugepages: vec![pages],
            threads: Some(Threads::default()),
            limits: Limits {
                cpu_shares: Some(2),
                cpu_quota_us: Some(20_000),
                cpu_period_us: Some(100_000),
                ..Limits::default()
            },
        };
        samples.cgroup(&reading, &detail, &DiskNames::default());
        samples.processes(&Processes::default(), Some(1024));
        samples.layer(1, &Filesystem::default());
        samples.interface(&Interface { name: "eth0".into(), ..Interface::default() });
        samples.into_list()
    }

    #[test]
    fn every_metric_that_is_described_can_be_sent_and_no_other_is() {
        let sent: BTreeSet<String> = full().into_iter().map(|metric| metric.name).collect();
        let described = names::ALL.iter().map(|metric| metric.name.to_owned()).collect();
        assert_eq!(sent, described);
    }

    #[test]
    fn a_sample_has_a_value_for_each_label_and_no_two_have_the_same_labels() {
        let described: BTreeMap<&str, usize> = names::ALL
            .iter()
            .map(|metric| (metric.name, metric.descriptor().label_keys.len()))
            .collect();
        let mut seen = BTreeSet::new();
        for sample in full() {
            assert_eq!(sample.label_values.len(), described[sample.name.as_str()], "{sample:?}");
            assert_eq!(sample.label_values[5], "pod");
            assert!(seen.insert((sample.name.clone(), sample.label_values.clone())), "{sample:?}");
        }
    }

    #[test]
    fn seconds_are_whole() {
        let value = |name: &str| {
            let all = full();
            let found = all.iter().find(|metric| metric.name == name);
            found.and_then(|metric| metric.value).unwrap().value
        };
        assert_eq!(value("container_cpu_usage_seconds_total"), 3);
        assert_eq!(value("container_last_seen"), 7);
        assert_eq!(value("container_start_time_seconds"), 5);
    }
}
