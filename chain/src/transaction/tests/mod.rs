#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may unwrap")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use psyche_messages::Address;
use psyche_protocol::ids;
use solana_hash::Hash;
use solana_instruction::error::InstructionError;
use solana_instruction::{AccountMeta, Instruction};
use solana_transaction_error::TransactionError;

pub(crate) mod fake;
mod life;

use super::explain::{Explained, explain};
use super::*;
use crate::convert::key;
use crate::program_error::{ProgramIds, ProgramName};

fn call(program: [u8; 32], account: Address, data_len: usize) -> Instruction {
    let accounts = vec![AccountMeta::new(key(account), true)];
    Instruction { program_id: key(Address(program)), accounts, data: vec![0; data_len] }
}

fn plan<'a>(payer: &'a Wallet, instructions: &'a [Instruction]) -> Plan<'a> {
    Plan { purpose: "a test", payer, signers: &[], instructions, compute: Compute::Simulated }
}

fn custom(index: u8, code: u32) -> TransactionError {
    TransactionError::InstructionError(index, InstructionError::Custom(code))
}

#[test]
fn signed_bytes_verify_under_the_payers_key() {
    let payer = Wallet::new();
    let instructions = [call(ids::COORDINATOR, payer.address(), 9)];
    let signed = message::sign(&plan(&payer, &instructions), Hash::default(), 1_000, 7).unwrap();
    let bytes = BASE64.decode(&signed.base64).unwrap();
    assert_eq!((bytes[0], &bytes[1..65]), (1, signed.signature.as_ref()));
    assert!(signed.signature.verify(&payer.address().0, &bytes[65..]));
}

#[test]
fn a_transaction_that_fits_no_packet_is_refused_before_it_is_sent() {
    let payer = Wallet::new();
    let instructions = [call(ids::COORDINATOR, payer.address(), 1_200)];
    let refused = message::sign(&plan(&payer, &instructions), Hash::default(), 1_000, 0);
    assert!(matches!(refused, Err(ChainError::TooLarge { len: 1_233.., .. })));
}

#[test]
fn a_missing_signer_is_found_before_anything_is_sent() {
    let (payer, other) = (Wallet::new(), Wallet::new());
    let instructions = [call(ids::COORDINATOR, other.address(), 1)];
    let refused = message::sign(&plan(&payer, &instructions), Hash::default(), 1_000, 0);
    assert!(matches!(refused, Err(ChainError::Build { .. })));
    let signers = [&other];
    let complete = Plan { signers: &signers, ..plan(&payer, &instructions) };
    assert!(message::sign(&complete, Hash::default(), 1_000, 0).is_ok());
}

#[test]
fn a_programs_refusal_is_named_by_program_and_code() {
    let payer = Wallet::new();
    let instructions = [call(ids::AUTHORIZER, payer.address(), 1), call(ids::COORDINATOR, payer.address(), 1)];
    let plan = plan(&payer, &instructions);
    let programs = ProgramIds::default();
    let Explained::Other(error) = explain((&plan).into(), custom(1, 6012), &[], &programs) else { panic!("funds") };
    assert_eq!(error.program_code(ProgramName::Coordinator), Some(6012));
    assert_eq!(error.to_string(), "run a test: the coordinator refuses with code 6012 (the run is in another phase)");
}

#[test]
fn the_innermost_program_is_blamed_where_one_calls_another() {
    let payer = Wallet::new();
    let instructions = [call(ids::TREASURER, payer.address(), 1)];
    let programs = ProgramIds::default();
    let logs = [
        format!("Program {} invoke [1]", programs.treasurer),
        format!("Program {} invoke [2]", programs.coordinator),
        format!("Program {} failed: custom program error: 0x1771", programs.coordinator),
        format!("Program {} failed: custom program error: 0x1771", programs.treasurer),
    ];
    let Explained::Other(error) = explain((&plan(&payer, &instructions)).into(), custom(0, 6001), &logs, &programs) else {
        panic!("funds")
    };
    assert_eq!(error.program_code(ProgramName::Coordinator), Some(6001));
}

#[test]
fn an_empty_wallet_is_told_apart_from_other_refusals() {
    let payer = Wallet::new();
    let instructions = [call(ids::SYSTEM_PROGRAM, payer.address(), 1)];
    let plan = plan(&payer, &instructions);
    let programs = ProgramIds::default();
    for error in [TransactionError::AccountNotFound, TransactionError::InsufficientFundsForFee, custom(0, 1)] {
        assert!(matches!(explain((&plan).into(), error, &[], &programs), Explained::Funds));
    }
    let other = explain((&plan).into(), TransactionError::AccountInUse, &[], &programs);
    assert!(matches!(other, Explained::Other(ChainError::Transaction { .. })));
}
