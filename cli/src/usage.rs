//! What the command line's own parser says.

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue};
use psyche_chain::Wallet;

use crate::args::Cli;

/// The variables that options read.
pub(crate) fn variables() -> Vec<String> {
    let mut names = Vec::new();
    collect(&Cli::command(), &mut names);
    names.sort();
    names.dedup();
    names
}

fn collect(command: &clap::Command, names: &mut Vec<String>) {
    let of_options = command.get_arguments().filter_map(|arg| arg.get_env());
    names.extend(of_options.map(|name| name.to_string_lossy().into_owned()));
    for inner in command.get_subcommands() {
        collect(inner, names);
    }
}

/// What stands in the place of text that may be a key.
const REDACTED: &str = "[not shown, since it may be a private key]";
/// Addresses have at most 44 characters; longer base58 may be a key, whole or in part.
const BASE58_LEN_MIN: usize = 60;

/// Whether `text` is a private key, or what is left of one after it was cut or mistyped.
fn may_be_key(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'']).trim();
    let base58 = text.len() >= BASE58_LEN_MIN && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.starts_with('[') || base58 || Wallet::from_text(text).is_ok()
}

/// The same error, without a private key that somebody gave in the place of something else.
pub(crate) fn without_keys(mut error: clap::Error) -> clap::Error {
    let kinds = [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::TrailingArg];
    for kind in kinds {
        let is_key = matches!(error.get(kind), Some(ContextValue::String(text)) if may_be_key(text));
        if is_key {
            let _shown = error.insert(kind, ContextValue::String(REDACTED.to_owned()));
        }
    }
    error
}
