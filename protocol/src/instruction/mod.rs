//! Instructions: discriminator and Borsh arguments (ABI section 1.3).
//!
//! *Purpose*: one struct per instruction. [`Args::decode`] takes the whole instruction data and is strict: every
//! byte must be accounted for. Encoding goes into a caller's buffer, or with `to_vec` into a vector off chain.

mod authorizer;
mod coordinator;
mod treasurer;
mod witness;

pub use authorizer::{
    AuthorizationCloseArgs, AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs, AuthorizationGrantorUpdateArgs,
};
pub use coordinator::{
    CheckpointArgs, FreeCoordinatorArgs, HealthCheckArgs, InitCoordinatorArgs, JoinRunArgs, SetFutureEpochRatesArgs,
    SetPausedArgs, TickArgs, UpdateArgs, UpdateClientVersionArgs,
};
pub use treasurer::{ParticipantClaimArgs, ParticipantCreateArgs, RunCreateArgs, RunUpdateArgs};
pub use witness::{MAX_EVALS, MAX_PROMPT_RESULTS, WarmupWitnessArgs, WitnessArgs, WitnessEval, WitnessMetadata};

use crate::codec::{DecodeError, EncodeError, Reader, Writer};

/// More than any instruction that fits into a transaction.
pub const MAX_LEN: usize = 1280;

/// An instruction's arguments.
pub trait Args<'a>: Sized {
    /// First eight bytes of the instruction data: of `sha256("global:<name>")`.
    const DISCRIMINATOR: [u8; 8];

    /// Reads the arguments behind the discriminator.
    ///
    /// # Errors
    /// [`DecodeError`].
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Writes the arguments behind the discriminator.
    ///
    /// # Errors
    /// [`EncodeError`].
    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// Reads the whole instruction data, discriminator included.
    ///
    /// # Errors
    /// [`DecodeError`], also where bytes are left over.
    fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(data);
        if *r.array::<8>()? != Self::DISCRIMINATOR {
            return Err(DecodeError::Discriminator);
        }
        let args = Self::read(&mut r)?;
        r.finish()?;
        Ok(args)
    }

    /// Writes the whole instruction data and returns its length.
    ///
    /// # Errors
    /// [`EncodeError`].
    fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let mut w = Writer::new(buffer);
        w.put(&Self::DISCRIMINATOR)?;
        self.write(&mut w)?;
        Ok(w.written())
    }

    /// The whole instruction data.
    ///
    /// # Errors
    /// [`EncodeError`] where it exceeds [`MAX_LEN`].
    #[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
    fn to_vec(&self) -> Result<alloc::vec::Vec<u8>, EncodeError> {
        let mut buffer = [0; MAX_LEN];
        let len = self.encode(&mut buffer)?;
        Ok(buffer.get(..len).unwrap_or(&[]).into())
    }
}

/// The discriminator of instruction data, to dispatch on.
#[must_use]
pub fn discriminator(data: &[u8]) -> Option<&[u8; 8]> {
    data.first_chunk()
}

/// Declares an instruction without arguments.
macro_rules! no_args {
    ($(#[$doc:meta])* $name:ident = $discriminator:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name;

        impl Args<'_> for $name {
            const DISCRIMINATOR: [u8; 8] = $discriminator;

            fn read(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self)
            }

            fn write(&self, _: &mut Writer<'_>) -> Result<(), EncodeError> {
                Ok(())
            }
        }
    };
}
use no_args;
