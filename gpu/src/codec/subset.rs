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

/// The code of `k`-subsets of `0..n`, `1 ≤ k ≤ n ≤ 2^16`.
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
    pub(super) fn write(&self, indices: &[u16], out: &mut BitWriter<'_>) {
        match &self.kind {
            Kind::Enumerative { binomials, bits, .. } => {
                let rank = indices.iter().zip(binomials.chunks_exact(self.n));
                let rank = rank.map(|(&index, row)| row[usize::from(index)]).sum();
                out.push_wide(rank, *bits);
            }
            Kind::EliasFano { low_bits, buckets } => {
                let mask = (1_u64 << low_bits) - 1;
                for &index in indices {
                    out.push(u64::from(index) & mask, *low_bits);
                }
                let mut bucket = 0;
                for &index in indices {
                    while bucket < usize::from(index) >> low_bits {
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
    pub(super) fn read(&self, bits: &mut BitReader<'_>, indices: &mut [u16]) -> bool {
        match &self.kind {
            Kind::Enumerative { binomials, hints, sets, bits: width } => {
                let rank = bits.take_wide(*width);
                unrank(binomials, hints, self.n, rank.min(sets - 1), indices);
                rank < *sets
            }
            Kind::EliasFano { low_bits, .. } => self.read_elias_fano(*low_bits, bits, indices),
        }
    }

    /// Whether the bits are a set's code; passes over them as [`Self::read`] does.
    pub(super) fn check(&self, bits: &mut BitReader<'_>, scratch: &mut [u16]) -> bool {
        match &self.kind {
            // Every rank below the number of sets is that of one.
            Kind::Enumerative { sets, bits: width, .. } => bits.take_wide(*width) < *sets,
            Kind::EliasFano { low_bits, .. } => self.read_elias_fano(*low_bits, bits, scratch),
        }
    }

    fn read_elias_fano(&self, low_bits: u32, bits: &mut BitReader<'_>, indices: &mut [u16]) -> bool {
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
                let value = bucket << low_bits | usize::from(*index);
                valid &= value >= least && value < self.n;
                least = value + 1;
                *index = narrow(value.min(self.n - 1) as u64);
            }
            found += 1;
        }
        valid && found == self.k
    }
}

fn narrow(value: u64) -> u16 {
    value as u16
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
    /// `[k, keys]`: the index for the least rank of each key.
    least: Vec<u16>,
}

impl Hints {
    /// Rows that are worth it.
    const ROWS_MAX: usize = 32;

    fn new(binomials: &[u128], n: usize, k: usize, sets: u128) -> Self {
        if k > Self::ROWS_MAX {
            return Self { keys: 0, least: Vec::new() };
        }
        let keys = Self::key(sets) + 2;
        let row = |row: &[u128]| {
            let mut index = 0;
            let least = |key| {
                while row.get(index + 1).is_some_and(|&binomial| binomial <= Self::least_rank(key)) {
                    index += 1;
                }
                narrow(index as u64)
            };
            (0..keys).map(least).collect::<Vec<_>>()
        };
        Self { keys, least: binomials.chunks_exact(n).flat_map(row).collect() }
    }

    /// The position of the leading bit and the five bits below it; ascends with the rank.
    fn key(rank: u128) -> usize {
        let shift = (u128::BITS - rank.leading_zeros()).saturating_sub(6);
        shift as usize * 32 + (rank >> shift) as usize
    }

    /// The least rank that has this key, or a later one.
    fn least_rank(key: usize) -> u128 {
        let shift = (key / 32).saturating_sub(1);
        ((key - 32 * shift) as u128) << shift
    }

    /// Indices of a row among which a rank's is.
    fn range(&self, row: usize, rank: u128, below: usize) -> std::ops::Range<usize> {
        let at = row * self.keys + Self::key(rank);
        match self.least.get(at..at + 2) {
            Some(&[from, to]) if self.keys > 0 => usize::from(from).min(below)..below.min(usize::from(to) + 1),
            _ => 0..below,
        }
    }
}

fn unrank(binomials: &[u128], hints: &Hints, n: usize, mut rank: u128, indices: &mut [u16]) {
    let mut below = n;
    for (i, (index, row)) in indices.iter_mut().zip(binomials.chunks_exact(n)).enumerate().rev() {
        let range = hints.range(i, rank, below);
        let found = range.start + row[range].partition_point(|&binomial| binomial <= rank);
        let found = found.saturating_sub(1);
        rank -= row[found];
        *index = narrow(found as u64);
        below = found;
    }
}
