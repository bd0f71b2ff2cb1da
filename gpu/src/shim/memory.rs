//! The caching allocator of a CUDA device.

use std::ffi::c_int;

use tch::Device;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_cuda_out_of_memory_count(device: c_int, count: *mut i64) -> c_int;
}

/// How often `device` has run out of memory so far; devices without a caching allocator never do.
pub(crate) fn out_of_memory_count(device: Device) -> Result<i64, GpuError> {
    let Device::Cuda(index) = device else { return Ok(0) };
    let index = c_int::try_from(index)
        .map_err(|_| GpuError::Device { device: format!("cuda:{index}"), problem: "no such device".to_owned() })?;
    let mut count = 0;
    // SAFETY: `count` outlives the call.
    checked(unsafe { psyche_cuda_out_of_memory_count(index, &raw mut count) })?;
    Ok(count)
}
