//! Text files to a data set: a byte-level BPE tokenizer, one file of tokens, and a manifest.
//!
//! The text is read line by line, and an end-of-text token follows each file. The same inputs give the same bytes on every
//! machine, so that nodes can make their data instead of fetching it; the manifest's hashes tell whether they did.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use psyche_messages::BlobHash;
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer, TokenizerBuilder};

use crate::error::{DataError, io_error, refused};

/// Stands after each text. A tokenizer that is loaded need not know it.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Name of the tokenizer in the output directory.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the tokens in the output directory.
pub const TOKENS_FILE: &str = "tokens.bin";
/// Name of the manifest in the output directory.
pub const MANIFEST_FILE: &str = "dataset.json";

/// Smallest vocabulary that can be trained: every byte, and the end of a text.
const VOCAB_MIN: u32 = 257;
/// Largest vocabulary that can be trained.
const VOCAB_MAX: u32 = 1 << 20;

/// Longest line in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Lines that are encoded at a time, on all cores.
const LINES_AT_A_TIME: usize = 2048;

/// Version of [`DatasetManifest`].
const MANIFEST_VERSION: u8 = 1;

/// Where the tokenizer comes from.
#[derive(Clone, Debug)]
pub enum Vocabulary {
    /// Trained on the inputs.
    Train {
        /// Entries of the vocabulary, with the 256 bytes and the end-of-text token; fewer if the text has no more pairs.
        size: u32,
    },
    /// Read from a `tokenizer.json`.
    Load(PathBuf),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The tokenizer is being trained.
    Training,
    /// Text is being encoded.
    Encoding {
        /// Bytes of text so far.
        bytes: u64,
        /// Bytes of text in all.
        bytes_total: u64,
        /// Tokens so far.
        tokens: u64,
    },
}

/// A file and its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedFile {
    /// Its name, without the directory.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its BLAKE3 hash.
    pub blake3: BlobHash,
}

/// What a data set is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetManifest {
    /// Version of this format.
    pub version: u8,
    /// Size of the vocabulary: every token is below.
    pub vocab_size: u32,
    /// Bytes of a token: 2 or 4.
    pub token_bytes: u8,
    /// How many tokens there are.
    pub tokens: u64,
    /// The tokenizer.
    pub tokenizer: HashedFile,
    /// The tokens.
    pub output: HashedFile,
    /// The text files, in the order in which they were read.
    pub inputs: Vec<HashedFile>,
}

impl DatasetManifest {
    /// Reads the manifest of the data set in `dir`.
    ///
    /// # Errors
    /// [`DataError`] if it is not there, or no manifest.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        serde_json::from_slice(&bytes).map_err(DataError::Manifest)
    }
}

/// Makes a data set of `inputs`, in their order, in the directory `out`; `progress` is told how far it is. The manifest is
/// written last: where it is, the rest is complete.
///
/// # Errors
/// [`DataError`] if there is no input, the text is not UTF-8, the tokenizer refuses, or the disk does.
pub fn tokenize(
    inputs: &[PathBuf],
    vocabulary: &Vocabulary,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<DatasetManifest, DataError> {
    if inputs.is_empty() {
        return Err(DataError::NoFiles { path: out.to_owned() });
    }
    fs::create_dir_all(out).map_err(io_error(out))?;
    let tokenizer = match vocabulary {
        Vocabulary::Train { size } => {
            progress(Progress::Training);
            train(inputs, *size)?
        }
        Vocabulary::Load(path) => {
            let bytes = fs::read(path).map_err(io_error(path))?;
            Tokenizer::from_bytes(bytes).map_err(refused("load"))?
        }
    };
    let json = tokenizer.to_string(true).map_err(refused("write"))?;
    let tokenizer_path = out.join(TOKENIZER_FILE);
    replace(&tokenizer_path, json.as_bytes())?;

    let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |max| max.saturating_add(1));
    let token_bytes = if vocab_size <= 1 << 16 { 2 } else { 4 };
    let tokens = encode(inputs, &tokenizer, token_bytes, &out.join(TOKENS_FILE), progress)?;
    let manifest = DatasetManifest {
        version: MANIFEST_VERSION,
        vocab_size,
        token_bytes,
        tokens,
        tokenizer: hashed(&tokenizer_path)?,
        output: hashed(&out.join(TOKENS_FILE))?,
        inputs: inputs.iter().map(|path| hashed(path)).collect::<Result<_, _>>()?,
    };
    let json = serde_json::to_vec_pretty(&manifest).map_err(DataError::Manifest)?;
    replace(&out.join(MANIFEST_FILE), &json)?;
    Ok(manifest)
}

