//! From the engine's actions to transactions, each with the question "is it done already?".

use psyche_chain::instructions::coordinator as build;
use psyche_chain::ops::{CoordinatorCall, Effect, Obstacle, Place};
use psyche_chain::{ChainError, Compute, Confirmed, Instruction, Plan, Rpc, RunInfo, Submitted, Wallet, ops};
use psyche_messages::{Address, PeerKey};
use psyche_protocol::F32Bits;
use psyche_protocol::instruction::{
    Args as _, CheckpointArgs, HealthCheckArgs, WarmupWitnessArgs, WitnessArgs, WitnessMetadata,
};
use psyche_protocol::layout::{CoordinatorAccount, NodeIdentity, Witness};
use psyche_protocol::model::Checkpoint;

use crate::config::NodeConfig;
use crate::engine::history::{Gap, Past};
use crate::engine::{ChainAction, WitnessNumbers};

/// Transactions that are looked through for a round's witnesses. Between two states that a node sees there are far fewer.
const HISTORY_MAX: usize = 512;

/// Who acts, in which run.
#[derive(Clone, Debug)]
pub struct ActionContext {
    wallet: Wallet,
    peer: PeerKey,
    run: RunInfo,
    authorizer: Option<Address>,
}

impl ActionContext {
    /// The wallet of `config`, which joins `run` with `peer`.
    #[must_use]
    pub fn new(config: &NodeConfig, run: &RunInfo, peer: PeerKey) -> Self {
        Self { wallet: config.wallet.clone(), peer, run: run.clone(), authorizer: config.authorizer }
    }

    /// Brings `action` onto the chain: the confirmation, or `None` where it was done already.
    pub(super) async fn submit(&self, rpc: &Rpc, action: ChainAction) -> Result<Option<Confirmed>, ChainError> {
        let view = match action {
            ChainAction::Tick
            | ChainAction::WarmupWitness(_)
            | ChainAction::HealthCheck { .. }
            | ChainAction::Checkpoint(_) => Some(rpc.coordinator(self.run.account).await?),
            ChainAction::Join | ChainAction::Witness { .. } => None,
        };
        let account = view.as_ref().map(|view| &*view.account);
        let effect = self.effect(&action, account);
        if let (Some(account), Some(effect)) = (account, &effect)
            && effect.is_there(account)
        {
            return Ok(None);
        }
        let instructions = [self.instruction(rpc, &action, account).await?];
        let compute = Compute::Simulated;
        let plan = Plan { purpose: action.purpose(), payer: &self.wallet, signers: &[], instructions: &instructions, compute };
        let done = || async {
            let Some(effect) = &effect else { return Ok(false) };
            Ok(effect.is_there(&rpc.coordinator(self.run.account).await?.account))
        };
        match rpc.submit_until(&plan, done).await? {
            Submitted::Confirmed(confirmed) => Ok(Some(confirmed)),
            Submitted::AlreadyDone => Ok(None),
        }
    }

    async fn instruction(
        &self,
        rpc: &Rpc,
        action: &ChainAction,
        account: Option<&CoordinatorAccount>,
    ) -> Result<Instruction, ChainError> {
        let (programs, run, me) = (rpc.programs(), &self.run, self.wallet.address());
        match action {
            ChainAction::Join => {
                let found = ops::find_grant(rpc, run, me, self.authorizer).await?;
                let nobody = Obstacle::NotAuthorized { wallet: me, join_authority: run.join_authority };
                let grant = found.ok_or(ChainError::Obstructed { action: "join the run", obstacle: nobody })?;
                build::join_run(programs, run, grant.address, NodeIdentity { signer: me.0, p2p_identity: self.peer.0 })
            }
            ChainAction::Tick => build::tick(programs, run, me),
            ChainAction::WarmupWitness(witness) => {
                build::warmup_witness(programs, run, me, &WarmupWitnessArgs { witness: **witness })
            }
            ChainAction::Witness { witness, metadata } => {
                build::witness(programs, run, me, &WitnessArgs { witness: **witness, metadata: told(metadata) })
            }
            ChainAction::Checkpoint(repo) => {
                build::checkpoint(programs, run, me, &CheckpointArgs { checkpoint: Checkpoint::Hub(*repo) })
            }
            ChainAction::HealthCheck { target, proof } => {
                // The roster keeps everybody; the programs compare signers only.
                let known = account.and_then(|account| account.roster_client(&target.0));
                let p2p_identity = known.map_or([0; 32], |client| client.id.p2p_identity);
                let client = NodeIdentity { signer: target.0, p2p_identity };
                build::health_check(programs, run, me, &HealthCheckArgs { client, proof: *proof })
            }
        }
    }

