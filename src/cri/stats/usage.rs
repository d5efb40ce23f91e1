//! Readings as the CRI tells them.

use crate::proto::cri;
use crate::stats::network::{Interface, Network};
use crate::stats::{Memory, Pressure, Reading, Stall};

#[allow(clippy::unnecessary_wraps)]
pub(super) fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

pub(super) fn cpu(timestamp: i64, reading: &Reading, rate: Option<u64>) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(reading.cpu_nanos),
        usage_nano_cores: rate.and_then(value),
        psi: reading.pressure.cpu.map(psi),
    }
}

pub(super) fn memory(timestamp: i64, reading: &Reading) -> Option<cri::MemoryUsage> {
    let memory = reading.memory?;
    Some(cri::MemoryUsage {
        timestamp,
        working_set_bytes: value(memory.working_set_bytes),
        available_bytes: memory.available_bytes.and_then(value),
        usage_bytes: value(memory.usage_bytes),
        rss_bytes: value(memory.rss_bytes),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: reading.pressure.memory.map(psi),
    })
}

pub(super) fn swap(timestamp: i64, memory: &Memory) -> Option<cri::SwapUsage> {
    Some(cri::SwapUsage {
        timestamp,
        swap_available_bytes: memory.swap_available_bytes.and_then(value),
        swap_usage_bytes: value(memory.swap_bytes?),
    })
}

pub(super) fn io(timestamp: i64, reading: &Reading) -> Option<cri::IoUsage> {
    Some(cri::IoUsage { timestamp, psi: Some(psi(reading.pressure.io?)) })
}

pub(super) fn network(timestamp: i64, network: Network) -> cri::NetworkUsage {
    let Network { interfaces, default } = network;
    let is_default = |each: &Interface| Some(&each.name) == default.as_ref();
    let (first, rest): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(is_default);
    cri::NetworkUsage {
        timestamp,
        default_interface: first.into_iter().next().map(interface),
        interfaces: rest.into_iter().map(interface).collect(),
    }
}

fn interface(interface: Interface) -> cri::NetworkInterfaceUsage {
    cri::NetworkInterfaceUsage {
        name: interface.name,
        rx_bytes: value(interface.received.bytes),
        rx_errors: value(interface.received.errors),
        tx_bytes: value(interface.sent.bytes),
        tx_errors: value(interface.sent.errors),
    }
}

fn psi(pressure: Pressure) -> cri::PsiStats {
    let data = |stall: Stall| cri::PsiData {
        total: stall.total_nanos,
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
    };
    cri::PsiStats { full: Some(data(pressure.full)), some: Some(data(pressure.some)) }
}
