//! Which round each blob was last claimed for, on disk: a line is appended for every claim, and the file is written anew when
//! most of its lines are old. A line that a crash cut short counts as none.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use psyche_messages::{BlobHash, RoundKey};

/// Name of the file in the store's directory.
const FILE_NAME: &str = "claims";

/// Most bytes that are read at a start: 400,000 claims.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Lines beyond those in force before the file is written anew.
const STALE_MAX: usize = 4096;

/// The open file.
#[derive(Debug)]
pub(super) struct Claims {
    path: PathBuf,
    file: File,
    lines: usize,
}

impl Claims {
    /// Opens the claims in `dir`, and returns those in force.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, HashMap<BlobHash, RoundKey>)> {
        let path = dir.join(FILE_NAME);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut bytes = Vec::new();
        (&file).take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut claims: HashMap<BlobHash, RoundKey> = HashMap::new();
        let mut lines = 0;
        for (hash, round) in text.split_inclusive('\n').filter_map(parse) {
            lines += 1;
            let claim = claims.entry(hash).or_insert(round);
            *claim = (*claim).max(round);
        }
        let mut opened = Self { path, file, lines };
        if !bytes.is_empty() && bytes.last() != Some(&b'\n') {
            // What is appended must not continue a torn line.
            opened.file.write_all(b"\n")?;
        }
        Ok((opened, claims))
    }

    /// Notes that `hash` is claimed for `round`.
    pub(super) fn note(&mut self, hash: &BlobHash, round: RoundKey) -> io::Result<()> {
        self.lines += 1;
        self.file.write_all(line(hash, round).as_bytes())
    }

    /// Writes the file anew with the claims in force, of which there are `count`, if most lines are old.
    pub(super) fn compact(&mut self, count: usize, claims: impl Iterator<Item = (BlobHash, RoundKey)>) -> io::Result<()> {
        if self.lines <= count.saturating_add(STALE_MAX) {
            return Ok(());
        }
        let text: String = claims.map(|(hash, round)| line(&hash, round)).collect();
        let new = self.path.with_extension("new");
        fs::write(&new, &text)?;
        fs::rename(&new, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.lines = count;
        Ok(())
    }
}

fn line(hash: &BlobHash, round: RoundKey) -> String {
    format!("{hash} {} {}\n", round.epoch.0, round.step.0)
}

fn parse(line: &str) -> Option<(BlobHash, RoundKey)> {
    let mut words = line.strip_suffix('\n')?.split(' ');
    let (hash, epoch, step) = (words.next()?, words.next()?, words.next()?);
    Some((hash.parse().ok()?, RoundKey::new(epoch.parse().ok()?, step.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_latest_round_of_a_blob_counts_also_after_a_torn_line() {
        let dir = TempDir::new().unwrap();
        let [one, two] = [BlobHash([1; 32]), BlobHash([2; 32])];
        let (mut claims, none) = Claims::open(dir.path()).unwrap();
        assert!(none.is_empty());
        for (hash, step) in [(one, 5), (two, 6), (one, 3)] {
            claims.note(&hash, RoundKey::new(1, step)).unwrap();
        }
        let torn = &line(&two, RoundKey::new(9, 99))[..60];
        fs::write(dir.path().join(FILE_NAME), fs::read_to_string(dir.path().join(FILE_NAME)).unwrap() + torn).unwrap();
        let (mut claims, read) = Claims::open(dir.path()).unwrap();
        assert_eq!(read, HashMap::from([(one, RoundKey::new(1, 5)), (two, RoundKey::new(1, 6))]));
        claims.note(&two, RoundKey::new(2, 7)).unwrap();
        let (_, read) = Claims::open(dir.path()).unwrap();
        assert_eq!(read[&two], RoundKey::new(2, 7));
    }

    #[test]
    fn the_file_does_not_grow_with_the_number_of_rounds() {
        let dir = TempDir::new().unwrap();
        let (mut claims, _) = Claims::open(dir.path()).unwrap();
        let hash = BlobHash([1; 32]);
        for step in 0..20_000 {
            let round = RoundKey::new(0, step);
            claims.note(&hash, round).unwrap();
            claims.compact(1, std::iter::once((hash, round))).unwrap();
            assert!(claims.lines <= STALE_MAX + 1);
        }
        let (claims, read) = Claims::open(dir.path()).unwrap();
        assert_eq!(read, HashMap::from([(hash, RoundKey::new(0, 19_999))]));
        assert!(claims.file.metadata().unwrap().len() < 80 * (STALE_MAX as u64 + 2));
    }
}
