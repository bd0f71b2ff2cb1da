//! What can go wrong with training data. All of it lies on the operator's disk or in the run's configuration: nothing is worth
//! trying again.

use std::io;
use std::path::{Path, PathBuf};

use psyche_messages::{BatchInterval, Retry};
use thiserror::Error;

/// Why data can't be read or made.
#[derive(Debug, Error)]
pub enum DataError {
    /// The disk refused.
    #[error("use {path}")]
    Io {
        /// What was to be read or written.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A directory holds no token files, or no input files are given.
    #[error("find files with data in {path}")]
    NoFiles {
        /// Where was looked.
        path: PathBuf,
    },
    /// A token file's length is no multiple of the token size.
    #[error("read tokens of {token_bytes} bytes from {path}: its length is {length} bytes")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// Bytes of a token.
        token_bytes: u32,
    },
    /// There is not even one sample.
    #[error("cut samples of {seq_len} tokens and one from {tokens} tokens")]
    TooShort {
        /// Tokens in all files.
        tokens: u64,
        /// Tokens of a sample, without the last.
        seq_len: u32,
    },
    /// A sequence length of zero, or above what is allowed.
    #[error("accept a sequence length of {seq_len}: 1 to {seq_len_max} are allowed")]
    SeqLen {
        /// What was asked for.
        seq_len: u32,
        /// The bound.
        seq_len_max: u32,
    },
    /// More samples are asked for at a time than any batch has.
    #[error("read the samples {interval}: at most {samples_max} at a time")]
    TooManySamples {
        /// What was asked for.
        interval: BatchInterval,
        /// The bound.
        samples_max: u64,
    },
    /// A token is not in the vocabulary.
    #[error("accept token {token} of sample {sample}: the vocabulary has {vocab_size}")]
    Token {
        /// The token.
        token: u32,
        /// Position of the sample in the files.
        sample: u64,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// A vocabulary that can't be trained: it needs the 256 bytes and the end-of-text token.
    #[error("train a vocabulary of {size} entries: {size_min} to {size_max} are allowed")]
    VocabularySize {
        /// What was asked for.
        size: u32,
        /// Smallest size.
        size_min: u32,
        /// Largest size.
        size_max: u32,
    },
    /// A line of the text is not UTF-8, or too long.
    #[error("read line {line} of {path}: it is not UTF-8, or longer than {length_max} bytes")]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// The bound.
        length_max: u64,
    },
    /// The tokenizer refused.
    #[error("{action} the tokenizer")]
    Tokenizer {
        /// What was to be done: train, load, run or write it.
        action: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The manifest of a data set can't be written or read.
    #[error("write or read the manifest of the data set")]
    Manifest(#[source] serde_json::Error),
}

impl DataError {
    /// Trying again gives the same answer.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        Retry::Never
    }
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.to_owned();
    move |source| DataError::Io { path, source }
}

pub(crate) fn refused(action: &'static str) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> DataError {
    move |source| DataError::Tokenizer { action, source }
}
