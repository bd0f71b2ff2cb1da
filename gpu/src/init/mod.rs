//! Initial weights: a model folder made from a configuration and a seed, with the same bytes on every machine.
//!
//! # Definition
//! Tensors of rank 1 are RMSNorm weights: all ones. Element `i` of any other tensor is `(S − 393,210) · σ / 65,536`,
//! where `S` is the sum of twelve u16 (little-endian bytes `24 i .. 24 i + 24` of a ChaCha8 stream): an Irwin–Hall
//! approximation of a normal distribution with mean 0 and standard deviation `σ`, the configuration's
//! `initializer_range` (0.02 where absent). `σ / 65,536` is rounded to f32, then the product is: two roundings that
//! IEEE 754 fixes, no function of libm. The stream's key is BLAKE3 in key-derivation mode over seed, name length (both
//! u64 little-endian) and name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use safetensors::{Dtype, SafeTensorError, View};
use serde::{Deserialize, Serialize};

use crate::codec::Threads;
use crate::codec::parallel::scoped;
use crate::config::{ConfigError, LlamaConfig, ParameterSpec};

#[cfg(test)]
mod tests;

/// Largest safetensors file that is written, in bytes of tensors; a bigger model is split over several.
const SHARD_BYTES_MAX: u64 = 4 << 30;
/// Standard deviation where the configuration names none, as in Hugging Face's LLaMA.
const STANDARD_DEVIATION: f64 = 0.02;
const KEY_CONTEXT: &str = "psyche-solana-client v1 initial weights";
/// u16s summed per element, and the bytes they take.
const UNIFORMS: usize = 12;
const ELEMENT_BYTES: usize = 2 * UNIFORMS;
/// Twice the mean of the sum would be `12 · 65,535`.
const MEAN_OF_SUM: i32 = 393_210;
/// Elements generated at a time.
const BATCH: usize = 1024;

/// Why a model folder was not written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The configuration was refused.
    #[error("initialise a model: configuration refused")]
    Config(#[from] ConfigError),
    /// A standard deviation that is no finite number in `(0, 1]`.
    #[error("initialise a model with initializer_range {value}: must lie above 0 and be at most 1")]
    InitializerRange {
        /// What the configuration says.
        value: f64,
    },
    /// The folder already holds a model, which is not overwritten.
    #[error("initialise a model: {} exists already", path.display())]
    Exists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A file or folder could not be written.
    #[error("write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A safetensors file could not be written.
    #[error("write the tensors of {}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What the format's library said.
        #[source]
        source: SafeTensorError,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Parameters of the model, in elements.
    pub parameters: u64,
    /// The files, `config.json` last.
    pub files: Vec<PathBuf>,
}

/// The part of `config.json` that only matters here.
#[derive(Deserialize)]
struct Initializer {
    initializer_range: Option<f64>,
}

/// Writes `config.json` (as given) and `model.safetensors` (f32, Hugging Face names) to `out_dir`, which is created.
///
/// Above 4 GiB the tensors go to `model-00001-of-0000N.safetensors` and so on, with `model.safetensors.index.json`.
/// `config.json` is written last: a folder that has one is complete. At most one tensor is in memory at a time.
///
/// # Errors
/// A refused configuration, a folder that already holds a model, files that can't be written.
pub fn init_model(config_json: &[u8], seed: u64, out_dir: &Path) -> Result<InitReport, InitError> {
    init_sharded(config_json, seed, out_dir, SHARD_BYTES_MAX)
}

fn init_sharded(config_json: &[u8], seed: u64, out_dir: &Path, shard_bytes: u64) -> Result<InitReport, InitError> {
    let config = LlamaConfig::from_json(config_json)?;
    let deviation = standard_deviation(config_json)?;
    std::fs::create_dir_all(out_dir).map_err(|source| InitError::Io { path: out_dir.to_owned(), source })?;
    refuse_existing(out_dir)?;
    let threads = Threads::new(std::thread::available_parallelism().map_or(1, usize::from));
    let shards = shards(config.parameters(), shard_bytes);
    let mut files = Vec::with_capacity(shards.len() + 2);
    let mut index = Index::default();
    for (number, shard) in (1..).zip(&shards) {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{number:05}-of-{count:05}.safetensors"),
        };
        for spec in shard {
            index.metadata.total_size += 4 * spec.len() as u64;
            index.weight_map.insert(spec.name.clone(), name.clone());
        }
        let tensors = shard.iter().map(|spec| (&spec.name, Initial { spec, seed, deviation, threads }));
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        files.push(place(&out_dir.join(name), |partial| {
            safetensors::serialize_to_file(tensors, Some(format), partial)
                .map_err(|source| InitError::Tensors { path: partial.to_owned(), source })
        })?);
    }
    if shards.len() > 1 {
        let text = serde_json::to_vec_pretty(&index).map_err(ConfigError::from)?;
        files.push(place_bytes(&out_dir.join("model.safetensors.index.json"), &text)?);
    }
    files.push(place_bytes(&out_dir.join("config.json"), config_json)?);
    Ok(InitReport { parameters: config.parameter_count(), files })
}

