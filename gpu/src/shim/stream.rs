//! Streams of a CUDA device. A CPU has none: it has done everything that it was told.

use std::ffi::{c_int, c_void};

use tch::Device;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_stream_use_device(device: c_int) -> c_int;
    fn psyche_stream_current(device: c_int, handle: *mut *mut c_void) -> c_int;
    fn psyche_stream_beside(device: c_int, id: *mut i64, handle: *mut *mut c_void) -> c_int;
    fn psyche_stream_fork(device: c_int, id: i64) -> c_int;
    fn psyche_stream_join(device: c_int, id: i64) -> c_int;
    fn psyche_stream_idle(device: c_int, idle: *mut c_int) -> c_int;
}

/// The number of a CUDA device; none for the CPU.
fn index(device: Device) -> Result<Option<c_int>, GpuError> {
    let unknown = || GpuError::Device { device: format!("{device:?}"), problem: "no such device".to_owned() };
    match device {
        Device::Cpu => Ok(None),
        Device::Cuda(index) => c_int::try_from(index).map(Some).map_err(|_| unknown()),
        _ => Err(unknown()),
    }
}

/// Makes `device` the one that CUDA's own calls of this thread mean.
///
/// # Errors
/// libtorch's, such as a device that is not there.
pub(crate) fn use_device(device: Device) -> Result<(), GpuError> {
    // SAFETY: takes a number only.
    index(device)?.map_or(Ok(()), |index| checked(unsafe { psyche_stream_use_device(index) }))
}

/// The `cudaStream_t` on which torch works in this thread; null on the CPU.
///
/// # Errors
/// libtorch's.
pub(crate) fn current(device: Device) -> Result<*mut c_void, GpuError> {
    let mut handle = std::ptr::null_mut();
    if let Some(index) = index(device)? {
        // SAFETY: `handle` outlives the call.
        checked(unsafe { psyche_stream_current(index, &raw mut handle) })?;
    }
    Ok(handle)
}

/// Whether this thread's current stream has done everything that it was told.
///
/// # Errors
/// What went wrong on the device meanwhile.
pub(crate) fn is_idle(device: Device) -> Result<bool, GpuError> {
    let Some(index) = index(device)? else { return Ok(true) };
    let mut idle = 0;
    // SAFETY: `idle` outlives the call.
    checked(unsafe { psyche_stream_idle(index, &raw mut idle) })?;
    Ok(idle != 0)
}

/// A stream beside the one on which torch computes.
pub(crate) struct SideStream {
    device: c_int,
    id: i64,
    handle: *mut c_void,
}

// SAFETY: the handle is CUDA's name for a stream that torch's pool keeps for ever; any thread may use it.
unsafe impl Send for SideStream {}
// SAFETY: as above.
unsafe impl Sync for SideStream {}

impl SideStream {
    /// One of `device`'s pool; none on the CPU.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn new(device: Device) -> Result<Option<Self>, GpuError> {
        let Some(index) = index(device)? else { return Ok(None) };
        let mut stream = Self { device: index, id: 0, handle: std::ptr::null_mut() };
        // SAFETY: both places outlive the call.
        checked(unsafe { psyche_stream_beside(index, &raw mut stream.id, &raw mut stream.handle) })?;
        Ok(Some(stream))
    }

    /// Its `cudaStream_t`.
    pub(crate) fn handle(&self) -> *mut c_void {
        self.handle
    }

    /// Orders what this stream is told from now on after what this thread's current one was told so far.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn fork(&self) -> Result<(), GpuError> {
        // SAFETY: takes numbers only; the id came from the pool.
        checked(unsafe { psyche_stream_fork(self.device, self.id) })
    }

    /// Orders what this thread's current stream is told from now on after what this one was told so far.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn join(&self) -> Result<(), GpuError> {
        // SAFETY: as above.
        checked(unsafe { psyche_stream_join(self.device, self.id) })
    }
}
