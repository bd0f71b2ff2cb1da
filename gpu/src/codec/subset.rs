//! Codes for sets of `k` indices out of `n`, of a length that depends on `(n, k)` alone.
//!
//! Two codes; which one holds follows from `(n, k)`:
//! - **Enumerative**, when `n · k ≤ 2^20` and `C(n, k) < 2^127`: the set `c_1 < … < c_k` is the number
//!   `Σ C(c_i, i)` of the combinatorial number system, in `⌈log2 C(n, k)⌉` bits. For 8 of 4,096: 81 bits.
//! - **Elias–Fano** otherwise: with `l = ⌊log2(n / k)⌋`, first the `l` low bits of every index, then the high parts in
//!   unary: from bucket 0 on, a 1 for each index of the bucket, a 0 between buckets. Length
//!   `k · l + k + ⌊(n − 1) / 2^l⌋` bits, about 0.6 bit per index more than the least possible.
//!
//! Both are canonical: a set has one code, and what is no set's code is refused.

use super::bits::{BitReader, BitWriter};

const TABLE_ENTRIES_MAX: usize = 1 << 20;
const SETS_MAX: u128 = 1 << 127;
/// Codes that are read side by side, as each has to wait for memory.
pub(super) const AT_ONCE: usize = 16;

/// The code of `k`-subsets of `0..n`, `1 ≤ k ≤ n ≤ 2^32`.
#[derive(Debug)]
pub(super) struct SubsetCode {
    n: usize,
    k: usize,
    bits: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// `binomials[(i − 1) · n + c] = C(c, i)`, saturating: entries that a valid rank can meet are below `sets`.
    Enumerative {
        binomials: Vec<u128>,
        hints: Hints,
        sets: u128,
        bits: u32,
    },
    EliasFano {
        low_bits: u32,
        buckets: usize,
    },
}

impl SubsetCode {
    pub(super) fn new(n: usize, k: usize) -> Self {
        Self::enumerative(n, k).unwrap_or_else(|| Self::elias_fano(n, k))
    }

    /// None where the sets are too many.
    fn enumerative(n: usize, k: usize) -> Option<Self> {
        if n.saturating_mul(k) > TABLE_ENTRIES_MAX {
            return None;
        }
        let (binomials, sets) = pascal(n, k);
        let bits = u128::BITS - (sets - 1).leading_zeros();
        if sets >= SETS_MAX {
            return None;
        }
        let hints = Hints::new(&binomials, n, k, sets);
        Some(Self { n, k, bits: bits as usize, kind: Kind::Enumerative { binomials, hints, sets, bits } })
    }

    pub(super) fn elias_fano(n: usize, k: usize) -> Self {
        let low_bits = (n / k).ilog2();
        let buckets = ((n - 1) >> low_bits) + 1;
        let bits = k * low_bits as usize + k + buckets - 1;
        Self { n, k, bits, kind: Kind::EliasFano { low_bits, buckets } }
    }

    /// Length of every code, in bits.
    pub(super) fn bits(&self) -> usize {
        self.bits
    }

    /// Appends the code of `indices`, which the caller has checked: `k` of them, strictly ascending, below `n`.
    pub(super) fn write(&self, indices: &[u32], out: &mut BitWriter<'_>) {
        match &self.kind {
            Kind::Enumerative { binomials, bits, .. } => {
                let rank = indices.iter().zip(binomials.chunks_exact(self.n));
                let rank = rank.map(|(&index, row)| row[index as usize]).sum();
                out.push_wide(rank, *bits);
            }
            Kind::EliasFano { low_bits, buckets } => {
                let mask = (1_u64 << low_bits) - 1;
                for &index in indices {
                    out.push(u64::from(index) & mask, *low_bits);
                }
                let mut bucket = 0;
                for &index in indices {
                    while bucket < (index as usize) >> low_bits {
                        out.push(0, 1);
                        bucket += 1;
                    }
                    out.push(1, 1);
                }
                (bucket + 1..*buckets).for_each(|_| out.push(0, 1));
            }
        }
    }

