//! NVIDIA's libraries: where they may lie, and what is asked of the driver once. Knows file names; knows no operation.

use std::path::PathBuf;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublaslt::sys as cublaslt;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
use candle_core::{Error, Result};

use super::super::DeviceError;

/// The driver's, and those that pip or a toolkit installs.
const LIBRARIES: [(&str, bool); 4] =
    [("libcuda.so.1", true), ("libcublasLt.so.13", false), ("libcublas.so.13", false), ("libcurand.so.10", false)];

/// Opens the libraries where the loader does not find them by itself, so that who asks for them by name gets these.
pub fn find() -> std::result::Result<(), DeviceError> {
    let mut missing = Vec::new();
    for (name, from_driver) in LIBRARIES {
        // SAFETY: libraries of NVIDIA's, which prepare themselves when they are opened; they stay open as long as the program runs.
        let opened = unsafe { libloading::Library::new(name) }.or_else(|error| {
            let found = folders().into_iter().map(|folder| folder.join(name)).find(|path| path.exists());
            // SAFETY: as above.
            found.map_or(Err(error), |path| unsafe { libloading::Library::new(path) })
        });
        match opened {
            Ok(library) => std::mem::forget(library),
            Err(_) if from_driver => {
                let reason = Error::Msg("this machine has no NVIDIA driver (libcuda.so.1)".to_owned());
                return Err(DeviceError::NotOpened { device: "cuda", reason });
            }
            Err(_) => missing.push(name),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(DeviceError::NoLibrary { missing: missing.join(", ") })
}

/// Where libraries lie that the loader does not look for: those of pip beside each Python of the path, and of a toolkit.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["/usr/local/cuda/lib64", "/usr/local/nvidia/lib64"].map(PathBuf::from).into();
    for python in crate::config::search_path().filter(|folder| folder.join("python3").exists()) {
        let Ok(libraries) = std::fs::read_dir(python.join("../lib")) else { continue };
        for library in libraries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("python3")) {
            for packages in ["site-packages", "dist-packages"] {
                folders.push(library.path().join(packages).join("nvidia/cu13/lib"));
            }
        }
    }
    folders
}

/// The device's pool of memory, if it has one.
fn pool(context: &CudaContext) -> Option<sys::CUmemoryPool> {
    // SAFETY: the device is the context's.
    let pool = context.has_async_alloc().then(|| unsafe { result::device::get_default_mem_pool(context.cu_device()) });
    pool.and_then(|pool| pool.ok())
}

/// Lets the driver keep memory that was freed for who asks next, instead of giving it back at every wait.
pub fn keep_freed_memory(context: &CudaContext) -> Result<()> {
    let mut all = u64::MAX;
    context.bind_to_thread().w()?;
    let Some(pool) = pool(context) else { return Ok(()) };
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the value is of the type that the attribute has.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut all).cast()) }.result().w()
}

/// Bytes that are kept so, and that nobody has.
pub fn kept_memory(context: &CudaContext) -> Result<usize> {
    use sys::CUmemPool_attribute as Attribute;
    context.bind_to_thread().w()?;
    let Some(pool) = pool(context) else { return Ok(0) };
    let read = |attribute| -> Result<u64> {
        let mut bytes = 0u64;
        // SAFETY: the value is of the type that the attribute has.
        unsafe { sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut bytes).cast()) }.result().w()?;
        Ok(bytes)
    };
    let reserved = read(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    Ok(reserved.saturating_sub(read(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?) as usize)
}

/// The driver's version as it counts: 13020 is 13.2. It need not have been set up before.
fn driver_version() -> Result<i32> {
    let mut driver = 0;
    // SAFETY: the driver writes one number to where it is told.
    unsafe { sys::cuDriverGetVersion(&raw mut driver) }.result().w()?;
    Ok(driver)
}

/// Refuses a driver that does not know what our kernels were compiled by.
pub fn check_driver() -> Result<()> {
    let driver = driver_version()?;
    if driver < 13_000 {
        let (major, minor) = (driver / 1000, driver % 1000 / 10);
        candle_core::bail!("the driver is for CUDA {major}.{minor}, want 13.0 or newer (driver 580)")
    }
    Ok(())
}

/// Refuses libraries of an older CUDA, which other programs may have put before ours.
pub fn check_libraries() -> Result<()> {
    // SAFETY: the library was found; the call takes nothing.
    let version = unsafe { cublaslt::cublasLtGetVersion() };
    if version < 130_000 {
        candle_core::bail!(
            "the loader finds cuBLASLt {version} first, want 130000 (13.0) or newer: see LD_LIBRARY_PATH"
        )
    }
    Ok(())
}

/// Versions of driver and libraries, in words.
pub fn versions() -> Result<String> {
    let driver = driver_version()?;
    // SAFETY: the library was found when the device was opened; the call takes nothing.
    let cublas_lt = unsafe { cublaslt::cublasLtGetVersion() };
    let [major, minor] = [driver / 1000, driver % 1000 / 10];
    let [lt_major, lt_minor, lt_patch] = [cublas_lt / 10_000, cublas_lt % 10_000 / 100, cublas_lt % 100];
    Ok(format!("driver for CUDA {major}.{minor}, cuBLASLt {lt_major}.{lt_minor}.{lt_patch}"))
}
