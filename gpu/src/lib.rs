//! Tensors of a node: model configuration, devices, collectives, the training step, the DisTrO codec, snapshots.
//!
//! One [`config::LlamaConfig`] names the network; its canonical parameter order is the order of payloads, digests and
//! snapshots, whatever the layout of devices.

pub mod codec;
pub mod config;
pub mod cuda;
pub mod devices;
pub mod digest;
mod error;
pub mod exact;
mod flat;
pub mod generate;
pub mod init;
mod layout;
pub mod memory;
pub mod mesh;
mod model;
pub mod optimizer;
pub mod precision;
mod shim;
pub mod snapshot;
mod transfer;
mod weights;
pub mod worker;

pub use error::GpuError;
pub use layout::check_divisible;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod testing;
