//! Weights from disk into memory as f32, 512 MB of them: by ordinary reads, as this crate does, and through a mapping.
//!
//! Cold runs begin with the file out of the page cache, as far as the system does what it is advised to.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use divan::Bencher;
use divan::counter::BytesCount;

const BYTES: usize = 512 << 20;
/// As many as `weights.rs` reads at a time.
const BLOCK: usize = 1 << 20;

fn file() -> File {
    let mut file = must(tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")));
    let block: Vec<u8> = (0..BLOCK / 4).flat_map(|index| (index as f32).to_le_bytes()).collect();
    (0..BYTES / BLOCK).for_each(|_| must(file.write_all(&block)));
    must(file.sync_all());
    file
}

fn forget(file: &File) {
    // SAFETY: the descriptor is open; advice changes no memory of ours.
    let code = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(code, 0, "the page cache takes advice");
}

/// What loading does with each block: numbers out of bytes, all of them finite.
fn convert(bytes: &[u8], elements: &mut [f32]) {
    for (element, bytes) in elements.iter_mut().zip(bytes.chunks_exact(4)) {
        *element = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    assert!(elements.iter().all(|element| element.is_finite()), "numbers are finite");
}

fn by_reads(file: &File, elements: &mut [f32]) {
    let mut bytes = vec![0; BLOCK];
    for (index, elements) in elements.chunks_mut(BLOCK / 4).enumerate() {
        must(file.read_exact_at(&mut bytes, (index * BLOCK) as u64));
        convert(&bytes, elements);
    }
}

fn by_mapping(file: &File, elements: &mut [f32]) {
    // SAFETY: a new private mapping of a file that nobody changes or shortens.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    assert_ne!(start, libc::MAP_FAILED, "the file can be mapped");
    // SAFETY: as above; unmapped after the last use.
    let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), BYTES) };
    for (bytes, elements) in bytes.chunks(BLOCK).zip(elements.chunks_mut(BLOCK / 4)) {
        convert(bytes, elements);
    }
    // SAFETY: the mapping made above, of which no reference is left.
    assert_eq!(unsafe { libc::munmap(start, BYTES) }, 0, "a mapping can be undone");
}

fn measure(bencher: Bencher<'_, '_>, cold: bool, read: impl Fn(&File, &mut [f32])) {
    let file = file();
    let mut elements = vec![0.0; BYTES / 4];
    bencher.counter(BytesCount::new(BYTES)).bench_local(|| {
        if cold {
            forget(&file);
        }
        read(&file, &mut elements);
    });
}

#[divan::bench(args = [false, true], sample_count = 7)]
fn reads(bencher: Bencher<'_, '_>, cold: bool) {
    measure(bencher, cold, by_reads);
}

#[divan::bench(args = [false, true], sample_count = 7)]
fn mapping(bencher: Bencher<'_, '_>, cold: bool) {
    measure(bencher, cold, by_mapping);
}

fn must<T>(result: std::io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:?}"),
    }
}

fn main() {
    divan::main();
}
