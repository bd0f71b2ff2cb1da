//! How much memory tensors take on one thread.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_meter_new(meter: *mut *mut c_void) -> c_int;
    fn psyche_meter_free(meter: *mut c_void);
    fn psyche_meter_read(meter: *const c_void, live: *mut i64, peak: *mut i64);
}

/// Counts the bytes of the tensors that its thread makes, for as long as it lives.
pub(crate) struct Meter(*mut c_void);

impl Meter {
    /// Starts to count.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn start() -> Result<Self, GpuError> {
        let mut meter = ptr::null_mut();
        // SAFETY: `meter` is written exactly when the call succeeds. The pointer keeps the value on its thread, as the shim
        // asks for.
        checked(unsafe { psyche_meter_new(&raw mut meter) })?;
        Ok(Self(meter))
    }

    /// Bytes that are live of what was allocated since the start, and the most that ever were.
    pub(crate) fn read(&self) -> (i64, i64) {
        let (mut live, mut peak) = (0, 0);
        // SAFETY: the meter lives as long as `self`; both numbers outlive the call.
        unsafe { psyche_meter_read(self.0, &raw mut live, &raw mut peak) };
        (live, peak)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `psyche_meter_new` on this thread and is given back once.
        unsafe { psyche_meter_free(self.0) };
    }
}
