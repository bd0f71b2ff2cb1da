//! From text to tokens: a byte-level BPE (Sennrich et al., 2016; byte level as in GPT-2), trained on the text itself or given.
//!
//! The output depends on nothing but the text and the size of the vocabulary.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{ModelWrapper, Tokenizer};

use crate::tokens::TokenWidth;

/// The smallest vocabulary: every byte has an entry.
pub const VOCABULARY_MIN: usize = 256;
/// The largest vocabulary that is trained.
const VOCABULARY_MAX: usize = 1 << 20;
/// Lines encoded between two reports of progress.
const REPORT_EVERY: usize = 2_000;

/// Why text could not be tokenized.
#[derive(Debug, Error)]
pub enum TokenizeError {
    /// The file system refuses.
    #[error("use {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The vocabulary can't be trained.
    #[error("train a vocabulary of {entries} entries: {VOCABULARY_MIN} to {VOCABULARY_MAX} are accepted")]
    Vocabulary {
        /// What was asked for.
        entries: usize,
    },
    /// There is no text.
    #[error("find any text in the files")]
    Empty,
    /// The tokenizer refuses.
    #[error("tokenize")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The manifest can't be written.
    #[error("write the manifest")]
    Manifest(#[source] serde_json::Error),
}

/// Which vocabulary to use.
#[derive(Clone, Debug)]
pub enum Vocabulary {
    /// Train one of this many entries.
    Train(usize),
    /// Use this tokenizer.json.
    Load(PathBuf),
}

/// What to tokenize.
#[derive(Clone, Debug)]
pub struct TokenizeJob {
    /// UTF-8 text files, in this order.
    pub text: Vec<PathBuf>,
    /// The vocabulary.
    pub vocabulary: Vocabulary,
    /// Folder for the output; made where it does not exist.
    pub out: PathBuf,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The vocabulary is trained on this many lines.
    Training {
        /// Lines of text.
        lines: usize,
    },
    /// Lines are encoded.
    Encoding {
        /// Lines done.
        done: usize,
        /// Lines in all.
        lines: usize,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Training { lines } => write!(f, "training a vocabulary on {lines} lines"),
            Self::Encoding { done, lines } => write!(f, "encoding {}%", done.saturating_mul(100) / (*lines).max(1)),
        }
    }
}

/// What lies beside the tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub version: u8,
    /// Tokens written.
    pub tokens: u64,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Bytes of a token.
    pub token_bytes: u8,
    /// BLAKE3 of each text file, in order.
    pub text_blake3: Vec<String>,
    /// BLAKE3 of tokens.bin.
    pub tokens_blake3: String,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizeReport {
    /// Tokens written.
    pub tokens: u64,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Bytes of a token.
    pub width: TokenWidth,
    /// tokens.bin.
    pub tokens_path: PathBuf,
    /// tokenizer.json.
    pub tokenizer_path: PathBuf,
}

/// Tokenizes text: writes `tokenizer.json`, `tokens.bin` (u16 or u32, little-endian) and, last, `manifest.json`.
///
/// # Errors
/// [`TokenizeError`].
pub fn tokenize(job: &TokenizeJob, mut progress: impl FnMut(Progress)) -> Result<TokenizeReport, TokenizeError> {
    let (lines, text_blake3) = read_text(&job.text)?;
    let tokenizer = match &job.vocabulary {
        Vocabulary::Train(entries) => {
            progress(Progress::Training { lines: lines.len() });
            train(&lines, *entries)?
        }
        Vocabulary::Load(path) => Tokenizer::from_file(path).map_err(TokenizeError::Tokenizer)?,
    };
    fs::create_dir_all(&job.out).map_err(io_error(&job.out))?;
    let tokenizer_path = job.out.join("tokenizer.json");
    tokenizer.save(&tokenizer_path, false).map_err(TokenizeError::Tokenizer)?;
    let vocab_size = tokenizer.get_vocab_size(true);
    let width = TokenWidth::of_vocabulary(vocab_size);
    let tokens_path = job.out.join("tokens.bin");
    let (tokens, tokens_blake3) = encode(&tokenizer, &lines, width, &tokens_path, progress)?;
    let token_bytes = if width == TokenWidth::Two { 2 } else { 4 };
    let manifest = Manifest { version: 1, tokens, vocab_size, token_bytes, text_blake3, tokens_blake3 };
    let json = serde_json::to_vec_pretty(&manifest).map_err(TokenizeError::Manifest)?;
    let manifest_path = job.out.join("manifest.json");
    fs::write(&manifest_path, json).map_err(io_error(&manifest_path))?;
    Ok(TokenizeReport { tokens, vocab_size, width, tokens_path, tokenizer_path })
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> TokenizeError + use<> {
    let path = path.to_owned();
    move |source| TokenizeError::Io { path, source }
}

/// All lines with their line ends, and each file's hash.
fn read_text(paths: &[PathBuf]) -> Result<(Vec<String>, Vec<String>), TokenizeError> {
    let (mut lines, mut hashes) = (Vec::new(), Vec::new());
    for path in paths {
        let file = fs::File::open(path).map_err(io_error(path))?;
        let mut hasher = blake3::Hasher::new();
        let mut reader = BufReader::new(file);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).map_err(io_error(path))? == 0 {
                break;
            }
            hasher.update(line.as_bytes());
            lines.push(line);
        }
        hashes.push(hasher.finalize().to_hex().to_string());
    }
    if lines.is_empty() { Err(TokenizeError::Empty) } else { Ok((lines, hashes)) }
}

