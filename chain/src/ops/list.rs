//! All runs of a coordinator program, without fetching their accounts: the server filters them and cuts out the few bytes
//! that a summary needs. A run's whole account has 119 kB; a summary takes less than one.

use core::mem::offset_of;

use psyche_messages::{Address, Epoch, Phase, RunId, Slot, Step};
use psyche_protocol::accounts::CoordinatorInstance;
use psyche_protocol::layout::{CoordinatorAccount, FixedString, RunState};
use serde::Serialize;
use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_response::RpcKeyedAccount;
use std::collections::HashMap;

use crate::error::ChainError;
use crate::rpc::{AccountRead, Rpc};
use crate::run::phase_of;

/// Most runs of one answer. Each costs its creator most of a SOL, so that nobody fills a list for fun.
pub const RUNS_MAX: usize = 10_000;
/// Where an instance names its main authority: behind discriminator and bump.
const MAIN_AUTHORITY_AT: usize = 9;
/// Where it names its join authority.
const JOIN_AUTHORITY_AT: usize = MAIN_AUTHORITY_AT + 32;

/// Which runs are wanted; `None` means any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// In this phase.
    pub phase: Option<Phase>,
    /// Owned by this wallet or treasury.
    pub main_authority: Option<Address>,
    /// Joined by this wallet's grants.
    pub join_authority: Option<Address>,
}

/// What people want to know of a run before they look closer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// Its name on chain.
    pub run_id: RunId,
    /// What it is called.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Epochs that have ended.
    pub epoch: Epoch,
    /// The step in work.
    pub step: Step,
    /// Steps in all.
    pub total_steps: u32,
    /// Clients of the current epoch.
    pub clients: u64,
    /// Fewer clients end an epoch.
    pub min_clients: u16,
    /// Fewer clients start none.
    pub init_min_clients: u16,
    /// Wallets in the roster.
    pub roster: u64,
    /// The version that clients must have.
    pub client_version: String,
    /// Parameters of the model, as its owner says.
    pub num_parameters: u64,
    /// Its coordinator account.
    pub account: Address,
    /// Its instance.
    pub instance: Address,
    /// Who owns it.
    pub main_authority: Address,
    /// Whose grants let clients join.
    pub join_authority: Address,
    /// The slot at which it was seen so.
    pub slot: Slot,
}

/// A range of bytes of every coordinator account.
#[derive(Clone, Copy)]
struct Slice {
    from: usize,
    to: usize,
}

/// The state's description, name and phase.
const HEAD: Slice = Slice {
    from: offset_of!(CoordinatorAccount, state.metadata.name),
    to: offset_of!(CoordinatorAccount, state.coordinator.run_state) + 1,
};
/// Rules and progress.
const RULES: Slice = Slice {
    from: offset_of!(CoordinatorAccount, state.coordinator.config),
    to: offset_of!(CoordinatorAccount, state.coordinator.epoch_state.rounds),
};
/// The number of the epoch's clients, which ends their list.
const CLIENTS: Slice = Slice {
    from: offset_of!(CoordinatorAccount, state.coordinator.epoch_state.exited_clients) - 8,
    to: offset_of!(CoordinatorAccount, state.coordinator.epoch_state.exited_clients),
};
/// The number of the roster's wallets, and the client version.
const TAIL: Slice = Slice {
    from: offset_of!(CoordinatorAccount, state.clients_state.next_active) - 8,
    to: offset_of!(CoordinatorAccount, state.client_version) + 96,
};

impl Slice {
    /// `N` bytes at offset `at` of the account, out of what was cut by this slice.
    fn bytes<const N: usize>(self, cut: &[u8], at: usize) -> Option<[u8; N]> {
        let at = at.checked_sub(self.from)?;
        cut.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u64(self, cut: &[u8], at: usize) -> Option<u64> {
        self.bytes(cut, at).map(u64::from_le_bytes)
    }

    fn u32(self, cut: &[u8], at: usize) -> Option<u32> {
        self.bytes(cut, at).map(u32::from_le_bytes)
    }

    fn u16(self, cut: &[u8], at: usize) -> Option<u16> {
        self.bytes(cut, at).map(u16::from_le_bytes)
    }
}

/// The runs of the program that match `filter`, in the order of their names.
///
/// # Errors
/// [`ChainError`] where no endpoint answers, or if there are more than [`RUNS_MAX`].
pub async fn list_runs(rpc: &Rpc, filter: &RunFilter) -> Result<Vec<RunSummary>, ChainError> {
    let mut state = vec![memcmp(0, &CoordinatorAccount::DISCRIMINATOR)];
    if let Some(phase) = filter.phase {
        state.push(memcmp(offset_of!(CoordinatorAccount, state.coordinator.run_state), &[number_of(phase)]));
    }
    let (instances, heads, rules, clients, tails) = tokio::try_join!(
        instances(rpc, filter),
        cut(rpc, HEAD, &state),
        cut(rpc, RULES, &state),
        cut(rpc, CLIENTS, &state),
        cut(rpc, TAIL, &state),
    )?;
    let summary = |(instance, read): &(Address, AccountRead)| {
        let owner = CoordinatorInstance::decode(&read.data).ok()?;
        let account = Address(owner.coordinator_account);
        // A run that is missing in one of the answers changed between them, so it does not match any more.
        let pieces = Pieces {
            head: heads.get(&account)?,
            rules: rules.get(&account)?,
            clients: clients.get(&account)?,
            tail: tails.get(&account)?,
        };
        pieces.summary(*instance, &owner)
    };
    let mut runs: Vec<RunSummary> = instances.iter().filter_map(summary).collect();
    runs.sort_by(|a, b| a.run_id.cmp(&b.run_id));
    Ok(runs)
}

/// What was cut out of one account.
struct Pieces<'a> {
    head: &'a AccountRead,
    rules: &'a AccountRead,
    clients: &'a AccountRead,
    tail: &'a AccountRead,
}

