//! The metrics by name: those of cAdvisor that a container runtime can tell, with its label
//! keys. Times are whole seconds, as values of the CRI are whole numbers.

use crate::proto::cri::{self, MetricType};

/// The label keys that every metric begins with.
const BASE: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A metric.
#[derive(Debug)]
pub(super) struct Metric {
    /// As it is scraped.
    pub(super) name: &'static str,
    /// Whether it only goes up.
    pub(super) kind: MetricType,
    /// The label keys after those that all have.
    pub(super) extra: &'static [&'static str],
    help: &'static str,
}

/// A constant for each, and the list of them all.
macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(pub(super) static $constant: Metric = Metric {
            name: $name,
            kind: MetricType::$kind,
            extra: &[$($label),*],
            help: $help,
        };)*

        /// Every one.
        pub(super) static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    LAST_SEEN Gauge "container_last_seen" [] "When it was last read, in seconds since the epoch.";
    START_TIME Gauge "container_start_time_seconds" [] "When it started, in seconds since the epoch.";

    CPU_USAGE Counter "container_cpu_usage_seconds_total" ["cpu"] "CPU time used, in seconds.";
    CPU_USER Counter "container_cpu_user_seconds_total" [] "CPU time used in user space, in seconds.";
    CPU_SYSTEM Counter "container_cpu_system_seconds_total" [] "CPU time used in the kernel, in seconds.";
    CFS_PERIODS Counter "container_cpu_cfs_periods_total" [] "Periods in which it ran under a CPU quota.";
    CFS_THROTTLED_PERIODS Counter "container_cpu_cfs_throttled_periods_total" [] "Periods in which it used its CPU quota up.";
    CFS_THROTTLED Counter "container_cpu_cfs_throttled_seconds_total" [] "Time it waited for its next CPU quota, in seconds.";

    MEMORY_USAGE Gauge "container_memory_usage_bytes" [] "Memory in use with all caches, in bytes.";
    MEMORY_WORKING_SET Gauge "container_memory_working_set_bytes" [] "Memory in use without the inactive page cache, in bytes.";
    MEMORY_RSS Gauge "container_memory_rss" [] "Anonymous memory, in bytes.";
    MEMORY_CACHE Gauge "container_memory_cache" [] "Page cache, in bytes.";
    MEMORY_ACTIVE_FILE Gauge "container_memory_total_active_file_bytes" [] "Page cache that was used lately, in bytes.";
    MEMORY_INACTIVE_FILE Gauge "container_memory_total_inactive_file_bytes" [] "Page cache that was not used lately, in bytes.";
    MEMORY_MAPPED_FILE Gauge "container_memory_mapped_file" [] "Mapped files, in bytes.";
    MEMORY_KERNEL Gauge "container_memory_kernel_usage" [] "Memory that the kernel uses for it, in bytes.";
    MEMORY_SWAP Gauge "container_memory_swap" [] "Swap in use, in bytes.";
    MEMORY_MAX_USAGE Gauge "container_memory_max_usage_bytes" [] "The most memory it ever had in use, in bytes.";
    MEMORY_FAILCNT Counter "container_memory_failcnt" [] "How often it met its memory limit.";
    MEMORY_FAILURES Counter "container_memory_failures_total" ["failure_type" "scope"] "Page faults (pgfault) and major page faults (pgmajfault).";
    OOM_EVENTS Counter "container_oom_events_total" [] "Processes that the kernel killed for want of memory.";

    HUGETLB_USAGE Gauge "container_hugetlb_usage_bytes" ["pagesize"] "Huge pages in use, in bytes.";
    HUGETLB_MAX_USAGE Gauge "container_hugetlb_max_usage_bytes" ["pagesize"] "The most huge pages it ever had in use, in bytes.";

    BLKIO Counter "container_blkio_device_usage_total" ["device" "major" "minor" "operation"] "Bytes read from and written to a block device.";
    FS_READS_BYTES Counter "container_fs_reads_bytes_total" ["device"] "Bytes read from a block device.";
    FS_READS Counter "container_fs_reads_total" ["device"] "Reads from a block device.";
    FS_WRITES_BYTES Counter "container_fs_writes_bytes_total" ["device"] "Bytes written to a block device.";
    FS_WRITES Counter "container_fs_writes_total" ["device"] "Writes to a block device.";
    FS_USAGE Gauge "container_fs_usage_bytes" ["device"] "Disk space that its writable layer takes, in bytes.";
    FS_LIMIT Gauge "container_fs_limit_bytes" ["device"] "Size of the file system its writable layer is on, in bytes.";
    FS_INODES Gauge "container_fs_inodes_total" ["device"] "Inodes of the file system its writable layer is on.";
    FS_INODES_FREE Gauge "container_fs_inodes_free" ["device"] "Free inodes of the file system its writable layer is on.";

    NETWORK_RECEIVED_BYTES Counter "container_network_receive_bytes_total" ["interface"] "Bytes received.";
    NETWORK_RECEIVED_PACKETS Counter "container_network_receive_packets_total" ["interface"] "Packets received.";
    NETWORK_RECEIVED_DROPPED Counter "container_network_receive_packets_dropped_total" ["interface"] "Packets dropped while receiving.";
    NETWORK_RECEIVED_ERRORS Counter "container_network_receive_errors_total" ["interface"] "Errors while receiving.";
    NETWORK_SENT_BYTES Counter "container_network_transmit_bytes_total" ["interface"] "Bytes sent.";
    NETWORK_SENT_PACKETS Counter "container_network_transmit_packets_total" ["interface"] "Packets sent.";
    NETWORK_SENT_DROPPED Counter "container_network_transmit_packets_dropped_total" ["interface"] "Packets dropped while sending.";
    NETWORK_SENT_ERRORS Counter "container_network_transmit_errors_total" ["interface"] "Errors while sending.";

    PROCESSES Gauge "container_processes" [] "Processes.";
    THREADS Gauge "container_threads" [] "Threads.";
    THREADS_MAX Gauge "container_threads_max" [] "Threads it may have; 0: as many as it likes.";
    FILE_DESCRIPTORS Gauge "container_file_descriptors" [] "Open file descriptors.";
    SOCKETS Gauge "container_sockets" [] "Open sockets.";
    ULIMITS_SOFT Gauge "container_ulimits_soft" ["ulimit"] "Soft limits of its first process.";

    SPEC_CPU_PERIOD Gauge "container_spec_cpu_period" [] "Period of its CPU quota, in microseconds.";
    SPEC_CPU_QUOTA Gauge "container_spec_cpu_quota" [] "CPU time it may use in each period, in microseconds.";
    SPEC_CPU_SHARES Gauge "container_spec_cpu_shares" [] "Its share of a busy CPU, relative to others'.";
    SPEC_MEMORY_LIMIT Gauge "container_spec_memory_limit_bytes" [] "Its memory limit, in bytes; 0: none.";
    SPEC_MEMORY_RESERVATION Gauge "container_spec_memory_reservation_limit_bytes" [] "Memory that is taken from it last, in bytes; 0: none.";
    SPEC_MEMORY_SWAP Gauge "container_spec_memory_swap_limit_bytes" [] "Its swap limit (cgroup v1: with memory), in bytes; 0: none.";

    PRESSURE_CPU_WAITING Counter "container_pressure_cpu_waiting_seconds_total" [] "Time in which some task waited for a CPU, in seconds.";
    PRESSURE_CPU_STALLED Counter "container_pressure_cpu_stalled_seconds_total" [] "Time in which every task waited for a CPU, in seconds.";
    PRESSURE_MEMORY_WAITING Counter "container_pressure_memory_waiting_seconds_total" [] "Time in which some task waited for memory, in seconds.";
    PRESSURE_MEMORY_STALLED Counter "container_pressure_memory_stalled_seconds_total" [] "Time in which every task waited for memory, in seconds.";
    PRESSURE_IO_WAITING Counter "container_pressure_io_waiting_seconds_total" [] "Time in which some task waited for a disk, in seconds.";
    PRESSURE_IO_STALLED Counter "container_pressure_io_stalled_seconds_total" [] "Time in which every task waited for a disk, in seconds.";
}

