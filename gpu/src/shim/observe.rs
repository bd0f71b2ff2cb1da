//! For tests: how large the tensors are that a thread's operations make.

use std::ffi::c_int;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_observe_begin(dimension: i64) -> c_int;
    fn psyche_observe_end(results: *mut i64, with_dimension: *mut i64) -> c_int;
}

/// Runs `act` and counts the tensors that this thread's operations made, and those of them with such a dimension.
///
/// # Errors
/// libtorch's.
pub(crate) fn results_with_dimension<R>(dimension: i64, act: impl FnOnce() -> R) -> Result<(R, i64, i64), GpuError> {
    // SAFETY: takes a number only.
    checked(unsafe { psyche_observe_begin(dimension) })?;
    let result = act();
    let (mut results, mut with_dimension) = (0, 0);
    // SAFETY: both places outlive the call.
    checked(unsafe { psyche_observe_end(&raw mut results, &raw mut with_dimension) })?;
    Ok((result, results, with_dimension))
}
