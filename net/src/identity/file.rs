//! Identities that outlive wallets and runs: a file with an ed25519 seed, as 32 bytes or as 64 hexadecimal digits, that only its
//! owner may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use psyche_messages::Secret;
use rand::TryRngCore;
use rand::rngs::OsRng;
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest content that is looked at: 64 digits with blanks around them.
const TEXT_LEN_MAX: usize = 80;

/// Why an identity can't be used or made.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file can't be read.
    #[error("read the identity {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may use the file.
    #[error("use the identity {path}: its mode is {mode:03o}, so others can read it (chmod 600)")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is no seed.
    #[error("read an identity: 32 bytes, or 64 hexadecimal digits, are accepted")]
    Content,
    /// The new file can't be written, or there is one.
    #[error("write the identity {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The system has no randomness.
    #[error("draw a random key")]
    Random(#[source] rand::rand_core::OsError),
}

/// Makes a random identity and writes it, as 32 bytes, to a new file that only its owner may read.
///
/// # Errors
/// [`IdentityError::Write`] also for a file that exists.
pub fn create_identity(path: &Path) -> Result<Secret<[u8; 32]>, IdentityError> {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(seed.as_mut_slice()).map_err(IdentityError::Random)?;
    let write = |source| IdentityError::Write { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
    file.write_all(seed.as_slice()).and_then(|()| file.sync_all()).map_err(write)?;
    Ok(Secret::new(*seed))
}

/// The identity in a file that nobody but its owner may read or write.
///
/// # Errors
/// [`IdentityError`] for a file that others may use, that can't be read, or that holds no seed.
pub fn read_identity(path: &Path) -> Result<Secret<[u8; 32]>, IdentityError> {
    let read = |source| IdentityError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let mode = file.metadata().map_err(read)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    // Room for all of it, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * TEXT_LEN_MAX));
    file.take(TEXT_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
    if let Ok(seed) = <[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(Secret::new(seed));
    }
    parse_identity(str::from_utf8(&bytes).map_err(|_no_text| IdentityError::Content)?)
}

/// The identity in `text`: 64 hexadecimal digits, with blanks and quotes around them as you like.
///
/// # Errors
/// [`IdentityError::Content`].
pub fn parse_identity(text: &str) -> Result<Secret<[u8; 32]>, IdentityError> {
    let digits = text.trim().trim_matches(['"', '\'']).trim().as_bytes();
    if digits.len() != 64 {
        return Err(IdentityError::Content);
    }
    let mut seed = Zeroizing::new([0; 32]);
    for (byte, pair) in seed.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let (high, low) = (value(pair[0]).ok_or(IdentityError::Content)?, value(pair[1]).ok_or(IdentityError::Content)?);
        *byte = 16 * high + low;
    }
    Ok(Secret::new(*seed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::peer_key_of;

    #[test]
    fn an_identity_comes_back_from_its_file_and_is_never_overwritten() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("identity");
        let made = create_identity(&path).unwrap();
        assert_eq!(read_identity(&path).unwrap().expose(), made.expose());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(create_identity(&path), Err(IdentityError::Write { .. })));
        assert_ne!(create_identity(&dir.path().join("other")).unwrap().expose(), made.expose());
    }

    #[test]
    fn digits_are_the_same_identity_as_bytes() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("identity");
        fs::write(&path, format!(" {}\n", "0aF1".repeat(16))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let bytes = Secret::new([[0x0a, 0xf1]; 16].concat().try_into().unwrap());
        assert_eq!(peer_key_of(&read_identity(&path).unwrap()), peer_key_of(&bytes));
    }

    #[test]
    fn what_others_can_read_or_holds_no_seed_is_refused_without_being_repeated() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("identity");
        fs::write(&path, [7; 32]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_identity(&path), Err(IdentityError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for content in [b"".as_slice(), &[7; 31], &[7; 64], "xy".repeat(32).as_bytes(), &[7; 4096]] {
            fs::write(&path, content).unwrap();
            let error = read_identity(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Content), "{error}");
        }
        assert!(!parse_identity("secret").unwrap_err().to_string().contains("secret"));
    }
}
