//! Collectives inside the autograd graph: C++ functions call back into Rust, in the forward or the backward pass.
//!
//! On a CUDA device the backward pass runs on a thread of libtorch's. It makes the forward pass's stream current there,
//! so that whoever asks for the current stream inside a callback gets the right one.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;

use super::checked;
use crate::GpuError;
use crate::mesh::{Collective, Reduction};

#[cfg(test)]
mod tests;

/// What C++ may call; `user` is always a `Region`.
#[repr(C)]
struct Calls {
    all_reduce: extern "C" fn(user: *mut c_void, tensor: *mut c_void) -> c_int,
    begin: extern "C" fn(user: *mut c_void, tensor: *mut c_void) -> c_int,
    finish: extern "C" fn(user: *mut c_void) -> c_int,
    release: extern "C" fn(user: *mut c_void),
}

static CALLS: Calls = Calls { all_reduce, begin, finish, release };

unsafe extern "C" {
    fn psyche_leave(input: *const c_void, calls: *const Calls, user: *mut c_void, output: *mut *mut c_void) -> c_int;
    fn psyche_columns(
        input: *const c_void,
        weights: *const *const c_void,
        count: usize,
        calls: *const Calls,
        user: *mut c_void,
        outputs: *mut *mut c_void,
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

    /// Linear layers of which this rank has some output features each, all with the same input: the way into a split
    /// layer. The backward pass sums the input's gradient over the group, beside the weights' where the device can.
    ///
    /// # Shapes
    /// `input`: `[.., in]`, equal on all ranks; `weights`: `[out, in]` each; the results: `[.., out]`.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn columns<const N: usize>(
        self: &Arc<Self>,
        input: &Tensor,
        weights: [&Tensor; N],
    ) -> Result<[Tensor; N], GpuError> {
        let outputs: Vec<Tensor> = if self.collective.size() == 1 {
            let plain = weights.iter().map(|weight| input.f_linear(weight, None::<&Tensor>));
            plain.collect::<Result<_, _>>()?
        } else {
            let weights = weights.map(|weight| weight.as_ptr().cast());
            let mut outputs = [std::ptr::null_mut(); N];
            let user = Arc::into_raw(Arc::clone(self)).cast_mut().cast();
            // SAFETY: `input` and `weights` are live tensors; `user` is one reference to a `Region`, which the shim
            // takes over and gives back through `release`; all `N` outputs are written exactly when the call succeeds.
            let code = unsafe {
                psyche_columns(input.as_ptr().cast(), weights.as_ptr(), N, &raw const CALLS, user, outputs.as_mut_ptr())
            };
            checked(code).map_err(|error| self.cause_of(error))?;
            // SAFETY: on success the shim has put new tensors there, which are ours.
            outputs.into_iter().map(|output| unsafe { Tensor::from_ptr(output.cast()) }).collect()
        };
        outputs.try_into().map_err(|_| GpuError::Shim { message: "as many results as weights".to_owned() })
    }

    /// A sum over the group in the forward pass, the identity in the backward pass: the way out of a split layer.
    ///
    /// `input` is a fresh result, which nobody else reads; its memory becomes the sum's. Were it the operand that an
    /// earlier operation kept for its backward pass, that pass would fail.
    ///
    /// # Errors
    /// A broken mesh; libtorch's.
    pub(crate) fn leave(self: &Arc<Self>, input: Tensor) -> Result<Tensor, GpuError> {
        if self.collective.size() == 1 {
            return Ok(input);
        }
        let mut output = std::ptr::null_mut();
        let user = Arc::into_raw(Arc::clone(self)).cast_mut().cast();
        // SAFETY: as in `columns`.
        let code = unsafe { psyche_leave(input.as_ptr().cast(), &raw const CALLS, user, &raw mut output) };
        checked(code).map_err(|error| self.cause_of(error))?;
        // SAFETY: on success the shim has put a new tensor there, which is ours.
        Ok(unsafe { Tensor::from_ptr(output.cast()) })
    }

    /// Runs `act` for C++: no panic may cross into it, and an error waits here.
    fn guarded(&self, act: impl FnOnce(&dyn Collective) -> Result<(), GpuError>) -> c_int {
        let error = match catch_unwind(AssertUnwindSafe(|| act(&*self.collective))) {
            Ok(Ok(())) => return 0,
            Ok(Err(error)) => error,
            Err(_) => GpuError::Shim { message: "a collective panicked".to_owned() },
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        1
    }
}

/// The region behind the pointer that C++ hands back.
///
/// # Safety
/// The pointer was made by `Arc::into_raw` of a `Region` that has not been released.
unsafe fn region<'a>(user: *mut c_void) -> &'a Region {
    // SAFETY: as the caller promises.
    unsafe { &*user.cast::<Region>() }
}

extern "C" fn all_reduce(user: *mut c_void, tensor: *mut c_void) -> c_int {
    // SAFETY: the shim passes the pointer that it was given, of which it holds a reference, and a live tensor; the
    // clone shares its storage, so that the sum arrives there.
    let (region, mut tensor) = unsafe { (region(user), Tensor::clone_from_ptr(tensor.cast())) };
    region.guarded(|collective| collective.all_reduce(&mut tensor, Reduction::Sum))
}

extern "C" fn begin(user: *mut c_void, tensor: *mut c_void) -> c_int {
    // SAFETY: as in `all_reduce`.
    let (region, mut tensor) = unsafe { (region(user), Tensor::clone_from_ptr(tensor.cast())) };
    region.guarded(|collective| collective.begin_all_reduce(&mut tensor, Reduction::Sum))
}

extern "C" fn finish(user: *mut c_void) -> c_int {
    // SAFETY: as in `all_reduce`.
    let region = unsafe { region(user) };
    region.guarded(|collective| collective.finish())
}

/// Called by C++ when the autograd graph lets go of its reference to a `Region`.
extern "C" fn release(user: *mut c_void) {
    // SAFETY: the pointer came from `Arc::into_raw`, and the shim calls this once per reference.
    drop(unsafe { Arc::from_raw(user.cast::<Region>()) });
}
