//! Newtypes for everything that is counted, addressed or hashed.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// Why a text or a number is not a valid id.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IdError {
    /// The text is not base58 of exactly 32 bytes.
    #[error("read a base58 address of 32 bytes")]
    Address,
    /// The text is not 64 hexadecimal digits.
    #[error("read a hash of 64 hexadecimal digits")]
    Hash,
    /// A run id is empty, longer than 32 bytes, or holds a NUL byte.
    #[error("accept a run id of {length} bytes: 1 to 32 bytes without NUL are allowed")]
    RunId {
        /// Length in bytes of what was given.
        length: usize,
    },
    /// The interval's end lies before its start.
    #[error("accept the batch interval [{start}, {end}]: its end lies before its start")]
    Interval {
        /// First sample.
        start: u64,
        /// Last sample.
        end: u64,
    },
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident, $error:expr, $show:expr, $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$show(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 32];
                if $read(text, &mut bytes) { Ok(Self(bytes)) } else { Err($error) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

fn show_base58(bytes: &[u8; 32]) -> String {
    bs58::encode(bytes).into_string()
}

fn read_base58(text: &str, out: &mut [u8; 32]) -> bool {
    // 44 characters are the most that 32 bytes take; longer texts are not worth decoding.
    text.len() <= 44 && matches!(bs58::decode(text).onto(out.as_mut_slice()), Ok(32))
}

fn show_hex(bytes: &[u8; 32]) -> String {
    hex::encode(bytes)
}

fn read_hex(text: &str, out: &mut [u8; 32]) -> bool {
    hex::decode_to_slice(text, out).is_ok()
}

bytes32!(
    /// A Solana account address: a wallet, a program or a derived account. Written in base58.
    Address,
    IdError::Address,
    show_base58,
    read_base58
);
bytes32!(
    /// The ed25519 public key under which a node takes part in the peer-to-peer network, as the roster on chain holds it.
    PeerKey,
    IdError::Address,
    show_base58,
    read_base58
);
bytes32!(
    /// The BLAKE3 hash that names a blob.
    BlobHash,
    IdError::Hash,
    show_hex,
    read_hex
);
bytes32!(
    /// The BLAKE3 digest of a node's parameters after a step.
    Digest,
    IdError::Hash,
    show_hex,
    read_hex
);

impl BlobHash {
    /// The name of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first eight hexadecimal digits, for logs.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl Digest {
    /// The first eight hexadecimal digits, for logs and progress lines.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// The number of an epoch of a run, from 0.
    Epoch,
    u16
);
number!(
    /// The number of a training step of a run, from 1; it never repeats within a run.
    Step,
    u32
);
number!(
    /// A Solana slot.
    Slot,
    u64
);
number!(
    /// The counter of changes of a coordinator account.
    Nonce,
    u64
);
number!(
    /// A time of the chain's clock, in whole seconds since the Unix epoch. Never the machine's clock.
    ChainTime,
    i64
);
number!(
    /// An amount of native tokens, in lamports (a thousand-millionth of a SOL).
    Lamports,
    u64
);
number!(
    /// Points earned in a run; one point is one base unit of the run's reward token.
    Points,
    u64
);

impl Lamports {
    /// Lamports in a SOL.
    pub const PER_SOL: u64 = 1_000_000_000;

    /// The amount as a decimal number of SOL, exact.
    #[must_use]
    pub fn in_sol(self) -> String {
        let number = format!("{}.{:09}", self.0 / Self::PER_SOL, self.0 % Self::PER_SOL);
        number.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl Step {
    /// The step after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// How many steps `self` lies after `earlier`; 0 where it does not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What identifies a round: the epoch and the step. Phases alone never do, since notifications can be missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoundKey {
    /// The epoch.
    pub epoch: Epoch,
    /// The step that the round trains.
    pub step: Step,
}

impl RoundKey {
    /// The key of `step` in `epoch`.
    #[must_use]
    pub const fn new(epoch: u16, step: u32) -> Self {
        Self { epoch: Epoch(epoch), step: Step(step) }
    }
}

impl fmt::Display for RoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.step)
    }
}

/// A closed interval of global sample indices: the batch that one trainer is assigned in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BatchInterval {
    start: u64,
    end: u64,
}

impl BatchInterval {
    /// The interval from `start` to `end`, both included.
    ///
    /// # Errors
    /// [`IdError::Interval`] if `end` lies before `start`.
    pub const fn new(start: u64, end: u64) -> Result<Self, IdError> {
        if end < start { Err(IdError::Interval { start, end }) } else { Ok(Self { start, end }) }
    }

    /// First sample.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Last sample, included.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// How many samples it holds.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        (self.end - self.start).saturating_add(1)
    }
}

impl<'de> Deserialize<'de> for BatchInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            start: u64,
            end: u64,
        }
        let raw = Raw::deserialize(deserializer)?;
        Self::new(raw.start, raw.end).map_err(D::Error::custom)
    }
}

impl fmt::Display for BatchInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.start, self.end)
    }
}

/// The name of a run: 1 to 32 bytes of UTF-8 without NUL, as the coordinator's address is derived from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        if text.is_empty() || text.len() > 32 || text.contains('\0') {
            return Err(IdError::RunId { length: text.len() });
        }
        Ok(Self(text))
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[path = "ids_tests.rs"]
mod tests;
