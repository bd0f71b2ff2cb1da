//! `tokenize`: a tokenizer and tokens from text.

use anyhow::Result;
use psyche_data::{TokenizeJob, Vocabulary};

use super::failed_to;
use crate::args::TokenizeArgs;
use crate::output;

pub(crate) fn run(args: &TokenizeArgs) -> Result<()> {
    let vocabulary = match &args.tokenizer {
        Some(path) => Vocabulary::Load(path.clone()),
        None => Vocabulary::Train(args.vocab_size),
    };
    let job = TokenizeJob { text: args.text.clone(), vocabulary, out: args.out.clone() };
    let mut last = String::new();
    let report = psyche_data::tokenize(&job, |progress| {
        let line = progress.to_string();
        if line != last {
            output::note(format_args!("{line}"));
            last = line;
        }
    });
    let report = report.map_err(failed_to)?;
    output::note(format_args!("{} tokens of a vocabulary of {}", report.tokens, report.vocab_size));
    output::line(format_args!("{}", report.tokens_path.display()))?;
    output::line(format_args!("{}", report.tokenizer_path.display()))?;
    Ok(())
}
