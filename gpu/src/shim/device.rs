//! The device of a thread.

use std::ffi::c_int;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_set_cuda_device(device: c_int) -> c_int;
}

/// Makes `device` the one on which the calling thread computes where nothing else is said.
///
/// # Errors
/// libtorch's, where it knows no such device or nothing of CUDA.
pub(crate) fn set_cuda_device(device: usize) -> Result<(), GpuError> {
    // libtorch keeps device numbers in a signed byte.
    let index = i8::try_from(device)
        .map_err(|_| GpuError::Device { device: format!("cuda:{device}"), problem: "no such device".to_owned() })?;
    // SAFETY: takes no memory, and throws nothing across.
    checked(unsafe { psyche_set_cuda_device(c_int::from(index)) })
}
