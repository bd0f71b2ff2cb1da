//! From the chain's refusals to ours.

use psyche_messages::Address;
use solana_instruction::Instruction;
use solana_instruction::error::InstructionError;
use solana_transaction_error::TransactionError;

use super::Plan;
use crate::convert::address;
use crate::error::ChainError;
use crate::program_error::{ProgramIds, ProgramName, meaning};
use crate::rpc::Rpc;

/// The system program's code for a payer that does not hold enough.
const SYSTEM_NOT_ENOUGH: u32 = 1;

impl Rpc {
    /// Says what `error` means for `plan`. `logs`, where there are any, tell which program refused when one called another.
    pub(super) async fn explain(&self, subject: Subject<'_>, error: TransactionError, logs: &[String]) -> ChainError {
        let explained = explain(subject, error, logs, self.programs());
        match explained {
            Explained::Funds => {
                let address = subject.payer;
                let balance = self.balance(address).await.unwrap_or_default();
                ChainError::InsufficientFunds { purpose: subject.purpose, address, balance }
            }
            Explained::Other(error) => error,
        }
    }
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) purpose: &'static str,
    pub(super) payer: Address,
    pub(super) instructions: &'a [Instruction],
}

impl<'a> From<&Plan<'a>> for Subject<'a> {
    fn from(plan: &Plan<'a>) -> Self {
        Self { purpose: plan.purpose, payer: plan.payer.address(), instructions: plan.instructions }
    }
}

/// A refusal, or that the payer's balance has to be looked up for it.
#[derive(Debug)]
pub(super) enum Explained {
    Funds,
    Other(ChainError),
}

pub(super) fn explain(subject: Subject<'_>, error: TransactionError, logs: &[String], programs: &ProgramIds) -> Explained {
    let purpose = subject.purpose;
    match error {
        TransactionError::InsufficientFundsForFee
        | TransactionError::AccountNotFound
        | TransactionError::InsufficientFundsForRent { .. } => Explained::Funds,
        TransactionError::InstructionError(index, InstructionError::Custom(code)) => {
            let outer = subject.instructions.get(usize::from(index));
            let outer = outer.map(|instruction| programs.name(address(&instruction.program_id)));
            let program = refusing_program(logs).map(|program| programs.name(program)).or(outer);
            let program = program.unwrap_or(ProgramName::Other(Address([0; 32])));
            if program == ProgramName::System && code == SYSTEM_NOT_ENOUGH {
                return Explained::Funds;
            }
            Explained::Other(ChainError::Program { purpose, program, code, meaning: meaning(program, code) })
        }
        reason => Explained::Other(ChainError::Transaction { purpose, reason: Box::new(reason) }),
    }
}

/// The first program whose frame ended in failure, which is the innermost one: `Program <id> failed: …` is a record of the
/// runtime's stable log format, not an error text.
fn refusing_program(logs: &[String]) -> Option<Address> {
    logs.iter().find_map(|line| line.strip_prefix("Program ")?.split_once(" failed: ")?.0.parse().ok())
}