fn train(lines: &[String], entries: usize) -> Result<Tokenizer, TokenizeError> {
    if !(VOCABULARY_MIN..=VOCABULARY_MAX).contains(&entries) {
        return Err(TokenizeError::Vocabulary { entries });
    }
    let mut tokenizer = Tokenizer::new(ModelWrapper::BPE(BPE::default()));
    // No blank is put before the text, and offsets are of no interest.
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let trainer = BpeTrainer::builder()
        .vocab_size(entries)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    tokenizer.train(&mut trainer, lines.iter().map(String::as_str)).map_err(TokenizeError::Tokenizer)?;
    Ok(tokenizer)
}

fn encode(
    tokenizer: &Tokenizer,
    lines: &[String],
    width: TokenWidth,
    path: &Path,
    mut progress: impl FnMut(Progress),
) -> Result<(u64, String), TokenizeError> {
    let file = fs::File::create(path).map_err(io_error(path))?;
    let (mut out, mut hasher, mut tokens) = (BufWriter::new(file), blake3::Hasher::new(), 0_u64);
    for (chunk, done) in lines.chunks(REPORT_EVERY).zip((0..).step_by(REPORT_EVERY)) {
        progress(Progress::Encoding { done, lines: lines.len() });
        for line in chunk {
            let encoding = tokenizer.encode_fast(line.as_str(), false).map_err(TokenizeError::Tokenizer)?;
            for id in encoding.get_ids() {
                let bytes = id.to_le_bytes();
                let bytes = if width == TokenWidth::Two { &bytes[..2] } else { &bytes[..] };
                hasher.update(bytes);
                out.write_all(bytes).map_err(io_error(path))?;
            }
            tokens += encoding.len() as u64;
        }
    }
    progress(Progress::Encoding { done: lines.len(), lines: lines.len() });
    out.flush().map_err(io_error(path))?;
    Ok((tokens, hasher.finalize().to_hex().to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    const TEXT: &str = "In the beginning God created the heaven and the earth.\nAnd the earth was without form, and void;\n";

    fn job(folder: &Path, vocabulary: Vocabulary) -> TokenizeJob {
        let text = folder.join("text.txt");
        fs::write(&text, TEXT.repeat(20)).unwrap();
        TokenizeJob { text: vec![text], vocabulary, out: folder.join("out") }
    }

    #[test]
    fn tokens_decode_to_the_text_and_are_the_same_every_time() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut seen = Vec::new();
        let report = tokenize(&job(one.path(), Vocabulary::Train(300)), |progress| seen.push(progress)).unwrap();
        let again = tokenize(&job(two.path(), Vocabulary::Train(300)), |_| {}).unwrap();
        let bytes = fs::read(&report.tokens_path).unwrap();
        assert_eq!(bytes, fs::read(&again.tokens_path).unwrap());
        assert_eq!(fs::read(&report.tokenizer_path).unwrap(), fs::read(&again.tokenizer_path).unwrap());
        assert_eq!(report.width, TokenWidth::Two);
        let ids: Vec<u32> = bytes.chunks(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect();
        assert_eq!(ids.len() as u64, report.tokens);
        let tokenizer = Tokenizer::from_file(&report.tokenizer_path).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), TEXT.repeat(20));
        assert_eq!(seen.last(), Some(&Progress::Encoding { done: 40, lines: 40 }));
    }

    #[test]
    fn a_given_tokenizer_is_used_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = tokenize(&job(folder.path(), Vocabulary::Train(280)), |_| {}).unwrap();
        let kept = folder.path().join("kept.json");
        fs::copy(&first.tokenizer_path, &kept).unwrap();
        let tokens = fs::read(&first.tokens_path).unwrap();
        let second = tokenize(&job(folder.path(), Vocabulary::Load(kept)), |_| {}).unwrap();
        assert_eq!(fs::read(&second.tokens_path).unwrap(), tokens);
    }

    #[test]
    fn what_can_not_be_tokenized_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = tokenize(&job(folder.path(), Vocabulary::Train(10)), |_| {}).unwrap_err();
        assert!(matches!(refused, TokenizeError::Vocabulary { entries: 10 }));
        let mut job = job(folder.path(), Vocabulary::Train(300));
        fs::write(&job.text[0], "").unwrap();
        assert!(matches!(tokenize(&job, |_| {}), Err(TokenizeError::Empty)));
        job.text = vec![folder.path().join("absent.txt")];
        assert!(matches!(tokenize(&job, |_| {}), Err(TokenizeError::Io { .. })));
    }
}
