#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn config(path: &Path, seq_len: u32) -> TokenConfig {
    let shuffle = Shuffle::DontShuffle;
    TokenConfig { path: path.to_owned(), token_size: TokenSize::TwoBytes, seq_len, vocab_size: 1000, shuffle }
}

fn write(dir: &TempDir, name: &str, tokens: impl IntoIterator<Item = u16>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, tokens.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
    path
}

fn interval(start: u64, end: u64) -> BatchInterval {
    BatchInterval::new(start, end).unwrap()
}

#[test]
fn samples_overlap_by_one_token_and_wrap_around() {
    let dir = TempDir::new().unwrap();
    let source = TokenSource::open(&config(&write(&dir, "a.bin", 0..11), 3)).unwrap();
    assert_eq!((source.token_count(), source.sample_count(), source.seq_len()), (11, 3, 3));
    let samples = source.samples(interval(1, 4)).unwrap();
    assert_eq!(samples, [[3, 4, 5, 6], [6, 7, 8, 9], [0, 1, 2, 3], [3, 4, 5, 6]]);
    assert_eq!(source.sample(u64::MAX).unwrap(), source.sample(u64::MAX % 3).unwrap());
}

#[test]
fn wide_tokens_are_read_little_endian() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("wide.bin");
    fs::write(&path, [1_u32, 0x0001_0002, 0x0102_0304].map(u32::to_le_bytes).concat()).unwrap();
    let config = TokenConfig { token_size: TokenSize::FourBytes, vocab_size: u32::MAX, ..config(&path, 2) };
    assert_eq!(TokenSource::open(&config).unwrap().sample(0).unwrap(), [1, 0x0001_0002, 0x0102_0304]);
}

#[test]
fn a_directory_is_one_sequence_by_ascending_names() {
    let dir = TempDir::new().unwrap();
    write(&dir, "b.bin", 4..5);
    write(&dir, "a.bin", 0..4);
    write(&dir, "c.bin", []);
    write(&dir, "d.bin", 5..11);
    write(&dir, "a.txt", 90..99);
    fs::create_dir(dir.path().join("e.bin")).unwrap();
    let source = TokenSource::open(&config(dir.path(), 5)).unwrap();
    assert_eq!(source.samples(interval(0, 1)).unwrap(), [[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 9, 10]]);
}

#[test]
fn what_is_no_token_data_is_refused_when_opened() {
    let dir = TempDir::new().unwrap();
    let open = |path: &Path, seq_len| TokenSource::open(&config(path, seq_len)).unwrap_err();
    assert!(matches!(open(dir.path(), 1), DataError::NoFiles { .. }));
    assert!(matches!(open(&dir.path().join("absent"), 1), DataError::Io { .. }));
    let path = write(&dir, "a.bin", 0..4);
    assert!(matches!(open(&path, 4), DataError::TooShort { tokens: 4, seq_len: 4 }));
    assert!(matches!(open(&path, 0), DataError::SeqLen { .. }));
    assert!(matches!(open(&path, u32::MAX), DataError::SeqLen { .. }));
    fs::write(&path, [1, 2, 3]).unwrap();
    assert!(matches!(open(&path, 1), DataError::Length { length: 3, token_bytes: 2, .. }));
    fs::write(&path, []).unwrap();
    assert!(matches!(open(&path, 1), DataError::TooShort { tokens: 0, .. }));
}

#[test]
fn trouble_while_reading_is_an_error() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.bin", [1, 2, 3, 1000, 5]);
    let source = TokenSource::open(&config(&path, 2)).unwrap();
    assert!(source.sample(0).is_ok());
    assert!(matches!(source.sample(1), Err(DataError::Token { token: 1000, sample: 1, vocab_size: 1000 })));
    assert!(source.samples(interval(0, 1)).is_err());
    assert!(matches!(source.samples(interval(0, 1 << 16)), Err(DataError::TooManySamples { .. })));
    assert!(matches!(source.samples(interval(0, u64::MAX)), Err(DataError::TooManySamples { .. })));
    File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
    assert!(matches!(source.sample(0), Err(DataError::Io { .. })), "the file shrank");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn prop_each_pass_reads_every_sample_of_every_file_once(
        lengths in prop::collection::vec(0_u16..40, 1..5), seq_len in 1_u32..12, seed: [u8; 32], pass in 0_u64..1000,
    ) {
        let dir = TempDir::new().unwrap();
        let mut next = 0;
        for (number, length) in lengths.iter().enumerate() {
            write(&dir, &format!("{number}.bin"), next..next + length);
            next += length;
        }
        let config = TokenConfig { shuffle: Shuffle::Seeded(seed), ..config(dir.path(), seq_len) };
        let source = match TokenSource::open(&config) {
            Ok(source) => source,
            Err(error) => {
                prop_assert!(u32::from(next) <= seq_len, "{}", error);
                return Ok(());
            }
        };
        let count = source.sample_count();
        prop_assert_eq!(count, u64::from((u32::from(next) - 1) / seq_len));
        let mut samples = source.samples(interval(pass * count, (pass + 1) * count - 1)).unwrap();
        samples.sort_unstable();
        let expected: Vec<Vec<u32>> =
            (0..u32::try_from(count).unwrap()).map(|at| (at * seq_len..=(at + 1) * seq_len).collect()).collect();
        prop_assert_eq!(samples, expected);
    }
}
