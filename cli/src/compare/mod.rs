//! `compare-optimizers`: AdamW against DisTrO on the demonstration's text, at equal tokens. A local experiment: AdamW
//! makes no results, so no network can be trained with it.

mod args;
mod contest;
mod plot;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use psyche_data::{TokenConfig, TokenSource, Vocabulary};
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_messages::BatchInterval;
use psyche_protocol::model::{Shuffle, TokenSize};

pub(crate) use args::CompareArgs;
pub(crate) use contest::alone;
use contest::{Contestant, Course};
use table::Run;

use crate::commands::failed_to;
use crate::output;

/// Entries of the vocabulary: few, so that the small model is more than its embeddings.
const VOCAB_SIZE: u32 = 1024;
/// Tokens of a sample.
const SEQUENCE: u32 = 64;
/// One part in so many of the tokens is never trained on.
const HELD_OUT_PART: u64 = 20;
/// Longest gradient of every contestant.
const CLIP_GRAD_NORM: f32 = 1.0;
/// Samples of that part that the loss is asked of.
const HELD_OUT_SAMPLES: u64 = 128;

/// Runs everybody, one after another, and writes the figures.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    psyche_gpu::devices::init_threads(1);
    fs::create_dir_all(&args.out).with_context(|| format!("failed to create {}", args.out.display()))?;
    let (samples, held_out) = tokens(&args.out)?;
    let all = held_out.sample_count().min(HELD_OUT_SAMPLES);
    let held_out = held_out.samples(BatchInterval::new(0, all - 1).context("no held-out samples")?).map_err(failed_to)?;
    let json = model_config();
    let config = LlamaConfig::from_json(json.as_bytes()).map_err(failed_to)?;
    output::note(format_args!(
        "{} parameters, {} samples of {SEQUENCE} tokens",
        config.parameter_count(),
        samples.sample_count()
    ));
    let distro = OptimizerConfig {
        compression_decay: args.decay,
        compression_chunk: usize::from(args.chunk),
        compression_topk: usize::from(args.topk),
        quantize_1bit: true,
        clip_grad_norm: Some(CLIP_GRAD_NORM),
    };
    let mut runs = Vec::new();
    for seed in 0..args.seeds {
        let weights = args.out.join(format!("weights-{seed}"));
        if weights.exists() {
            // What an earlier comparison left.
            fs::remove_dir_all(&weights).with_context(|| format!("failed to remove {}", weights.display()))?;
        }
        psyche_gpu::init::init_model(json.as_bytes(), seed, &weights).map_err(failed_to)?;
        let course = Course {
            config: &config,
            weights,
            samples: &samples,
            first_sample: seed * u64::from(args.steps) * u64::from(args.batch),
            held_out: &held_out,
            steps: args.steps,
            batch: args.batch,
            distro,
            delay: args.delay,
        };
        for contestant in contestants(args) {
            let began = Instant::now();
            let points = course.run(contestant)?;
            let last = points.last().context("a run without steps")?;
            let (name, lr, seconds) = (contestant.name(), contestant.lr(), began.elapsed().as_secs());
            output::note(format_args!("seed {seed}, {name}, rate {lr:e}: {:.4} after {seconds} s", last.held_out));
            runs.push(Run { contestant, seed, points });
        }
    }
    report(&args.out, &runs)
}

fn report(out: &Path, runs: &[Run]) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    };
    let table = table::markdown(runs);
    write("losses.csv", &table::csv(runs))?;
    write("table.md", &table)?;
    plot::write(&out.join("convergence.svg"), runs)?;
    output::text(&table)?;
    Ok(())
}

/// Everybody, in the order of the table.
fn contestants(args: &CompareArgs) -> Vec<Contestant> {
    let adamw = args.adamw_lr.iter().map(|&lr| Contestant::AdamW { lr });
    let distro = |&senders: &u16| args.distro_lr.iter().map(move |&lr| Contestant::Distro { senders, lr });
    adamw.chain(args.senders.iter().flat_map(distro)).collect()
}

/// The tokens to train on, and those held out: the last part of the text.
fn tokens(out: &Path) -> Result<(TokenSource, TokenSource)> {
    let text = out.join("text");
    fs::create_dir_all(&text).with_context(|| format!("failed to create {}", text.display()))?;
    let path = text.join("kjv.txt");
    fs::write(&path, crate::testnet::TEXT).with_context(|| format!("failed to write {}", path.display()))?;
    let vocabulary = Vocabulary::Train { size: VOCAB_SIZE };
    let manifest = psyche_data::tokenize(&[path], &vocabulary, &text, &mut |_progress| {}).map_err(failed_to)?;
    let bytes = fs::read(text.join(&manifest.output.name)).context("failed to read the tokens")?;
    let width = usize::from(manifest.token_bytes);
    let kept = bytes.len() / width - bytes.len() / width / usize::try_from(HELD_OUT_PART)?;
    let source = |name: &str, bytes: &[u8], shuffle| -> Result<TokenSource> {
        let path: PathBuf = out.join(name);
        fs::write(&path, bytes).with_context(|| format!("failed to write {}", path.display()))?;
        let token_size = if width == 2 { TokenSize::TwoBytes } else { TokenSize::FourBytes };
        TokenSource::open(&TokenConfig { path, token_size, seq_len: SEQUENCE, vocab_size: manifest.vocab_size, shuffle })
            .map_err(failed_to)
    };
    let (training, held_out) = bytes.split_at(kept * width);
    Ok((source("training.bin", training, Shuffle::Seeded([1; 32]))?, source("held-out.bin", held_out, Shuffle::DontShuffle)?))
}

/// A model that a core trains several thousand tokens a second of.
fn model_config() -> String {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": SEQUENCE,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
    });
    format!("{config:#}\n")
}
