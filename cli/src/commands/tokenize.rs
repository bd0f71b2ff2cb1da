//! `tokenize`: a tokenizer and tokens from text.

use anyhow::Result;
use psyche_data::{Progress, Vocabulary};

use super::failed_to;
use crate::args::TokenizeArgs;
use crate::output;

pub(crate) fn run(args: &TokenizeArgs) -> Result<()> {
    let vocabulary = match &args.tokenizer {
        Some(path) => Vocabulary::Load(path.clone()),
        None => Vocabulary::Train { size: args.vocab_size },
    };
    let mut last = String::new();
    let mut tell = |progress| {
        let line = words(progress);
        if line != last {
            output::note(format_args!("{line}"));
            last = line;
        }
    };
    let manifest = psyche_data::tokenize(&args.text, &vocabulary, &args.out, &mut tell).map_err(failed_to)?;
    let (tokens, entries, bytes) = (manifest.tokens, manifest.vocab_size, manifest.token_bytes);
    output::note(format_args!("{tokens} tokens of {bytes} bytes, from a vocabulary of {entries}"));
    for file in [&manifest.output, &manifest.tokenizer] {
        output::line(format_args!("{}", args.out.join(&file.name).display()))?;
    }
    Ok(())
}

/// Whole tenths, so that a terminal is not flooded.
fn words(progress: Progress) -> String {
    match progress {
        Progress::Training => "training the tokenizer".to_owned(),
        Progress::Encoding { bytes, bytes_total, .. } => {
            format!("encoding {}%", bytes.saturating_mul(10) / bytes_total.max(1) * 10)
        }
    }
}
