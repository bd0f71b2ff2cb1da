//! Where kernels run: on a CUDA device or, in tests, the same sources on the CPU.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, result, sys};
use cudarc::nvrtc::Ptx;
use tch::{Device, Tensor};

use super::arguments::Arguments;
use super::{compile, device_error};
use crate::GpuError;

/// How many thread blocks, and how many threads in each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) blocks: u32,
    pub(super) threads: u32,
}

/// All kernels by name, as the sources name them.
pub(super) const KERNELS: [&str; 7] = [
    "psyche_look_ahead",
    "psyche_scale",
    "psyche_compress",
    "psyche_compress_64",
    "psyche_apply",
    "psyche_digest_leaves",
    "psyche_digest_trees",
];

/// Where kernels run.
pub(super) enum Engine {
    /// A CUDA device.
    Cuda(CudaEngine),
    /// The CPU, with the threads of a block taking turns in this order.
    #[cfg(test)]
    Host {
        /// Whether the last thread goes first.
        descending: bool,
    },
}

impl Engine {
    /// Loads the kernels for a CUDA device, compiling them unless `cache` has them.
    pub(super) fn cuda(index: usize, cache: Option<&Path>) -> Result<Self, GpuError> {
        Ok(Self::Cuda(CudaEngine::new(index, cache)?))
    }

    /// Where the tensors of the kernels lie.
    pub(super) fn device(&self) -> Device {
        match self {
            Self::Cuda(engine) => Device::Cuda(engine.index),
            #[cfg(test)]
            Self::Host { .. } => Device::Cpu,
        }
    }

    /// Blocks that keep the device busy; more would only take turns.
    pub(super) fn blocks_max(&self) -> u32 {
        match self {
            Self::Cuda(engine) => engine.blocks_max,
            // Few, so that blocks take several chunks each.
            #[cfg(test)]
            Self::Host { .. } => 3,
        }
    }

    /// Queues a kernel behind what the current stream of libtorch has to do.
    ///
    /// # Safety
    /// The addresses in `arguments` must point to what the kernel `name` expects there, on this device, until the
    /// stream has passed it; `arguments` must be of the kernel's type.
    pub(super) unsafe fn launch<A: Arguments>(&self, name: &'static str, size: Size, arguments: &A) -> Result<(), GpuError> {
        match self {
            // SAFETY: the caller's promise.
            Self::Cuda(engine) => unsafe { engine.launch(name, size, arguments) },
            #[cfg(test)]
            // SAFETY: the caller's promise.
            Self::Host { descending } => unsafe { host::launch(name, size, arguments, *descending) },
        }
    }
}

/// Kernels loaded into a CUDA device's primary context, which is libtorch's too.
pub(super) struct CudaEngine {
    index: usize,
    context: Arc<CudaContext>,
    functions: HashMap<&'static str, CudaFunction>,
    blocks_max: u32,
}

impl CudaEngine {
    fn new(index: usize, cache: Option<&Path>) -> Result<Self, GpuError> {
        // SAFETY: only tries to load the driver's library and gives it back; cudarc's own constructors panic without it.
        if !unsafe { sys::is_culib_present() } {
            return Err(device_error(index, "there is no NVIDIA driver"));
        }
        let failed = |error: result::DriverError| device_error(index, &format!("the driver says {error:?}"));
        let context = CudaContext::new(index).map_err(failed)?;
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(attribute).map_err(failed)?;
        let module = compile::module(index, (major, minor), cache, |ptx| load(&context, ptx))?;
        let function = |name| Ok((name, module.load_function(name)?));
        let functions = KERNELS.into_iter().map(function).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { index, context, functions, blocks_max: u32::try_from(multiprocessors).unwrap_or(1).clamp(1, 1024) * 8 })
    }

    /// See [`Engine::launch`].
    unsafe fn launch<A: Arguments>(&self, name: &'static str, size: Size, arguments: &A) -> Result<(), GpuError> {
        let failed = |error: result::DriverError| device_error(self.index, &format!("{name}: the driver says {error:?}"));
        let function = self.functions.get(name).ok_or_else(|| device_error(self.index, "a kernel is missing"))?;
        self.context.bind_to_thread().map_err(failed)?;
        let mut parameters = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
        // libtorch works on the null stream unless it is told otherwise, and nobody here does.
        let stream = std::ptr::null_mut();
        let (blocks, threads) = ((size.blocks, 1, 1), (size.threads, 1, 1));
        // SAFETY: the function belongs to the context that was just bound; the driver copies the arguments, which are
        // of the kernel's type, before it returns; their addresses are good by the caller's promise.
        unsafe { result::launch_kernel(function.cu_function(), blocks, threads, 0, stream, &mut parameters) }.map_err(failed)
    }
}

fn load(context: &Arc<CudaContext>, ptx: &str) -> Result<Arc<CudaModule>, String> {
    context.load_module(Ptx::from_src(ptx)).map_err(|error| format!("{error:?}"))
}

/// The address of a tensor's elements as a kernel sees it.
pub(super) fn address(tensor: &Tensor) -> u64 {
    tensor.data_ptr() as u64
}

#[cfg(test)]
mod host {
    use std::ffi::{CString, c_char, c_int, c_void};

    use super::{Arguments, GpuError, Size, device_error};

    unsafe extern "C" {
        fn psyche_host_launch(name: *const c_char, arguments: *const c_void, grid: u32, block: u32, descending: c_int)
        -> c_int;
    }

    /// See [`super::Engine::launch`].
    pub(super) unsafe fn launch<A: Arguments>(name: &str, size: Size, arguments: &A, descending: bool) -> Result<(), GpuError> {
        let text = CString::new(name).map_err(|_| device_error(0, "a kernel's name"))?;
        // SAFETY: the name ends in a zero; the arguments are the kernel's by the caller's promise.
        let code = unsafe {
            let arguments = std::ptr::from_ref(arguments).cast();
            psyche_host_launch(text.as_ptr(), arguments, size.blocks, size.threads, c_int::from(descending))
        };
        if code == 0 { Ok(()) } else { Err(device_error(0, &format!("{name} on the CPU: code {code}"))) }
    }
}
