//! The DisTrO codec: from momentum to a payload, and from peers' payloads to coefficients.
//!
//! Chunks of the unsharded tensor ([`Geometry`]) go through an orthonormal DCT-II ([`Transform`]); the top-k
//! coefficients of each ([`Selection`]) are sent in a canonical code of fixed length ([`Layout`], [`ValidPayload`]).
//! Everything works on slices of f32 in tensor order and on [`Part`]s of tensors, so that several owners share a model.
//!
//! Peers' bytes are checked as a whole before anything is decoded; nothing here allocates or panics by their content.

mod bits;
mod compress;
mod error;
mod forward;
mod geometry;
mod large;
mod layout;
pub(crate) mod parallel;
mod payload;
mod select;
pub(crate) mod simd;
mod subset;
mod subtract;
mod transform;
pub(crate) mod wave;

#[cfg(test)]
mod tests;

pub(crate) use compress::check_selection;
pub use compress::{Intake, Selection};
pub use error::CodecError;
pub use geometry::{Geometry, MAX_CHUNK, MAX_SMALL_EDGE};
pub use layout::{BLOCK_CHUNKS, Layout, ParameterLayout, Part, Quantization};
pub use parallel::Threads;
pub use payload::ValidPayload;
pub use select::TopK;
pub use transform::{Transform, dct_basis};
