//! The facts of this machine that decide whether a run will go well: processor, card, memory, disks, limits, the way out.
//! Reads what the system says of itself (Linux's /proc and /sys; elsewhere less is known); starts no program, opens no socket, computes
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::network::Network;
use crate::ops::{Compute, DeviceChoice, DeviceError};

/// Features of processors that kernels here have forms for, or that say what to expect.
const FEATURES: [&str; 14] = [
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
];
/// NVIDIA's number on the PCI bus.
const NVIDIA: &str = "0x10de";

/// A processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// As it calls itself.
    pub name: String,
    /// Threads that this process may use.
    pub num_threads: usize,
    /// Those of the listed features that it has.
    pub features: Vec<String>,
    /// The kernels that will run on it, in words.
    pub kernels: String,
}

/// NVIDIA's cards, as far as they can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Cards by name, or by their number on the bus where no driver names them.
    pub cards: Vec<String>,
    /// The driver's version.
    pub driver: Option<String>,
    /// The first card as this program opened it.
    pub device: Option<String>,
    /// Bytes free and in all on it.
    pub memory: Option<[u64; 2]>,
    /// Why this program cannot open one.
    pub refused: Option<String>,
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it.
    pub total_bytes: Option<u64>,
    /// What programs can have.
    pub available_bytes: Option<u64>,
    /// What this process may have, where a container or a job says so.
    pub limit_bytes: Option<u64>,
}

impl Memory {
    /// What a run can have, if known.
    pub fn usable(&self) -> Option<u64> {
        self.available_bytes.into_iter().chain(self.limit_bytes).min()
    }
}

/// A place for files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// What lies there.
    pub holds: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Bytes free.
    pub free_bytes: Option<u64>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// For example `x86_64-linux`.
    pub target: String,
    /// The processor.
    pub cpu: Cpu,
    /// The cards.
    pub gpu: Gpu,
    /// The memory.
    pub memory: Memory,
    /// Where runs and models lie.
    pub disks: Vec<Disk>,
    /// Files that may be open at once.
    pub max_open_files: Option<u64>,
    /// The way out.
    pub network: Network,
}

impl Machine {
    /// Looks at everything; `cache`: the Hugging Face cache, if it has a place.
    pub fn look(cache: Option<&Path>) -> Self {
        let root = Path::new("/");
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let place =
            |holds, path: &Path| Disk { holds, path: path.to_owned(), free_bytes: crate::provenance::free_bytes(path) };
        let mut disks = vec![place("runs", &here)];
        disks.extend(cache.map(|cache| place("the Hugging Face cache", cache)));
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        Self {
            target: crate::bundle::target(),
            cpu: cpu(&text("proc/cpuinfo")),
            gpu: gpu(root),
            memory: memory(root),
            disks,
            max_open_files: open_files(&text("proc/self/limits")),
            network: Network::look(&root.join("proc")),
        }
    }
}

/// The processor and its threads, to tell machines apart by: `AMD EPYC 9V74 80-Core Processor, 2 threads`.
pub fn processor() -> String {
    let Cpu { name, num_threads, .. } = cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    format!("{name}, {num_threads} threads")
}

/// From the text of /proc/cpuinfo.
fn cpu(info: &str) -> Cpu {
    let field = |names: &[&str]| {
        let pairs = info.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| names.contains(name)).map(|(_, v)| v)
    };
    let flags: Vec<&str> = field(&["flags", "Features"]).unwrap_or_default().split_whitespace().collect();
    Cpu {
        name: field(&["model name", "Model", "CPU part"]).unwrap_or("unnamed").to_owned(),
        num_threads: std::thread::available_parallelism().map_or(1, usize::from),
        features: FEATURES.iter().filter(|name| flags.contains(name)).map(|name| (*name).to_owned()).collect(),
        kernels: Compute::cpu().describe(),
    }
}

/// Cards on the bus, the driver's own words, and what this build can open.
fn gpu(root: &Path) -> Gpu {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let below = |path: &str| {
        let entries = fs::read_dir(root.join(path)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let driver_dir = root.join("proc/driver/nvidia");
    let driver = read(driver_dir.join("version"));
    let named = below("proc/driver/nvidia/gpus").into_iter().filter_map(|card| {
        let text = read(card.join("information"));
        text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()))
    });
    let mut cards: Vec<String> = named.collect();
    if cards.is_empty() {
        let on_bus = below("sys/bus/pci/devices").into_iter().filter(|device| {
            // Class 03: something that draws or computes.
            read(device.join("vendor")).trim() == NVIDIA && read(device.join("class")).starts_with("0x03")
        });
        let number = |device: PathBuf| format!("NVIDIA device {}", read(device.join("device")).trim());
        cards = on_bus.map(number).collect();
    }
    let mut gpu = Gpu { cards, driver: driver_version(&driver), ..Gpu::default() };
    match Compute::new(DeviceChoice::Cuda(0), None) {
        Ok(compute) => {
            gpu.device = Some(compute.describe());
            let about = compute.about().ok().flatten();
            gpu.memory = about.map(|about| [about.free_bytes as u64, about.total_bytes as u64]);
        }
        Err(DeviceError::NotBuilt { .. }) => gpu.refused = Some("this build has no CUDA".to_owned()),
        Err(error) => gpu.refused = error.to_string().lines().next().map(str::to_owned),
    }
    gpu
}

/// The number in `NVRM version: NVIDIA UNIX … Kernel Module  580.65.06  …`.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().next()?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn memory(root: &Path) -> Memory {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let info = text("proc/meminfo");
    let kibibytes = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    // Of this process's own group, second version or first; of the groups above it, the root's.
    let groups = text("proc/self/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let first = groups.lines().find_map(|line| line.split_once(":memory:/")).map_or("", |(_, path)| path);
    let files = [
        format!("sys/fs/cgroup/{own}/memory.max"),
        "sys/fs/cgroup/memory.max".to_owned(),
        format!("sys/fs/cgroup/memory/{first}/memory.limit_in_bytes"),
        "sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ];
    let limits = files.iter().filter_map(|file| text(file).trim().parse::<u64>().ok());
    let total_bytes = kibibytes("MemTotal:");
    let is_limit = |bytes: &u64| total_bytes.is_none_or(|total| *bytes < total);
    Memory { total_bytes, available_bytes: kibibytes("MemAvailable:"), limit_bytes: limits.filter(is_limit).min() }
}

/// The soft limit in the text of /proc/self/limits.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let info =
            "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 fma amx_bf16 avx2x\n\nprocessor: 1\n";
        let cpu = cpu(info);
        assert_eq!(cpu.name, "Some CPU @ 2 GHz");
        assert_eq!(cpu.features, ["avx2", "fma", "amx_bf16"]);
        assert_eq!(open_files("Limit\nMax open files            1024      4096   files\n"), Some(1024));
        let driver =
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12.3.0";
        assert_eq!(driver_version(driver).as_deref(), Some("580.65.06"));
        assert_eq!(driver_version(""), None);
    }

    #[test]
    fn the_tightest_limit_of_memory_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:  16000000 kB\nMemFree: 1 kB\nMemAvailable:  8000000 kB\n");
        assert_eq!(memory(folder.path()).usable(), Some(8_000_000 << 10));
        write("proc/self/cgroup", "0::/job/7\n");
        write("sys/fs/cgroup/job/7/memory.max", "max\n");
        assert_eq!(memory(folder.path()).limit_bytes, None);
        write("sys/fs/cgroup/job/7/memory.max", "1000000000\n");
        assert_eq!(memory(folder.path()).usable(), Some(1_000_000_000));
    }
}