/// Hugging Face's index of a sharded model.
#[derive(Default, Serialize)]
struct Index {
    metadata: IndexMetadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Default, Serialize)]
struct IndexMetadata {
    total_size: u64,
}

fn standard_deviation(config_json: &[u8]) -> Result<f64, InitError> {
    let initializer: Initializer = serde_json::from_slice(config_json).map_err(ConfigError::from)?;
    let value = initializer.initializer_range.unwrap_or(STANDARD_DEVIATION);
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err(InitError::InitializerRange { value }) }
}

fn refuse_existing(out_dir: &Path) -> Result<(), InitError> {
    let io = |source| InitError::Io { path: out_dir.to_owned(), source };
    for entry in std::fs::read_dir(out_dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let tensors = path.extension().is_some_and(|extension| extension == "safetensors");
        if tensors || path.file_name().is_some_and(|name| name == "config.json") {
            return Err(InitError::Exists { path });
        }
    }
    Ok(())
}

/// Groups parameters, in order, into files of at most `shard_bytes` (or one tensor).
fn shards(parameters: Vec<ParameterSpec>, shard_bytes: u64) -> Vec<Vec<ParameterSpec>> {
    let mut shards: Vec<Vec<ParameterSpec>> = Vec::new();
    let mut filled = 0;
    for spec in parameters {
        let bytes = 4 * spec.len() as u64;
        match shards.last_mut() {
            Some(shard) if filled + bytes <= shard_bytes => {
                filled += bytes;
                shard.push(spec);
            }
            _ => {
                filled = bytes;
                shards.push(vec![spec]);
            }
        }
    }
    shards
}

/// Lets `write` fill a temporary file beside `path`, then makes it durable under its name.
fn place(path: &Path, write: impl FnOnce(&Path) -> Result<(), InitError>) -> Result<PathBuf, InitError> {
    let partial = path.with_added_extension("partial");
    write(&partial)?;
    std::fs::File::open(&partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|source| InitError::Io { path: path.to_owned(), source })?;
    Ok(path.to_owned())
}

fn place_bytes(path: &Path, bytes: &[u8]) -> Result<PathBuf, InitError> {
    place(path, |partial| std::fs::write(partial, bytes).map_err(|source| InitError::Io { path: partial.to_owned(), source }))
}

/// A tensor that is generated when the file's writer asks for it.
struct Initial<'a> {
    spec: &'a ParameterSpec,
    seed: u64,
    deviation: f64,
    threads: Threads,
}

impl View for Initial<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.spec.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        let share = self.threads.share(self.spec.len().div_ceil(BATCH)) * BATCH;
        scoped(bytes.chunks_mut(4 * share).enumerate(), |(index, bytes)| {
            self.fill(index * share, bytes);
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        4 * self.spec.len()
    }
}

impl Initial<'_> {
    /// Writes the elements from number `first` on as f32 little-endian.
    fn fill(&self, first: usize, bytes: &mut [u8]) {
        if self.spec.shape.len() == 1 {
            bytes.chunks_exact_mut(4).for_each(|element| element.copy_from_slice(&1.0_f32.to_le_bytes()));
            return;
        }
        let scale = (self.deviation / 65_536.0) as f32;
        let mut stream = ChaCha8Rng::from_seed(self.key());
        stream.set_word_pos((first * ELEMENT_BYTES / 4) as u128);
        let mut random = [0; BATCH * ELEMENT_BYTES];
        for batch in bytes.chunks_mut(4 * BATCH) {
            let random = &mut random[..batch.len() / 4 * ELEMENT_BYTES];
            stream.fill_bytes(random);
            for (element, random) in batch.chunks_exact_mut(4).zip(random.chunks_exact(ELEMENT_BYTES)) {
                let uniforms = random.chunks_exact(2).map(|pair| i32::from(u16::from_le_bytes([pair[0], pair[1]])));
                let centred = uniforms.sum::<i32>() - MEAN_OF_SUM;
                element.copy_from_slice(&(centred as f32 * scale).to_le_bytes());
            }
        }
    }

    fn key(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&(self.spec.name.len() as u64).to_le_bytes());
        hasher.update(self.spec.name.as_bytes());
        hasher.finalize().into()
    }
}