impl Metric {
    pub(super) fn descriptor(&self) -> cri::MetricDescriptor {
        cri::MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: BASE.iter().chain(self.extra).map(ToString::to_string).collect(),
        }
    }
}

/// What the labels say that every metric begins with.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels {
    /// Its name in the pod; empty for a pod as a whole.
    pub(super) container: String,
    /// Its cgroup.
    pub(super) id: String,
    /// The name of its image; empty for a pod.
    pub(super) image: String,
    /// The id of the container, or of the sandbox.
    pub(super) name: String,
    /// Of the pod.
    pub(super) namespace: String,
    /// The pod's name.
    pub(super) pod: String,
}

impl Labels {
    /// Their values, in the order of [`BASE`].
    pub(super) fn values(&self) -> [&str; 6] {
        [&self.container, &self.id, &self.image, &self.name, &self.namespace, &self.pod]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_there_twice_and_each_is_described() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let keys = metric.descriptor().label_keys;
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{metric:?}");
            assert_eq!(keys[..6], BASE);
            assert!(!metric.help.is_empty());
            // cAdvisor's two exceptions.
            let total = metric.name.ends_with("_total") != metric.name.ends_with("_inodes_total");
            let counter = total || metric.name.ends_with("_failcnt");
            assert_eq!(metric.kind == MetricType::Counter, counter, "{metric:?}");
        }
    }

    #[test]
    fn values_are_in_the_order_of_their_keys() {
        let own = |name: &str| name.to_owned();
        let labels = Labels {
            container: own("container"),
            id: own("id"),
            image: own("image"),
            name: own("name"),
            namespace: own("namespace"),
            pod: own("pod"),
        };
        assert_eq!(labels.values(), BASE);
    }
}
