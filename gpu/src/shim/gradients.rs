//! Sums of gradients in f32, and the backward pass from a given gradient.

use std::ffi::{c_int, c_void};
use std::ptr;

use tch::Tensor;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_gradient_sum_new(leaf: *const c_void, sum: *mut *mut c_void) -> c_int;
    fn psyche_gradient_sum_free(sum: *mut c_void);
    fn psyche_gradient_sum_get(sum: *const c_void, value: *mut *mut c_void) -> c_int;
    fn psyche_gradient_sum_set(sum: *mut c_void, value: *const c_void) -> c_int;
    fn psyche_backward(output: *const c_void, gradient: *const c_void) -> c_int;
}

/// The f32 sum of all gradients that reach a leaf of the graph, whatever the leaf's element type.
///
/// Each gradient moves here as soon as autograd has made it, so that the leaf itself never holds one.
pub(crate) struct GradientSum(*mut c_void);

// SAFETY: the sum is a reference-counted tensor of libtorch, which may be used from any one thread at a time; the hook
// that shares it runs only within a backward pass, during which its owner waits.
unsafe impl Send for GradientSum {}

impl GradientSum {
    /// Starts to gather the gradients of `leaf`.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn of(leaf: &Tensor) -> Result<Self, GpuError> {
        let mut sum = ptr::null_mut();
        // SAFETY: `leaf` is a live tensor; `sum` is written exactly when the call succeeds.
        checked(unsafe { psyche_gradient_sum_new(leaf.as_ptr().cast(), &raw mut sum) })?;
        Ok(Self(sum))
    }

    /// The sum so far, sharing its memory; none if no backward pass has reached the leaf.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn get(&self) -> Result<Option<Tensor>, GpuError> {
        let mut value = ptr::null_mut();
        // SAFETY: the sum lives as long as `self`; `value` is written when the call succeeds.
        checked(unsafe { psyche_gradient_sum_get(self.0, &raw mut value) })?;
        // SAFETY: what is not null is a new tensor, which is ours.
        Ok((!value.is_null()).then(|| unsafe { Tensor::from_ptr(value.cast()) }))
    }

    /// Replaces the sum, by `value` itself or by none.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn set(&self, value: Option<&Tensor>) -> Result<(), GpuError> {
        let value = value.map_or(ptr::null(), |value| value.as_ptr().cast());
        // SAFETY: the sum lives as long as `self`; `value` is null or a live tensor.
        checked(unsafe { psyche_gradient_sum_set(self.0, value) })
    }
}

impl Drop for GradientSum {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `psyche_gradient_sum_new` and is given back once.
        unsafe { psyche_gradient_sum_free(self.0) };
    }
}

/// Runs the backward pass of `output` from `gradient`, its own.
///
/// # Shapes
/// Both the same, and of the same element type.
///
/// # Errors
/// libtorch's, among them failures of collectives inside the graph.
pub(crate) fn backward(output: &Tensor, gradient: &Tensor) -> Result<(), GpuError> {
    // SAFETY: both are live tensors.
    checked(unsafe { psyche_backward(output.as_ptr().cast(), gradient.as_ptr().cast()) })
}
