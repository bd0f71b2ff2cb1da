//! A captured state as files: safetensors in Hugging Face's layout for the weights, and the same form for the rest.
//!
//! Nothing is put together in memory: a tensor's bytes go to the disk from where each rank's copy holds them. As many
//! files are written at a time as there were ranks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::capture::Captured;
use super::disk::{Disk, NewFile, Spent};
use super::error::SnapshotError;
use super::manifest::FileRecord;
use super::{MOMENTUM_FILES, SENT_FILES};
use crate::weights::{MODEL_FILES, index_file, single_file};

/// What Hugging Face's tokenizers are made of, and what generation wants to know.
const TOKENIZER_FILES: [&str; 9] = [
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];
/// Longest of these files, in bytes.
const TOKENIZER_FILE_BYTES_MAX: u64 = 128 << 20;

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy)]
enum Source {
    Weights,
    Momentum,
    SentIndices,
    SentValues,
}

impl Source {
    /// Bytes of an element, and what safetensors calls its type.
    const fn element(self) -> (u64, &'static str) {
        match self {
            Self::SentIndices => (4, "U32"),
            Self::Weights | Self::Momentum | Self::SentValues => (4, "F32"),
        }
    }
}

/// One tensor of a file.
#[derive(Debug)]
struct TensorPlan {
    name: String,
    parameter: usize,
    source: Source,
    shape: Vec<usize>,
}

impl TensorPlan {
    fn bytes(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product::<u64>() * self.source.element().0
    }
}

/// One file to be written.
#[derive(Debug)]
pub(super) struct FilePlan {
    name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Tensors(Vec<TensorPlan>),
    Text(Vec<u8>),
    /// The first bytes, at most so many, of another file.
    Copy(PathBuf, u64),
}

impl FilePlan {
    /// A file with this content.
    pub(super) fn text(name: &str, text: Vec<u8>) -> Self {
        Self { name: name.to_owned(), content: Content::Text(text) }
    }
}

/// The files of the model: weights, their index if they are several, and `config.json`.
///
/// Files hold whole tensors and at most `file_bytes_max` bytes of them, or one tensor.
pub(super) fn model_files(captured: &Captured, file_bytes_max: u64) -> Result<Vec<FilePlan>, serde_json::Error> {
    let mut plans = sharded(captured, MODEL_FILES, Source::Weights, file_bytes_max);
    let text = serde_json::to_vec_pretty(&captured.config)?;
    plans.push(FilePlan::text("config.json", text));
    Ok(plans)
}

/// Copies of the tokenizer's files in `folder`, as far as they are there.
pub(super) fn tokenizer_files(folder: &Path) -> Vec<FilePlan> {
    let copy = |name: &&str| {
        let path = folder.join(name);
        let length = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?.len();
        if length > TOKENIZER_FILE_BYTES_MAX {
            tracing::warn!(path = %path.display(), length, "too long for a tokenizer's file: snapshots do without it");
            return None;
        }
        Some(FilePlan { name: (*name).to_owned(), content: Content::Copy(path, length) })
    };
    TOKENIZER_FILES.iter().filter_map(copy).collect()
}

/// The files of the node's own state: momentum, and what of it was sent.
pub(super) fn state_files(captured: &Captured, file_bytes_max: u64) -> Vec<FilePlan> {
    let mut plans = sharded(captured, MOMENTUM_FILES, Source::Momentum, file_bytes_max);
    if captured.has_sent() {
        let tensors = |prefix: &'static str, source| {
            captured.layout.codec.parameters().iter().enumerate().map(move |(parameter, of)| TensorPlan {
                name: format!("{prefix}.{}", of.spec().name),
                parameter,
                source,
                shape: vec![of.geometry().chunks(), of.k()],
            })
        };
        let tensors = tensors("values", Source::SentValues).chain(tensors("indices", Source::SentIndices));
        plans.push(FilePlan { name: single_file(SENT_FILES), content: Content::Tensors(tensors.collect()) });
    }
    plans
}