fn train(inputs: &[PathBuf], size: u32) -> Result<Tokenizer, DataError> {
    if !(VOCAB_MIN..=VOCAB_MAX).contains(&size) {
        return Err(DataError::VocabularySize { size, size_min: VOCAB_MIN, size_max: VOCAB_MAX });
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size as usize)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let byte_level = ByteLevel::new(false, false, true);
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(byte_level.into()))
            .with_decoder(Some(byte_level.into()))
            .build()
            .map_err(refused("train"))?;

    let mut trouble = None;
    let lines = inputs.iter().flat_map(|path| Lines::open(path));
    // The trainer takes strings; the first line that can't be read ends the text, and is the error afterwards.
    let lines = lines.map_while(|line| line.map_err(|error| trouble = Some(error)).ok());
    tokenizer.train(&mut trainer, lines).map_err(refused("train"))?;
    match trouble {
        Some(error) => Err(error),
        None => Ok(tokenizer.into()),
    }
}

/// Writes the tokens of `inputs` to `path`; returns how many.
fn encode(
    inputs: &[PathBuf],
    tokenizer: &Tokenizer,
    token_bytes: u8,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, DataError> {
    let mut bytes_total = 0;
    for input in inputs {
        bytes_total += fs::metadata(input).map_err(io_error(input))?.len();
    }
    let partial = partial_of(path);
    let mut writer = TokenWriter::create(&partial, token_bytes)?;
    let end = tokenizer.token_to_id(END_OF_TEXT);
    let mut bytes = 0;
    for input in inputs {
        let mut lines = Lines::open(input).peekable();
        while lines.peek().is_some() {
            let batch = lines.by_ref().take(LINES_AT_A_TIME).collect::<Result<Vec<_>, _>>()?;
            bytes += batch.iter().map(|line| line.len() as u64).sum::<u64>();
            for encoding in tokenizer.encode_batch_fast(batch, false).map_err(refused("run"))? {
                writer.write(encoding.get_ids())?;
            }
            progress(Progress::Encoding { bytes, bytes_total, tokens: writer.tokens });
        }
        writer.write(end.as_slice())?;
    }
    let tokens = writer.finish()?;
    fs::rename(&partial, path).map_err(io_error(path))?;
    Ok(tokens)
}

struct TokenWriter {
    path: PathBuf,
    file: BufWriter<File>,
    width: usize,
    tokens: u64,
}

impl TokenWriter {
    fn create(path: &Path, token_bytes: u8) -> Result<Self, DataError> {
        let file = BufWriter::new(File::create(path).map_err(io_error(path))?);
        Ok(Self { path: path.to_owned(), file, width: usize::from(token_bytes), tokens: 0 })
    }

    fn write(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        for token in tokens {
            self.file.write_all(&token.to_le_bytes()[..self.width]).map_err(io_error(&self.path))?;
        }
        self.tokens += tokens.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<u64, DataError> {
        self.file.flush().map_err(io_error(&self.path))?;
        Ok(self.tokens)
    }
}

/// The lines of a text file with their ends.
struct Lines {
    path: PathBuf,
    /// What is left to read, or why the file can't be opened; nothing after an error.
    reader: Option<Result<BufReader<File>, DataError>>,
    line: u64,
}

impl Lines {
    fn open(path: &Path) -> Self {
        let reader = File::open(path).map(BufReader::new).map_err(io_error(path));
        Self { path: path.to_owned(), reader: Some(reader), line: 0 }
    }

    fn read(&mut self, reader: &mut BufReader<File>) -> Result<Option<String>, DataError> {
        self.line += 1;
        let mut bytes = Vec::new();
        let mut bounded = std::io::Read::take(reader, LINE_BYTES_MAX + 1);
        bounded.read_until(b'\n', &mut bytes).map_err(io_error(&self.path))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match String::from_utf8(bytes) {
            Ok(line) if line.len() as u64 <= LINE_BYTES_MAX => Ok(Some(line)),
            _ => Err(DataError::Line { path: self.path.clone(), line: self.line, length_max: LINE_BYTES_MAX }),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = match self.reader.take()? {
            Ok(reader) => reader,
            Err(error) => return Some(Err(error)),
        };
        let line = self.read(&mut reader).transpose()?;
        if line.is_ok() {
            self.reader = Some(Ok(reader));
        }
        Some(line)
    }
}

fn hashed(path: &Path) -> Result<HashedFile, DataError> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(io_error(path))?;
    hasher.update_reader(file).map_err(io_error(path))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(HashedFile { name, bytes: hasher.count(), blake3: BlobHash(*hasher.finalize().as_bytes()) })
}

/// Writes a file that is there completely or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let partial = partial_of(path);
    fs::write(&partial, bytes).map_err(io_error(&partial))?;
    fs::rename(&partial, path).map_err(io_error(path))
}

fn partial_of(path: &Path) -> PathBuf {
    path.with_extension("partial")
}

#[cfg(test)]
mod tests;
