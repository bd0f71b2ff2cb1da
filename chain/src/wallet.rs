//! The key that signs a node's transactions. It never appears in logs, errors or dumps.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use psyche_messages::{Address, RunId, Secret};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use sha2::{Digest as _, Sha256};
use solana_keypair::Keypair;
use solana_signature::Signature;
use solana_signer::Signer as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest text that can be a wallet: a JSON array of 64 numbers with generous blanks.
const TEXT_LEN_MAX: usize = 4_096;
/// Domain of derived seeds; changes whenever the derivation does.
const SEED_DOMAIN: &[u8] = b"psyche-solana-client 2026-11 derived seed v1";

/// Why a wallet can't be read or written. Never holds any of its text.
#[derive(Debug, Error)]
pub enum WalletError {
    /// Neither a JSON array of 64 numbers nor base58 of 64 bytes.
    #[error("read a wallet: a JSON array of 64 numbers or base58 of 64 bytes is needed")]
    Text,
    /// The public half does not belong to the secret half.
    #[error("read a wallet: its public half does not belong to its secret half")]
    Mismatch,
    /// Others than its owner may use the file.
    #[error("use the wallet file {path}: others can use it too (mode {mode:04o}); run `chmod 600 {path}`", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits, of which others than the owner's are set.
        mode: u32,
    },
    /// The file can't be read.
    #[error("read the wallet file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file can't be written, for instance because it exists.
    #[error("write the wallet file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// The 64 bytes of a key pair while they are read: never more than one copy, and that one is wiped.
struct KeyBytes(Zeroizing<[u8; 64]>);

impl<'de> Deserialize<'de> for KeyBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(KeyBytesVisitor)
    }
}

struct KeyBytesVisitor;

impl<'de> Visitor<'de> for KeyBytesVisitor {
    type Value = KeyBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("64 numbers from 0 to 255")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<KeyBytes, A::Error> {
        let mut bytes = Zeroizing::new([0_u8; 64]);
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = numbers.next_element()?.ok_or_else(|| A::Error::invalid_length(index, &self))?;
        }
        match numbers.next_element::<IgnoredAny>()? {
            None => Ok(KeyBytes(bytes)),
            Some(_) => Err(A::Error::invalid_length(bytes.len() + 1, &self)),
        }
    }
}

/// A key pair. Clones share it; it is wiped when the last one goes.
#[derive(Clone)]
pub struct Wallet(Arc<Keypair>);

impl Wallet {
    /// A new random key.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a random key is no default")]
    pub fn new() -> Self {
        Self(Arc::new(Keypair::new()))
    }

    /// The wallet of a 32-byte secret.
    #[must_use]
    pub fn from_seed(seed: &Secret<[u8; 32]>) -> Self {
        Self(Arc::new(Keypair::new_from_array(*seed.expose())))
    }

    /// The wallet in `text`: a JSON array of 64 numbers, or base58 of 64 bytes. Blanks and quotes around it do not matter.
    ///
    /// # Errors
    /// [`WalletError::Text`] or [`WalletError::Mismatch`].
    pub fn from_text(text: &str) -> Result<Self, WalletError> {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        if text.len() > TEXT_LEN_MAX {
            return Err(WalletError::Text);
        }
        let mut bytes = Zeroizing::new([0_u8; 64]);
        if text.starts_with('[') {
            bytes = serde_json::from_str::<KeyBytes>(text).map_err(|_no_array| WalletError::Text)?.0;
        } else if !matches!(bs58::decode(text).onto(bytes.as_mut_slice()), Ok(64)) {
            return Err(WalletError::Text);
        }
        let keypair = Keypair::try_from(bytes.as_slice()).map_err(|_mismatch| WalletError::Mismatch)?;
        Ok(Self(Arc::new(keypair)))
    }

    /// The wallet in a file that nobody but its owner may read or write.
    ///
    /// # Errors
    /// [`WalletError`] for a file that others may use, that can't be read, or that holds no wallet.
    pub fn from_file(path: &Path) -> Result<Self, WalletError> {
        let read = |source| WalletError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(read)?;
        let mode = file.metadata().map_err(read)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(WalletError::Exposed { path: path.to_path_buf(), mode });
        }
        // Room for all of it, so that growing leaves no copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * TEXT_LEN_MAX));
        file.take(TEXT_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(read)?;
        Self::from_text(str::from_utf8(&bytes).map_err(|_no_text| WalletError::Text)?)
    }

