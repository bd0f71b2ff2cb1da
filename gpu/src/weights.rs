//! Safetensors files in a folder, as Hugging Face lays them out: what they hold is checked before any of it is used.
//!
//! The files come from outside. Headers are bounded and validated, tensors must have exactly the names and shapes that
//! the model's configuration asks for, and numbers must be finite. Elements are read by range with ordinary reads: a
//! file that shrinks under us is an error, not a signal.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::GpuError;
use crate::codec::ParameterLayout;
use crate::config::LlamaConfig;
use crate::layout::Piece;

#[cfg(test)]
mod tests;

/// How the files of a model's weights begin.
pub(crate) const MODEL_FILES: &str = "model";
/// Largest safetensors header and largest index that are parsed, in bytes.
const HEADER_BYTES_MAX: u64 = 64 << 20;
/// Most files of one model.
const FILES_MAX: usize = 4096;
/// Elements that are read and converted at a time.
const ELEMENTS_AT_A_TIME: usize = 1 << 18;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Where one tensor lies.
#[derive(Debug, Clone)]
struct Stored {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// First byte in the file.
    start: u64,
}

/// The tensors of a folder, headers read and files open.
pub(crate) struct WeightFiles {
    folder: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: HashMap<String, Stored>,
}

impl WeightFiles {
    /// Opens `<base>.safetensors`, or the files that `<base>.safetensors.index.json` names.
    ///
    /// # Errors
    /// Unreadable or malformed files.
    pub(crate) fn open(folder: &Path, base: &str) -> Result<Self, GpuError> {
        let index = folder.join(index_file(base));
        let names = if index.exists() { indexed_files(&index)? } else { vec![single_file(base)] };
        Self::open_files(folder, &names)
    }

    /// Opens files and reads their headers.
    ///
    /// # Errors
    /// Unreadable or malformed files; a tensor that two of them hold.
    pub(crate) fn open_files(folder: &Path, names: &[String]) -> Result<Self, GpuError> {
        let mut all = Self { folder: folder.to_owned(), files: Vec::new(), tensors: HashMap::new() };
        for path in names.iter().map(|name| folder.join(name)) {
            let file = File::open(&path).map_err(GpuError::io(&path))?;
            let (metadata, data_start) = read_header(&path, &file)?;
            for (name, info) in metadata.tensors() {
                let stored = Stored {
                    file: all.files.len(),
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    start: data_start + info.data_offsets.0 as u64,
                };
                if all.tensors.insert(name.clone(), stored).is_some() {
                    return Err(unfit(&path, format!("tensor {name:?} is in two files")));
                }
            }
            all.files.push((path, file));
        }
        Ok(all)
    }

    /// Reads the elements of `pieces`, one after another, as f32.
    ///
    /// # Errors
    /// A read error, a missing tensor, a number that is not finite.
    pub(crate) fn read_pieces(&self, parameters: &[ParameterLayout], pieces: &[Piece]) -> Result<Vec<f32>, GpuError> {
        let mut elements = vec![0.0; pieces.last().map_or(0, |piece| piece.at.end)];
        for piece in pieces {
            let name = &parameters[piece.part.parameter()].spec().name;
            self.read_f32(name, piece.part.elements().start, &mut elements[piece.at.clone()])?;
        }
        Ok(elements)
    }

    /// Reads the elements of `name` from number `first` on until `elements` is full, as finite f32.
    ///
    /// # Errors
    /// A read error, a missing tensor or another element type, a number that is not finite.
    pub(crate) fn read_f32(&self, name: &str, first: usize, elements: &mut [f32]) -> Result<(), GpuError> {
        let stored = self.known(name)?;
        let path = &self.files[stored.file].0;
        let width = match stored.dtype {
            Dtype::F32 => 4,
            Dtype::BF16 | Dtype::F16 => 2,
            other => return Err(unfit(path, format!("tensor {name:?} has element type {other:?}"))),
        };
        let mut bytes = vec![0; ELEMENTS_AT_A_TIME.min(elements.len()) * width];
        let mut next = first;
        for block in elements.chunks_mut(ELEMENTS_AT_A_TIME) {
            let bytes = &mut bytes[..block.len() * width];
            self.read_bytes(stored, next * width, bytes)?;
            convert(stored.dtype, bytes, block);
            next += block.len();
            if block.iter().any(|element| !element.is_finite()) {
                return Err(unfit(path, format!("tensor {name:?} holds a number that is not finite")));
            }
        }
        Ok(())
    }

