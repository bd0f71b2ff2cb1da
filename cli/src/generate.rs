//! Text that a trained model writes: its weights, its tokenizer, and the dice.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use psyche_data::TextTokenizer;
use psyche_data::tokenize::TOKENIZER_FILE;
use psyche_gpu::generate::{Generator, Sampling};

use crate::exit::{Exit, Failure};

/// What a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The text after the prompt.
    pub(crate) text: String,
    /// Its tokens.
    pub(crate) tokens: usize,
    /// How long the model took.
    pub(crate) took: Duration,
}

/// A model and the tokenizer that it was trained with.
pub(crate) struct Writer {
    model: Generator,
    tokenizer: TextTokenizer,
}

impl Writer {
    /// Loads the model in `folder`, and its tokenizer from `tokenizer`, or from the same folder.
    ///
    /// # Errors
    /// [`Exit::Configuration`], with words that say which file is the matter.
    pub(crate) fn open(folder: &Path, tokenizer: Option<&Path>) -> Result<Self> {
        if !folder.join("config.json").is_file() {
            let message = format!("{} holds no model: there is no config.json in it", folder.display());
            return Err(refused(message));
        }
        let model = Generator::open(folder)
            .map_err(|error| refused(format!("the model can't be used: failed to {}", psyche_actors::chain_of(&error))))?;
        let path = tokenizer.map_or_else(|| folder.join(TOKENIZER_FILE), Path::to_owned);
        if !path.is_file() {
            return Err(refused(format!("there is no tokenizer at {}; name it with --tokenizer", path.display())));
        }
        let tokenizer = TextTokenizer::load(&path)
            .map_err(|error| refused(format!("{}: failed to {}", path.display(), psyche_actors::chain_of(&error))))?;
        let (entries, vocabulary) = (tokenizer.vocab_size() as usize, model.config().vocab_size);
        if entries > vocabulary {
            let message =
                format!("the tokenizer has {entries} entries and the model {vocabulary}: they do not belong together");
            return Err(refused(message));
        }
        Ok(Self { model, tokenizer })
    }

    /// Writes at most `count` tokens after `prompt`, as long as `going` says so.
    ///
    /// # Errors
    /// A prompt that leaves nothing to begin with, and what the tokenizer or the model refuse.
    pub(crate) fn write(
        &self,
        prompt: &str,
        count: usize,
        sampling: Sampling,
        going: &mut dyn FnMut() -> bool,
    ) -> Result<Written> {
        let began = Instant::now();
        let failed = |problem: String| refused(format!("failed to {problem}"));
        let mut tokens = self.tokenizer.encode(prompt).map_err(|error| failed(psyche_actors::chain_of(&error)))?;
        let end = self.tokenizer.end_of_text();
        if tokens.is_empty() {
            // The end of a text is what comes before the beginning of one.
            tokens.extend(end);
        }
        if tokens.is_empty() {
            return Err(refused("this tokenizer knows no end of text to begin after: give a --prompt"));
        }
        let mut written = self
            .model
            .generate(&tokens, count, sampling, end, going)
            .map_err(|error| failed(psyche_actors::chain_of(&error)))?;
        let count = written.len();
        if end.is_some() && written.last().copied() == end {
            written.pop();
        }
        let text = self.tokenizer.decode(&written).map_err(|error| failed(psyche_actors::chain_of(&error)))?;
        Ok(Written { text, tokens: count, took: began.elapsed() })
    }
}

fn refused(message: impl Into<String>) -> anyhow::Error {
    Failure::new(Exit::Configuration, message).into()
}
