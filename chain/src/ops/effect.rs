//! Is it done already? For every instruction to a run, what the run's account shows once the instruction has had its effect,
//! or once there is nothing left for it to affect. Pure. It is asked before anything is signed a second time, and when a
//! program refuses what may have been done before.

use psyche_messages::{Address, Epoch, Step};
use psyche_protocol::layout::{Config, CoordinatorAccount, Metadata, Progress, RunState, Witness};
use psyche_protocol::model::{Checkpoint, Model};

/// What an instruction is for.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The wallet has joined for the next epoch.
    Joined(Address),
    /// The run is no longer where it was.
    Moved(Place),
    /// The client with this index has said in this epoch that it is ready, or Warmup is over.
    Ready {
        /// Index among the epoch's clients.
        index: u64,
        /// The epoch.
        epoch: Epoch,
    },
    /// The client with this index has testified in this round, or the round is over.
    Witnessed {
        /// Index among the epoch's clients.
        index: u64,
        /// The round's step.
        step: Step,
    },
    /// The client takes no part any more.
    Removed(Address),
    /// The run names these weights.
    Named(Checkpoint),
    /// The run has these parts. Boxed, since a model is large.
    Described(Box<Described>),
}

/// Parts of a run that its owner sets; `None` for what was not asked for.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// Its description.
    pub metadata: Option<Metadata>,
    /// Its rules.
    pub config: Option<Config>,
    /// What is trained.
    pub model: Option<Model>,
    /// Where it stands.
    pub progress: Option<Progress>,
    /// The version that its clients must have.
    pub client_version: Option<String>,
    /// What the next epochs pay.
    pub earning: Option<u64>,
    /// What the next epochs take.
    pub slashing: Option<u64>,
    /// Whether it is paused, or will be at the epoch's end.
    pub paused: Option<bool>,
}

/// Where a run is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    state: RunState,
    epoch: Epoch,
    step: Step,
}

impl Place {
    /// Where `account` is.
    #[must_use]
    pub fn of(account: &CoordinatorAccount) -> Self {
        let progress = &account.state.coordinator.progress;
        Self { state: account.run_state(), epoch: Epoch(progress.epoch), step: Step(progress.step) }
    }
}

impl Effect {
    /// Of the statement of being ready that was prepared while the run was as `account` shows.
    #[must_use]
    pub fn ready(account: &CoordinatorAccount, witness: &Witness) -> Self {
        Self::Ready { index: witness.proof.index, epoch: Place::of(account).epoch }
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self, account: &CoordinatorAccount) -> bool {
        let now = Place::of(account);
        match self {
            Self::Joined(wallet) => account.is_pending(&wallet.0),
            Self::Moved(from) => now != *from,
            Self::Ready { index, epoch } => {
                now.state != RunState::Warmup || now.epoch != *epoch || has_witness(account, *index)
            }
            Self::Witnessed { index, step } => {
                let over = !matches!(now.state, RunState::RoundTrain | RunState::RoundWitness) || now.step != *step;
                over || has_witness(account, *index)
            }
            Self::Removed(wallet) => {
                account.clients().iter().all(|client| client.id.signer != wallet.0 || !client.is_healthy())
            }
            Self::Named(checkpoint) => names(account, checkpoint),
            Self::Described(wanted) => wanted.is_there(account),
        }
    }
}

fn has_witness(account: &CoordinatorAccount, index: u64) -> bool {
    account.current_round().witnesses.iter().any(|found| found.proof.index == index)
}

/// Whether the run's weights are where `wanted` says; while its members hold them, whether they fall back to it.
#[must_use]
pub fn names(account: &CoordinatorAccount, wanted: &Checkpoint) -> bool {
    let found = account.state.coordinator.model.checkpoint.get();
    match (found, wanted) {
        (Some(Checkpoint::P2P(found)), Checkpoint::Hub(wanted)) => found == *wanted,
        (Some(Checkpoint::P2PGcs(found)), Checkpoint::Gcs(wanted)) => found == *wanted,
        (found, wanted) => found == Some(*wanted),
    }
}

/// Whether nothing is wanted, or what is wanted is found.
fn fits<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

