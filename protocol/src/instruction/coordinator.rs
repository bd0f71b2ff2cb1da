//! Instructions of the coordinator program, but for the two witness reports.

use super::{Args, no_args};
use crate::Pubkey;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::layout::{Committee, CommitteeProof, Config, MAX_CLIENT_VERSION_LEN, Metadata, NodeIdentity, Progress};
use crate::model::{Checkpoint, Model};

/// Longest run id or version that is read at all, so that a longer one than allowed gets its own error code.
const MAX_TEXT: usize = 512;

/// Creates a run. Accounts: payer (signs), instance, coordinator account, system program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitCoordinatorArgs<'a> {
    /// Who will own the run.
    pub main_authority: Pubkey,
    /// Whose authorizations will let clients join.
    pub join_authority: Pubkey,
    /// The run's name, at most 32 bytes.
    pub run_id: &'a str,
    /// The client version that the run wants, at most 96 bytes.
    pub client_version: &'a str,
}

impl<'a> Args<'a> for InitCoordinatorArgs<'a> {
    const DISCRIMINATOR: [u8; 8] = [0x14, 0x39, 0x94, 0x49, 0xe8, 0x85, 0x7a, 0x19];

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            main_authority: *r.array()?,
            join_authority: *r.array()?,
            run_id: r.string(MAX_TEXT)?,
            client_version: r.string(MAX_TEXT)?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.put(&self.main_authority)?;
        w.put(&self.join_authority)?;
        w.bytes(self.run_id.as_bytes())?;
        w.bytes(self.client_version.as_bytes())
    }
}

no_args! {
    /// Closes a halted run. Accounts: authority (signs), spill, instance, coordinator account.
    FreeCoordinatorArgs = [0x59, 0xd8, 0xd7, 0xe5, 0xdf, 0xf2, 0x4a, 0x20]
}

no_args! {
    /// Moves the run on if its time has come. Accounts: user (signs), instance, coordinator account.
    TickArgs = [0x5c, 0x4f, 0x2c, 0x08, 0x65, 0x50, 0x3f, 0x0f]
}

/// Replaces parts of a run's description. Accounts: authority (signs), instance, coordinator account.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpdateArgs {
    /// What people read.
    pub metadata: Option<Metadata>,
    /// The rules; only while halted.
    pub config: Option<Config>,
    /// What is trained; only while halted.
    pub model: Option<Model>,
    /// How far it has come; only while halted.
    pub progress: Option<Progress>,
}

impl UpdateArgs {
    #[inline(never)]
    pub(super) fn read_parts(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            metadata: r.option(Reader::pod)?,
            config: r.option(Reader::pod)?,
            model: r.option(Model::read)?,
            progress: r.option(|r| Ok(Progress::new(r.u16()?, r.u32()?, r.u64()?)))?,
        })
    }

    pub(super) fn write_parts(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.option(self.metadata.as_ref(), |w, metadata| w.pod(metadata))?;
        w.option(self.config.as_ref(), |w, config| w.pod(config))?;
        w.option(self.model.as_ref(), |w, model| model.write(w))?;
        w.option(self.progress.as_ref(), |w, progress| {
            w.put(&progress.epoch.to_le_bytes())?;
            w.put(&progress.step.to_le_bytes())?;
            w.put(&progress.epoch_start_data_index.to_le_bytes())
        })
    }
}

impl Args<'_> for UpdateArgs {
    const DISCRIMINATOR: [u8; 8] = [0xdb, 0xc8, 0x58, 0xb0, 0x9e, 0x3f, 0xfd, 0x7f];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read_parts(r)
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.write_parts(w)
    }
}

/// Replaces the client version. Accounts: authority (signs), instance, coordinator account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateClientVersionArgs<'a> {
    /// The client version that the run wants, at most 96 bytes.
    pub client_version: &'a str,
}

impl<'a> Args<'a> for UpdateClientVersionArgs<'a> {
    const DISCRIMINATOR: [u8; 8] = [0xc1, 0x15, 0x2e, 0x3c, 0x33, 0x02, 0x0d, 0xfb];

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { client_version: r.string(8 * MAX_CLIENT_VERSION_LEN)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.bytes(self.client_version.as_bytes())
    }
}

/// Sets what the next epochs pay. Accounts: authority (signs), instance, coordinator account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetFutureEpochRatesArgs {
    /// Points shared by an epoch's finishers.
    pub earning_rate_total_shared: Option<u64>,
    /// Points that a cheater would lose.
    pub slashing_rate_per_client: Option<u64>,
}

pub(super) fn read_u64(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    r.u64()
}

pub(super) fn write_u64(w: &mut Writer<'_>, value: &u64) -> Result<(), EncodeError> {
    w.put(&value.to_le_bytes())
}

impl Args<'_> for SetFutureEpochRatesArgs {
    const DISCRIMINATOR: [u8; 8] = [0xef, 0x15, 0xa0, 0x57, 0xc7, 0xc8, 0xb6, 0x81];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { earning_rate_total_shared: r.option(read_u64)?, slashing_rate_per_client: r.option(read_u64)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.option(self.earning_rate_total_shared.as_ref(), write_u64)?;
        w.option(self.slashing_rate_per_client.as_ref(), write_u64)
    }
}

/// Pauses or resumes a run. Accounts: authority (signs), instance, coordinator account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetPausedArgs {
    /// Whether the run is to pause.
    pub paused: bool,
}

impl Args<'_> for SetPausedArgs {
    const DISCRIMINATOR: [u8; 8] = [0x5b, 0x3c, 0x7d, 0xc0, 0xb0, 0xe1, 0xa6, 0xda];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { paused: r.bool()? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.bool(self.paused)
    }
}

/// Joins the next epoch. Accounts: user (signs), authorization, instance, coordinator account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRunArgs {
    /// Who joins; the signer must be the user.
    pub client: NodeIdentity,
}

impl Args<'_> for JoinRunArgs {
    const DISCRIMINATOR: [u8; 8] = [0x48, 0xa0, 0x7d, 0x66, 0x6a, 0x86, 0xf6, 0x4b];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { client: r.pod()? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.pod(&self.client)
    }
}

/// Reports a client that the previous round's witnesses did not hear. Accounts: user (signs), instance,
/// coordinator account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheckArgs {
    /// The client.
    pub client: NodeIdentity,
    /// Its place in the previous round.
    pub proof: CommitteeProof,
}

impl Args<'_> for HealthCheckArgs {
    const DISCRIMINATOR: [u8; 8] = [0x73, 0x5a, 0x63, 0xa8, 0x8a, 0x12, 0x9d, 0x83];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let client = r.pod()?;
        let committee = Committee::from_number(u32::from(r.u8()?)).ok_or(DecodeError::Tag)?;
        Ok(Self { client, proof: CommitteeProof { committee, position: r.u64()?, index: r.u64()? } })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        w.pod(&self.client)?;
        w.put(&[self.proof.committee.number()])?;
        write_u64(w, &self.proof.position)?;
        write_u64(w, &self.proof.index)
    }
}

/// Names newly stored weights. Accounts: user (signs), instance, coordinator account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointArgs {
    /// Where the weights are.
    pub checkpoint: Checkpoint,
}

impl Args<'_> for CheckpointArgs {
    const DISCRIMINATOR: [u8; 8] = [0xd5, 0xc8, 0x13, 0xcc, 0xf0, 0x8f, 0xb8, 0xfc];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { checkpoint: Checkpoint::read(r)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.checkpoint.write(w)
    }
}
