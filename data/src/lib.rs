//! Training data: token files, the deterministic order in which a run reads them, and the tokenizer that makes them from text.
//! No tensors.
//!
//! - [`tokens`]: samples by global index, the same on every node.
//! - [`tokenize`]: text files to a tokenizer and a token file; [`TextTokenizer`] uses one.

mod error;
mod order;
mod text;
pub mod tokenize;
pub mod tokens;

pub use error::DataError;
pub use psyche_protocol::model::{Shuffle, TokenSize};
pub use text::TextTokenizer;
pub use tokenize::{DatasetManifest, Progress, Vocabulary, tokenize};
pub use tokens::{TokenConfig, TokenSource};
