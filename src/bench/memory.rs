//! What this process holds in memory, as the kernel counts it. Knows `/proc`; where there is none it knows nothing.

/// Resident memory now, in MiB.
pub fn resident_mib() -> Option<f64> {
    status_mib("VmRSS:")
}

/// Most resident memory since the process began or [`forget_peak`], in MiB.
pub fn peak_resident_mib() -> Option<f64> {
    status_mib("VmHWM:")
}

/// Begins to count the most resident memory anew (proc(5), `clear_refs`); where that cannot be, it goes on from the process's beginning.
pub fn forget_peak() {
    // Best effort: only a figure depends on it.
    _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn status_mib(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
