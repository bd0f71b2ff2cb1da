//! `--env-file`: variables from a file, for those that the environment does not set.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use psyche_messages::Secret;

/// Largest environment file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Finds `--env-file PATH` or `--env-file=PATH` among the arguments, before they are parsed: the file's variables are
/// defaults of the other arguments.
pub(crate) fn named_in(args: &[OsString]) -> Result<Option<PathBuf>> {
    for (index, arg) in args.iter().enumerate() {
        if arg == "--" {
            break;
        }
        if arg == "--env-file" {
            return match args.get(index + 1) {
                Some(path) => Ok(Some(path.into())),
                None => bail!("--env-file needs a path"),
            };
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--env-file=")) {
            return Ok(Some(path.into()));
        }
    }
    Ok(None)
}

/// The variables in the file, any of which may be a key. Errors name the line's number, never its text, which may hold a key.
pub(crate) fn read(path: &PathBuf) -> Result<Vec<(String, Secret<String>)>> {
    let length = std::fs::metadata(path).with_context(|| format!("failed to read {}", path.display()))?.len();
    if length > FILE_BYTES_MAX {
        bail!("{} has {length} bytes; an environment file of at most {FILE_BYTES_MAX} is accepted", path.display());
    }
    let lines = dotenvy::from_path_iter(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut variables = Vec::new();
    for (number, line) in lines.enumerate() {
        let Ok((name, value)) = line else {
            bail!("entry {} of {} cannot be read; NAME=value is accepted", number + 1, path.display());
        };
        variables.push((name, Secret::new(value)));
    }
    Ok(variables)
}

/// A value without the blanks and the pair of quotes around it.
pub(crate) fn unquoted(value: &str) -> &str {
    let value = value.trim();
    ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(value).trim()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::io::Write as _;

    use super::*;

    fn args(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_file_is_found_in_both_spellings_and_not_behind_two_dashes() {
        assert_eq!(named_in(&args("x train --env-file a.env")).unwrap(), Some("a.env".into()));
        assert_eq!(named_in(&args("x --env-file=b.env train")).unwrap(), Some("b.env".into()));
        assert_eq!(named_in(&args("x train -- --env-file a.env")).unwrap(), None);
        assert!(named_in(&args("x --env-file")).is_err());
    }

    #[test]
    fn an_unreadable_line_is_named_by_number_only() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "RUN_ID=demo\nRAW_WALLET_PRIVATE_KEY secretsecret").unwrap();
        let error = read(&file.path().to_owned()).unwrap_err().to_string();
        assert!(error.contains("entry 2"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn quotes_and_comments_are_understood() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "# comment\nRPC=\"http://localhost:8899\"\nexport RUN_ID='demo'").unwrap();
        let read = read(&file.path().to_owned()).unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect();
        assert_eq!(read, [("RPC", "http://localhost:8899"), ("RUN_ID", "demo")]);
    }

    #[test]
    fn blanks_and_one_pair_of_quotes_do_not_belong_to_a_value() {
        for (value, plain) in [(" a ", "a"), ("\"a\"", "a"), ("' a '", "a"), ("\"\"", ""), ("\"a", "\"a"), ("\"", "\"")] {
            assert_eq!(unquoted(value), plain, "{value}");
        }
    }
}
