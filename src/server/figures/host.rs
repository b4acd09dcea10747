//! Resource usage of this process and this machine, as the operating system reports it. Every value
//! is optional: a container may hide it.

use std::time::Duration;

use procfs::process::Process;
use procfs::{CurrentSI, KernelStats};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// This process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ProcessUsage {
    /// Processor time so far, of all threads.
    pub(super) cpu: Duration,
    /// Memory that is in RAM.
    pub(super) resident_bytes: Option<u64>,
    /// Files and sockets open now, and how many may be.
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
}

/// One core of the machine since it was started, whoever used it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuCore {
    /// In the kernel's ticks.
    pub(super) busy: u64,
    pub(super) total: u64,
}

/// This process now.
pub(super) fn own() -> ProcessUsage {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(cpu.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(cpu.tv_nsec).unwrap_or(0);
    let process = Process::myself().ok();
    let resident = process.as_ref().and_then(|process| process.statm().ok());
    let files = process.as_ref().and_then(|process| process.fd_count().ok());
    ProcessUsage {
        cpu: Duration::new(seconds, nanos),
        resident_bytes: resident.map(|memory| memory.resident * procfs::page_size()),
        open_files: files.map(|count| count as u64),
        max_files: getrlimit(Resource::Nofile).current,
    }
}

/// Every core of the machine, in the kernel's order; none where it does not say.
pub(super) fn cores() -> Vec<CpuCore> {
    let Ok(stats) = KernelStats::current() else { return Vec::new() };
    let core = |time: &procfs::CpuTime| {
        let idle = time.idle + time.iowait.unwrap_or(0);
        // A guest's time is part of `user` already.
        let busy = time.user
            + time.nice
            + time.system
            + time.irq.unwrap_or(0)
            + time.softirq.unwrap_or(0)
            + time.steal.unwrap_or(0);
        CpuCore { busy, total: busy + idle }
    };
    stats.cpu_time.iter().map(core).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_the_processor_time() {
        let before = own();
        let mut sum = 0u64;
        while own().cpu < before.cpu + Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let now = own();
        assert!(now.cpu > before.cpu);
        // A test of this size is neither nothing nor a gigabyte.
        let resident = now.resident_bytes.unwrap();
        assert!((1 << 20..4 << 30).contains(&resident), "{resident}");
        assert!(now.open_files.unwrap() >= 3);
    }

    #[test]
    fn every_core_is_there() {
        let cores = cores();
        assert!(!cores.is_empty());
        assert!(cores.iter().all(|core| core.busy <= core.total && core.total > 0), "{cores:?}");
    }
}
