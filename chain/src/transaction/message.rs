//! From instructions to signed bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use psyche_messages::Address;
use solana_compute_budget_interface::ComputeBudgetInstruction;
use solana_hash::Hash;
use solana_instruction::Instruction;
use solana_message::Message;
use solana_signature::Signature;

use super::Plan;
use crate::convert::{address, key};
use crate::error::ChainError;
use crate::wallet::Wallet;

/// Largest transaction: what fits into an IPv6 packet of minimum size.
pub(crate) const TRANSACTION_LEN_MAX: usize = 1_232;

/// A transaction as it is sent.
pub(super) struct Signed {
    pub(super) base64: String,
    pub(super) signature: Signature,
}

/// The message with a compute limit, and a price in millionths of a lamport where it is not zero.
fn message(instructions: &[Instruction], payer: Address, blockhash: &Hash, limit: u32, price: u64) -> Message {
    // The budget comes last, so that the number of a refused instruction is its place in the plan.
    let mut instructions = instructions.to_vec();
    instructions.push(ComputeBudgetInstruction::set_compute_unit_limit(limit));
    if price > 0 {
        instructions.push(ComputeBudgetInstruction::set_compute_unit_price(price));
    }
    Message::new_with_blockhash(&instructions, Some(&key(payer)), blockhash)
}

/// A transaction with empty signatures, for a chain that is told not to look at them.
pub(super) fn unsigned(
    purpose: &'static str,
    instructions: &[Instruction],
    payer: Address,
    limit: u32,
) -> Result<String, ChainError> {
    // With a price, since what is sent may have one: a simulation must not fit where the transaction does not.
    let message = message(instructions, payer, &Hash::default(), limit, 1);
    let signers = message.header.num_required_signatures;
    let mut packet = vec![signers];
    packet.resize(1 + 64 * usize::from(signers), 0);
    packet.extend_from_slice(&message.serialize());
    encode(purpose, &packet)
}

fn encode(purpose: &'static str, packet: &[u8]) -> Result<String, ChainError> {
    if packet.len() > TRANSACTION_LEN_MAX {
        return Err(ChainError::TooLarge { purpose, len: packet.len() });
    }
    Ok(BASE64.encode(packet))
}

/// Ways to make a transaction differ from another one that says the same.
pub(super) const VARIANTS_MAX: u32 = 1_000;

/// The compute limit of the `other`th way to say the same.
pub(super) const fn variant(limit: u32, other: u32) -> u32 {
    if limit > other + VARIANTS_MAX { limit - other } else { limit + other }
}

/// Signs `plan` with a compute limit, and a price in millionths of a lamport where it is not zero.
pub(super) fn sign(plan: &Plan<'_>, blockhash: Hash, limit: u32, price: u64) -> Result<Signed, ChainError> {
    let message = message(plan.instructions, plan.payer.address(), &blockhash, limit, price);
    let bytes = message.serialize();
    let signers = usize::from(message.header.num_required_signatures);
    let mut packet = vec![u8::try_from(signers).unwrap_or(u8::MAX)];
    let mut first = None;
    for needed in message.account_keys.iter().take(signers) {
        let signature = wallet_of(plan, needed)?.sign(&bytes);
        first.get_or_insert(signature);
        packet.extend_from_slice(signature.as_ref());
    }
    packet.extend_from_slice(&bytes);
    let base64 = encode(plan.purpose, &packet)?;
    let signature = first.ok_or(ChainError::Build { purpose: plan.purpose, reason: "nobody signs" })?;
    Ok(Signed { base64, signature })
}

fn wallet_of<'a>(plan: &Plan<'a>, needed: &solana_pubkey::Pubkey) -> Result<&'a Wallet, ChainError> {
    let mut wallets = std::iter::once(plan.payer).chain(plan.signers.iter().copied());
    let missing = ChainError::Build { purpose: plan.purpose, reason: "a wallet that must sign is not there" };
    wallets.find(|wallet| wallet.address() == address(needed)).ok_or(missing)
}

/// The accounts that `plan` writes, in base58.
pub(super) fn writable(plan: &Plan<'_>) -> Vec<String> {
    let metas = plan.instructions.iter().flat_map(|instruction| &instruction.accounts);
    let mut names: Vec<String> = metas.filter(|meta| meta.is_writable).map(|meta| meta.pubkey.to_string()).collect();
    names.sort_unstable();
    names.dedup();
    // The protocol takes no more.
    names.truncate(128);
    names
}
