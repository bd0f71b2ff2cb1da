//! Bit streams, least significant bit first, bounded by the slice they run over.

/// Appends bits to a byte vector.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    pending: u128,
    pending_bits: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, pending: 0, pending_bits: 0 }
    }

    /// Appends the `count` ≤ 64 low bits of `value`, whose higher bits must be zero.
    pub(super) fn push(&mut self, value: u64, count: u32) {
        debug_assert!(count == 64 || value >> count == 0);
        self.pending |= u128::from(value) << self.pending_bits;
        self.pending_bits += count;
        let whole = self.pending_bits / 8;
        self.bytes.extend_from_slice(&self.pending.to_le_bytes()[..whole as usize]);
        // At most 7 + 64 bits, so that the shift is below 128.
        self.pending >>= 8 * whole;
        self.pending_bits -= 8 * whole;
    }

    /// Appends the `count` ≤ 128 low bits of `value`.
    pub(super) fn push_wide(&mut self, value: u128, count: u32) {
        let [low, high] = split(value);
        self.push(low, count.min(64));
        self.push(high, count.saturating_sub(64));
    }

    /// Pads with zeros to a whole byte.
    pub(super) fn finish(self) {
        if self.pending_bits > 0 {
            self.bytes.push(self.pending.to_le_bytes()[0]);
        }
    }
}

fn split(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

/// Reads bits from a slice; beyond its end it reads zeros.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn at(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    /// The next `count` ≤ 64 bits.
    pub(super) fn take(&mut self, count: u32) -> u64 {
        let shift = self.position % 8;
        let from = (self.position / 8).min(self.bytes.len());
        let rest = &self.bytes[from..];
        let window = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut window = [0_u8; 16];
            window[..rest.len()].copy_from_slice(rest);
            window
        });
        self.position += count as usize;
        let [low, _] = split(u128::from_le_bytes(window) >> shift);
        if count >= 64 { low } else { low & ((1 << count) - 1) }
    }

    /// Passes over `count` bits.
    pub(super) fn skip(&mut self, count: usize) {
        self.position += count;
    }

    /// The next `count` ≤ 128 bits.
    pub(super) fn take_wide(&mut self, count: u32) -> u128 {
        let low = u128::from(self.take(count.min(64)));
        low | u128::from(self.take(count.saturating_sub(64))) << 64
    }
}
