//! Fixed-capacity lists and texts as they lie in the account.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use super::{EpochClient, RosterClient, Witness};

/// A list of at most `N` elements: `N` slots, then the length as u64. Slots past the length hold garbage.
///
/// A length beyond `N` (impossible after [`super::CoordinatorAccount::load`]) reads as `N`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FixedVec<T, const N: usize> {
    items: [T; N],
    len: u64,
}

impl<T: Copy, const N: usize> FixedVec<T, N> {
    /// How many elements the list can hold.
    pub const CAPACITY: usize = N;

    /// How many elements the list holds, at most `N`.
    #[must_use]
    pub const fn len(&self) -> usize {
        if self.len > N as u64 { N } else { self.len as usize }
    }

    /// The length as stored, which an unchecked account may have set beyond the capacity.
    #[must_use]
    pub const fn raw_len(&self) -> u64 {
        self.len
    }

    /// Whether the list holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        self.items.get(..self.len()).unwrap_or(&[])
    }

    /// The elements, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let len = self.len();
        self.items.get_mut(..len).unwrap_or(&mut [])
    }

    /// The elements in order.
    pub fn iter(&self) -> core::slice::Iter<'_, T> {
        self.as_slice().iter()
    }

    /// The element at `index`, if the list reaches that far.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.as_slice().get(index)
    }

    /// Appends `item`; false, and no change, where the list is full.
    #[must_use]
    pub fn push(&mut self, item: &T) -> bool {
        let len = self.len();
        let Some(slot) = self.items.get_mut(len) else { return false };
        *slot = *item;
        self.len = len as u64 + 1;
        true
    }

    /// Keeps the first `len` elements; false, and no change, where there are fewer.
    #[must_use]
    pub const fn truncate(&mut self, len: u64) -> bool {
        if len > self.len() as u64 {
            return false;
        }
        self.len = len;
        true
    }

    /// Forgets every element.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Keeps the elements that `keep` approves, in order.
    #[inline]
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let items = self.as_mut_slice();
        let mut kept = 0;
        for at in 0..items.len() {
            let Some(&item) = items.get(at) else { break };
            if keep(&item) {
                if let Some(slot) = items.get_mut(kept) {
                    *slot = item;
                }
                kept += 1;
            }
        }
        self.len = kept as u64;
    }
}

impl<T: Copy + Zeroable, const N: usize> FixedVec<T, N> {
    /// A list with nothing in it.
    #[must_use]
    pub fn empty() -> Self {
        Self { items: [T::zeroed(); N], len: 0 }
    }
}

impl<T: Copy + fmt::Debug, const N: usize> fmt::Debug for FixedVec<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Copy + PartialEq, const N: usize> PartialEq for FixedVec<T, N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

/// Declares a list plain old data after checking that its memory has no gaps.
macro_rules! plain_list {
    ($item:ty, $capacity:literal) => {
        const _: () = assert!(
            size_of::<FixedVec<$item, $capacity>>() == size_of::<$item>() * $capacity + 8
                && align_of::<FixedVec<$item, $capacity>>() == 8
        );
        // SAFETY: both fields accept the all-zero pattern.
        unsafe impl Zeroable for FixedVec<$item, $capacity> {}
        // SAFETY: `repr(C)` of plain old data, and the assertion above leaves no room for padding.
        unsafe impl Pod for FixedVec<$item, $capacity> {}
    };
}
plain_list!(Witness, 32);
plain_list!(EpochClient, 256);
plain_list!(RosterClient, 256);

/// Text in `L` bytes, padded with zero bytes, without a length of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct FixedString<const L: usize>([u8; L]);

// SAFETY: a transparent wrapper of bytes accepts the all-zero pattern.
unsafe impl<const L: usize> Zeroable for FixedString<L> {}
// SAFETY: a transparent wrapper of bytes is plain old data for every length.
unsafe impl<const L: usize> Pod for FixedString<L> {}

impl<const L: usize> FixedString<L> {
    /// No text.
    pub const EMPTY: Self = Self([0; L]);
    /// How many bytes of text fit.
    pub const CAPACITY: usize = L;

    /// The text, if its UTF-8 form has at most `L` bytes and no zero byte; `None` otherwise.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut this = Self::EMPTY;
        this.set(text).then_some(this)
    }

    /// The bytes as they are, whatever they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; L]) -> Self {
        Self(bytes)
    }

    /// All `L` bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; L] {
        &self.0
    }

    /// The text before the first zero byte, cut where it stops being UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = match self.0.iter().position(|byte| *byte == 0) {
            Some(end) => self.0.get(..end).unwrap_or(&[]),
            None => &self.0,
        };
        match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => text.get(..error.valid_up_to()).and_then(|valid| core::str::from_utf8(valid).ok()).unwrap_or(""),
        }
    }

    /// Replaces the text; false, and no change, where it does not fit or holds a zero byte.
    #[must_use]
    pub fn set(&mut self, text: &str) -> bool {
        if text.len() > L || text.as_bytes().contains(&0) {
            return false;
        }
        self.0 = [0; L];
        if let Some(start) = self.0.get_mut(..text.len()) {
            start.copy_from_slice(text.as_bytes());
        }
        true
    }

    /// The text, if the bytes are one: UTF-8, then nothing but zero bytes.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        padded_text(&self.0)
    }

    /// Whether the text is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        L == 0 || self.0[0] == 0
    }
}

/// One function for all lengths: copies of it would fill the programs' bytecode.
#[inline(never)]
fn padded_text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, padding) = bytes.split_at_checked(end)?;
    if padding.iter().any(|byte| *byte != 0) { None } else { core::str::from_utf8(text).ok() }
}

impl<const L: usize> Default for FixedString<L> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const L: usize> fmt::Debug for FixedString<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const L: usize> fmt::Display for FixedString<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
