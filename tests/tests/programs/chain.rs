//! A chain in a box with our three programs and the SPL token program on it.

use std::path::PathBuf;

use litesvm::{LiteSVM, types::TransactionMetadata};
use psyche_protocol::instruction::Args;
use psyche_protocol::{Pubkey, ids};
use solana_address::Address;
use solana_clock::Clock;
use solana_instruction::{AccountMeta, Instruction, error::InstructionError};
use solana_keypair::Keypair;
use solana_message::Message;
use solana_signer::Signer;
use solana_transaction::Transaction;
use solana_transaction_error::TransactionError;

/// Balance that every user starts with, in lamports.
const RICH_LAMPORTS: u64 = 100_000_000_000;
/// The chain's time when a test begins, in seconds.
pub(crate) const GENESIS_UNIX_TIME_S: i64 = 1_700_000_000;

/// What a refused instruction answered: its custom code, or the runtime's own error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Custom(u32),
    Other(InstructionError),
}

/// The outcome of one transaction: compute units, or why its last instruction was refused.
pub(crate) type Outcome = Result<u64, Refusal>;

/// LiteSVM with the programs at their default ids.
pub(crate) struct Chain {
    pub(crate) svm: LiteSVM,
    pub(crate) payer: Keypair,
    pub(crate) logs: Vec<String>,
    /// How many keys were handed out.
    keys: u64,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self::on(LiteSVM::new())
    }

    /// A chain without signature checks and blockhash ages, for long random sequences.
    pub(crate) fn fast() -> Self {
        Self::on(LiteSVM::new().with_sigverify(false).with_blockhash_check(false).with_transaction_history(0))
    }

    pub(crate) fn on(mut svm: LiteSVM) -> Self {
        for (id, name) in [(ids::COORDINATOR, "coordinator"), (ids::AUTHORIZER, "authorizer"), (ids::TREASURER, "treasurer")] {
            svm.add_program_from_file(address(&id), elf(name)).expect("the committed ELF loads");
        }
        let mut chain = Self { svm, payer: numbered_key(0), logs: Vec::new(), keys: 0 };
        let payer = chain.payer.pubkey();
        chain.fund(&payer);
        chain.set_time(GENESIS_UNIX_TIME_S, 1_000);
        chain
    }

    /// A chain without our programs, to stand in for one that is being moved.
    pub(crate) fn bare() -> Self {
        Self { svm: LiteSVM::default(), payer: numbered_key(0), logs: Vec::new(), keys: 0 }
    }

    /// The same chain once more, for what must leave this one alone.
    pub(crate) fn copy(&self) -> Self {
        Self { svm: self.svm.clone(), payer: self.payer.insecure_clone(), logs: Vec::new(), keys: self.keys }
    }

    /// A key that no test on this chain has used; the same one in every execution of the test.
    pub(crate) fn new_key(&mut self) -> Keypair {
        self.keys += 1;
        numbered_key(self.keys)
    }

    /// A new funded wallet.
    pub(crate) fn user(&mut self) -> Keypair {
        let user = self.new_key();
        self.fund(&user.pubkey());
        user
    }

    fn fund(&mut self, user: &Address) {
        self.patch(&user.to_bytes(), |account| account.lamports = RICH_LAMPORTS);
    }

    pub(crate) fn set_time(&mut self, unix_timestamp: i64, slot: u64) {
        let clock: Clock = self.svm.get_sysvar();
        self.svm.set_sysvar(&Clock { unix_timestamp, slot, ..clock });
    }

    pub(crate) fn advance(&mut self, seconds: i64) {
        let clock: Clock = self.svm.get_sysvar();
        self.set_time(clock.unix_timestamp + seconds, clock.slot + 1);
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.svm.get_sysvar::<Clock>().unix_timestamp).unwrap()
    }

    /// Sends one transaction, paid by the chain's payer, within the default 200,000 compute units per instruction.
    pub(crate) fn send(&mut self, signers: &[&Keypair], instructions: &[Instruction]) -> Outcome {
        let mut all: Vec<&Keypair> = vec![&self.payer];
        all.extend(signers.iter().filter(|signer| signer.pubkey() != self.payer.pubkey()));
        let message = Message::new(instructions, Some(&self.payer.pubkey()));
        let transaction = Transaction::new(&all, message, self.svm.latest_blockhash());
        let result = self.svm.send_transaction(transaction);
        self.svm.expire_blockhash();
        match result {
            Ok(TransactionMetadata { compute_units_consumed, logs, .. }) => {
                self.logs = logs;
                Ok(compute_units_consumed)
            }
            Err(failed) => {
                self.logs = failed.meta.logs;
                match failed.err {
                    TransactionError::InstructionError(_, InstructionError::Custom(code)) => Err(Refusal::Custom(code)),
                    TransactionError::InstructionError(_, other) => Err(Refusal::Other(other)),
                    other => panic!("the transaction itself was refused: {other:?} {:#?}", self.logs),
                }
            }
        }
    }

    /// Sends what must be accepted, and returns the compute units.
    pub(crate) fn accept(&mut self, signers: &[&Keypair], instructions: &[Instruction]) -> u64 {
        let outcome = self.send(signers, instructions);
        outcome.unwrap_or_else(|refusal| panic!("refused with {refusal:?}: {:#?}", self.logs))
    }

    /// Sends what must be refused with the custom `code`.
    #[track_caller]
    pub(crate) fn refuse(&mut self, code: u32, signers: &[&Keypair], instruction: &Instruction) {
        let outcome = self.send(signers, std::slice::from_ref(instruction));
        assert_eq!(outcome, Err(Refusal::Custom(code)), "{:#?}", self.logs);
    }

    /// The data of an account; empty where there is none.
    pub(crate) fn data(&self, key: &Pubkey) -> Vec<u8> {
        self.svm.get_account(&address(key)).map(|account| account.data).unwrap_or_default()
    }

    /// Changes an account behind the programs' back.
    pub(crate) fn patch(&mut self, key: &Pubkey, change: impl FnOnce(&mut Content)) {
        let mut account = self.svm.get_account(&address(key)).unwrap_or_default();
        let mut content = Content { lamports: account.lamports, owner: account.owner.to_bytes(), data: account.data };
        change(&mut content);
        account.lamports = content.lamports;
        account.owner = address(&content.owner);
        account.data = content.data;
        self.svm.set_account(address(key), account).unwrap();
    }

    /// A new account of the program `owner` with this data, as no program would have made it.
    pub(crate) fn forge(&mut self, owner: &Pubkey, data: Vec<u8>) -> Pubkey {
        let forged = key(&self.new_key());
        self.patch(&forged, |account| *account = Content { lamports: RICH_LAMPORTS, owner: *owner, data });
        forged
    }
}

