//! Instructions that are wrong in many ways at once.

use std::collections::BTreeMap;

use psyche_protocol::Pubkey;
use solana_instruction::{Instruction, error::InstructionError};
use solana_keypair::Keypair;

use super::super::chain::{Chain, Refusal, address, key};
use super::scene::Scene;

/// Shuffles and garbled arguments for each instruction.
const SHUFFLES: u64 = 60;
const GARBLES: u64 = 120;

/// A step of `SplitMix64`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Every attempt is either refused in good order, and then nothing has changed, or accepted.
pub(super) fn all(name: &str, scene: &Scene) {
    let mut random = 42;
    for attempt in 0..SHUFFLES + GARBLES {
        let mut bad = scene.good.clone();
        if attempt < SHUFFLES {
            shuffle(&mut bad, scene, &mut random);
        } else {
            for _ in 0..=next(&mut random) % 3 {
                let arguments = bad.data.len() as u64 - 8;
                if arguments > 0 {
                    let at = 8 + next(&mut random) % arguments;
                    bad.data[at as usize] = next(&mut random) as u8;
                }
            }
        }
        send(name, scene, &bad);
    }
}

/// Puts one to three accounts from anywhere in the place of others.
fn shuffle(bad: &mut Instruction, scene: &Scene, random: &mut u64) {
    for _ in 0..=next(random) % 3 {
        let at = (next(random) % bad.accounts.len() as u64) as usize;
        let from = (next(random) % (scene.good.accounts.len() + scene.around.len()) as u64) as usize;
        let other = scene.good.accounts.get(from).map(|meta| meta.pubkey);
        let other = other.unwrap_or_else(|| address(&scene.around[from - scene.good.accounts.len()].1));
        bad.accounts[at].pubkey = other;
        bad.accounts[at].is_signer &= scene.signers.iter().any(|signer| key(signer) == other.to_bytes());
    }
}

fn contents(chain: &Chain, scene: &Scene) -> BTreeMap<Pubkey, Vec<u8>> {
    let own = scene.good.accounts.iter().map(|meta| meta.pubkey.to_bytes());
    let all = own.chain(scene.around.iter().map(|(_, key)| *key));
    all.map(|key| (key, chain.data(&key))).collect()
}

fn send(name: &str, scene: &Scene, bad: &Instruction) {
    let mut chain = scene.chain.copy();
    let signs = |signer: &&Keypair| bad.accounts.iter().any(|meta| meta.is_signer && meta.pubkey.to_bytes() == key(signer));
    let signers: Vec<&Keypair> = scene.signers.iter().filter(signs).collect();
    match chain.send(&signers, std::slice::from_ref(bad)) {
        Ok(_) => {}
        Err(Refusal::Other(
            error @ (InstructionError::ProgramFailedToComplete
            | InstructionError::ComputationalBudgetExceeded
            | InstructionError::PrivilegeEscalation
            | InstructionError::ReadonlyDataModified
            | InstructionError::ReadonlyLamportChange
            | InstructionError::ExternalAccountDataModified
            | InstructionError::ExternalAccountLamportSpend
            | InstructionError::UnbalancedInstruction
            | InstructionError::AccountBorrowFailed),
        )) => panic!("{name} ended in {error:?}: {bad:?}: {:#?}", chain.logs),
        Err(_) => assert!(contents(&chain, scene) == contents(&scene.chain, scene), "{name} changed something: {bad:?}"),
    }
}
