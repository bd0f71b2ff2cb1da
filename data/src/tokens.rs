//! Token files as an endless, deterministic sequence of samples.
//!
//! The files under a path, in the order of their names, are one long array of tokens. Sample `i` of a pass holds the tokens
//! from `i · seq_len` to `(i + 1) · seq_len` inclusive: `seq_len` inputs, and each one's successor as its label. After the
//! last sample the next pass begins; with a seed every pass has an order of its own, which needs no table.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use psyche_messages::BatchInterval;
use thiserror::Error;

use crate::order::Permutation;

/// Most files that a source may have.
pub const FILES_MAX: usize = 65_536;
/// Most samples of one request.
pub const SAMPLES_MAX: u64 = 1 << 20;

/// Why tokens can't be read.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file system refuses.
    #[error("read {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file's length is no multiple of a token's.
    #[error("read {}: its {bytes} bytes are no whole number of tokens of {width} bytes", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// Bytes of a token.
        width: u64,
    },
    /// A folder holds more files than are read.
    #[error("read {}: it holds more than {FILES_MAX} token files", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
    },
    /// There are too few tokens for even one sample.
    #[error("read {}: its {tokens} tokens do not make one sample of {} tokens", path.display(), seq_len + 1)]
    TooShort {
        /// The path.
        path: PathBuf,
        /// Tokens found.
        tokens: u64,
        /// Inputs of a sample.
        seq_len: u64,
    },
    /// More samples are asked for than any batch has.
    #[error("read {samples} samples at once: at most {SAMPLES_MAX} are read")]
    TooManySamples {
        /// How many.
        samples: u64,
    },
    /// A token lies outside of the vocabulary.
    #[error("use token {token} at {at} of {}: the vocabulary has {vocabulary} entries", path.display())]
    Token {
        /// The path.
        path: PathBuf,
        /// Its place among all tokens.
        at: u64,
        /// The token.
        token: u32,
        /// Entries of the vocabulary.
        vocabulary: u32,
    },
}

/// How many bytes a token takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenWidth {
    /// u16, little-endian.
    Two,
    /// u32, little-endian.
    Four,
}

impl TokenWidth {
    /// The smaller width that holds every token of a vocabulary.
    #[must_use]
    pub const fn of_vocabulary(entries: usize) -> Self {
        if entries <= 1 << 16 { Self::Two } else { Self::Four }
    }

    const fn bytes(self) -> u64 {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// Where tokens are and how they become samples.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// A file, or a folder of files.
    pub path: PathBuf,
    /// Bytes of a token.
    pub width: TokenWidth,
    /// Inputs of a sample; a sample has one token more.
    pub seq_len: usize,
    /// Entries of the vocabulary: larger tokens are refused.
    pub vocabulary: u32,
    /// Seed of the order; without one samples come as they lie.
    pub shuffle: Option<[u8; 32]>,
}

/// An open source of samples.
#[derive(Debug)]
pub struct TokenSource {
    config: TokenConfig,
    seq_len: u64,
    /// Maps with the number of tokens before each.
    files: Vec<(u64, Mmap)>,
    samples: u64,
}

impl TokenSource {
    /// Maps the files.
    ///
    /// # Errors
    /// [`DataError`] for files that can't be read, are cut off, or are too short.
    pub fn open(config: &TokenConfig) -> Result<Self, DataError> {
        let (mut files, mut tokens) = (Vec::new(), 0);
        for path in files_of(&config.path)? {
            let map = map(&path)?;
            let (bytes, width) = (map.len() as u64, config.width.bytes());
            if bytes % width != 0 {
                return Err(DataError::Length { path, bytes, width });
            }
            files.push((tokens, map));
            tokens += bytes / width;
        }
        let seq_len = (config.seq_len as u64).max(1);
        let samples = tokens.saturating_sub(1) / seq_len;
        if samples == 0 {
            return Err(DataError::TooShort { path: config.path.clone(), tokens, seq_len });
        }
        Ok(Self { config: config.clone(), seq_len, files, samples })
    }

    /// Samples of one pass over all tokens.
    #[must_use]
    pub const fn samples_per_pass(&self) -> u64 {
        self.samples
    }

    /// The samples of a batch, each `seq_len + 1` tokens.
    ///
    /// # Errors
    /// [`DataError::TooManySamples`], [`DataError::Token`].
    pub fn samples(&self, batch: BatchInterval) -> Result<Vec<Vec<u32>>, DataError> {
        if batch.samples() > SAMPLES_MAX {
            return Err(DataError::TooManySamples { samples: batch.samples() });
        }
        (batch.start()..=batch.end()).map(|index| self.sample(index)).collect()
    }

    fn sample(&self, index: u64) -> Result<Vec<u32>, DataError> {
        let (pass, place) = (index / self.samples, index % self.samples);
        let place = match &self.config.shuffle {
            None => place,
            Some(seed) => Permutation::new(seed, pass, self.samples).at(place),
        };
        let first = place * self.seq_len;
        (first..=first + self.seq_len).map(|at| self.token(at)).collect()
    }

    fn token(&self, at: u64) -> Result<u32, DataError> {
        let file = self.files.partition_point(|(before, _)| *before <= at).saturating_sub(1);
        let token = self.files.get(file).and_then(|(before, map)| {
            let offset = usize::try_from((at - before) * self.config.width.bytes()).ok()?;
            let bytes = map.get(offset..)?;
            Some(match self.config.width {
                TokenWidth::Two => u32::from(u16::from_le_bytes(*bytes.first_chunk()?)),
                TokenWidth::Four => u32::from_le_bytes(*bytes.first_chunk()?),
            })
        });
        let vocabulary = self.config.vocabulary;
        match token {
            Some(token) if token < vocabulary => Ok(token),
            token => Err(DataError::Token { path: self.config.path.clone(), at, token: token.unwrap_or(u32::MAX), vocabulary }),
        }
    }
}

/// The token files at `path`: itself, or what lies in the folder under `.bin` or `.npy`-less raw names, by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let refused = |source| DataError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(refused)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(refused)? {
        let file = entry.map_err(refused)?.path();
        if file.extension().is_some_and(|extension| extension == "bin") {
            files.push(file);
        }
        if files.len() > FILES_MAX {
            return Err(DataError::TooManyFiles { path: path.to_owned() });
        }
    }
    // The order of a directory differs between machines.
    files.sort_unstable();
    Ok(files)
}

fn map(path: &Path) -> Result<Mmap, DataError> {
    let refused = |source| DataError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(refused)?;
    // SAFETY: token files are written once, before training; whoever cuts one off under a running node breaks his own node.
    unsafe { Mmap::map(&file) }.map_err(refused)
}

#[cfg(test)]
mod tests;
