//! Element types that a rank may compute in.

use std::fmt;
use std::str::FromStr;

use tch::Kind;

#[cfg(test)]
mod tests;

/// Element type of a rank's compute copies and activations.
///
/// Master weights, gradient sums, the optimiser and the loss are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// IEEE 754 binary32.
    #[default]
    F32,
    /// bfloat16: f32's range, eight significant bits.
    Bf16,
}

/// A word that names no precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read precision {found:?}: must be f32 or bf16")]
pub struct PrecisionError {
    found: String,
}

impl Precision {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// libtorch's name for it.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(PrecisionError { found: word.chars().take(32).collect() }),
        }
    }
}
