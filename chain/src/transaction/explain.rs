//! From the chain's refusals to ours.

use psyche_messages::Address;
use solana_instruction::Instruction;
use solana_instruction::error::InstructionError;
use solana_transaction_error::TransactionError;

use super::Plan;
use crate::convert::address;
use crate::error::ChainError;
use crate::program_error::{ProgramIds, ProgramName, ProgramRefusal};
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
            Explained::Other(ChainError::Program { purpose, program, code, refusal: ProgramRefusal::of(program, code) })
        }
        reason => Explained::Other(ChainError::Transaction { purpose, reason: Box::new(reason) }),
    }
}

/// The program that refused: the innermost one that was running when the first call failed, by the runtime's record of calls.
/// What programs log themselves is marked as such by the runtime and looks different, so nobody can pretend to be another.
fn refusing_program(logs: &[String]) -> Option<Address> {
    let mut running: Vec<Address> = Vec::new();
    for line in logs {
        match Record::of(line) {
            Some(Record::Invoked(program)) if running.len() < CALL_DEPTH_MAX => running.push(program),
            // A call deeper than any chain allows: these are not a chain's records.
            Some(Record::Invoked(_)) => return None,
            Some(Record::Succeeded(program)) if running.last() == Some(&program) => {
                let _returned = running.pop();
            }
            Some(Record::Failed(program)) if running.last() == Some(&program) => return Some(program),
            // Records are missing in between: the endpoint cuts long logs.
            Some(Record::Succeeded(_) | Record::Failed(_)) => return None,
            None => {}
        }
    }
    None
}

/// Deeper than any chain lets programs call each other.
const CALL_DEPTH_MAX: usize = 16;

/// A line of the runtime's record of calls.
enum Record {
    Invoked(Address),
    Succeeded(Address),
    Failed(Address),
}

impl Record {
    /// `Program <id> invoke [<depth>]`, `Program <id> success`, `Program <id> failed: …`.
    fn of(line: &str) -> Option<Self> {
        let (program, what) = line.strip_prefix("Program ")?.split_once(' ')?;
        let program = program.parse().ok()?;
        match what {
            "success" => Some(Self::Succeeded(program)),
            what if what.starts_with("invoke [") => Some(Self::Invoked(program)),
            what if what.starts_with("failed: ") => Some(Self::Failed(program)),
            _ => None,
        }
    }
}
