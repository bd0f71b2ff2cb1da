//! Snapshots: the node's weights, and its optimiser state, as safetensors files that any layout of devices can load.
//!
//! Files are written under a temporary name beside the target and appear there all at once. The ranks share the work:
//! each puts together, from all ranks' pieces, the tensors of the files that are its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};

use crate::GpuError;
use crate::codec::{Selection, check_selection};
use crate::layout::NodeLayout;
use crate::mesh::MeshRank;
use crate::weights::{MODEL_FILES, WeightFiles, index_file, single_file};
use crate::worker::Rank;

#[cfg(test)]
mod tests;

/// How the files of the momentum begin.
const MOMENTUM_FILES: &str = "momentum";
/// What was sent and is still in the momentum.
const SENT_FILES: &str = "sent";

/// One tensor ready to be written.
struct Whole {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl View for &Whole {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Rank {
    /// Writes the weights (f32, Hugging Face names) and `config.json` to the new folder `folder`.
    ///
    /// Files hold whole tensors and at most `file_bytes_max` bytes of them, or one tensor. Collective.
    ///
    /// # Errors
    /// A folder that exists or can't be written, on whichever rank: then nothing appears.
    pub fn snapshot(&mut self, folder: &Path, file_bytes_max: u64) -> Result<(), GpuError> {
        let config = serde_json::to_vec_pretty(&self.config().with_dtype("float32"));
        let (mesh, layout, optimizer) = self.state();
        let staging = stage(mesh, folder)?;
        let files = Files { mesh, layout, folder: &staging };
        let written = files.write(MODEL_FILES, optimizer.master(), file_bytes_max);
        let written = written.and_then(|()| match (mesh.rank(), config) {
            (0, Ok(text)) => write_file(&staging.join("config.json"), &text),
            (0, Err(error)) => Err(io_other(&staging, error)),
            _ => Ok(()),
        });
        publish(mesh, &staging, folder, written)
    }

    /// Writes what this node needs beside the weights to go on after a restart to the new folder `folder`. Collective.
    ///
    /// # Errors
    /// As [`Rank::snapshot`].
    pub fn save_optimizer(&mut self, folder: &Path, file_bytes_max: u64) -> Result<(), GpuError> {
        let (mesh, layout, optimizer) = self.state();
        let staging = stage(mesh, folder)?;
        let files = Files { mesh, layout, folder: &staging };
        let written = files.write(MOMENTUM_FILES, optimizer.momentum(), file_bytes_max);
        let sent = mesh.exchange(optimizer.sent(), |all| (mesh.rank() == 0).then(|| gather_sent(layout, all)).flatten())?;
        let written = written.and_then(|()| match sent {
            Some(tensors) => write_tensors(&staging.join(single_file(SENT_FILES)), &tensors),
            None => Ok(()),
        });
        publish(mesh, &staging, folder, written)
    }

    /// Goes on from what [`Rank::save_optimizer`] wrote, on any layout of devices. Collective.
    ///
    /// # Errors
    /// Files that can't be read or belong to another model or other settings, on whichever rank: then nothing changes.
    pub fn load_optimizer(&mut self, folder: &Path) -> Result<(), GpuError> {
        let (mesh, layout, optimizer) = self.state();
        let read = || {
            let parameters = layout.codec.parameters();
            let files = WeightFiles::open(folder, MOMENTUM_FILES)?;
            for parameter in parameters {
                files.check_shape(&parameter.spec().name, &parameter.spec().shape)?;
            }
            let momentum = files.read_pieces(parameters, layout.pieces(mesh.rank()))?;
            let sent = folder.join(single_file(SENT_FILES)).exists().then(|| read_sent(mesh.rank(), layout, folder));
            Ok((momentum, sent.transpose()?))
        };
        let (momentum, sent) = agree(mesh, read())?;
        optimizer.restore(momentum, sent);
        Ok(())
    }
}

/// Rank 0 makes an empty folder beside the target.
fn stage(mesh: &MeshRank, folder: &Path) -> Result<PathBuf, GpuError> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let staging = folder.with_file_name(name);
    let make = || {
        if folder.exists() {
            return Err(GpuError::io(folder)(std::io::ErrorKind::AlreadyExists.into()));
        }
        if staging.exists() {
            std::fs::remove_dir_all(&staging).map_err(GpuError::io(&staging))?;
        }
        std::fs::create_dir_all(&staging).map_err(GpuError::io(&staging))
    };
    agree(mesh, if mesh.rank() == 0 { make() } else { Ok(()) })?;
    Ok(staging)
}

/// Once all ranks have written, rank 0 gives the folder its name.
fn publish(mesh: &MeshRank, staging: &Path, folder: &Path, written: Result<(), GpuError>) -> Result<(), GpuError> {
    agree(mesh, written)?;
    let rename = || {
        sync(staging)?;
        std::fs::rename(staging, folder).map_err(GpuError::io(folder))?;
        folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync)
    };
    agree(mesh, if mesh.rank() == 0 { rename() } else { Ok(()) })
}