    /// Reads one code into `indices`, of length `k`; false where the bits are no set's code (`indices` is then
    /// unspecified, but every entry lies below `n`).
    #[cfg(test)]
    pub(super) fn read(&self, bits: &mut BitReader<'_>, indices: &mut [u32]) -> bool {
        self.read_several(std::slice::from_mut(bits), indices)
    }

    /// [`Self::read`] for several codes, at most [`AT_ONCE`]: their `indices` one after another.
    pub(super) fn read_several(&self, bits: &mut [BitReader<'_>], indices: &mut [u32]) -> bool {
        match &self.kind {
            Kind::Enumerative { binomials, hints, sets, bits: width } => {
                let mut ranks = [0; AT_ONCE];
                let mut valid = true;
                for (rank, bits) in ranks.iter_mut().zip(&mut *bits) {
                    *rank = bits.take_wide(*width);
                    valid &= *rank < *sets;
                    *rank = (*rank).min(sets - 1);
                }
                unrank((binomials, hints), (self.n, self.k), &mut ranks[..bits.len()], indices);
                valid
            }
            Kind::EliasFano { low_bits, .. } => {
                let codes = bits.iter_mut().zip(indices.chunks_exact_mut(self.k));
                codes.fold(true, |valid, (bits, indices)| self.read_elias_fano(*low_bits, bits, indices) && valid)
            }
        }
    }

    /// Whether the bits are a set's code; passes over them as [`Self::read`] does.
    pub(super) fn check(&self, bits: &mut BitReader<'_>, scratch: &mut [u32]) -> bool {
        match &self.kind {
            // Every rank below the number of sets is that of one.
            Kind::Enumerative { sets, bits: width, .. } => bits.take_wide(*width) < *sets,
            Kind::EliasFano { low_bits, .. } => self.read_elias_fano(*low_bits, bits, scratch),
        }
    }

    fn read_elias_fano(&self, low_bits: u32, bits: &mut BitReader<'_>, indices: &mut [u32]) -> bool {
        for index in indices.iter_mut() {
            *index = narrow(bits.take(low_bits));
        }
        let unary_bits = self.bits - self.k * low_bits as usize;
        let (mut found, mut bucket, mut least, mut valid) = (0_usize, 0_usize, 0_usize, true);
        for _ in 0..unary_bits {
            if bits.take(1) == 0 {
                bucket += 1;
                continue;
            }
            if let Some(index) = indices.get_mut(found) {
                let value = bucket << low_bits | (*index as usize);
                valid &= value >= least && value < self.n;
                least = value + 1;
                *index = narrow(value.min(self.n - 1) as u64);
            }
            found += 1;
        }
        valid && found == self.k
    }
}

fn narrow(value: u64) -> u32 {
    value as u32
}

/// Binomials `C(c, i)` for `c < n`, `1 ≤ i ≤ k`, saturating, and `C(n, k)`.
fn pascal(n: usize, k: usize) -> (Vec<u128>, u128) {
    let mut table = vec![0_u128; n * k];
    let mut last = 0;
    for i in 1..=k {
        // Row i: C(c + 1, i) = C(c, i) + C(c, i − 1), with C(c, 0) = 1.
        let (above, row) = table.split_at_mut((i - 1) * n);
        let above = above.get((i.max(2) - 2) * n..);
        let mut value = 0_u128;
        for c in 0..n {
            row[c] = value;
            value = value.saturating_add(if i == 1 { 1 } else { above.map_or(0, |above| above[c]) });
        }
        last = value;
    }
    (table, last)
}

/// Where to look for the largest index whose binomial is not above a rank.
#[derive(Debug)]
struct Hints {
    /// Keys of each row; none where searching rows as a whole is as good.
    keys: usize,
    /// `[k, keys]`: the index for the least rank of each key, with [`FRACTION_BITS`] of the way to the next one.
    least: Vec<u32>,
}

/// Ranks with the same leading bit and the same bits below it, so many, have one key.
const KEY_BITS: u32 = 5;
/// Fractional bits of an index.
const FRACTION_BITS: u32 = 8;
/// Bits of a rank that say how far it is on the way to the next key.
const WAY_BITS: u32 = 16;

impl Hints {
    /// Rows that are worth it.
    const ROWS_MAX: usize = 32;

