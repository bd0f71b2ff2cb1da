//! Ed25519 signatures (RFC 8032, section 5.1.6) over whatever bytes, which the node's own signer refuses to make.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use sha2::{Digest, Sha512};

/// An author.
pub(crate) struct Author {
    scalar: Scalar,
    prefix: [u8; 32],
    key: [u8; 32],
}

fn hash(parts: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn half(bytes: &[u8; 64], at: usize) -> [u8; 32] {
    let mut half = [0; 32];
    half.copy_from_slice(&bytes[at..at + 32]);
    half
}

impl Author {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        let expanded = hash(&[seed]);
        let scalar = Scalar::from_bytes_mod_order(clamp_integer(half(&expanded, 0)));
        let key = EdwardsPoint::mul_base(&scalar).compress().to_bytes();
        Self { scalar, prefix: half(&expanded, 32), key }
    }

    pub(crate) const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(crate) fn sign(&self, message: &[&[u8]]) -> [u8; 64] {
        let message = message.concat();
        let nonce = Scalar::from_bytes_mod_order_wide(&hash(&[&self.prefix, &message]));
        let point = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        let challenge = Scalar::from_bytes_mod_order_wide(&hash(&[&point, &self.key, &message]));
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&point);
        signature[32..].copy_from_slice(&(nonce + challenge * self.scalar).to_bytes());
        signature
    }
}
