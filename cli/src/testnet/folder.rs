//! The folder that a testnet leaves its results in.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Says that a folder was made by a testnet, so that the next one may clear it.
const MARKER: &str = ".psyche-testnet";
/// What the text and its tokenizer were made from is there after the next run too: it takes seconds to make again.
const KEPT: &str = "text";

/// Makes `out` ready for a new testnet. What an earlier testnet left there is removed, apart
/// from the tokenized text; a folder with other things in it is refused.
///
/// # Errors
/// If the folder holds what no testnet made, or can't be written.
pub(crate) fn prepare(out: &Path) -> Result<()> {
    let failed = || format!("failed to prepare {}", out.display());
    fs::create_dir_all(out).with_context(failed)?;
    let ours = out.join(MARKER);
    let entries: Vec<_> = fs::read_dir(out).with_context(failed)?.collect::<Result<_, _>>().with_context(failed)?;
    if !entries.is_empty() && !ours.exists() {
        bail!("{} holds files that no testnet made; name another folder with --out", out.display());
    }
    for entry in entries {
        let name = entry.file_name();
        if name == MARKER || name == KEPT {
            continue;
        }
        remove(&entry.path()).with_context(failed)?;
    }
    fs::write(&ours, "Made by `psyche-solana-client testnet`, which clears this folder when it runs again.\n")
        .with_context(failed)
}

/// Removes a file, a link, or a folder with all that is in it.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn a_second_testnet_clears_what_the_first_left_apart_from_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        prepare(&out).unwrap();
        fs::create_dir_all(out.join("node-1/data")).unwrap();
        fs::create_dir_all(out.join(KEPT)).unwrap();
        fs::write(out.join("loss.svg"), "x").unwrap();
        fs::write(out.join(KEPT).join("tokens.bin"), "x").unwrap();
        prepare(&out).unwrap();
        assert!(!out.join("node-1").exists() && !out.join("loss.svg").exists());
        assert!(out.join(KEPT).join("tokens.bin").exists());
    }

    #[test]
    fn a_folder_with_somebody_s_files_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let refused = prepare(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("--out"), "{refused}");
        assert!(folder.path().join("thesis.tex").exists());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).unwrap();
        let out = folder.path().join("out");
        prepare(&out).unwrap();
        std::os::unix::fs::symlink(&kept, out.join("link")).unwrap();
        prepare(&out).unwrap();
        assert!(kept.exists() && !out.join("link").exists());
    }
}
