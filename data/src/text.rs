//! A tokenizer as a data set has it: text to tokens, and tokens to text.

use std::fs;
use std::path::Path;

use tokenizers::Tokenizer;

use crate::error::{DataError, io_error, refused};
use crate::tokenize::END_OF_TEXT;

/// Longest `tokenizer.json`; those of today's models take up to 20 MB.
const TOKENIZER_BYTES_MAX: u64 = 64 << 20;

/// A loaded `tokenizer.json`.
#[derive(Debug)]
pub struct TextTokenizer(Tokenizer);

impl TextTokenizer {
    /// Loads the tokenizer in the file `path`.
    ///
    /// # Errors
    /// [`DataError`] if there is none, or it is no tokenizer.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let length = fs::metadata(path).map_err(io_error(path))?.len();
        if length > TOKENIZER_BYTES_MAX {
            return Err(refused("load")(format!("{} has {length} bytes", path.display()).into()));
        }
        let bytes = fs::read(path).map_err(io_error(path))?;
        Ok(Self(Tokenizer::from_bytes(bytes).map_err(refused("load"))?))
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    /// [`DataError`] if the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        Ok(self.0.encode_fast(text, false).map_err(refused("run"))?.get_ids().to_vec())
    }

    /// The text of `tokens`; what they leave of a character, when they are cut in its middle, is shown as U+FFFD.
    ///
    /// # Errors
    /// [`DataError`] if the tokenizer refuses.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.0.decode(tokens, true).map_err(refused("run"))
    }

    /// The token after each text of the training data; none if the tokenizer does not know it.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        self.0.token_to_id(END_OF_TEXT)
    }

    /// One more than the largest token.
    #[must_use]
    pub fn vocab_size(&self) -> u32 {
        self.0.get_vocab(true).values().max().map_or(0, |max| max.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;
    use crate::{Vocabulary, tokenize};

    #[test]
    fn text_comes_back_from_its_tokens_and_a_cut_character_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.txt");
        fs::write(&path, "In the beginning was the Word.\nEs war einmal ein Müller.\n").unwrap();
        tokenize(&[path], &Vocabulary::Train { size: 300 }, folder.path(), &mut |_| {}).unwrap();
        let tokenizer = TextTokenizer::load(&folder.path().join(crate::tokenize::TOKENIZER_FILE)).unwrap();
        let text = "the Müller was in\n the 字";
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
        assert!(tokenizer.decode(&tokens[..tokens.len() - 1]).unwrap().starts_with("the Müller was in\n the "));
        assert!(tokens.iter().all(|token| *token < tokenizer.vocab_size()));
        assert!(tokenizer.end_of_text().is_some());
        assert!(tokenizer.encode("").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        assert!(TextTokenizer::load(&path).is_err());
        fs::write(&path, "{}").unwrap();
        assert!(TextTokenizer::load(&path).unwrap_err().to_string().contains("load the tokenizer"));
    }
}