/// This rank's result if every rank succeeded, else an error on every rank.
fn agree<R>(mesh: &MeshRank, result: Result<R, GpuError>) -> Result<R, GpuError> {
    let all = mesh.agree(result.is_ok())?;
    let result = result?;
    match all.iter().position(|succeeded| !succeeded) {
        Some(rank) => Err(GpuError::Files { rank }),
        None => Ok(result),
    }
}

/// The files of one folder as all ranks write them together.
struct Files<'a> {
    mesh: &'a MeshRank,
    layout: &'a NodeLayout,
    folder: &'a Path,
}

impl Files<'_> {
    /// Writes every parameter of which `owned` holds this rank's pieces, and the index if there are several files.
    fn write(&self, base: &str, owned: &Vec<f32>, file_bytes_max: u64) -> Result<(), GpuError> {
        let groups = self.group(file_bytes_max);
        let name = |file: usize| match groups.len() {
            1 => single_file(base),
            count => format!("{base}-{:05}-of-{count:05}.safetensors", file + 1),
        };
        let ranks = self.layout.topology.ranks();
        let mut written = Ok(());
        // Every rank takes part in every wave, also after it failed, so that the others don't wait for it in vain.
        for wave in (0..groups.len()).step_by(ranks) {
            let file = wave + self.mesh.rank();
            let tensors = self.mesh.exchange(owned, |all| groups.get(file).map(|group| self.gather(group.clone(), all)))?;
            if let (Some(tensors), Ok(())) = (tensors, &written) {
                written = write_tensors(&self.folder.join(name(file)), &tensors);
            }
        }
        written?;
        if self.mesh.rank() != 0 || groups.len() == 1 {
            return Ok(());
        }
        let parameters = self.layout.codec.parameters();
        let weight_map: BTreeMap<&str, String> = groups
            .iter()
            .enumerate()
            .flat_map(|(file, group)| parameters[group.clone()].iter().map(move |parameter| (file, parameter)))
            .map(|(file, parameter)| (parameter.spec().name.as_str(), name(file)))
            .collect();
        let total: u64 = parameters.iter().map(|parameter| parameter.geometry().elements() as u64 * 4).sum();
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_file(&self.folder.join(index_file(base)), index.to_string().as_bytes())
    }

    /// Consecutive parameters for each file.
    fn group(&self, file_bytes_max: u64) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut bytes = 0;
        for (index, parameter) in self.layout.codec.parameters().iter().enumerate() {
            let more = parameter.geometry().elements() as u64 * 4;
            bytes += more;
            match groups.last_mut() {
                Some(last) if bytes <= file_bytes_max => last.end = index + 1,
                _ => {
                    groups.push(index..index + 1);
                    bytes = more;
                }
            }
        }
        groups
    }

    /// Puts the parameters of one file together from all ranks' pieces.
    fn gather(&self, parameters: Range<usize>, all: &[&Vec<f32>]) -> Vec<(String, Whole)> {
        let mut tensors: Vec<(String, Whole)> = self.layout.codec.parameters()[parameters.clone()]
            .iter()
            .map(|parameter| {
                let bytes = vec![0; parameter.geometry().elements() * 4];
                let whole = Whole { shape: parameter.spec().shape.clone(), dtype: Dtype::F32, bytes };
                (parameter.spec().name.clone(), whole)
            })
            .collect();
        for (rank, owned) in all.iter().enumerate() {
            for piece in self.layout.pieces(rank).iter().filter(|piece| parameters.contains(&piece.part.parameter())) {
                let tensor = &mut tensors[piece.part.parameter() - parameters.start].1;
                let elements = piece.part.elements();
                let bytes = &mut tensor.bytes[elements.start * 4..elements.end * 4];
                for (bytes, element) in bytes.chunks_exact_mut(4).zip(&owned[piece.at.clone()]) {
                    bytes.copy_from_slice(&element.to_le_bytes());
                }
            }
        }
        tensors
    }
}

