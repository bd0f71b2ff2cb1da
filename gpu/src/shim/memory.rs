//! The memory of devices: how often it ran out, how much is in use, and giving back what is cached.

use std::ffi::c_int;

use tch::Device;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_cpu_out_of_memory_count() -> i64;
    fn psyche_cuda_out_of_memory_count(device: c_int, count: *mut i64) -> c_int;
    fn psyche_cuda_memory(device: c_int, bytes: *mut i64) -> c_int;
    fn psyche_cuda_empty_cache() -> c_int;
}

/// What libtorch's allocator of a CUDA device says about its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in tensors now.
    pub allocated_bytes: u64,
    /// Most bytes in tensors at any time so far.
    pub allocated_bytes_max: u64,
    /// Bytes that the allocator holds, in tensors or cached.
    pub reserved_bytes: u64,
}

/// How often `device` has run out of memory so far; on the CPU, how often this thread was refused some.
pub(crate) fn out_of_memory_count(device: Device) -> Result<i64, GpuError> {
    let Device::Cuda(index) = device else {
        // SAFETY: reads a variable of this thread.
        return Ok(unsafe { psyche_cpu_out_of_memory_count() });
    };
    let mut count = 0;
    // SAFETY: `count` outlives the call.
    checked(unsafe { psyche_cuda_out_of_memory_count(ordinal(index)?, &raw mut count) })?;
    Ok(count)
}

/// The memory of a CUDA device as libtorch uses it; none for other devices.
pub(crate) fn memory_use(device: Device) -> Result<Option<MemoryUse>, GpuError> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let mut bytes = [0_i64; 3];
    // SAFETY: the shim writes three numbers, for which there is room.
    checked(unsafe { psyche_cuda_memory(ordinal(index)?, bytes.as_mut_ptr()) })?;
    let [allocated_bytes, allocated_bytes_max, reserved_bytes] = bytes.map(|bytes| u64::try_from(bytes).unwrap_or(0));
    Ok(Some(MemoryUse { allocated_bytes, allocated_bytes_max, reserved_bytes }))
}

/// Gives back what CUDA allocators hold without using it; on the CPU nothing is held.
pub(crate) fn release_cached_memory(device: Device) -> Result<(), GpuError> {
    match device {
        // SAFETY: has no arguments and reports failures by its code.
        Device::Cuda(_) => checked(unsafe { psyche_cuda_empty_cache() }),
        _ => Ok(()),
    }
}

fn ordinal(index: usize) -> Result<c_int, GpuError> {
    c_int::try_from(index)
        .map_err(|_| GpuError::Device { device: format!("cuda:{index}"), problem: "no such device".to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn refused_memory_is_counted_on_the_thread_that_asked() {
        let before = out_of_memory_count(Device::Cpu).unwrap();
        let elsewhere = std::thread::spawn(|| {
            // More than any address space holds, so that it is refused however much memory there is.
            assert!(Tensor::f_zeros([1 << 50], (Kind::Float, Device::Cpu)).is_err());
            out_of_memory_count(Device::Cpu).unwrap()
        });
        assert_eq!(elsewhere.join().unwrap(), 1);
        assert!(Tensor::f_zeros([2, -1], (Kind::Float, Device::Cpu)).is_err(), "an error that is not about memory");
        assert_eq!(out_of_memory_count(Device::Cpu).unwrap(), before);
        assert_eq!(memory_use(Device::Cpu).unwrap(), None);
    }
}
