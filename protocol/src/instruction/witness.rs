//! The two witness reports.

use bytemuck::Zeroable;

use super::Args;
use crate::F32Bits;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::layout::{FixedString, FixedVec, Witness, WitnessProof};

/// Most evaluation results in one report.
pub const MAX_EVALS: usize = 8;
/// Most prompt tokens in one report.
pub const MAX_PROMPT_RESULTS: usize = 16;

fn read_witness(r: &mut Reader<'_>) -> Result<Witness, DecodeError> {
    Ok(Witness {
        proof: WitnessProof::new(r.u64()?, r.u64()?, r.bool()?),
        participant_bloom: r.pod()?,
        broadcast_bloom: r.pod()?,
        broadcast_merkle: *r.array()?,
    })
}

fn write_witness(witness: &Witness, w: &mut Writer<'_>) -> Result<(), EncodeError> {
    w.put(&witness.proof.position.to_le_bytes())?;
    w.put(&witness.proof.index.to_le_bytes())?;
    w.bool(witness.proof.witness != 0)?;
    w.pod(&witness.participant_bloom)?;
    w.pod(&witness.broadcast_bloom)?;
    w.put(&witness.broadcast_merkle)
}

/// A round's report. Accounts: user (signs), instance, coordinator account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WitnessArgs {
    /// What the account keeps.
    pub witness: Witness,
    /// What only the transaction keeps.
    pub metadata: WitnessMetadata,
}

impl Args<'_> for WitnessArgs {
    const DISCRIMINATOR: [u8; 8] = [0xd5, 0xf4, 0x95, 0x19, 0x8e, 0xdf, 0x15, 0x27];

    #[inline(never)]
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { witness: read_witness(r)?, metadata: WitnessMetadata::read(r)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_witness(&self.witness, w)?;
        self.metadata.write(w)
    }
}

/// "I am ready to train." Accounts: user (signs), instance, coordinator account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupWitnessArgs {
    /// The index must be the sender's; the rest is not looked at.
    pub witness: Witness,
}

impl Args<'_> for WarmupWitnessArgs {
    const DISCRIMINATOR: [u8; 8] = [0xd3, 0xe8, 0x7a, 0xe8, 0x3f, 0x16, 0x37, 0x5e];

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { witness: read_witness(r)? })
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_witness(&self.witness, w)
    }
}

/// One evaluation result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct WitnessEval {
    /// The task.
    pub name: FixedString<32>,
    /// Its score.
    pub value: F32Bits,
}

/// What a witness says about itself; nobody checks it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WitnessMetadata {
    /// Step of the report.
    pub step: u32,
    /// Tokens trained per second.
    pub tokens_per_sec: F32Bits,
    /// Bytes received per second.
    pub bandwidth_per_sec: F32Bits,
    /// Training loss.
    pub loss: F32Bits,
    /// Evaluation results.
    pub evals: FixedVec<WitnessEval, MAX_EVALS>,
    /// Tokens that the model continued a prompt with.
    pub prompt_results: FixedVec<i32, MAX_PROMPT_RESULTS>,
    /// Which prompt.
    pub prompt_index: u8,
    /// Share of the time spent training.
    pub efficiency: F32Bits,
}

impl WitnessMetadata {
    /// A report on `step` that says nothing else.
    #[must_use]
    pub fn new(step: u32) -> Self {
        Self {
            step,
            tokens_per_sec: F32Bits(0),
            bandwidth_per_sec: F32Bits(0),
            loss: F32Bits(0),
            evals: FixedVec::empty(),
            prompt_results: FixedVec::empty(),
            prompt_index: 0,
            efficiency: F32Bits(0),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut this = Self::new(r.u32()?);
        this.tokens_per_sec = F32Bits(r.u32()?);
        this.bandwidth_per_sec = F32Bits(r.u32()?);
        this.loss = F32Bits(r.u32()?);
        read_list(r, &mut this.evals, |r| {
            Ok(WitnessEval { name: FixedString::from_bytes(*r.array()?), value: F32Bits(r.u32()?) })
        })?;
        read_list(r, &mut this.prompt_results, |r| Ok(i32::from_le_bytes(*r.array()?)))?;
        this.prompt_index = r.u8()?;
        this.efficiency = F32Bits(r.u32()?);
        Ok(this)
    }

    fn write(&self, w: &mut Writer<'_>) -> Result<(), EncodeError> {
        for word in [self.step, self.tokens_per_sec.0, self.bandwidth_per_sec.0, self.loss.0] {
            w.put(&word.to_le_bytes())?;
        }
        write_list(w, &self.evals, 36, |w, eval| {
            w.put(eval.name.as_bytes())?;
            w.put(&eval.value.0.to_le_bytes())
        })?;
        write_list(w, &self.prompt_results, 4, |w, token| w.put(&token.to_le_bytes()))?;
        w.put(&[self.prompt_index])?;
        w.put(&self.efficiency.0.to_le_bytes())
    }
}

/// Reads a list in full, every slot, then its length.
#[inline]
fn read_list<'a, T: Copy, const N: usize>(
    r: &mut Reader<'a>,
    list: &mut FixedVec<T, N>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<(), DecodeError> {
    for _ in 0..N {
        let item = read(r)?;
        if !list.push(&item) {
            return Err(DecodeError::Length);
        }
    }
    if list.truncate(r.u64()?) { Ok(()) } else { Err(DecodeError::Length) }
}

/// Writes a list in full: its elements, zeros for the empty slots of `width` bytes each, its length.
#[inline]
fn write_list<T: Copy, const N: usize>(
    w: &mut Writer<'_>,
    list: &FixedVec<T, N>,
    width: usize,
    mut write: impl FnMut(&mut Writer<'_>, &T) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    for item in list.iter() {
        write(w, item)?;
    }
    for _ in 0..(N - list.len()) * width {
        w.put(&[0])?;
    }
    w.put(&(list.len() as u64).to_le_bytes())
}