    /// Reads the u32 elements of `name` from number `first` on until `elements` is full.
    ///
    /// # Errors
    /// A read error, a missing tensor or another element type.
    pub(crate) fn read_u32(&self, name: &str, first: usize, elements: &mut [u32]) -> Result<(), GpuError> {
        let stored = self.known(name)?;
        if stored.dtype != Dtype::U32 {
            let path = &self.files[stored.file].0;
            return Err(unfit(path, format!("tensor {name:?} has element type {:?}", stored.dtype)));
        }
        let mut bytes = vec![0; elements.len() * 4];
        self.read_bytes(stored, first * 4, &mut bytes)?;
        for (element, bytes) in elements.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *element = u32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    /// Checks that a tensor is there and has this shape.
    ///
    /// # Errors
    /// It is not, or has not.
    pub(crate) fn check_shape(&self, name: &str, shape: &[usize]) -> Result<(), GpuError> {
        let stored = self.known(name)?;
        if stored.shape == shape {
            return Ok(());
        }
        let problem = format!("tensor {name:?} has shape {:?}, the model asks for {shape:?}", stored.shape);
        Err(unfit(&self.files[stored.file].0, problem))
    }

    fn known(&self, name: &str) -> Result<&Stored, GpuError> {
        self.tensors.get(name).ok_or_else(|| unfit(&self.folder, format!("tensor {name:?} is missing")))
    }

    fn read_bytes(&self, stored: &Stored, offset: usize, bytes: &mut [u8]) -> Result<(), GpuError> {
        let (path, file) = &self.files[stored.file];
        file.read_exact_at(bytes, stored.start + offset as u64).map_err(GpuError::io(path))
    }

    /// Checks that these are exactly a model's tensors.
    ///
    /// # Errors
    /// The first tensor that is missing, unknown, or of another shape than the configuration asks for.
    pub(crate) fn check(&self, config: &LlamaConfig) -> Result<(), GpuError> {
        let parameters = config.parameters();
        for parameter in &parameters {
            self.check_shape(&parameter.name, &parameter.shape)?;
        }
        for (name, stored) in &self.tensors {
            let known = parameters.binary_search_by(|parameter| parameter.name.as_str().cmp(name)).is_ok();
            // Some tools store the head although it is the embedding, and the constants of the rotary embedding.
            let redundant = name.ends_with("rotary_emb.inv_freq") || config.tie_word_embeddings && name == "lm_head.weight";
            if !known && !redundant {
                return Err(unfit(&self.files[stored.file].0, format!("tensor {name:?} is not part of the model")));
            }
        }
        Ok(())
    }
}

/// Name of a file that holds everything.
pub(crate) fn single_file(base: &str) -> String {
    format!("{base}.safetensors")
}

/// Name of the file that says which of several files holds which tensor.
pub(crate) fn index_file(base: &str) -> String {
    format!("{base}.safetensors.index.json")
}

fn unfit(path: &Path, problem: String) -> GpuError {
    GpuError::Weights { path: path.to_owned(), problem }
}

/// The distinct files that an index names.
fn indexed_files(path: &Path) -> Result<Vec<String>, GpuError> {
    let file = File::open(path).map_err(GpuError::io(path))?;
    let mut text = Vec::new();
    file.take(HEADER_BYTES_MAX + 1).read_to_end(&mut text).map_err(GpuError::io(path))?;
    if text.len() as u64 > HEADER_BYTES_MAX {
        return Err(unfit(path, format!("an index of more than {HEADER_BYTES_MAX} bytes")));
    }
    let index: Index = serde_json::from_slice(&text).map_err(|error| unfit(path, error.to_string()))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_str().as_ref())) {
        return Err(unfit(path, format!("{name:?} is not the name of a file in the same folder")));
    }
    if names.len() > FILES_MAX {
        return Err(unfit(path, format!("{} files, the limit is {FILES_MAX}", names.len())));
    }
    Ok(names)
}

/// The validated header of a file, and where its data starts.
fn read_header(path: &Path, file: &File) -> Result<(Metadata, u64), GpuError> {
    let length = file.metadata().map_err(GpuError::io(path))?.len();
    let mut size = [0; 8];
    file.read_exact_at(&mut size, 0).map_err(GpuError::io(path))?;
    let size = u64::from_le_bytes(size);
    if size > HEADER_BYTES_MAX.min(length.saturating_sub(8)) {
        return Err(unfit(path, format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut header, 8).map_err(GpuError::io(path))?;
    // Offsets that overlap, leave gaps or don't fit the shapes are refused while parsing.
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| unfit(path, error.to_string()))?;
    let data_start = 8 + size;
    if data_start.checked_add(metadata.data_len() as u64) != Some(length) {
        return Err(unfit(path, format!("{} bytes of data in a file of {length}", metadata.data_len())));
    }
    Ok((metadata, data_start))
}

/// Little-endian numbers as f32.
fn convert(dtype: Dtype, bytes: &[u8], elements: &mut [f32]) {
    match dtype {
        Dtype::BF16 => {
            for (element, bytes) in elements.iter_mut().zip(bytes.chunks_exact(2)) {
                *element = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
            }
        }
        Dtype::F16 => {
            for (element, bytes) in elements.iter_mut().zip(bytes.chunks_exact(2)) {
                *element = half_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]));
            }
        }
        _ => {
            for (element, bytes) in elements.iter_mut().zip(bytes.chunks_exact(4)) {
                *element = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
    }
}

/// An IEEE 754 binary16 as f32, exactly.
fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let (exponent, mantissa) = (u32::from(half >> 10 & 0x1f), u32::from(half & 0x3ff));
    let magnitude = match exponent {
        0 => (mantissa as f32 * 2.0_f32.powi(-24)).to_bits(),
        0x1f => 0x7f80_0000 | mantissa << 13,
        _ => (exponent + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}