fn sharded(captured: &Captured, base: &str, source: Source, file_bytes_max: u64) -> Vec<FilePlan> {
    let parameters = captured.layout.codec.parameters();
    let tensor = |parameter: usize| {
        let spec = parameters[parameter].spec();
        TensorPlan { name: spec.name.clone(), parameter, source, shape: spec.shape.clone() }
    };
    let sizes: Vec<u64> = (0..parameters.len()).map(|parameter| tensor(parameter).bytes()).collect();
    let groups = group(&sizes, file_bytes_max);
    let name = |file: usize| match groups.len() {
        1 => single_file(base),
        count => format!("{base}-{:05}-of-{count:05}.safetensors", file + 1),
    };
    let mut plans: Vec<FilePlan> = (0..groups.len())
        .map(|file| {
            let tensors = groups[file].clone().map(tensor).collect();
            FilePlan { name: name(file), content: Content::Tensors(tensors) }
        })
        .collect();
    if groups.len() > 1 {
        let of_file = |file: usize| groups[file].clone().map(move |parameter| (parameter, file));
        let weight_map: BTreeMap<&str, String> = (0..groups.len())
            .flat_map(of_file)
            .map(|(parameter, file)| (parameters[parameter].spec().name.as_str(), name(file)))
            .collect();
        let index = json!({ "metadata": { "total_size": sizes.iter().sum::<u64>() }, "weight_map": weight_map });
        plans.push(FilePlan::text(&index_file(base), index.to_string().into_bytes()));
    }
    plans
}

/// Consecutive tensors of these sizes for each file.
fn group(sizes: &[u64], file_bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0_u64;
    for (index, &more) in sizes.iter().enumerate() {
        bytes = bytes.saturating_add(more);
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

/// Writes files into `folder`, as many at a time as the state has ranks.
pub(super) fn write_files(
    disk: &Disk,
    folder: &Path,
    captured: &Captured,
    plans: &[FilePlan],
) -> Result<(Vec<FileRecord>, Spent), SnapshotError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut written = (Vec::new(), Spent::default());
        while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !failed.load(Ordering::Relaxed)) {
            let (record, spent) =
                write_file(disk, folder, captured, plan).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            written.0.push(record);
            written.1.add(spent);
        }
        Ok(written)
    };
    let work = &work;
    let threads = captured.ranks().clamp(1, plans.len().max(1));
    let outcomes: Vec<Result<_, SnapshotError>> = std::thread::scope(|scope| {
        // The first share is this thread's own: where there is one rank, no other thread is made.
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut outcomes = vec![work()];
        outcomes.extend(others.into_iter().map(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        outcomes
    });
    let mut all = (Vec::with_capacity(plans.len()), Spent::default());
    for outcome in outcomes {
        let (records, spent) = outcome?;
        all.0.extend(records);
        all.1.add(spent);
    }
    Ok(all)
}

fn write_file(disk: &Disk, folder: &Path, captured: &Captured, plan: &FilePlan) -> Result<(FileRecord, Spent), SnapshotError> {
    let mut file = NewFile::create(disk, folder, &plan.name)?;
    match &plan.content {
        Content::Text(text) => file.write(text)?,
        Content::Copy(from, length) => copy(&mut file, from, *length)?,
        Content::Tensors(tensors) => {
            file.write(&header(tensors))?;
            for tensor in tensors {
                write_tensor(&mut file, captured, tensor)?;
            }
        }
    }
    file.finish()
}

fn copy(file: &mut NewFile<'_>, from: &Path, length: u64) -> Result<(), SnapshotError> {
    let reading = |source| SnapshotError::disk(from, source);
    let mut bytes = Vec::new();
    File::open(from).map_err(reading)?.take(length).read_to_end(&mut bytes).map_err(reading)?;
    file.write(&bytes)
}

/// The start of a safetensors file: the header's length, and the header, padded so that the data is aligned.
fn header(tensors: &[TensorPlan]) -> Vec<u8> {
    // Hugging Face's loaders ask for this entry.
    let mut entries = BTreeMap::from([("__metadata__", json!({ "format": "pt" }))]);
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        let dtype = tensor.source.element().1;
        entries.insert(&tensor.name, json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] }));
        start = end;
    }
    let mut text = json!(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}

fn write_tensor(file: &mut NewFile<'_>, captured: &Captured, tensor: &TensorPlan) -> Result<(), SnapshotError> {
    for (owned, at, piece) in captured.holders(tensor.parameter) {
        let sent = owned.sent.as_ref().and_then(|sent| sent.get(at));
        match (tensor.source, sent) {
            (Source::Weights, _) => file.write(&f32_bytes(&owned.master[piece.at.clone()]))?,
            (Source::Momentum, _) => file.write(&f32_bytes(&owned.momentum[piece.at.clone()]))?,
            (Source::SentIndices, Some(sent)) => file.write(&u32_bytes(&sent.indices))?,
            (Source::SentValues, Some(sent)) => file.write(&f32_bytes(&sent.values))?,
            // Files of sent coefficients are planned only if every rank has them.
            (Source::SentIndices | Source::SentValues, None) => {}
        }
    }
    Ok(())
}

fn f32_bytes(elements: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(elements));
    }
    Cow::Owned(elements.iter().flat_map(|element| element.to_le_bytes()).collect())
}

fn u32_bytes(elements: &[u32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(elements));
    }
    Cow::Owned(elements.iter().flat_map(|element| element.to_le_bytes()).collect())
}