/// The whole model's selections, if there are any: two tensors per parameter.
fn gather_sent(layout: &NodeLayout, all: &[&Option<Vec<Selection>>]) -> Option<Vec<(String, Whole)>> {
    // Pieces ascend with the rank, so that appending keeps the order of the chunks.
    let mut selections = vec![Selection::default(); layout.codec.parameters().len()];
    for (rank, sent) in all.iter().enumerate() {
        for (piece, selection) in layout.pieces(rank).iter().zip(sent.as_ref()?) {
            let whole = &mut selections[piece.part.parameter()];
            whole.indices.extend(&selection.indices);
            whole.values.extend(&selection.values);
        }
    }
    let tensors = layout.codec.parameters().iter().zip(selections).flat_map(|(parameter, selection)| {
        let shape = vec![parameter.geometry().chunks(), parameter.k()];
        let indices = selection.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        let values = selection.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = &parameter.spec().name;
        [
            (format!("indices.{name}"), Whole { shape: shape.clone(), dtype: Dtype::U16, bytes: indices }),
            (format!("values.{name}"), Whole { shape, dtype: Dtype::F32, bytes: values }),
        ]
    });
    Some(tensors.collect())
}

/// The selections of `rank`'s pieces.
fn read_sent(rank: usize, layout: &NodeLayout, folder: &Path) -> Result<Vec<Selection>, GpuError> {
    let files = WeightFiles::open(folder, SENT_FILES)?;
    let read = |piece: &crate::layout::Piece| {
        let parameter = &layout.codec.parameters()[piece.part.parameter()];
        let (indices, values) = (format!("indices.{}", parameter.spec().name), format!("values.{}", parameter.spec().name));
        let (k, chunks) = (parameter.k(), piece.part.chunks());
        for name in [&indices, &values] {
            files.check_shape(name, &[parameter.geometry().chunks(), k])?;
        }
        let kept = chunks.len() * k;
        let mut selection = Selection { indices: vec![0; kept], values: vec![0.0; kept] };
        files.read_u16(&indices, chunks.start * k, &mut selection.indices)?;
        files.read_f32(&values, chunks.start * k, &mut selection.values)?;
        check_selection(parameter, &piece.part, &selection)?;
        Ok(selection)
    };
    layout.pieces(rank).iter().map(read).collect()
}

fn write_tensors(path: &Path, tensors: &[(String, Whole)]) -> Result<(), GpuError> {
    // Hugging Face's loaders ask for this entry.
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let named = tensors.iter().map(|(name, whole)| (name.as_str(), whole));
    safetensors::serialize_to_file(named, Some(metadata), path).map_err(|error| io_other(path, error))?;
    sync(path)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), GpuError> {
    std::fs::write(path, bytes).map_err(GpuError::io(path))?;
    sync(path)
}

fn sync(path: &Path) -> Result<(), GpuError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(GpuError::io(path))
}

fn io_other(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> GpuError {
    GpuError::io(path)(std::io::Error::other(error))
}
