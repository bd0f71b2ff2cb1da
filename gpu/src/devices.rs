//! Which devices a node trains on: what the machine has, what the operator asks for, and where each rank computes.
//!
//! [`Machine::look`] reads what is there, without training anything. [`DeviceSpec::place`] is a pure function of that, of
//! the spelling that the operator gave, and of the layout: a [`Placement`] with one [`Seat`] per rank, or a refusal with
//! the numbers. A rank's thread takes its seat before it makes its first tensor.
//!
//! The same binary runs with and without CUDA: the driver is loaded when it is asked for, and libtorch's CUDA half
//! ([`load_torch_cuda`]) only where a rank is to compute there. CUDA devices are numbered as `CUDA_VISIBLE_DEVICES` leaves
//! them, by the driver and by libtorch alike.

mod cores;
mod cpu;
mod cuda;
mod nvml;
mod placement;
mod spec;
mod torch_cuda;

#[cfg(test)]
mod tests;

pub use cores::CoreShare;
pub use cpu::CpuReport;
pub use cuda::{COMPUTE_CAPABILITY_MIN, CudaDevice, CudaPeer, CudaReport, Driver, cuda_report};
pub use nvml::cuda_utilisation;
pub use placement::{Machine, Placement, Seat};
pub use spec::DeviceSpec;
pub use torch_cuda::load_torch_cuda;

pub(crate) use cuda::gib;

/// Sets how many threads libtorch uses inside one operation, for threads of the process that have not computed yet; once,
/// before any rank starts. A rank's [`Seat`] then sets its own number.
pub fn init_threads(threads_per_rank: usize) {
    tch::set_num_threads(thread_count(threads_per_rank));
}

/// A number of threads as libtorch takes it.
fn thread_count(threads: usize) -> i32 {
    i32::try_from(threads.clamp(1, 1024)).unwrap_or(1)
}
