//! Operations of the model that libtorch makes of several.

use std::ffi::{c_double, c_int, c_void};
use std::ptr;

use tch::Tensor;

use super::checked;
use crate::GpuError;

#[cfg(test)]
mod tests;

unsafe extern "C" {
    fn psyche_rms_norm(input: *const c_void, weight: *const c_void, epsilon: c_double, output: *mut *mut c_void) -> c_int;
    fn psyche_rotate(input: *const c_void, cosine: *const c_void, sine: *const c_void, output: *mut *mut c_void) -> c_int;
    fn psyche_swiglu(gate: *const c_void, up: *const c_void, output: *mut *mut c_void) -> c_int;
}

/// RMSNorm over the last dimension, for CPU devices: computed in f32, rounded once.
///
/// # Shapes
/// `input`: `[…, n]`, contiguous f32 or bf16; `weight`: `[n]`, of the same type; the result: like `input`.
///
/// # Errors
/// libtorch's; another device, type or shape.
pub(crate) fn rms_norm(input: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor, GpuError> {
    // SAFETY: both are live tensors; the shim writes `output` exactly when it succeeds.
    made(|output| unsafe { psyche_rms_norm(input.as_ptr().cast(), weight.as_ptr().cast(), epsilon, output) })
}

/// Each head turned by its position's angles, for CPU devices: computed in f32, rounded once.
///
/// # Shapes
/// `input`: `[batch, seq, heads, width]`, contiguous f32 or bf16; the tables: `[at least seq, 1, width]`, contiguous f32, the
/// first half of `sine` with the rotation's minus sign; the result: like `input`.
///
/// # Errors
/// libtorch's; another device, type or shape.
pub(crate) fn rotate(input: &Tensor, cosine: &Tensor, sine: &Tensor) -> Result<Tensor, GpuError> {
    // SAFETY: all are live tensors; the shim writes `output` exactly when it succeeds.
    made(|output| unsafe { psyche_rotate(input.as_ptr().cast(), cosine.as_ptr().cast(), sine.as_ptr().cast(), output) })
}

/// `silu(gate) · up`, of which the backward pass needs nothing but the two.
///
/// # Shapes
/// All the same.
///
/// # Errors
/// libtorch's.
pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor, GpuError> {
    // SAFETY: both are live tensors; the shim writes `output` exactly when it succeeds.
    made(|output| unsafe { psyche_swiglu(gate.as_ptr().cast(), up.as_ptr().cast(), output) })
}

/// The tensor that `call` writes on success.
fn made(call: impl FnOnce(*mut *mut c_void) -> c_int) -> Result<Tensor, GpuError> {
    let mut output = ptr::null_mut();
    checked(call(&raw mut output))?;
    // SAFETY: on success the shim has put a new tensor there, which is ours.
    Ok(unsafe { Tensor::from_ptr(output.cast()) })
}
