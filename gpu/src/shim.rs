//! The C++ shim seen from Rust: what tch 0.24 lacks, one file here for each file of `gpu/shim`.

use std::ffi::{CStr, c_char, c_int};

use crate::GpuError;

mod adamw;
mod collective;
mod device;
mod fused;
mod gradients;
mod memory;
#[cfg(test)]
mod meter;
#[cfg(test)]
mod observe;
pub(crate) mod stream;

pub(crate) use adamw::{AdamWRates, AdamWState};
pub(crate) use collective::Region;
pub(crate) use device::set_cuda_device;
pub(crate) use fused::{rms_norm, rotate, swiglu};
pub(crate) use gradients::{GradientSum, backward};
pub use memory::MemoryUse;
pub(crate) use memory::{memory_use, out_of_memory_count, release_cached_memory};
#[cfg(test)]
pub(crate) use meter::Meter;
#[cfg(test)]
pub(crate) use observe::results_with_dimension;

unsafe extern "C" {
    fn psyche_last_error() -> *const c_char;
}

/// What a function of the shim returned, as a result.
pub(crate) fn checked(code: c_int) -> Result<(), GpuError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the shim returns a pointer to a thread-local, always terminated buffer.
    let message = unsafe { CStr::from_ptr(psyche_last_error()) };
    Err(GpuError::Shim { message: message.to_string_lossy().into_owned() })
}
