//! libtorch's fused AdamW (`gpu/shim/adamw.cpp`).

use std::ffi::{c_int, c_void};

use tch::Tensor;

use super::checked;
use crate::GpuError;

unsafe extern "C" {
    fn psyche_fused_adamw(
        parameters: *const *mut c_void,
        gradients: *const *mut c_void,
        means: *const *mut c_void,
        variances: *const *mut c_void,
        steps: *const *mut c_void,
        count: usize,
        lr: f64,
        beta_mean: f64,
        beta_variance: f64,
        weight_decay: f64,
        epsilon: f64,
    ) -> c_int;
}

/// The numbers of one step of AdamW (Loshchilov and Hutter, 2019).
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWRates {
    pub(crate) lr: f64,
    /// Decay of the mean and of the variance of the gradients.
    pub(crate) betas: (f64, f64),
    pub(crate) weight_decay: f64,
    pub(crate) epsilon: f64,
}

/// What AdamW keeps of each parameter.
pub(crate) struct AdamWState {
    means: Vec<Tensor>,
    variances: Vec<Tensor>,
    /// `[]` f32 each.
    steps: Vec<Tensor>,
}

impl AdamWState {
    /// No steps so far.
    ///
    /// # Errors
    /// libtorch's, such as too little memory.
    pub(crate) fn new(parameters: &[Tensor]) -> Result<Self, GpuError> {
        let zeros = |parameter: &Tensor| Ok(parameter.f_detach()?.f_zeros_like()?);
        let all = || parameters.iter().map(zeros).collect::<Result<Vec<_>, GpuError>>();
        let count = |parameter: &Tensor| Ok(Tensor::f_zeros([], (tch::Kind::Float, parameter.device()))?);
        let steps = parameters.iter().map(count).collect::<Result<Vec<_>, GpuError>>()?;
        Ok(Self { means: all()?, variances: all()?, steps })
    }

    /// Moves `parameters` by one step along `gradients`.
    ///
    /// # Shapes
    /// `gradients`: by parameter, of its shape and type.
    ///
    /// # Errors
    /// Another number of tensors than the state was made for; libtorch's.
    pub(crate) fn step(&mut self, parameters: &[Tensor], gradients: &[Tensor], rates: AdamWRates) -> Result<(), GpuError> {
        let count = self.means.len();
        if parameters.len() != count || gradients.len() != count {
            return Err(GpuError::Shim { message: format!("{} gradients for {count} parameters", gradients.len()) });
        }
        let pointers = |tensors: &[Tensor]| -> Vec<*mut c_void> {
            tensors.iter().map(|tensor| tensor.as_ptr().cast_mut().cast()).collect()
        };
        let (parameters, gradients) = (pointers(parameters), pointers(gradients));
        let (means, variances, steps) = (pointers(&self.means), pointers(&self.variances), pointers(&self.steps));
        // SAFETY: five lists of `count` pointers to live tensors each; the shim only uses them during the call.
        checked(unsafe {
            psyche_fused_adamw(
                parameters.as_ptr(),
                gradients.as_ptr(),
                means.as_ptr(),
                variances.as_ptr(),
                steps.as_ptr(),
                count,
                rates.lr,
                rates.betas.0,
                rates.betas.1,
                rates.weight_decay,
                rates.epsilon,
            )
        })
    }
}
