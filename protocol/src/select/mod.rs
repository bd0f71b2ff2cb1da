//! Deterministic selections.

mod batch;
pub use batch::global_batch_size;
