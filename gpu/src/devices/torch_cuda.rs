//! libtorch's CUDA half. The linker leaves it out of a binary that names none of its symbols, so that one binary runs with
//! and without CUDA; where a rank is to compute there it is loaded by name, before libtorch first asks for devices.

use std::ffi::CStr;
use std::sync::OnceLock;

use super::cuda::cuda_report;
use crate::GpuError;

/// Its name, looked up as any library's: in `LD_LIBRARY_PATH`, then where this build found libtorch.
const LIBRARY: &CStr = c"libtorch_cuda.so";

/// Loads libtorch's CUDA half, once for the process; must come before anything that computes with libtorch.
///
/// # Errors
/// [`GpuError::NoTorchCuda`] where the library or one of those that it needs can't be loaded, or where it finds fewer
/// devices than the driver. The answer stays the same for the life of the process.
pub fn load_torch_cuda() -> Result<(), GpuError> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| open(LIBRARY).and_then(|()| sees_devices()));
    outcome.clone().map_err(|reason| GpuError::NoTorchCuda { reason })
}

/// Loads a library for good, with its symbols for everybody.
fn open(library: &CStr) -> Result<(), String> {
    // SAFETY: the name is terminated. Loading runs the library's initialisers, which register CUDA with libtorch.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns null or a terminated text of this thread, which is copied before anything else is loaded.
    let reason = unsafe {
        let text = libc::dlerror();
        if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
    };
    Err(reason.unwrap_or_else(|| "it can't be loaded".to_owned()))
}

/// Whether libtorch reaches the devices that the driver lists.
fn sees_devices() -> Result<(), String> {
    let report = cuda_report();
    let listed = report.devices().len();
    let found = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if tch::Cuda::is_available() && found >= listed {
        return Ok(());
    }
    Err(format!("it finds {found} of {listed} devices ({report})"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named_in_the_reason() {
        let reason = open(c"libpsyche_is_not_there.so").unwrap_err();
        assert!(reason.contains("libpsyche_is_not_there.so"), "{reason}");
        assert!(open(c"libtorch_cpu.so").is_ok());
    }

    #[test]
    fn loading_cuda_gives_the_same_typed_answer_every_time() {
        let (first, second) = (load_torch_cuda(), load_torch_cuda());
        assert_eq!(first.is_ok(), second.is_ok());
        match first {
            Ok(()) => assert!(tch::Cuda::is_available()),
            Err(GpuError::NoTorchCuda { reason }) => println!("no CUDA device here: {reason}"),
            Err(other) => panic!("{other}"),
        }
    }
}
