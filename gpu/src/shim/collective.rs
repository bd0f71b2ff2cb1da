//! Collectives inside the autograd graph: the C++ function calls back into Rust, in the forward or the backward pass.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;

use super::checked;
use crate::GpuError;
use crate::mesh::{Collective, Reduction};

type Apply = extern "C" fn(*mut c_void, *mut c_void) -> c_int;
type Release = extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn psyche_collective(
        input: *const c_void,
        in_forward: c_int,
        in_backward: c_int,
        apply: Apply,
        release: Release,
        user: *mut c_void,
        output: *mut *mut c_void,
    ) -> c_int;
}

/// A tensor-parallel group as the autograd graph uses it.
///
/// An error inside a collective has to travel through C++ as a bare exception; the typed error waits here meanwhile.
pub(crate) struct Region {
    collective: Box<dyn Collective>,
    failure: Mutex<Option<GpuError>>,
}

impl Region {
    pub(crate) fn new(collective: Box<dyn Collective>) -> Arc<Self> {
        Arc::new(Self { collective, failure: Mutex::new(None) })
    }

    pub(crate) fn collective(&self) -> &dyn Collective {
        &*self.collective
    }

    /// The error behind a failure that C++ has just reported, if a collective was its cause; otherwise `reported`.
    pub(crate) fn cause_of(&self, reported: GpuError) -> GpuError {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(reported)
    }

    /// The identity in the forward pass, a sum over the group in the backward pass: the way into a split layer.
    pub(crate) fn enter(self: &Arc<Self>, input: &Tensor) -> Result<Tensor, GpuError> {
        self.apply(input, false, true)
    }

    /// A sum over the group in the forward pass, the identity in the backward pass: the way out of a split layer.
    pub(crate) fn leave(self: &Arc<Self>, input: &Tensor) -> Result<Tensor, GpuError> {
        self.apply(input, true, false)
    }

    fn apply(self: &Arc<Self>, input: &Tensor, in_forward: bool, in_backward: bool) -> Result<Tensor, GpuError> {
        if self.collective.size() == 1 {
            return Ok(input.shallow_clone());
        }
        let mut output = std::ptr::null_mut();
        let user = Arc::into_raw(Arc::clone(self)).cast_mut().cast();
        // SAFETY: `input` is a live tensor; `user` is one reference to a `Region`, which the shim takes over and gives
        // back through `release`; `output` is written exactly when the call succeeds.
        let code = unsafe {
            psyche_collective(
                input.as_ptr().cast(),
                c_int::from(in_forward),
                c_int::from(in_backward),
                reduce,
                release,
                user,
                &raw mut output,
            )
        };
        checked(code).map_err(|error| self.cause_of(error))?;
        // SAFETY: on success the shim has put a new tensor there, which is ours.
        Ok(unsafe { Tensor::from_ptr(output.cast()) })
    }
}

/// Called by C++ from the forward or backward pass; `user` is a `Region`, `tensor` a contiguous tensor to sum in place.
extern "C" fn reduce(user: *mut c_void, tensor: *mut c_void) -> c_int {
    // SAFETY: the shim passes the pointer made in `Region::apply`, of which it holds a reference.
    let region = unsafe { &*user.cast::<Region>() };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the shim passes a live tensor; the clone shares its storage, so that the sum arrives there.
        let mut tensor = unsafe { Tensor::clone_from_ptr(tensor.cast()) };
        region.collective.all_reduce(&mut tensor, Reduction::Sum)
    }));
    let error = match outcome {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => error,
        Err(_) => GpuError::Shim { message: "a collective panicked".to_owned() },
    };
    *region.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    1
}

/// Called by C++ when the autograd graph lets go of its reference to a `Region`.
extern "C" fn release(user: *mut c_void) {
    // SAFETY: the pointer came from `Arc::into_raw` in `Region::apply`, and the shim calls this once per reference.
    drop(unsafe { Arc::from_raw(user.cast::<Region>()) });
}
