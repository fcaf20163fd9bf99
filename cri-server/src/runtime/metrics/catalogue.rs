//! All metrics that there are: names, kinds, labels.

use tripod_cri_api::v1::{MetricDescriptor, MetricType};

/// Labels of every metric, in cAdvisor's words. `id` and `name` are the ID of the container, or of the pod.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// One metric.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    help: &'static str,
    /// Labels beyond those of every metric.
    more: &'static [&'static str],
}

impl Definition {
    pub(super) fn descriptor(&self) -> MetricDescriptor {
        MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: LABELS.iter().chain(self.more).map(|label| (*label).to_owned()).collect(),
        }
    }
}

const fn counter(name: &'static str, help: &'static str, more: &'static [&'static str]) -> Definition {
    Definition { name, kind: MetricType::Counter, help, more }
}

const fn gauge(name: &'static str, help: &'static str, more: &'static [&'static str]) -> Definition {
    Definition { name, kind: MetricType::Gauge, help, more }
}

macro_rules! catalogue {
    ($($constant:ident = $definition:expr;)*) => {
        $(pub(super) const $constant: Definition = $definition;)*
        /// Each of them.
        pub(super) const ALL: &[Definition] = &[$($constant),*];
    };
}

catalogue! {
    CPU_USAGE = counter("container_cpu_usage_seconds_total", "CPU time, in seconds.", &[]);
    CPU_USER = counter("container_cpu_user_seconds_total", "CPU time in user mode, in seconds.", &[]);
    CPU_SYSTEM = counter("container_cpu_system_seconds_total", "CPU time in kernel mode, in seconds.", &[]);
    CFS_PERIODS = counter("container_cpu_cfs_periods_total", "Periods that have passed with a CPU quota set.", &[]);
    CFS_THROTTLED_PERIODS =
        counter("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up.", &[]);
    CFS_THROTTLED =
        counter("container_cpu_cfs_throttled_seconds_total", "Time spent waiting for the next period, in seconds.", &[]);
    CPU_WAITING =
        counter("container_pressure_cpu_waiting_seconds_total", "Time in which a task waited for a CPU, in seconds.", &[]);
    CPU_STALLED =
        counter("container_pressure_cpu_stalled_seconds_total", "Time in which all tasks waited for a CPU, in seconds.", &[]);
    MEMORY_CACHE = gauge("container_memory_cache", "Page cache, in bytes.", &[]);
    MEMORY_RSS = gauge("container_memory_rss", "Anonymous memory, in bytes.", &[]);
    MEMORY_KERNEL = gauge("container_memory_kernel_usage", "Kernel memory, in bytes.", &[]);
    MEMORY_MAPPED_FILE = gauge("container_memory_mapped_file", "Memory-mapped files, in bytes.", &[]);
    MEMORY_SWAP = gauge("container_memory_swap", "Swap, in bytes.", &[]);
    MEMORY_FAILCNT = counter("container_memory_failcnt", "Times that the memory limit was hit.", &[]);
    MEMORY_USAGE = gauge("container_memory_usage_bytes", "All charged memory, in bytes.", &[]);
    MEMORY_MAX_USAGE =
        gauge("container_memory_max_usage_bytes", "The most memory that was ever charged, in bytes.", &[]);
    MEMORY_WORKING_SET =
        gauge("container_memory_working_set_bytes", "Memory that cannot be reclaimed at once, in bytes.", &[]);
    MEMORY_FAILURES = counter("container_memory_failures_total", "Page faults.", &["failure_type", "scope"]);
    OOM_EVENTS = counter("container_oom_events_total", "Processes killed for lack of memory.", &[]);
    MEMORY_WAITING =
        counter("container_pressure_memory_waiting_seconds_total", "Time in which a task waited for memory, in seconds.", &[]);
    MEMORY_STALLED =
        counter("container_pressure_memory_stalled_seconds_total", "Time in which all tasks waited for memory, in seconds.", &[]);
    IO_WAITING =
        counter("container_pressure_io_waiting_seconds_total", "Time in which a task waited for a disk, in seconds.", &[]);
    IO_STALLED =
        counter("container_pressure_io_stalled_seconds_total", "Time in which all tasks waited for a disk, in seconds.", &[]);
    HUGETLB_USAGE = gauge("container_hugetlb_usage_bytes", "Huge pages, in bytes.", &["pagesize"]);
    HUGETLB_MAX_USAGE =
        gauge("container_hugetlb_max_usage_bytes", "The most huge pages ever, in bytes.", &["pagesize"]);
    HUGETLB_FAILCNT =
        counter("container_hugetlb_failcnt", "Times that the limit on huge pages was hit.", &["pagesize"]);
    FS_USAGE = gauge("container_fs_usage_bytes", "Writable layer, in bytes.", &["device"]);
    FS_READ_BYTES = counter("container_fs_reads_bytes_total", "Bytes read.", &["device"]);
    FS_READS = counter("container_fs_reads_total", "Reads.", &["device"]);
    FS_WRITE_BYTES = counter("container_fs_writes_bytes_total", "Bytes written.", &["device"]);
    FS_WRITES = counter("container_fs_writes_total", "Writes.", &["device"]);
    BLKIO_USAGE =
        counter("container_blkio_device_usage_total", "Bytes read and written.", &["device", "major", "minor", "operation"]);
    RECEIVE_BYTES = counter("container_network_receive_bytes_total", "Bytes received.", &["interface"]);
    RECEIVE_ERRORS = counter("container_network_receive_errors_total", "Errors while receiving.", &["interface"]);
    RECEIVE_DROPPED =
        counter("container_network_receive_packets_dropped_total", "Received packets that were dropped.", &["interface"]);
    RECEIVE_PACKETS = counter("container_network_receive_packets_total", "Packets received.", &["interface"]);
    TRANSMIT_BYTES = counter("container_network_transmit_bytes_total", "Bytes sent.", &["interface"]);
    TRANSMIT_ERRORS = counter("container_network_transmit_errors_total", "Errors while sending.", &["interface"]);
    TRANSMIT_DROPPED =
        counter("container_network_transmit_packets_dropped_total", "Packets to send that were dropped.", &["interface"]);
    TRANSMIT_PACKETS = counter("container_network_transmit_packets_total", "Packets sent.", &["interface"]);
    PROCESSES = gauge("container_processes", "Processes.", &[]);
    THREADS = gauge("container_threads", "Processes and threads.", &[]);
    THREADS_MAX = gauge("container_threads_max", "Limit on processes and threads.", &[]);
    LAST_SEEN = gauge("container_last_seen", "When it was measured, in seconds since 1970.", &[]);
    START_TIME = gauge("container_start_time_seconds", "When it was started, in seconds since 1970.", &[]);
    SPEC_CPU_PERIOD = gauge("container_spec_cpu_period", "CPU period, in microseconds.", &[]);
    SPEC_CPU_QUOTA = gauge("container_spec_cpu_quota", "CPU quota, in microseconds.", &[]);
    SPEC_CPU_SHARES = gauge("container_spec_cpu_shares", "CPU weight.", &[]);
    SPEC_MEMORY_LIMIT = gauge("container_spec_memory_limit_bytes", "Memory limit, in bytes.", &[]);
    SPEC_SWAP_LIMIT =
        gauge("container_spec_memory_swap_limit_bytes", "Limit on memory and swap together, in bytes.", &[]);
}
