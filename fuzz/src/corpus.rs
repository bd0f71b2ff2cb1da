//! The committed inputs: one file each, named by its hash.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The folder with a target's inputs.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// All inputs in `folder`, by name; none where there is no folder.
///
/// # Errors
/// What the file system says.
pub fn read(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// Writes an input into `folder` and says under which name.
///
/// # Errors
/// What the file system says.
pub fn save(folder: &Path, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let hash = blake3::hash(input).to_hex();
    let path = folder.join(&hash.as_str()[..16]);
    fs::write(&path, input)?;
    Ok(path)
}
