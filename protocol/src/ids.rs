//! Program ids and other well-known constants (ABI section 1.1).
//!
//! The three programs' ids default to the deployed reference network's; a build for programs under ids of one's
//! own sets `PSYCHE_COORDINATOR_ID`, `PSYCHE_AUTHORIZER_ID` and `PSYCHE_TREASURER_ID` (base58).

use crate::Pubkey;

/// The coordinator program.
pub const COORDINATOR: Pubkey =
    base58_pubkey(or_default(option_env!("PSYCHE_COORDINATOR_ID"), "4SHugWqSXwKE5fqDchkJcPEqnoZE22VYKtSTVm7axbT7"));
/// The authorizer program.
pub const AUTHORIZER: Pubkey =
    base58_pubkey(or_default(option_env!("PSYCHE_AUTHORIZER_ID"), "PsyAUmhpmiUouWsnJdNGFSX8vZ6rWjXjgDPHsgqPGyw"));
/// The treasurer program.
pub const TREASURER: Pubkey =
    base58_pubkey(or_default(option_env!("PSYCHE_TREASURER_ID"), "EnU7DRx5az5YWxaxgqEGbXSYtudcfnjXewyBRRZCjJPw"));
/// The system program: all zero. As an authorization's grantee it means "everyone".
pub const SYSTEM_PROGRAM: Pubkey = [0; 32];
/// The SPL token program.
pub const TOKEN_PROGRAM: Pubkey = base58_pubkey("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
/// The associated token account program.
pub const ASSOCIATED_TOKEN_PROGRAM: Pubkey = base58_pubkey("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL");
/// The scope that an authorization to join runs carries.
pub const JOIN_SCOPE: &[u8] = b"CoordinatorJoinRun";

const fn or_default(given: Option<&'static str>, default: &'static str) -> &'static str {
    match given {
        Some(id) => id,
        None => default,
    }
}

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Decodes a base58 address of exactly 32 bytes; `None` for any other text.
#[must_use]
pub const fn decode_base58(text: &str) -> Option<Pubkey> {
    let text = text.as_bytes();
    let mut out = [0u8; 32];
    let mut at = 0;
    while at < text.len() {
        let mut digit = 0;
        while digit < ALPHABET.len() && ALPHABET[digit] != text[at] {
            digit += 1;
        }
        if digit == ALPHABET.len() {
            return None;
        }
        let mut carry = digit as u32;
        let mut byte = out.len();
        while byte > 0 {
            byte -= 1;
            carry += out[byte] as u32 * 58;
            out[byte] = (carry & 0xff) as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
        at += 1;
    }
    // Every leading zero byte is one leading `1`, no more and no fewer: this fixes the length at 32.
    let mut ones = 0;
    while ones < text.len() && text[ones] == b'1' {
        ones += 1;
    }
    let mut zeros = 0;
    while zeros < out.len() && out[zeros] == 0 {
        zeros += 1;
    }
    if ones == zeros { Some(out) } else { None }
}

/// [`decode_base58`] for constants: anything else stops the build.
const fn base58_pubkey(text: &str) -> Pubkey {
    match decode_base58(text) {
        Some(key) => key,
        #[expect(clippy::panic, reason = "runs in constants only, where it is a compile error")]
        None => panic!("a program id must be 32 bytes in base58"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]
    use super::*;

    #[test]
    fn base58_accepts_only_addresses_of_32_bytes() {
        assert_eq!(decode_base58("11111111111111111111111111111111"), Some(SYSTEM_PROGRAM));
        assert_eq!(decode_base58("111111111111111111111111111111111"), None);
        assert_eq!(decode_base58("1111111111111111111111111111111"), None);
        assert_eq!(decode_base58(""), None);
        assert_eq!(decode_base58("0OIl"), None);
        assert_eq!(decode_base58("zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"), None);
        let token = hex::decode("06ddf6e1d765a193d9cbe146ceeb79ac1cb485ed5f5b37913a8cf5857eff00a9").unwrap();
        assert_eq!(TOKEN_PROGRAM.as_slice(), token.as_slice());
    }
}
