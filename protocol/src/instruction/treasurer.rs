//! Instructions of the treasurer program.

use super::coordinator::{UpdateArgs, read_u64, write_u64};
use super::{Args, no_args};
use crate::Pubkey;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};

/// Longest text that is read at all; the coordinator refuses what is too long for it.
const MAX_TEXT: usize = 768;

/// Creates a run that a treasury owns. Accounts: payer (signs), run, the run's collateral account, collateral mint,
/// coordinator instance, coordinator account, coordinator program, associated token program, token program, system
/// program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunCreateArgs<'a> {
    /// Index that the run's address derives from.
    pub index: u64,
    /// The run's name, at most 32 bytes.
    pub run_id: &'a str,
    /// The client version that the run wants, at most 96 bytes.
    pub client_version: &'a str,
    /// Who will own the run.
    pub main_authority: Pubkey,
    /// Whose authorizations will let clients join.
    pub join_authority: Pubkey,
}

impl<'a> Args<'a> for RunCreateArgs<'a> {
    const DISCRIMINATOR: [u8; 8] = [0xc6, 0x38, 0xa3, 0xf7, 0x0e, 0x3a, 0xa7, 0xfd];

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            index: r.u64()?,
            run_id: r.string(MAX_TEXT)?,
            client_version: r.string(MAX_TEXT)?,
            main_authority: *r.array()?,
            join_authority: *r.array()?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_u64(w, &self.index)?;
        w.bytes(self.run_id.as_bytes())?;
        w.bytes(self.client_version.as_bytes())?;
        w.put(&self.main_authority)?;
        w.put(&self.join_authority)
    }
}

/// Everything that an owner can change about a treasury's run. Accounts: authority (signs), run, coordinator
/// instance, coordinator account, coordinator program.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunUpdateArgs<'a> {
    /// As the coordinator's `update`.
    pub update: UpdateArgs,
    /// Points shared by an epoch's finishers.
    pub earning_rate_total_shared: Option<u64>,
    /// Points that a cheater would lose.
    pub slashing_rate_per_client: Option<u64>,
    /// Whether the run is to pause.
    pub paused: Option<bool>,
    /// The client version that the run wants.
    pub client_version: Option<&'a str>,
}

impl<'a> Args<'a> for RunUpdateArgs<'a> {
    const DISCRIMINATOR: [u8; 8] = [0x33, 0x56, 0x2e, 0x74, 0x0d, 0x42, 0x14, 0x9d];

    #[inline(never)]
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            update: UpdateArgs::read_parts(r)?,
            earning_rate_total_shared: r.option(read_u64)?,
            slashing_rate_per_client: r.option(read_u64)?,
            paused: r.option(Reader::bool)?,
            client_version: r.option(|r| r.string(MAX_TEXT))?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.update.write_parts(w)?;
        w.option(self.earning_rate_total_shared.as_ref(), write_u64)?;
        w.option(self.slashing_rate_per_client.as_ref(), write_u64)?;
        w.option(self.paused.as_ref(), |w, paused| w.bool(*paused))?;
        w.option(self.client_version.as_ref(), |w, version| w.bytes(version.as_bytes()))
    }
}

no_args! {
    /// Opens a user's book with a treasury run. Accounts: payer (signs), user (signs), run, participant, system
    /// program.
    ParticipantCreateArgs = [0x32, 0xb1, 0x8e, 0x28, 0x75, 0xb0, 0x46, 0xb5]
}

/// Pays a user for points. Accounts: user (signs), the user's collateral account, run, the run's collateral account,
/// participant, coordinator account, token program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParticipantClaimArgs {
    /// How many points to claim; one point is one base unit of collateral.
    pub claim_earned_points: u64,
}

impl Args<'_> for ParticipantClaimArgs {
    const DISCRIMINATOR: [u8; 8] = [0xa0, 0x96, 0xe8, 0x56, 0x3b, 0x6b, 0xad, 0x26];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { claim_earned_points: r.u64()? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_u64(w, &self.claim_earned_points)
    }
}
