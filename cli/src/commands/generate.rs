//! `generate`: text from a model.

use anyhow::Result;
use psyche_gpu::generate::Sampling;
use serde::Serialize;

use crate::args::GenerateArgs;
use crate::generate::Writer;
use crate::output;

/// The result for scripts; fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    text: &'a str,
    tokens: usize,
    seconds: f64,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    psyche_gpu::devices::init_threads(std::thread::available_parallelism().map_or(1, usize::from));
    let writer = Writer::open(&args.checkpoint, args.tokenizer.as_deref())?;
    let top_k = (args.top_k > 0).then(|| usize::from(args.top_k));
    let sampling = Sampling { temperature: args.temperature, top_k, seed: args.seed };
    let written = writer.write(&args.prompt, usize::from(args.tokens), sampling, &mut || true)?;
    let seconds = written.took.as_secs_f64();
    output::note(format_args!("{} tokens in {seconds:.1} s, seed {}", written.tokens, args.seed));
    let answer = Answer { prompt: &args.prompt, text: &written.text, tokens: written.tokens, seconds };
    output::either(args.json.json, &answer, format_args!("{}{}", args.prompt, written.text))
}
