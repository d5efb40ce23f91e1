//! Limits that plugins ask for, put together value by value.

use super::Error;
use super::api::{Field, LinuxCpu, LinuxMemory, LinuxResources};
use super::owners::Owners;

/// Whoever asks, and for which container.
pub(super) struct Asking<'a> {
    pub(super) owners: &'a mut Owners,
    pub(super) container: &'a str,
    pub(super) plugin: &'a str,
}

impl Asking<'_> {
    pub(super) fn claim(&mut self, field: Field, key: &str) -> Result<(), Error> {
        self.owners.claim(self.container, field, key, self.plugin)
    }

    /// Takes a value where one is given.
    fn take<T: Clone>(
        &mut self,
        field: Field,
        from: Option<&T>,
        to: &mut Option<T>,
    ) -> Result<(), Error> {
        if let Some(value) = from {
            self.claim(field, "")?;
            *to = Some(value.clone());
        }
        Ok(())
    }

    fn take_text(&mut self, field: Field, from: &str, to: &mut String) -> Result<(), Error> {
        if !from.is_empty() {
            self.claim(field, "")?;
            from.clone_into(to);
        }
        Ok(())
    }

    /// Takes all that is given.
    pub(super) fn resources(
        &mut self,
        from: &LinuxResources,
        to: &mut LinuxResources,
    ) -> Result<(), Error> {
        if let Some(memory) = &from.memory {
            self.memory(memory, to.memory.get_or_insert_default())?;
        }
        if let Some(cpu) = &from.cpu {
            self.cpu(cpu, to.cpu.get_or_insert_default())?;
        }
        for limit in &from.hugepage_limits {
            self.claim(Field::HugepageLimits, &limit.page_size)?;
            to.hugepage_limits.retain(|there| there.page_size != limit.page_size);
            to.hugepage_limits.push(limit.clone());
        }
        for (file, value) in &from.unified {
            self.claim(Field::CgroupsUnified, file)?;
            to.unified.insert(file.clone(), value.clone());
        }
        to.devices.extend(from.devices.iter().cloned());
        self.take(Field::BlockioClass, from.blockio_class.as_ref(), &mut to.blockio_class)?;
        self.take(Field::RdtClass, from.rdt_class.as_ref(), &mut to.rdt_class)?;
        self.take(Field::PidsLimit, from.pids.as_ref(), &mut to.pids)
    }

    fn memory(&mut self, from: &LinuxMemory, to: &mut LinuxMemory) -> Result<(), Error> {
        self.take(Field::MemLimit, from.limit.as_ref(), &mut to.limit)?;
        self.take(Field::MemReservation, from.reservation.as_ref(), &mut to.reservation)?;
        self.take(Field::MemSwapLimit, from.swap.as_ref(), &mut to.swap)?;
        self.take(Field::MemKernelLimit, from.kernel.as_ref(), &mut to.kernel)?;
        self.take(Field::MemTcpLimit, from.kernel_tcp.as_ref(), &mut to.kernel_tcp)?;
        self.take(Field::MemSwappiness, from.swappiness.as_ref(), &mut to.swappiness)?;
        let (from_killer, to_killer) = (&from.disable_oom_killer, &mut to.disable_oom_killer);
        self.take(Field::MemDisableOomKiller, from_killer.as_ref(), to_killer)?;
        self.take(Field::MemUseHierarchy, from.use_hierarchy.as_ref(), &mut to.use_hierarchy)
    }

    fn cpu(&mut self, from: &LinuxCpu, to: &mut LinuxCpu) -> Result<(), Error> {
        self.take(Field::CpuShares, from.shares.as_ref(), &mut to.shares)?;
        self.take(Field::CpuQuota, from.quota.as_ref(), &mut to.quota)?;
        self.take(Field::CpuPeriod, from.period.as_ref(), &mut to.period)?;
        let (from_runtime, to_runtime) = (&from.realtime_runtime, &mut to.realtime_runtime);
        self.take(Field::CpuRealtimeRuntime, from_runtime.as_ref(), to_runtime)?;
        let (from_period, to_period) = (&from.realtime_period, &mut to.realtime_period);
        self.take(Field::CpuRealtimePeriod, from_period.as_ref(), to_period)?;
        self.take_text(Field::CpuSetCpUs, &from.cpus, &mut to.cpus)?;
        self.take_text(Field::CpuSetMems, &from.mems, &mut to.mems)
    }
}