impl Described {
    fn is_there(&self, account: &CoordinatorAccount) -> bool {
        let state = &account.state;
        let (coordinator, clients) = (&state.coordinator, &state.clients_state);
        let described = |wanted: &Metadata| {
            let found = &state.metadata;
            (wanted.name.as_str(), wanted.description.as_str()) == (found.name.as_str(), found.description.as_str())
                && (wanted.num_parameters, wanted.vocab_size) == (found.num_parameters, found.vocab_size)
        };
        let reached = |wanted: &Progress| {
            let found = &coordinator.progress;
            (wanted.epoch, wanted.step, wanted.epoch_start_data_index)
                == (found.epoch, found.step, found.epoch_start_data_index)
        };
        self.metadata.as_ref().is_none_or(described)
            && fits(self.config.as_ref(), &coordinator.config)
            && self.model.as_ref().is_none_or(|wanted| coordinator.model.get().is_ok_and(|found| found == *wanted))
            && self.progress.as_ref().is_none_or(reached)
            && self.client_version.as_ref().is_none_or(|wanted| wanted == state.client_version.as_str())
            && fits(self.earning.as_ref(), &clients.future_earning_rate)
            && fits(self.slashing.as_ref(), &clients.future_slashing_rate)
            && self.paused.is_none_or(|paused| {
                let pausing = coordinator.pending_pause != 0;
                if paused { pausing || account.run_state() == RunState::Paused } else { !pausing && !account.halted() }
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_protocol::layout::{Bloom, EpochClient, FixedString, NodeIdentity, RosterClient, WitnessProof};
    use psyche_protocol::model::HubRepo;

    use super::*;

    const ME: Address = Address([1; 32]);

    fn account(state: RunState, step: u32) -> Box<CoordinatorAccount> {
        let mut account = CoordinatorAccount::zeroed_boxed();
        account.state.coordinator.run_state = state.number();
        account.state.coordinator.progress = Progress::new(3, step, 0);
        account.state.clients_state.next_active = 7;
        let id = NodeIdentity { signer: ME.0, p2p_identity: [2; 32] };
        assert!(account.state.clients_state.clients.push(&RosterClient::new(id, 6)));
        assert!(account.state.coordinator.epoch_state.clients.push(&EpochClient::new(id)));
        account
    }

    fn testify(account: &mut CoordinatorAccount) -> Witness {
        let witness = Witness {
            proof: WitnessProof::new(0, 0, true),
            participant_bloom: Bloom::new([0; 8]),
            broadcast_bloom: Bloom::new([0; 8]),
            broadcast_merkle: [0; 32],
        };
        assert!(account.state.coordinator.epoch_state.current_round_mut().witnesses.push(&witness));
        witness
    }

    #[test]
    fn a_join_is_done_once_the_wallet_is_pending() {
        let mut account = account(RunState::WaitingForMembers, 1);
        assert!(!Effect::Joined(ME).is_there(&account));
        account.state.clients_state.next_active = 6;
        assert!(Effect::Joined(ME).is_there(&account));
        assert!(!Effect::Joined(Address([9; 32])).is_there(&account));
    }

    #[test]
    fn a_tick_is_done_once_the_run_is_elsewhere() {
        let before = account(RunState::RoundTrain, 5);
        let effect = Effect::Moved(Place::of(&before));
        assert!(!effect.is_there(&before));
        assert!(effect.is_there(&account(RunState::RoundWitness, 5)));
        assert!(effect.is_there(&account(RunState::RoundTrain, 6)));
    }

    #[test]
    fn a_witness_is_done_once_it_is_there_or_its_round_is_over() {
        let mut during = account(RunState::RoundTrain, 5);
        let effect = Effect::Witnessed { index: 0, step: Step(5) };
        assert!(!effect.is_there(&during) && !effect.is_there(&account(RunState::RoundWitness, 5)));
        testify(&mut during);
        assert!(effect.is_there(&during) && !Effect::Witnessed { index: 1, step: Step(5) }.is_there(&during));
        for later in [account(RunState::RoundTrain, 6), account(RunState::Cooldown, 5)] {
            assert!(effect.is_there(&later));
        }
    }

    #[test]
    fn being_ready_is_said_once_per_epoch() {
        let mut warmup = account(RunState::Warmup, 5);
        let silent = account(RunState::Warmup, 5);
        let witness = testify(&mut warmup);
        let effect = Effect::ready(&silent, &witness);
        assert!(!effect.is_there(&silent) && effect.is_there(&warmup));
        assert!(effect.is_there(&account(RunState::RoundTrain, 5)));
        let mut next = account(RunState::Warmup, 5);
        next.state.coordinator.progress.epoch = 4;
        assert!(effect.is_there(&next));
    }

    #[test]
    fn a_health_check_is_done_once_its_target_is_not_healthy_or_gone() {
        let mut account = account(RunState::RoundTrain, 5);
        assert!(!Effect::Removed(ME).is_there(&account) && Effect::Removed(Address([9; 32])).is_there(&account));
        account.state.coordinator.epoch_state.clients.as_mut_slice()[0].state = 1;
        assert!(Effect::Removed(ME).is_there(&account));
    }

    #[test]
    fn a_checkpoint_is_named_also_while_members_hold_it() {
        let repo = |name| HubRepo { repo_id: FixedString::new(name).unwrap(), revision: None };
        let mut account = account(RunState::RoundTrain, 5);
        let wanted = Effect::Named(Checkpoint::Hub(repo("a/b")));
        account.state.coordinator.model.checkpoint.set(&Checkpoint::Hub(repo("a/c")));
        assert!(!wanted.is_there(&account));
        account.state.coordinator.model.checkpoint.set(&Checkpoint::P2P(repo("a/b")));
        assert!(wanted.is_there(&account));
    }

    #[test]
    fn an_owners_change_is_done_once_every_part_of_it_is_there() {
        let mut account = account(RunState::Paused, 5);
        let config = Config { total_steps: 9, ..account.state.coordinator.config };
        let all = Described {
            config: Some(config),
            progress: Some(Progress::new(3, 5, 0)),
            client_version: Some("2".into()),
            earning: Some(10),
            slashing: Some(20),
            paused: Some(true),
            ..Described::default()
        };
        let effect = Effect::Described(Box::new(all));
        assert!(!effect.is_there(&account));
        account.state.coordinator.config = config;
        assert!(account.state.client_version.set("2"));
        account.state.clients_state.future_earning_rate = 10;
        assert!(!effect.is_there(&account));
        account.state.clients_state.future_slashing_rate = 20;
        assert!(effect.is_there(&account));
    }

    #[test]
    fn a_pause_that_waits_for_the_epochs_end_counts_and_a_resumption_does_not() {
        let paused = |wanted| Effect::Described(Box::new(Described { paused: Some(wanted), ..Described::default() }));
        let mut training = account(RunState::RoundTrain, 5);
        assert!(!paused(true).is_there(&training) && paused(false).is_there(&training));
        training.state.coordinator.pending_pause = 1;
        assert!(paused(true).is_there(&training) && !paused(false).is_there(&training));
        let finished = account(RunState::Finished, 5);
        assert!(!paused(true).is_there(&finished) && !paused(false).is_there(&finished));
    }
}
