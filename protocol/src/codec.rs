//! Bounded Borsh: little-endian integers, one-byte tags, declared field order.
//!
//! *Purpose*: reads and writes instruction arguments and Borsh accounts without allocating. A [`Reader`] never
//! looks past its slice and takes only canonical booleans and option tags; a [`Writer`] never grows its buffer.

use core::fmt;

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the value does.
    Truncated,
    /// Bytes are left over after the value.
    Trailing,
    /// The first eight bytes name something else.
    Discriminator,
    /// An enum or option tag, or a boolean, has no meaning.
    Tag,
    /// A length exceeds what its field may hold.
    Length,
    /// A string is not UTF-8.
    Utf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "decode bytes that end too early",
            Self::Trailing => "decode bytes with something left over",
            Self::Discriminator => "decode bytes with another discriminator",
            Self::Tag => "decode an unknown tag",
            Self::Length => "decode a list or text that is too long",
            Self::Utf8 => "decode text that is not UTF-8",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Why a value could not be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The buffer is too small.
    Full,
    /// A string or list is longer than its length field can say.
    Length,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "encode into a buffer that is too small",
            Self::Length => "encode a list or text that is too long",
        })
    }
}

impl core::error::Error for EncodeError {}

/// Reads from a slice, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when fewer are left.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A plain-old-data value whose Borsh form is its memory.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub(crate) fn pod<T: bytemuck::AnyBitPattern>(&mut self) -> Result<T, DecodeError> {
        let bytes = self.take(size_of::<T>())?;
        bytemuck::try_pod_read_unaligned(bytes).map_err(|_| DecodeError::Truncated)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let [byte] = *self.array()?;
        Ok(byte)
    }

    /// A u16.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(*self.array()?))
    }

    /// A u32.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(*self.array()?))
    }

    /// A u64.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(*self.array()?))
    }

    /// An i64.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(*self.array()?))
    }

    /// A boolean: 0 or 1, nothing else.
    ///
    /// # Errors
    /// [`DecodeError::Tag`], [`DecodeError::Truncated`].
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Tag),
        }
    }

    /// An option, its value read by `read`.
    ///
    /// # Errors
    /// [`DecodeError::Tag`], [`DecodeError::Truncated`], and what `read` returns.
    #[inline]
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A byte list of at most `max` bytes behind a u32 length.
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Truncated`].
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(DecodeError::Length);
        }
        self.take(len)
    }

    /// A string of at most `max` bytes behind a u32 length.
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Utf8`], [`DecodeError::Truncated`].
    pub fn string(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        core::str::from_utf8(self.bytes(max)?).map_err(|_| DecodeError::Utf8)
    }

    /// A list of at most `max` 32-byte keys behind a u32 length.
    ///
    /// # Errors
    /// [`DecodeError::Length`], [`DecodeError::Truncated`].
    pub fn keys(&mut self, max: usize) -> Result<&'a [crate::Pubkey], DecodeError> {
        let len = self.u32()? as usize;
        if len > max || len > self.remaining() / 32 {
            return Err(DecodeError::Length);
        }
        let bytes = self.take(len * 32)?;
        bytemuck::try_cast_slice(bytes).map_err(|_| DecodeError::Length)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// Writes into a caller's buffer, front to back.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// A writer at the start of `buffer`.
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// How many bytes were written.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.len
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`EncodeError::Full`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self.len.checked_add(bytes.len()).ok_or(EncodeError::Full)?;
        self.buffer.get_mut(self.len..end).ok_or(EncodeError::Full)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends a value whose Borsh form is its memory.
    ///
    /// # Errors
    /// [`EncodeError::Full`].
    pub(crate) fn pod<T: bytemuck::NoUninit>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.put(bytemuck::bytes_of(value))
    }

    /// Appends a boolean.
    ///
    /// # Errors
    /// [`EncodeError::Full`].
    pub fn bool(&mut self, value: bool) -> Result<(), EncodeError> {
        self.put(&[u8::from(value)])
    }

    /// Appends an option, its value written by `write`.
    ///
    /// # Errors
    /// [`EncodeError::Full`], and what `write` returns.
    #[inline]
    pub fn option<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.bool(value.is_some())?;
        value.map_or(Ok(()), |value| write(self, value))
    }

    /// Appends bytes behind a u32 length.
    ///
    /// # Errors
    /// [`EncodeError::Full`], [`EncodeError::Length`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let len = u32::try_from(bytes.len()).map_err(|_| EncodeError::Length)?;
        self.put(&len.to_le_bytes())?;
        self.put(bytes)
    }

    /// Appends keys behind a u32 length.
    ///
    /// # Errors
    /// [`EncodeError::Full`], [`EncodeError::Length`].
    pub fn keys(&mut self, keys: &[crate::Pubkey]) -> Result<(), EncodeError> {
        let len = u32::try_from(keys.len()).map_err(|_| EncodeError::Length)?;
        self.put(&len.to_le_bytes())?;
        self.put(keys.as_flattened())
    }
}
