//! SHA-256 over a list of byte slices, as if they were joined.

/// The SHA-256 digest of the joined `parts`. At most 20,000 parts may be hashed at once on chain.
#[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The SHA-256 digest of the joined `parts`. At most 20,000 parts may be hashed at once on chain.
#[cfg(any(target_os = "solana", target_arch = "bpf"))]
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = [0u8; 32];
    // SAFETY: a slice of slices is an array of (address, length) pairs, which is what the syscall reads; it
    // writes 32 bytes, all inside `digest`. Its only failure is too many parts, which aborts the transaction.
    unsafe {
        solana_define_syscall::definitions::sol_sha256(parts.as_ptr().cast::<u8>(), parts.len() as u64, digest.as_mut_ptr());
    }
    digest
}

/// The first eight bytes of a digest as a little-endian integer.
#[must_use]
pub fn low_u64(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