impl Pieces<'_> {
    /// `None` for a run whose account does not say what it must; nobody could join it either.
    fn summary(&self, instance: Address, owner: &CoordinatorInstance<'_>) -> Option<RunSummary> {
        const PROGRESS: usize = offset_of!(CoordinatorAccount, state.coordinator.progress.epoch);
        let (head, rules, tail) = (&self.head.data, &self.rules.data, &self.tail.data);
        let config = |at: usize| offset_of!(CoordinatorAccount, state.coordinator.config) + at;
        let number = HEAD.bytes::<1>(head, offset_of!(CoordinatorAccount, state.coordinator.run_state))?[0];
        let name = FixedString::from_bytes(HEAD.bytes::<64>(head, HEAD.from)?);
        let version = TAIL.bytes::<96>(tail, offset_of!(CoordinatorAccount, state.client_version))?;
        Some(RunSummary {
            run_id: owner.run_id.parse().ok()?,
            name: name.as_str().to_owned(),
            phase: phase_of(RunState::from_number(number.into())?),
            epoch: Epoch(RULES.u16(rules, PROGRESS)?),
            step: Step(RULES.u32(rules, offset_of!(CoordinatorAccount, state.coordinator.progress.step))?),
            total_steps: RULES.u32(rules, config(offset_of!(psyche_protocol::layout::Config, total_steps)))?,
            clients: CLIENTS.u64(&self.clients.data, CLIENTS.from)?,
            min_clients: RULES.u16(rules, config(offset_of!(psyche_protocol::layout::Config, min_clients)))?,
            init_min_clients: RULES.u16(rules, config(offset_of!(psyche_protocol::layout::Config, init_min_clients)))?,
            roster: TAIL.u64(tail, TAIL.from)?,
            client_version: FixedString::from_bytes(version).as_str().to_owned(),
            num_parameters: HEAD.u64(head, offset_of!(CoordinatorAccount, state.metadata.num_parameters))?,
            account: Address(owner.coordinator_account),
            instance,
            main_authority: Address(owner.main_authority),
            join_authority: Address(owner.join_authority),
            slot: self.head.slot,
        })
    }
}

const fn number_of(phase: Phase) -> u8 {
    let state = match phase {
        Phase::Uninitialized => RunState::Uninitialized,
        Phase::WaitingForMembers => RunState::WaitingForMembers,
        Phase::Warmup => RunState::Warmup,
        Phase::RoundTrain => RunState::RoundTrain,
        Phase::RoundWitness => RunState::RoundWitness,
        Phase::Cooldown => RunState::Cooldown,
        Phase::Finished => RunState::Finished,
        Phase::Paused => RunState::Paused,
    };
    state.number()
}

fn memcmp(offset: usize, bytes: &[u8]) -> Value {
    json!({"memcmp": {"offset": offset, "bytes": bs58::encode(bytes).into_string()}})
}

/// The instances that match `filter`, which are small enough to be read whole.
async fn instances(rpc: &Rpc, filter: &RunFilter) -> Result<Vec<(Address, AccountRead)>, ChainError> {
    let mut filters = vec![memcmp(0, &CoordinatorInstance::DISCRIMINATOR), json!({"dataSize": CoordinatorInstance::SIZE})];
    filters.extend(filter.main_authority.map(|authority| memcmp(MAIN_AUTHORITY_AT, &authority.0)));
    filters.extend(filter.join_authority.map(|authority| memcmp(JOIN_AUTHORITY_AT, &authority.0)));
    program_accounts(rpc, Slice { from: 0, to: CoordinatorInstance::SIZE }, &filters).await
}

/// One slice of every coordinator account that matches `filters`.
async fn cut(rpc: &Rpc, slice: Slice, filters: &[Value]) -> Result<HashMap<Address, AccountRead>, ChainError> {
    let mut filters = filters.to_vec();
    filters.push(json!({"dataSize": CoordinatorAccount::SIZE}));
    Ok(program_accounts(rpc, slice, &filters).await?.into_iter().collect())
}