fn numbered_key(number: u64) -> Keypair {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Keypair::new_from_array(seed)
}

/// What a test may forge about an account.
pub(crate) struct Content {
    pub(crate) lamports: u64,
    pub(crate) owner: Pubkey,
    pub(crate) data: Vec<u8>,
}

/// Where the committed bytecode lies.
pub(crate) fn elf(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "programs", "elf", &format!("{name}.so")].iter().collect()
}

pub(crate) fn address(key: &Pubkey) -> Address {
    Address::new_from_array(*key)
}

pub(crate) fn key(wallet: &Keypair) -> Pubkey {
    wallet.pubkey().to_bytes()
}

/// The canonical derived address and its bump.
pub(crate) fn derive(seeds: &[&[u8]], program: &Pubkey) -> (Pubkey, u8) {
    let (found, bump) = Address::find_program_address(seeds, &address(program));
    (found.to_bytes(), bump)
}

/// An account list: `w` writable, `s` signer, `r` neither, as in `[("ws", key), ("r", key)]`.
pub(crate) fn metas(accounts: &[(&str, Pubkey)]) -> Vec<AccountMeta> {
    accounts
        .iter()
        .map(|(flags, key)| AccountMeta {
            pubkey: address(key),
            is_signer: flags.contains('s'),
            is_writable: flags.contains('w'),
        })
        .collect()
}

/// An instruction of `program` with arguments and an account list as in [`metas`].
pub(crate) fn instruction<'a>(program: &Pubkey, args: &impl Args<'a>, accounts: &[(&str, Pubkey)]) -> Instruction {
    Instruction { program_id: address(program), accounts: metas(accounts), data: args.to_vec().unwrap() }
}

/// The instruction with another account at `index`.
pub(crate) fn with_account(instruction: &Instruction, index: usize, key: &Pubkey) -> Instruction {
    let mut changed = instruction.clone();
    changed.accounts[index].pubkey = address(key);
    changed
}

/// The instruction with the account at `index` passed read-only.
pub(crate) fn read_only(instruction: &Instruction, index: usize) -> Instruction {
    let mut changed = instruction.clone();
    changed.accounts[index].is_writable = false;
    changed
}

/// The instruction without the signature of the account at `index`.
pub(crate) fn unsigned(instruction: &Instruction, index: usize) -> Instruction {
    let mut changed = instruction.clone();
    changed.accounts[index].is_signer = false;
    changed
}

/// The instruction with other data.
pub(crate) fn with_data(instruction: &Instruction, data: Vec<u8>) -> Instruction {
    Instruction { data, ..instruction.clone() }
}
