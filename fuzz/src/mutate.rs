//! Random changes to bytes, reproducible from a seed.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0.
    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }
}

/// Numbers at which formats change their mind.
const EDGES: [u64; 14] =
    [0, 1, 2, 4, 127, 128, 255, 256, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

/// One change of a kind that broken or hostile senders make. `other` is another input, `tokens` are words of the format.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8], tokens: &[&[u8]]) {
    let at = random.below(bytes.len());
    let longest = 1 << random.below(7);
    let run = at..(at + 1 + random.below(longest)).min(bytes.len());
    match random.below(14) {
        0 => bytes.truncate(at),
        1 => bytes.extend((0..=random.below(8)).map(|byte| byte as u8)),
        2 => bytes[run].fill(0),
        3 => bytes[run].fill(0xff),
        4 => {
            let from = random.below(other.len());
            let piece = &other[from..(from + run.len()).min(other.len())];
            drop(bytes.splice(run, piece.iter().copied()));
        }
        5 => bytes[run].reverse(),
        6 => bytes[run].iter_mut().for_each(|byte| *byte = random.next() as u8),
        7 => drop(bytes.splice(run, [])),
        8 => {
            let again = bytes[run.clone()].to_vec();
            drop(bytes.splice(run.start..run.start, again));
        }
        9 | 10 => {
            let number = EDGES[random.below(EDGES.len())].to_le_bytes();
            let width = 1 << random.below(4);
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        11 if !tokens.is_empty() => {
            let token = tokens[random.below(tokens.len())];
            let end = if random.below(2) == 0 { at } else { run.end };
            drop(bytes.splice(at..end, token.iter().copied()));
        }
        12 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add(if random.below(2) == 0 { 1 } else { 0xff }),
        _ if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        _ => bytes.push(random.next() as u8),
    }
}
