//! The Borsh accounts beside the coordinator account: discriminator, fields, then unused bytes.
//!
//! *Purpose*: borrowed views that decode from and encode into account data without allocating, and edits in place
//! for the one account that grows.

use crate::Pubkey;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::ids;
use crate::layout::MAX_RUN_ID_LEN;

/// Longest scope that an authorization may carry here (an account's seed has at most 32 bytes).
pub const MAX_SCOPE_LEN: usize = 32;
/// Longest list of delegates that is read (an account's 10 MiB bound it in the end).
pub const MAX_DELEGATES: usize = 4096;

fn reader<'a>(data: &'a [u8], discriminator: &[u8; 8]) -> Result<Reader<'a>, DecodeError> {
    let mut r = Reader::new(data);
    if r.array::<8>()? == discriminator { Ok(r) } else { Err(DecodeError::Discriminator) }
}

/// Zeroes what lies after the encoded fields, and says how many bytes those took.
fn finish(w: Writer<'_>, buffer_len: usize) -> Result<usize, EncodeError> {
    let written = w.written();
    let mut w = w;
    for _ in written..buffer_len {
        w.put(&[0])?;
    }
    Ok(written)
}

/// A run under the coordinator program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoordinatorInstance<'a> {
    /// Bump of the address.
    pub bump: u8,
    /// Who owns the run.
    pub main_authority: Pubkey,
    /// Whose authorizations let clients join.
    pub join_authority: Pubkey,
    /// The run's coordinator account.
    pub coordinator_account: Pubkey,
    /// The run's name.
    pub run_id: &'a str,
}

impl<'a> CoordinatorInstance<'a> {
    /// First eight bytes of `sha256("account:CoordinatorInstance")`.
    pub const DISCRIMINATOR: [u8; 8] = [0x9c, 0x09, 0x99, 0x10, 0xaf, 0x18, 0x1f, 0xfc];
    /// Allocated bytes.
    pub const SIZE: usize = 173;

    /// Reads account data.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = reader(data, &Self::DISCRIMINATOR)?;
        Ok(Self {
            bump: r.u8()?,
            main_authority: *r.array()?,
            join_authority: *r.array()?,
            coordinator_account: *r.array()?,
            run_id: r.string(2 * MAX_RUN_ID_LEN)?,
        })
    }

    /// Writes account data; the rest of `buffer` becomes zero. Returns the bytes used.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let len = buffer.len();
        let mut w = Writer::new(buffer);
        w.put(&Self::DISCRIMINATOR)?;
        w.put(&[self.bump])?;
        w.put(&self.main_authority)?;
        w.put(&self.join_authority)?;
        w.put(&self.coordinator_account)?;
        w.bytes(self.run_id.as_bytes())?;
        finish(w, len)
    }
}

/// A grantor's permission for a grantee, under the authorizer program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// Bump of the address.
    pub bump: u8,
    /// Who permits.
    pub grantor: Pubkey,
    /// Who is permitted; the system program's id means everyone.
    pub grantee: Pubkey,
    /// What is permitted.
    pub scope: &'a [u8],
    /// Whether it holds at present.
    pub active: bool,
    /// Keys that act for the grantee.
    pub delegates: &'a [Pubkey],
    /// When the grantor last changed it.
    pub grantor_update_unix_timestamp: i64,
}

impl<'a> Authorization<'a> {
    /// First eight bytes of `sha256("account:Authorization")`.
    pub const DISCRIMINATOR: [u8; 8] = [0x03, 0x44, 0xa8, 0xf3, 0xc3, 0xa8, 0x20, 0x4b];
    /// Offset of the scope's length.
    const SCOPE_AT: usize = 8 + 1 + 32 + 32;

    /// Bytes that an authorization takes.
    #[must_use]
    pub const fn size(scope_len: usize, delegates: usize) -> usize {
        Self::SCOPE_AT + 4 + scope_len + 1 + 4 + 32 * delegates + 8
    }

