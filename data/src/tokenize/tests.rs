#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use psyche_messages::BatchInterval;
use psyche_protocol::model::{Shuffle, TokenSize};
use tempfile::TempDir;

use super::*;
use crate::{TokenConfig, TokenSource};

fn text() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("text/kjv.txt")
}

/// The first `count` lines of the text in a file of their own.
fn excerpt(dir: &TempDir, name: &str, count: usize) -> PathBuf {
    let text = fs::read_to_string(text()).unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text.split_inclusive('\n').take(count).collect::<String>()).unwrap();
    path
}

fn silent(_: Progress) {}

fn tokens_of(dir: &Path) -> Vec<u32> {
    let bytes = fs::read(dir.join(TOKENS_FILE)).unwrap();
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))).collect()
}

#[test]
fn the_bible_becomes_the_same_data_set_everywhere() {
    let dir = TempDir::new().unwrap();
    let mut seen = Vec::new();
    let manifest =
        tokenize(&[text()], &Vocabulary::Train { size: 4096 }, dir.path(), &mut |progress| seen.push(progress)).unwrap();
    assert_eq!((manifest.vocab_size, manifest.token_bytes), (4096, 2));
    let hashes =
        [&manifest.inputs[0], &manifest.tokenizer, &manifest.output].map(|file| (&*file.name, file.blake3.to_string()));
    let expected = [
        ("kjv.txt", "9793372ab46a1e8237d63ba096acd5c60a4c5a7420fdc6717a50d7f6a67720fa"),
        ("tokenizer.json", "ca67def10f852717c137ae06126a648c6b4886ca2f09524dc9402444f5b219dc"),
        ("tokens.bin", "0a5aa3872033f23172eaa1ce3d7a9e589fe9b3247e725924e05ff852b00edcb4"),
    ];
    assert_eq!(hashes, expected.map(|(name, hash)| (name, hash.to_owned())));
    assert_eq!(manifest.tokens, 1_036_486);
    assert_eq!(manifest, DatasetManifest::load(dir.path()).unwrap());
    let bytes = manifest.inputs[0].bytes;
    assert_eq!(seen.first(), Some(&Progress::Training));
    let last = Progress::Encoding { bytes, bytes_total: bytes, tokens: manifest.tokens - 1 };
    assert_eq!(seen.last(), Some(&last), "the end of the text comes after it");

    let tokenizer = Tokenizer::from_file(dir.path().join(TOKENIZER_FILE)).unwrap();
    let mut tokens = tokens_of(dir.path());
    assert_eq!(tokens.pop(), tokenizer.token_to_id(END_OF_TEXT));
    assert_eq!(tokenizer.decode(&tokens, false).unwrap(), fs::read_to_string(text()).unwrap());

    let source = TokenSource::open(&TokenConfig {
        path: dir.path().to_owned(),
        token_size: TokenSize::TwoBytes,
        seq_len: 256,
        vocab_size: manifest.vocab_size,
        shuffle: Shuffle::Seeded([1; 32]),
    })
    .unwrap();
    assert_eq!(source.token_count(), manifest.tokens);
    assert_eq!(
        source.samples(BatchInterval::new(0, source.sample_count() - 1).unwrap()).unwrap().len() as u64,
        source.sample_count()
    );
}

#[test]
fn training_again_gives_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let inputs = [excerpt(&dir, "one.txt", 900), excerpt(&dir, "two.txt", 300)];
    let manifests = ["a", "b", "c"]
        .map(|name| tokenize(&inputs, &Vocabulary::Train { size: 700 }, &dir.path().join(name), &mut silent).unwrap());
    assert_eq!(manifests[0], manifests[1]);
    assert_eq!(manifests[0], manifests[2]);
    let swapped = [inputs[1].clone(), inputs[0].clone()];
    let other = tokenize(&swapped, &Vocabulary::Train { size: 700 }, &dir.path().join("d"), &mut silent).unwrap();
    assert_eq!(other.tokenizer, manifests[0].tokenizer);
    assert_ne!(other.output, manifests[0].output);
}

#[test]
fn a_loaded_tokenizer_encodes_other_text_and_keeps_its_bytes() {
    let dir = TempDir::new().unwrap();
    let trained = dir.path().join("trained");
    let first = tokenize(&[excerpt(&dir, "one.txt", 300)], &Vocabulary::Train { size: 400 }, &trained, &mut silent).unwrap();
    let other = dir.path().join("other.txt");
    let odd = "No end of line: ünïcödé 𝄞 \u{0} \t \r\n\n\nlast";
    fs::write(&other, odd).unwrap();
    let again = dir.path().join("again");
    let second = tokenize(&[other], &Vocabulary::Load(trained.join(TOKENIZER_FILE)), &again, &mut silent).unwrap();
    assert_eq!(first.tokenizer, second.tokenizer);
    let tokenizer = Tokenizer::from_file(again.join(TOKENIZER_FILE)).unwrap();
    assert_eq!(tokenizer.decode(&tokens_of(&again), true).unwrap(), odd);
}

#[test]
fn a_vocabulary_above_two_bytes_makes_wide_tokens() {
    let dir = TempDir::new().unwrap();
    let input = excerpt(&dir, "one.txt", 50);
    let trained = dir.path().join("trained");
    tokenize(std::slice::from_ref(&input), &Vocabulary::Train { size: 300 }, &trained, &mut silent).unwrap();
    let mut tokenizer = Tokenizer::from_file(trained.join(TOKENIZER_FILE)).unwrap();
    let many: Vec<_> = (0..(1 << 16)).map(|number| AddedToken::from(format!("<|{number}|>"), true)).collect();
    tokenizer.add_special_tokens(many).unwrap();
    let wide = dir.path().join("wide.json");
    tokenizer.save(&wide, false).unwrap();
    let manifest = tokenize(&[input], &Vocabulary::Load(wide), &dir.path().join("out"), &mut silent).unwrap();
    assert_eq!((manifest.vocab_size, manifest.token_bytes), ((1 << 16) + 300, 4));
    assert_eq!(manifest.output.bytes, manifest.tokens * 4);
}

#[test]
fn what_is_no_text_or_no_tokenizer_is_refused_and_leaves_no_manifest() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let train = Vocabulary::Train { size: 300 };
    let good = excerpt(&dir, "good.txt", 20);
    let refuse = |inputs: &[PathBuf], vocabulary: &Vocabulary| tokenize(inputs, vocabulary, &out, &mut silent).unwrap_err();
    assert!(matches!(refuse(&[], &train), DataError::NoFiles { .. }));
    assert!(matches!(refuse(&[dir.path().join("absent")], &train), DataError::Io { .. }));
    let binary = dir.path().join("binary.txt");
    fs::write(&binary, b"fine\nnot \xff fine\n").unwrap();
    assert!(matches!(refuse(&[good.clone(), binary], &train), DataError::Line { line: 2, .. }));
    assert!(matches!(refuse(std::slice::from_ref(&good), &Vocabulary::Train { size: 256 }), DataError::VocabularySize { .. }));
    let error = refuse(std::slice::from_ref(&good), &Vocabulary::Load(good.clone()));
    assert!(matches!(error, DataError::Tokenizer { action: "load", .. }));
    assert!(matches!(DatasetManifest::load(&out), Err(DataError::Io { .. })));
}