    fn new(binomials: &[u128], n: usize, k: usize, sets: u128) -> Self {
        if k > Self::ROWS_MAX {
            return Self { keys: 0, least: Vec::new() };
        }
        let keys = Self::key(sets).0 + 2;
        let row = |row: &[u128]| {
            let mut index = 0;
            let least = |key| {
                let rank = Self::least_rank(key);
                while row.get(index + 1).is_some_and(|&binomial| binomial <= rank) {
                    index += 1;
                }
                let next = row.get(index + 1).copied().unwrap_or(u128::MAX);
                // An estimate only, so that rounding does not matter.
                let fraction = (rank - row[index]) as f64 / (next - row[index]) as f64;
                ((index as f64 + fraction) * f64::from(1_u32 << FRACTION_BITS)) as u32
            };
            (0..keys).map(least).collect::<Vec<_>>()
        };
        Self { keys, least: binomials.chunks_exact(n).flat_map(row).collect() }
    }

    /// A rank's key, which ascends with it, and how far it is on the way to the next key.
    fn key(rank: u128) -> (usize, u32) {
        let shift = (u128::BITS - rank.leading_zeros()).saturating_sub(KEY_BITS + 1);
        let way = if shift > WAY_BITS { rank >> (shift - WAY_BITS) } else { rank << (WAY_BITS - shift) };
        (((shift as usize) << KEY_BITS) + (rank >> shift) as usize, way as u32 & ((1 << WAY_BITS) - 1))
    }

    /// The least rank that has this key.
    fn least_rank(key: usize) -> u128 {
        let shift = (key >> KEY_BITS).saturating_sub(1);
        ((key - (shift << KEY_BITS)) as u128) << shift
    }

    /// The largest index whose binomial is not above the rank, among those of number `i`'s row; the first binomial is 0.
    fn find(&self, i: usize, row: &[u128], rank: u128) -> usize {
        if self.keys == 0 {
            return row.partition_point(|&binomial| binomial <= rank).saturating_sub(1);
        }
        let mut found = self.guess(i, rank).min(row.len().saturating_sub(1));
        while row.get(found + 1).is_some_and(|&binomial| binomial <= rank) {
            found += 1;
        }
        while found > 0 && row[found] > rank {
            found -= 1;
        }
        found
    }

    /// About where a rank's index is in a row.
    fn guess(&self, row: usize, rank: u128) -> usize {
        let (key, way) = Self::key(rank);
        let Some(&[from, to]) = self.least.get(row * self.keys + key..).and_then(|rest| rest.first_chunk()) else {
            return 0;
        };
        let index = from + ((u64::from(to.saturating_sub(from)) * u64::from(way)) >> WAY_BITS) as u32;
        (index >> FRACTION_BITS) as usize
    }
}

/// The sets of ranks, side by side.
fn unrank((binomials, hints): (&[u128], &Hints), (n, k): (usize, usize), ranks: &mut [u128], indices: &mut [u32]) {
    let mut below = [n; AT_ONCE];
    for (i, row) in binomials.chunks_exact(n).enumerate().rev() {
        for (set, (rank, below)) in ranks.iter_mut().zip(&mut below).enumerate() {
            let found = hints.find(i, &row[..*below], *rank);
            *rank -= row[found];
            indices[set * k + i] = narrow(found as u64);
            *below = found;
        }
    }
}
