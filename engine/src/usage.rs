//! What pods and containers use. Counters only grow; `None` means that the host does not tell.

use serde::Serialize;

/// Usage of one container at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Usage {
    /// CPU.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Swap.
    pub swap: SwapUsage,
    /// Processes and threads.
    pub pids: PidsUsage,
    /// Block input and output.
    pub io: Vec<IoUsage>,
    /// Pressure stall information of block input and output.
    pub io_pressure: Option<Pressure>,
    /// Huge pages: size, bytes in use, most bytes ever, failed requests.
    pub hugepages: Vec<HugepageUsage>,
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// All CPUs together, in nanoseconds since the start.
    pub total_ns: Option<u64>,
    /// In user mode, nanoseconds.
    pub user_ns: Option<u64>,
    /// In kernel mode, nanoseconds.
    pub system_ns: Option<u64>,
    /// Periods that have passed, with a quota set.
    pub periods: Option<u64>,
    /// Periods in which it was throttled.
    pub throttled_periods: Option<u64>,
    /// Time for which it was throttled, nanoseconds.
    pub throttled_ns: Option<u64>,
    /// Pressure stall information.
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemoryUsage {
    /// All charged memory.
    pub usage: Option<u64>,
    /// Usage less inactive file pages.
    pub working_set: Option<u64>,
    /// Anonymous memory.
    pub rss: Option<u64>,
    /// File pages.
    pub cache: Option<u64>,
    /// Memory-mapped files.
    pub mapped_file: Option<u64>,
    /// The most that was ever used.
    pub max_usage: Option<u64>,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
    /// Minor page faults.
    pub page_faults: Option<u64>,
    /// Major page faults.
    pub major_page_faults: Option<u64>,
    /// How often the limit was hit.
    pub failcnt: Option<u64>,
    /// How often a process was killed for lack of memory.
    pub oom_kills: Option<u64>,
    /// Kernel memory.
    pub kernel: Option<u64>,
    /// Pressure stall information.
    pub pressure: Option<Pressure>,
}

/// Swap, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SwapUsage {
    /// In use.
    pub usage: Option<u64>,
    /// Limit; `None` without one.
    pub limit: Option<u64>,
}

/// Processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PidsUsage {
    /// Processes.
    pub processes: Option<u64>,
    /// Processes and threads.
    pub threads: Option<u64>,
    /// Limit on both together; `None` without one.
    pub limit: Option<u64>,
}

/// Input and output of one block device.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct IoUsage {
    /// Major and minor number.
    pub device: (u32, u32),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HugepageUsage {
    /// As the kernel names it: `2MB`.
    pub size: String,
    /// Bytes in use.
    pub usage: u64,
    /// The most bytes that were ever in use.
    pub max_usage: u64,
    /// Requests that failed.
    pub failcnt: u64,
}

/// Pressure stall information: how long tasks waited for a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some tasks waited.
    pub some: PressureLine,
    /// All tasks waited.
    pub full: PressureLine,
}

/// One line of pressure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PressureLine {
    /// Per cent over 10 seconds.
    pub avg10: f64,
    /// Per cent over 60 seconds.
    pub avg60: f64,
    /// Per cent over 300 seconds.
    pub avg300: f64,
    /// Microseconds since the start.
    pub total: u64,
}

/// Usage of a pod as a whole, beyond the sum of its containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PodUsage {
    /// Interfaces, the default one first.
    pub interfaces: Vec<InterfaceUsage>,
}

/// Counters of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceUsage {
    /// Name in the pod.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Errors while sending.
    pub tx_errors: u64,
    /// Packets to send that were dropped.
    pub tx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
}

/// A container's writable layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WritableLayer {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}
