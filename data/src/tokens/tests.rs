#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use super::*;

fn config(path: &Path, seq_len: usize, shuffle: Option<[u8; 32]>) -> TokenConfig {
    TokenConfig { path: path.to_owned(), width: TokenWidth::Two, seq_len, vocabulary: 1000, shuffle }
}

fn write(path: &Path, tokens: std::ops::Range<u16>) {
    std::fs::write(path, tokens.flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
}

fn batch(start: u64, end: u64) -> BatchInterval {
    BatchInterval::new(start, end).unwrap()
}

#[test]
fn samples_overlap_by_the_label_and_wrap_around() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.bin");
    write(&path, 0..10);
    let source = TokenSource::open(&config(&path, 3, None)).unwrap();
    assert_eq!(source.samples_per_pass(), 3);
    let samples = source.samples(batch(1, 3)).unwrap();
    assert_eq!(samples, [vec![3, 4, 5, 6], vec![6, 7, 8, 9], vec![0, 1, 2, 3]]);
}

#[test]
fn a_folder_is_read_in_the_order_of_names_across_file_ends() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("b.bin"), 4..9);
    write(&folder.path().join("a.bin"), 0..4);
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let source = TokenSource::open(&config(folder.path(), 8, None)).unwrap();
    assert_eq!(source.samples(batch(0, 0)).unwrap(), [(0..9).collect::<Vec<u32>>()]);
}

#[test]
fn a_seeded_pass_holds_every_sample_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.bin");
    write(&path, 0..101);
    let source = TokenSource::open(&config(&path, 1, Some([3; 32]))).unwrap();
    let firsts = |from: u64| -> Vec<u32> { source.samples(batch(from, from + 99)).unwrap().iter().map(|s| s[0]).collect() };
    let (first_pass, second_pass) = (firsts(0), firsts(100));
    assert_ne!(first_pass, second_pass);
    for mut pass in [first_pass, second_pass] {
        pass.sort_unstable();
        assert_eq!(pass, (0..100).collect::<Vec<u32>>());
    }
}

#[test]
fn what_can_not_be_samples_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.bin");
    assert!(matches!(TokenSource::open(&config(&path, 3, None)), Err(DataError::Io { .. })));
    std::fs::write(&path, [1, 2, 3]).unwrap();
    assert!(matches!(TokenSource::open(&config(&path, 3, None)), Err(DataError::Length { bytes: 3, .. })));
    write(&path, 0..3);
    assert!(matches!(TokenSource::open(&config(&path, 3, None)), Err(DataError::TooShort { tokens: 3, .. })));
    write(&path, 998..1004);
    let source = TokenSource::open(&config(&path, 5, None)).unwrap();
    assert!(matches!(source.samples(batch(0, 0)), Err(DataError::Token { at: 2, token: 1000, .. })));
    assert!(matches!(source.samples(batch(0, SAMPLES_MAX)), Err(DataError::TooManySamples { .. })));
}
