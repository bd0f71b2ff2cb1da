//! Between our addresses and Solana's.

use psyche_messages::Address;
use solana_pubkey::Pubkey;

pub(crate) const fn key(address: Address) -> Pubkey {
    Pubkey::new_from_array(address.0)
}

pub(crate) const fn address(key: &Pubkey) -> Address {
    Address(key.to_bytes())
}
