//! Where training samples come from: token files in a deterministic order, and the way from text to tokens. No tensors.
//!
//! - [`TokenSource`]: samples from local files of u16 or u32 tokens, the same on every machine.
//! - [`tokenize`]: trains a byte-level BPE on text and writes its tokens.

mod order;
mod tokenize;
mod tokens;

pub use tokenize::{Manifest, Progress, TokenizeError, TokenizeJob, TokenizeReport, VOCABULARY_MIN, Vocabulary, tokenize};
pub use tokens::{DataError, FILES_MAX, SAMPLES_MAX, TokenConfig, TokenSource, TokenWidth};