    /// What `action` is for, as the run stands in `account`.
    fn effect(&self, action: &ChainAction, account: Option<&CoordinatorAccount>) -> Option<Effect> {
        match action {
            ChainAction::Join => Some(Effect::Joined(self.wallet.address())),
            ChainAction::Tick => account.map(|account| Effect::Moved(Place::of(account))),
            ChainAction::WarmupWitness(witness) => account.map(|account| Effect::ready(account, witness)),
            ChainAction::Witness { witness, metadata } => {
                Some(Effect::Witnessed { index: witness.proof.index, step: metadata.step })
            }
            ChainAction::Checkpoint(repo) => Some(Effect::Named(Checkpoint::Hub(*repo))),
            ChainAction::HealthCheck { target, .. } => Some(Effect::Removed(*target)),
        }
    }

    /// The witnesses of a round, from the transactions that brought them: by their order, not by the step that each names.
    pub(super) async fn rebuild_witnesses(&self, rpc: &Rpc, gap: &Gap) -> Result<Option<Vec<Witness>>, ChainError> {
        let calls = ops::calls_between(rpc, &self.run, gap.after.slot, gap.until.slot, HISTORY_MAX).await?;
        Ok(calls.and_then(|calls| gap.fill(&calls.iter().map(past).collect::<Vec<_>>())))
    }
}

fn past(call: &CoordinatorCall) -> Past {
    WitnessArgs::decode(&call.data).map_or(Past::Other, |args| Past::Witness(Box::new(args.witness)))
}

fn told(numbers: &WitnessNumbers) -> WitnessMetadata {
    let mut metadata = WitnessMetadata::new(numbers.step.0);
    metadata.tokens_per_sec = F32Bits(numbers.tokens_per_second.to_bits());
    metadata.loss = F32Bits(numbers.loss.to_bits());
    metadata
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_protocol::layout::{Bloom, Committee, CommitteeProof, FixedString, WitnessProof};
    use psyche_protocol::model::HubRepo;

    use super::*;

    fn context() -> ActionContext {
        let at = |n| Address([n; 32]);
        let run = RunInfo {
            run_id: "run".parse().unwrap(),
            instance: at(1),
            account: at(2),
            main_authority: at(3),
            join_authority: at(4),
        };
        ActionContext { wallet: Wallet::new(), peer: PeerKey([5; 32]), run, authorizer: None }
    }

    #[test]
    fn every_action_of_a_node_has_an_effect_to_look_for_before_it_is_sent_again() {
        let (context, account) = (context(), CoordinatorAccount::zeroed_boxed());
        let witness = Box::new(Witness {
            proof: WitnessProof::new(0, 0, true),
            participant_bloom: Bloom::new([0; 8]),
            broadcast_bloom: Bloom::new([0; 8]),
            broadcast_merkle: [0; 32],
        });
        let proof = CommitteeProof { committee: Committee::Trainer, position: 0, index: 0 };
        let actions = [
            ChainAction::Join,
            ChainAction::Tick,
            ChainAction::WarmupWitness(witness.clone()),
            ChainAction::Witness { witness, metadata: WitnessNumbers::default() },
            ChainAction::HealthCheck { target: Address([7; 32]), proof },
            ChainAction::Checkpoint(HubRepo { repo_id: FixedString::new("a/b").unwrap(), revision: None }),
        ];
        for action in actions {
            assert!(context.effect(&action, Some(&account)).is_some(), "{action:?}");
        }
    }
}
