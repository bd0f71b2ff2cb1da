//! Samples by global index, from files of little-endian tokens without a header.
//!
//! All files count as one sequence, in ascending order of their names. Sample `i` of the data is
//! `tokens[i * seq_len ..= (i + 1) * seq_len]`: `seq_len + 1` tokens, of which the last is the first of the next. A run counts
//! samples globally and without end; the source wraps around, in a new order for every pass if the run shuffles.
//!
//! Files are read by position instead of being mapped into memory: a file that shrinks while it is used is an error then, and
//! not the end of the process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use psyche_messages::BatchInterval;
use psyche_protocol::model::{Shuffle, TokenSize};

use crate::error::{DataError, io_error};
use crate::order::Order;

/// Extension of token files in a directory.
const EXTENSION: &str = "bin";

/// Most samples that are read at a time: a global batch is counted in 16 bits.
const SAMPLES_MAX: u64 = 1 << 16;

/// Longest sequence.
const SEQ_LEN_MAX: u32 = 1 << 20;

/// What a source is made of.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// A token file, or a directory whose `.bin` files are taken.
    pub path: PathBuf,
    /// Bytes of a token.
    pub token_size: TokenSize,
    /// Tokens of a sample, without the one to be predicted last.
    pub seq_len: u32,
    /// Size of the vocabulary; tokens outside are refused.
    pub vocab_size: u32,
    /// Order of the samples.
    pub shuffle: Shuffle,
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    file: File,
    /// Position of its first token in the sequence of all files.
    first: u64,
    /// How many tokens it holds.
    tokens: u64,
}

/// Samples of a run. Reading takes `&self`: several threads may share it.
#[derive(Debug)]
pub struct TokenSource {
    files: Vec<TokenFile>,
    token_bytes: u32,
    seq_len: u32,
    vocab_size: u32,
    tokens: u64,
    samples: u64,
    order: Order,
}

impl TokenSource {
    /// Opens the files.
    ///
    /// # Errors
    /// [`DataError`] if there are none, one can't be read or has half a token, or they don't hold a single sample.
    pub fn open(config: &TokenConfig) -> Result<Self, DataError> {
        let seq_len = config.seq_len;
        if !(1..=SEQ_LEN_MAX).contains(&seq_len) {
            return Err(DataError::SeqLen { seq_len, seq_len_max: SEQ_LEN_MAX });
        }
        let token_bytes = match config.token_size {
            TokenSize::TwoBytes => 2,
            TokenSize::FourBytes => 4,
        };
        let mut files = Vec::new();
        let mut tokens = 0;
        for path in token_files(&config.path)? {
            let file = File::open(&path).map_err(io_error(&path))?;
            let length = file.metadata().map_err(io_error(&path))?.len();
            if length % u64::from(token_bytes) != 0 {
                return Err(DataError::Length { path, length, token_bytes });
            }
            let held = length / u64::from(token_bytes);
            files.push(TokenFile { path, file, first: tokens, tokens: held });
            tokens += held;
        }
        let samples = tokens.saturating_sub(1) / u64::from(seq_len);
        if samples == 0 {
            return Err(DataError::TooShort { tokens, seq_len });
        }
        let order = Order::new(samples, &config.shuffle);
        Ok(Self { files, token_bytes, seq_len, vocab_size: config.vocab_size, tokens, samples, order })
    }

    /// Samples in one pass over the data.
    #[must_use]
    pub const fn sample_count(&self) -> u64 {
        self.samples
    }

    /// Tokens in all files.
    #[must_use]
    pub const fn token_count(&self) -> u64 {
        self.tokens
    }

    /// Tokens of a sample, without the last.
    #[must_use]
    pub const fn seq_len(&self) -> u32 {
        self.seq_len
    }

    /// The samples of an assignment, in order: `[samples, seq_len + 1]` tokens.
    ///
    /// # Errors
    /// [`DataError`] if there are more than 65,536, the disk refuses, or a token is not in the vocabulary.
    pub fn samples(&self, interval: BatchInterval) -> Result<Vec<Vec<u32>>, DataError> {
        if interval.samples() > SAMPLES_MAX {
            return Err(DataError::TooManySamples { interval, samples_max: SAMPLES_MAX });
        }
        (interval.start()..=interval.end()).map(|index| self.sample(index)).collect()
    }

    /// The sample at global position `index`: `[seq_len + 1]` tokens.
    ///
    /// # Errors
    /// [`DataError`] if the disk refuses, or a token is not in the vocabulary.
    pub fn sample(&self, index: u64) -> Result<Vec<u32>, DataError> {
        let sample = self.order.sample_at(index);
        let tokens = self.read(sample * u64::from(self.seq_len), self.seq_len as usize + 1)?;
        match tokens.iter().find(|token| **token >= self.vocab_size) {
            Some(token) => Err(DataError::Token { token: *token, sample, vocab_size: self.vocab_size }),
            None => Ok(tokens),
        }
    }

    /// `count` tokens from position `first` of all files, which hold them.
    fn read(&self, first: u64, count: usize) -> Result<Vec<u32>, DataError> {
        let width = self.token_bytes as usize;
        let mut bytes = vec![0; count * width];
        let mut at = first;
        let mut filled = 0;
        let start = self.files.partition_point(|file| file.first + file.tokens <= first);
        for file in &self.files[start..] {
            let inside = at - file.first;
            let take = usize::try_from(file.tokens - inside).unwrap_or(usize::MAX).min(count - filled);
            let part = &mut bytes[filled * width..(filled + take) * width];
            file.file.read_exact_at(part, inside * u64::from(self.token_bytes)).map_err(io_error(&file.path))?;
            filled += take;
            at += take as u64;
            if filled == count {
                break;
            }
        }
        Ok(decode(&bytes, width))
    }
}

/// Little-endian tokens of `width` bytes, 2 or 4.
fn decode(bytes: &[u8], width: usize) -> Vec<u32> {
    let token = |bytes: &[u8]| bytes.iter().rev().fold(0, |token, byte| (token << 8) | u32::from(*byte));
    bytes.chunks_exact(width).map(token).collect()
}

/// The file itself, or the token files of a directory by ascending name.
fn token_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !fs::metadata(path).map_err(io_error(path))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(io_error(path))?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut files: Vec<_> = paths.filter(|path| path.is_file() && path.extension().is_some_and(|e| e == EXTENSION)).collect();
    files.sort_unstable();
    if files.is_empty() { Err(DataError::NoFiles { path: path.to_owned() }) } else { Ok(files) }
}

#[cfg(test)]
mod tests;