    /// Writes a new file with a JSON array, readable by its owner only. An existing file is never overwritten.
    ///
    /// # Errors
    /// [`WalletError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), WalletError> {
        let write = |source| WalletError::Write { path: path.to_path_buf(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
        let text = self.to_json();
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(write)
    }

    /// The key pair as a JSON array, in one buffer that is wiped.
    fn to_json(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_bytes());
        let mut text = Zeroizing::new(String::with_capacity(4 * bytes.len() + 2));
        for (index, byte) in bytes.iter().enumerate() {
            text.push(if index == 0 { '[' } else { ',' });
            for divisor in [100, 10, 1] {
                if *byte >= divisor || divisor == 1 {
                    text.push(char::from(b'0' + byte / divisor % 10));
                }
            }
        }
        text.push(']');
        text
    }

    /// The public key.
    #[must_use]
    pub fn address(&self) -> Address {
        Address(self.0.pubkey().to_bytes())
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign_message(message)
    }

    /// A secret for another purpose that follows from this wallet: the same wallet, domain and run always give the same
    /// one, and it says nothing about the wallet.
    #[must_use]
    pub fn derive_seed(&self, domain: &str, run_id: &RunId) -> Secret<[u8; 32]> {
        self.derive(domain, run_id.as_str().as_bytes())
    }

    /// As [`Wallet::derive_seed`], for any bytes in the run's place.
    pub(crate) fn derive(&self, domain: &str, about: &[u8]) -> Secret<[u8; 32]> {
        let mut hasher = Sha256::new();
        for part in [SEED_DOMAIN, domain.as_bytes(), about, self.0.secret_bytes().as_slice()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Secret::new(hasher.finalize().into())
    }

    #[cfg(test)]
    fn keypair(&self) -> &Keypair {
        &self.0
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wallet({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::fs;

    use super::*;

    #[test]
    fn a_saved_wallet_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id.json");
        let wallet = Wallet::new();
        wallet.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Wallet::from_file(&path).unwrap().address(), wallet.address());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{:?}", wallet.keypair().to_bytes()).replace(' ', ""), "as other programs write it");
        assert!(matches!(wallet.save(&path), Err(WalletError::Write { .. })), "an existing wallet stays");
    }

    #[test]
    fn a_file_that_others_may_use_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id.json");
        Wallet::new().save(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = Wallet::from_file(&path).unwrap_err();
            assert!(matches!(refused, WalletError::Exposed { .. }), "{mode:o}: {refused}");
            assert!(refused.to_string().contains(&format!("chmod 600 {}", path.display())), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        Wallet::from_file(&path).unwrap();
    }

    #[test]
    fn json_and_base58_with_quotes_give_the_same_wallet() {
        let wallet = Wallet::new();
        let json = format!(" {:?}\n", wallet.keypair().to_bytes());
        let base58 = format!("\"{}\"", wallet.keypair().to_base58_string());
        for text in [json, base58] {
            assert_eq!(Wallet::from_text(&text).unwrap().address(), wallet.address());
        }
    }

    #[test]
    fn texts_that_are_no_wallet_are_refused_without_repeating_them() {
        let mut broken = Wallet::new().keypair().to_bytes();
        broken[63] ^= 1;
        let broken = Wallet::from_text(&format!("{broken:?}")).unwrap_err();
        assert!(matches!(broken, WalletError::Mismatch));
        let long = format!("[{}1]", "1,".repeat(64));
        for text in ["", "[]", "[1,2,3]", "hunter2", &"1".repeat(5_000), "[300]", "{}", &long] {
            let refused = Wallet::from_text(text).unwrap_err();
            assert!(matches!(refused, WalletError::Text), "{text}");
            assert!(!refused.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_wallet_prints_only_its_address() {
        let wallet = Wallet::new();
        assert_eq!(format!("{wallet:?}"), format!("Wallet({})", wallet.address()));
    }

    #[test]
    fn derived_seeds_differ_by_wallet_domain_and_run() {
        let [a, b, pa] = ["a", "b", "pa"].map(|id| id.parse::<RunId>().unwrap());
        let wallet = Wallet::new();
        let seed = |domain, run| *wallet.derive_seed(domain, run).expose();
        assert_eq!(seed("p2p", &a), seed("p2p", &a));
        assert_ne!(seed("p2p", &a), seed("p2p", &b));
        assert_ne!(seed("p2p", &a), seed("p2", &pa));
        assert_ne!(seed("p2p", &a), *Wallet::new().derive_seed("p2p", &a).expose());
    }
}