    /// Reads account data.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = reader(data, &Self::DISCRIMINATOR)?;
        Ok(Self {
            bump: r.u8()?,
            grantor: *r.array()?,
            grantee: *r.array()?,
            scope: r.bytes(MAX_SCOPE_LEN)?,
            active: r.bool()?,
            delegates: r.keys(MAX_DELEGATES)?,
            grantor_update_unix_timestamp: r.i64()?,
        })
    }

    /// Writes account data; the rest of `buffer` becomes zero. Returns the bytes used.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let len = buffer.len();
        let mut w = Writer::new(buffer);
        w.put(&Self::DISCRIMINATOR)?;
        w.put(&[self.bump])?;
        w.put(&self.grantor)?;
        w.put(&self.grantee)?;
        w.bytes(self.scope)?;
        w.bool(self.active)?;
        w.keys(self.delegates)?;
        w.put(&self.grantor_update_unix_timestamp.to_le_bytes())?;
        finish(w, len)
    }

    /// Whether it lets `user` do what `scope` names in `grantor`'s name.
    #[must_use]
    pub fn is_valid_for(&self, grantor: &Pubkey, user: &Pubkey, scope: &[u8]) -> bool {
        self.active
            && self.grantor == *grantor
            && self.scope == scope
            && (self.grantee == ids::SYSTEM_PROGRAM || self.grantee == *user || self.delegates.contains(user))
    }

    /// The grantor's edit of account data in place.
    ///
    /// # Errors
    /// [`DecodeError`] where the data is no authorization; nothing changes then.
    pub fn set_active_in(data: &mut [u8], active: bool, now: i64) -> Result<(), DecodeError> {
        let view = Authorization::decode(data)?;
        let active_at = Self::SCOPE_AT + 4 + view.scope.len();
        let time_at = active_at + 1 + 4 + 32 * view.delegates.len();
        write_at(data, active_at, &[u8::from(active)])?;
        write_at(data, time_at, &now.to_le_bytes())
    }

    /// The grantee's edit of account data in place: forget the delegates if `clear`, then append `added`. The data
    /// must have [`Authorization::size`] bytes for the new number of delegates (grow before, shrink after), of
    /// which this returns that number.
    ///
    /// # Errors
    /// [`DecodeError`] where the data is no authorization or too short; nothing changes then.
    pub fn set_delegates_in(data: &mut [u8], clear: bool, added: &[Pubkey]) -> Result<usize, DecodeError> {
        let view = Authorization::decode(data)?;
        let (scope_len, time) = (view.scope.len(), view.grantor_update_unix_timestamp);
        let kept = if clear { 0 } else { view.delegates.len() };
        let total = kept.checked_add(added.len()).filter(|n| *n <= MAX_DELEGATES).ok_or(DecodeError::Length)?;
        if data.len() < Self::size(scope_len, total) {
            return Err(DecodeError::Truncated);
        }
        let list_at = Self::SCOPE_AT + 4 + scope_len + 1;
        let added_at = list_at + 4 + 32 * kept;
        let time_at = list_at + 4 + 32 * total;
        write_at(data, list_at, &(total as u32).to_le_bytes())?;
        write_at(data, added_at, added.as_flattened())?;
        write_at(data, time_at, &time.to_le_bytes())?;
        if let Some(rest) = data.get_mut(time_at + 8..) {
            rest.fill(0);
        }
        Ok(total)
    }
}

fn write_at(data: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), DecodeError> {
    let place = data.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())).ok_or(DecodeError::Truncated)?;
    place.copy_from_slice(bytes);
    Ok(())
}

/// A run under the treasurer program, which owns the coordinator's run and pays its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bump of the address.
    pub bump: u8,
    /// Index that the address derives from.
    pub index: u64,
    /// Who owns the run.
    pub main_authority: Pubkey,
    /// Whose authorizations let clients join.
    pub join_authority: Pubkey,
    /// The coordinator account.
    pub coordinator_account: Pubkey,
    /// The coordinator instance.
    pub coordinator_instance: Pubkey,
    /// The token that is paid.
    pub collateral_mint: Pubkey,
    /// Tokens paid so far, in base units.
    pub total_claimed_collateral_amount: u64,
    /// Points paid for so far.
    pub total_claimed_earned_points: u64,
}

impl Run {
    /// First eight bytes of `sha256("account:Run")`.
    pub const DISCRIMINATOR: [u8; 8] = [0xc7, 0x36, 0x9b, 0x56, 0xeb, 0x73, 0xf6, 0xbd];
    /// Allocated bytes.
    pub const SIZE: usize = 200;

    /// Reads account data.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(data, &Self::DISCRIMINATOR)?;
        Ok(Self {
            bump: r.u8()?,
            index: r.u64()?,
            main_authority: *r.array()?,
            join_authority: *r.array()?,
            coordinator_account: *r.array()?,
            coordinator_instance: *r.array()?,
            collateral_mint: *r.array()?,
            total_claimed_collateral_amount: r.u64()?,
            total_claimed_earned_points: r.u64()?,
        })
    }

    /// Writes account data; the rest of `buffer` becomes zero. Returns the bytes used.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let len = buffer.len();
        let mut w = Writer::new(buffer);
        w.put(&Self::DISCRIMINATOR)?;
        w.put(&[self.bump])?;
        w.put(&self.index.to_le_bytes())?;
        w.put(&self.main_authority)?;
        w.put(&self.join_authority)?;
        w.put(&self.coordinator_account)?;
        w.put(&self.coordinator_instance)?;
        w.put(&self.collateral_mint)?;
        w.put(&self.total_claimed_collateral_amount.to_le_bytes())?;
        w.put(&self.total_claimed_earned_points.to_le_bytes())?;
        finish(w, len)
    }
}

/// What one user has claimed from one treasury run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Bump of the address.
    pub bump: u8,
    /// Tokens claimed so far, in base units.
    pub claimed_collateral_amount: u64,
    /// Points claimed so far.
    pub claimed_earned_points: u64,
}

impl Participant {
    /// First eight bytes of `sha256("account:Participant")`.
    pub const DISCRIMINATOR: [u8; 8] = [0x20, 0x8e, 0x6c, 0x4f, 0xf7, 0xb3, 0x36, 0x06];
    /// Allocated bytes.
    pub const SIZE: usize = 32;

    /// Reads account data.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        let mut r = reader(data, &Self::DISCRIMINATOR)?;
        Ok(Self { bump: r.u8()?, claimed_collateral_amount: r.u64()?, claimed_earned_points: r.u64()? })
    }

    /// Writes account data; the rest of `buffer` becomes zero. Returns the bytes used.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let len = buffer.len();
        let mut w = Writer::new(buffer);
        w.put(&Self::DISCRIMINATOR)?;
        w.put(&[self.bump])?;
        w.put(&self.claimed_collateral_amount.to_le_bytes())?;
        w.put(&self.claimed_earned_points.to_le_bytes())?;
        finish(w, len)
    }
}