async fn program_accounts(rpc: &Rpc, slice: Slice, filters: &[Value]) -> Result<Vec<(Address, AccountRead)>, ChainError> {
    let config = json!({
        "commitment": "confirmed", "encoding": "base64", "withContext": true, "minContextSlot": rpc.seen_slot().0,
        "dataSlice": {"offset": slice.from, "length": slice.to - slice.from}, "filters": filters,
    });
    let params = json!([rpc.programs().coordinator.to_string(), config]);
    let (slot, found): (_, Vec<RpcKeyedAccount>) = rpc.call_at(RpcRequest::GetProgramAccounts, params).await?;
    if found.len() > RUNS_MAX {
        let reason = format!("the program has {} runs, more than {RUNS_MAX}: narrow the search", found.len());
        return Err(ChainError::NotPossible { action: "list the runs", reason });
    }
    let coordinator = rpc.programs().coordinator;
    let read = |found: RpcKeyedAccount| {
        let read = AccountRead::unpack(slot, found.account)?;
        let fits = read.owner == coordinator && read.data.len() <= slice.to - slice.from;
        Some((found.pubkey.parse().ok()?, fits.then_some(read)?))
    };
    let read = found.into_iter().map(|found| read(found).ok_or_else(|| rpc.malformed(RpcRequest::GetProgramAccounts)));
    read.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_messages::Lamports;

    use super::*;

    fn read(account: &CoordinatorAccount, slice: Slice) -> AccountRead {
        let data = account.as_bytes()[slice.from..slice.to].to_vec();
        AccountRead { slot: Slot(9), lamports: Lamports(1), owner: Address([1; 32]), executable: false, data }
    }

    #[test]
    fn a_summary_is_what_the_whole_account_says() {
        let mut account = CoordinatorAccount::zeroed_boxed();
        let state = &mut account.state;
        assert!(state.metadata.name.set("A run") && state.client_version.set("1.2.3"));
        state.metadata.num_parameters = 7_000_000_000;
        state.coordinator.run_state = RunState::Cooldown.number();
        state.coordinator.config.total_steps = 500;
        state.coordinator.config.min_clients = 3;
        state.coordinator.config.init_min_clients = 4;
        state.coordinator.progress = psyche_protocol::layout::Progress::new(6, 77, 8);
        let client = psyche_protocol::layout::NodeIdentity { signer: [1; 32], p2p_identity: [2; 32] };
        assert!(state.coordinator.epoch_state.clients.push(&psyche_protocol::layout::EpochClient::new(client)));
        assert!(state.clients_state.clients.push(&psyche_protocol::layout::RosterClient::new(client, 0)));
        let [head, rules, clients, tail] = [HEAD, RULES, CLIENTS, TAIL].map(|slice| read(&account, slice));
        let pieces = Pieces { head: &head, rules: &rules, clients: &clients, tail: &tail };
        let owner = CoordinatorInstance {
            bump: 1,
            main_authority: [3; 32],
            join_authority: [4; 32],
            coordinator_account: [5; 32],
            run_id: "run",
        };
        let found = pieces.summary(Address([6; 32]), &owner).unwrap();
        assert_eq!((found.name.as_str(), found.client_version.as_str()), ("A run", "1.2.3"));
        assert_eq!((found.phase, found.epoch, found.step), (Phase::Cooldown, Epoch(6), Step(77)));
        assert_eq!((found.total_steps, found.min_clients, found.init_min_clients), (500, 3, 4));
        assert_eq!((found.clients, found.roster, found.num_parameters), (1, 1, 7_000_000_000));
        assert_eq!((found.account, found.instance), (Address([5; 32]), Address([6; 32])));
    }

    #[test]
    fn the_slices_of_a_run_are_a_hundredth_of_its_account() {
        let bytes: usize = [HEAD, RULES, CLIENTS, TAIL].iter().map(|slice| slice.to - slice.from).sum();
        assert!(bytes * 100 < CoordinatorAccount::SIZE, "{bytes}");
    }

    #[test]
    fn an_answer_that_is_too_short_gives_no_summary() {
        let account = CoordinatorAccount::zeroed_boxed();
        let [head, rules, clients, mut tail] = [HEAD, RULES, CLIENTS, TAIL].map(|slice| read(&account, slice));
        tail.data.truncate(20);
        let pieces = Pieces { head: &head, rules: &rules, clients: &clients, tail: &tail };
        let owner = CoordinatorInstance {
            bump: 1,
            main_authority: [3; 32],
            join_authority: [4; 32],
            coordinator_account: [5; 32],
            run_id: "run",
        };
        assert_eq!(pieces.summary(Address([6; 32]), &owner), None);
    }
}
